"""All tables anew from the Parquet archive, next to DuckDB's own bulk read of equal rows from Parquet.

    python benchmarks/rebuild.py            rows/s of layer health, every table built, no broker
    python benchmarks/rebuild.py --log      the same frames from a live log as well

The archive holds frames as a trainer sends them. A rebuild reads, decodes and folds them into every built-in table
and swaps those in; DuckDB reads the finished `layer_health` rows back from one Parquet file into a table on disk.
`--json FILE` keeps the figures.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np

LAYERS = 100
FRAME = 480 * 1024  # bytes
EPOCH = "0" * 32


def frames(events: int) -> Iterator[bytes]:
    """Yield the frames of a run that records `events` steps of 100 layers, every signal measured."""
    from morphogen.schemas import SIGNALS, LayerHealth, Names, Record, encode_frame

    generator = np.random.default_rng(0)
    layers = Names(f"encoder.layers.{index // 4}.block.{index % 4}" for index in range(LAYERS))
    records: list[Any] = []
    size = 0
    for step in range(events):
        signals = {signal: generator.random(LAYERS, np.float32) for signal in SIGNALS}
        body = LayerHealth(layers=layers, **signals).encode()
        records.append(Record(step + 1, "health.layer", 1, step, 1_700_000_000_000_000_000 + step, msgspec.Raw(body)))
        size += len(body) + 100
        if size >= FRAME or step == events - 1:
            yield encode_frame(records, run="bench", attempt=1, rank=0, writer="ab" * 8, family="health")
            records, size = [], 0


def fill_archive(home: Path, events: int) -> float:
    """Archive the frames, and return the share of their bytes that the files take."""
    from morphogen.bus.archive.archive import Archive
    from morphogen.bus.reader import Message

    archive = Archive(home / "archive" / EPOCH)
    total = 0
    with archive.writing(1) as writer:
        segment = writer.segment()
        for number, data in enumerate(frames(events), 1):
            total += len(data)
            stored = 1_700_000_000_000_000_000 + number * 1_000_000
            segment.add([Message(number, stored, "morphogen.log.bench.health.1-0", data)])
        writer.commit(segment.seal())
    return archive.bytes / total


def rebuild_offline(home: Path) -> float:
    """Return the seconds of one rebuild from the archive alone."""
    from morphogen.bus.settings import Settings
    from morphogen.consumers.projections.follow.projector import store_path
    from morphogen.replay.rebuild import rebuild

    settings = Settings(home=home)
    store_path(settings, EPOCH).unlink(missing_ok=True)
    began = time.perf_counter()
    asyncio.run(rebuild(None, settings, epoch=EPOCH))
    return time.perf_counter() - began


def rebuild_from_log(events: int) -> float:
    """Publish the frames into a broker of its own, and return the seconds of one rebuild from its log."""
    from morphogen.bus import broker
    from morphogen.bus.connection import connect
    from morphogen.bus.settings import Settings
    from morphogen.bus.streams import ensure_streams
    from morphogen.replay.rebuild import rebuild

    async def measure(settings: Settings) -> float:
        conn = await connect(settings, name="bench")
        await ensure_streams(conn)
        for data in frames(events):
            await conn.publish_ack("morphogen.log.bench.health.1-0", data)
        began = time.perf_counter()
        await rebuild(conn, settings)
        took = time.perf_counter() - began
        await conn.close()
        return took

    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as folder:
        settings = Settings(home=Path(folder))
        try:
            return asyncio.run(measure(settings))
        finally:
            broker.down(settings)


def export(home: Path) -> tuple[Path, int]:
    """Write the rebuilt rows into one Parquet file, and return it with their number."""
    target = home / "rows.parquet"
    with duckdb.connect(str(home / "projections" / f"{EPOCH}.duckdb"), read_only=True) as con:
        con.execute(f"COPY (SELECT * FROM layer_health) TO '{target}' (FORMAT parquet)")
        row = con.execute("SELECT count(*) FROM layer_health").fetchone()
    assert row is not None
    return target, int(row[0])


def bulk_read(source: Path) -> float:
    """Return the seconds in which DuckDB reads the file into a table on disk."""
    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as folder:
        began = time.perf_counter()
        with duckdb.connect(f"{folder}/bulk.duckdb") as con:
            con.execute(f"CREATE TABLE layer_health AS SELECT * FROM read_parquet('{source}')")
        return time.perf_counter() - began


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000, help="steps of 100 layers (default: 10 million rows)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--log", action="store_true", help="measure a rebuild from a live log too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as folder:
        home = Path(folder)
        os.environ["MORPHOGEN_HOME"] = folder
        share = fill_archive(home, options.events)
        rebuilt, bulk, logged = [], [], []
        for _ in range(options.rounds):
            rebuilt.append(rebuild_offline(home))
            source, rows = export(home)
            assert rows == options.events * LAYERS
            bulk.append(bulk_read(source))
            if options.log:
                logged.append(rebuild_from_log(options.events))
    figures = {
        "rows": float(rows),
        "rebuild_rows_s": rows / statistics.median(rebuilt),
        "duckdb_bulk_read_rows_s": rows / statistics.median(bulk),
        "share_of_bulk": statistics.median(b / r for b, r in zip(bulk, rebuilt, strict=True)),
        "archive_share_of_frames": share,
    }
    if logged:
        figures["rebuild_from_log_rows_s"] = rows / statistics.median(logged)
    for name, value in figures.items():
        print(f"{name:28}{value:16,.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
