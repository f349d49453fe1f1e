"""What it costs to ask the SQL service, while a writer commits every 10 ms, against asking DuckDB without it.

    python benchmarks/sql_service.py [--rows 1000000] [--rounds 200] [--json FILE]

Two queries over `metrics`: count(*), and a mean and a maximum by name. Ways to ask:

- service: `query(...)` over the bus, answered by the process that owns the store and writes to it meanwhile
- copy: the file copied and opened read-only for each question, which is what the lock leaves to another process
- direct: a DuckDB connection in this process on a copy that nobody writes to: the floor, no other process involved
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from morphogen.bus import broker
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, ensure_streams, stream_info
from morphogen.consumers.projections.follow.projector import store_path
from morphogen.consumers.projections.sql.query import SqlClient
from morphogen.consumers.projections.sql.service import serve
from morphogen.consumers.projections.store import Store

QUERIES = {
    "count(*)": "SELECT count(*) FROM metrics",
    "group by name": "SELECT name, avg(value), max(value) FROM metrics GROUP BY name ORDER BY name",
}
EVERY = 0.010


async def own(settings: Settings, rows: int) -> None:
    """Fill a store, write a little to it every 10 ms, and serve it until this process is ended."""
    conn = await connect(settings, name="benchmark")
    await ensure_streams(conn)
    epoch = (await stream_info(conn, LOG)).epoch
    store = Store.open(store_path(settings, epoch), epoch=epoch)
    (generation,) = [one for one in store.generations if one.projection.name == "metrics"]
    table = f"{generation.schema}.metrics"
    fill = (
        f"INSERT INTO {table} SELECT i // 100, (i % 100)::INTEGER, 'run', 1, 0, i // 32, make_timestamp_ns(i), "
        "'metric-' || (i % 32), random() FROM range({}, {}) t(i)"
    )
    cursor = store.cursor()
    cursor.execute(fill.format(0, rows))
    cursor.execute("CHECKPOINT")
    stop = threading.Event()

    def write() -> None:
        done = rows
        while not stop.wait(EVERY):
            cursor.execute("BEGIN")
            cursor.execute(fill.format(done, done + 32))
            cursor.execute(f"UPDATE morphogen.positions SET seq = {done // 100}")
            cursor.execute("COMMIT")
            done += 32

    await serve(store, conn, settings)
    threading.Thread(target=write, daemon=True).start()
    print(store.path, flush=True)
    await asyncio.Event().wait()


def timed(ask: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Return median and 99th percentile in milliseconds."""
    for _ in range(min(5, rounds)):
        ask()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        ask()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return {"median_ms": statistics.median(times), "p99_ms": times[min(len(times) - 1, int(len(times) * 0.99))]}


def from_copy(store: Path, copy: Path, sql: str) -> None:
    """Answer as another process can without a service: copy, open, ask."""
    shutil.copyfile(store, copy)
    with duckdb.connect(str(copy), read_only=True) as con:
        con.execute(sql).fetchall()


def asked(con: Any, sql: str) -> None:
    """Answer on an open connection."""
    con.execute(sql).fetchall()


def measure(settings: Settings, rows: int, rounds: int) -> dict[str, Any]:
    """Start the owner in a process of its own and ask in the three ways."""
    owner = subprocess.Popen(
        [sys.executable, __file__, "--own", "--rows", str(rows)],
        env=os.environ | {"MORPHOGEN_HOME": str(settings.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    client = SqlClient.shared(settings)
    results: dict[str, Any] = {}
    try:
        store = Path(owner.stdout.readline().strip())
        while client.status() is None:
            time.sleep(0.05)
        frozen = settings.home / "frozen.duckdb"
        shutil.copyfile(store, frozen)
        copy = settings.home / "copy.duckdb"
        with duckdb.connect(str(frozen), read_only=True) as direct:
            for name, sql in QUERIES.items():
                ways = {
                    "service": timed(partial(client.query, sql), rounds),
                    "direct": timed(partial(asked, direct, sql), rounds),
                    "copy": timed(partial(from_copy, store, copy, sql), max(3, rounds // 20)),
                }
                ways["service"]["times_direct"] = ways["service"]["median_ms"] / ways["direct"]["median_ms"]
                ways["service"]["faster_than_copy"] = ways["copy"]["median_ms"] / ways["service"]["median_ms"]
                results[name] = ways
        start = time.perf_counter()
        table = client.query("SELECT * FROM metrics LIMIT 1000000").arrow()
        seconds = time.perf_counter() - start
        results["all rows"] = {"rows": table.num_rows, "seconds": seconds, "mb_per_s": table.nbytes / 1e6 / seconds}
    finally:
        owner.terminate()
        owner.wait()
        client.close()
        broker.down(settings)
    return results


def main() -> None:
    """Measure and print; `--json FILE` also writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own:
        asyncio.run(own(Settings.from_environ(), options.rows))
        return
    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as home:
        results = measure(Settings.from_environ(home=home), options.rows, options.rounds)
    print(f"{options.rows:,} rows, a commit every {EVERY * 1e3:.0f} ms\n")
    print(f"{'query':16}{'way':10}{'median':>10}{'p99':>10}")
    for name in QUERIES:
        for way, figures in results[name].items():
            print(f"{name:16}{way:10}{figures['median_ms']:>7.2f} ms{figures['p99_ms']:>7.2f} ms")
        ratios = results[name]["service"]
        print(f"{'':16}{ratios['times_direct']:.1f}x direct, {ratios['faster_than_copy']:.0f}x faster than a copy\n")
    everything = results["all rows"]
    print(f"{everything['rows']:,} rows fetched in {everything['seconds']:.2f} s, {everything['mb_per_s']:.0f} MB/s")
    if options.json:
        options.json.write_text(json.dumps({"rows": options.rows, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
