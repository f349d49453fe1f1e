"""Compare blobs with the object store of nats-py: the same bytes, the same broker, in turns.

Such as: python benchmarks/blobs.py --megabytes 64 --rounds 3 --json blobs.json
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from morphogen.bus import blobs, broker
from morphogen.bus.connection import Connection, connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import ensure_streams


async def measure(conn: Connection, megabytes: int, rounds: int) -> dict[str, float]:
    """Return the median MB/s of put and get, ours and theirs."""
    store = await conn.nc.jetstream().create_object_store("benchmark")
    rates: dict[str, list[float]] = {"put": [], "get": [], "nats_put": [], "nats_get": []}
    for number in range(rounds):
        data = os.urandom(megabytes << 20)
        began = time.perf_counter()
        sha256 = await blobs.put_bytes(conn, data)
        rates["put"].append(len(data) / (time.perf_counter() - began))
        began = time.perf_counter()
        same = await blobs.get_bytes(conn, sha256) == data
        rates["get"].append(len(data) / (time.perf_counter() - began))
        began = time.perf_counter()
        await store.put(f"blob-{number}", data)
        rates["nats_put"].append(len(data) / (time.perf_counter() - began))
        began = time.perf_counter()
        theirs = await store.get(f"blob-{number}")
        rates["nats_get"].append(len(data) / (time.perf_counter() - began))
        if not same or theirs.data != data:
            raise SystemExit("what was read is not what was written")
        await blobs.delete(conn, sha256)
        await store.delete(f"blob-{number}")
    return {name: statistics.median(values) / 1e6 for name, values in rates.items()}


async def main(megabytes: int, rounds: int) -> dict[str, float]:
    """Measure on a broker of its own, with a sync to disk before every acknowledgement."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder))
        conn = await connect(settings, name="benchmark")
        try:
            await ensure_streams(conn)
            found = await measure(conn, megabytes, rounds)
        finally:
            await conn.close()
            broker.down(settings)
    return {**found, "get_ratio": found["get"] / found["nats_get"], "put_ratio": found["put"] / found["nats_put"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    figures = asyncio.run(main(options.megabytes, options.rounds))
    print(f"{'':12}{'put MB/s':>10}{'get MB/s':>10}")
    print(f"{'morphogen':12}{figures['put']:10.0f}{figures['get']:10.0f}")
    print(f"{'nats-py':12}{figures['nats_put']:10.0f}{figures['nats_get']:10.0f}")
    print(f"{'ratio':12}{figures['put_ratio']:9.1f}x{figures['get_ratio']:9.1f}x")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
