"""The whole way, live: a training process logs, the broker stores with fsync, a projector process fills DuckDB.

    python benchmarks/pipeline.py health     layer-health rows: published/s, log to DuckDB/s, DuckDB's own bulk insert/s
    python benchmarks/pipeline.py scalars    events of one scalar, log to DuckDB
    python benchmarks/pipeline.py latency    log() to visible in SQL at 10,000 events/s
    python benchmarks/pipeline.py idle       memory and processor of an idle broker and projector

Each starts its own broker and projector in a fresh folder. `--json FILE` keeps the figures.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = 100
WARM_UP = 3  # seconds that do not count towards latency


@contextmanager
def pipeline(projector: bool = True) -> Iterator[subprocess.Popen[bytes] | None]:
    """Run a broker, and a projector process unless told otherwise, in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as home:
        os.environ["MORPHOGEN_HOME"] = home
        from morphogen.bus import broker
        from morphogen.bus.settings import Settings
        from morphogen.consumers.projections.sql.query import SqlClient

        settings = Settings.from_environ()
        broker.ensure(settings)
        child = None
        if projector:
            child = subprocess.Popen([sys.executable, "-m", "morphogen.cli", "projector"])
            while SqlClient.shared(settings).status() is None:
                time.sleep(0.1)
        try:
            yield child
        finally:
            SqlClient.shared(settings).close()  # it would start the broker again
            if child is not None:
                child.terminate()
                child.wait(30)
            broker.down(settings)


def ask(sql: str, wait: bool | int = True, patience: float = 120.0) -> list[tuple[Any, ...]]:
    """Return rows from the running projector; retries until it answers."""
    import morphogen

    deadline = time.monotonic() + patience
    while True:
        try:
            return list(morphogen.query(sql, wait=wait or None, timeout=patience).rows())
        except morphogen.MorphogenError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def health_events(count: int) -> list[Any]:
    """Return `count` events of 100 layers with every signal measured."""
    from morphogen.schemas import SIGNALS, LayerHealth, Names

    generator = np.random.default_rng(0)
    layers = Names(f"encoder.layers.{index // 4}.block.{index % 4}" for index in range(LAYERS))
    vectors = [generator.random(LAYERS, np.float32) for _ in range(64)]
    return [
        LayerHealth(layers=layers, **{signal: vectors[(index + at) % 64] for at, signal in enumerate(SIGNALS)})
        for index in range(count)
    ]


def bulk_insert(events: int) -> float:
    """Return rows/s of DuckDB's own bulk insert of equal rows into an equal table, on disk."""
    import duckdb
    import pyarrow as pa

    rows = events * LAYERS
    generator = np.random.default_rng(0)

    def words(values: list[str], at: np.ndarray) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(at.astype(np.int32)), pa.array(values))

    index = np.arange(rows)
    table = pa.table(
        {
            "seq": index // 5000, "idx": (index % 5000 // LAYERS).astype(np.int32),
            "run": words(["bench"], np.zeros(rows)), "attempt": np.ones(rows, np.int32), "rank": np.zeros(rows, np.int32),
            "step": index // LAYERS, "time": pa.array(index, pa.timestamp("ns")),
            "layer": words([f"encoder.layers.{i // 4}.block.{i % 4}" for i in range(LAYERS)], index % LAYERS),
            **{f"signal_{at}": generator.random(rows, np.float32) for at in range(7)},
        }
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="morphogen-bench-") as folder,
        duckdb.connect(f"{folder}/bulk.duckdb") as con,
    ):
        con.register("source", table)
        con.execute("CREATE TABLE target AS SELECT * FROM source LIMIT 0")
        began = time.perf_counter()
        con.execute("INSERT INTO target SELECT * FROM source")
        return rows / (time.perf_counter() - began)


def measure_health(events: int, rounds: int) -> dict[str, float]:
    """Publish rows alone, then log to DuckDB live, then DuckDB alone; medians over the rounds."""
    import morphogen

    made = health_events(512)
    published, live, bulk = [], [], []
    for _ in range(rounds):
        with pipeline(projector=False):
            run = morphogen.record("bench")
            began = time.perf_counter()
            for step in range(events):
                run.event(made[step % 512], step=step)
            run.flush(120)
            published.append(events * LAYERS / (time.perf_counter() - began))
            run.finish()
        with pipeline():
            run = morphogen.record("bench")
            began = time.perf_counter()
            for step in range(events):
                run.event(made[step % 512], step=step)
            run.flush(120)
            ((rows,),) = ask("SELECT count(*) FROM layer_health")
            live.append(rows / (time.perf_counter() - began))
            assert rows == events * LAYERS
            run.finish()
        bulk.append(bulk_insert(events))
    ratios = [one / other for one, other in zip(live, bulk, strict=True)]
    return {
        "published_rows_s": statistics.median(published),
        "live_rows_s": statistics.median(live),
        "duckdb_bulk_rows_s": statistics.median(bulk),
        "live_share_of_bulk": statistics.median(ratios),
    }


def measure_scalars(events: int, rounds: int) -> dict[str, float]:
    """Log events of one scalar and wait until SQL sees all of them."""
    import morphogen

    rates = []
    for _ in range(rounds):
        with pipeline():
            run = morphogen.record("bench")
            log = run.log
            began = time.perf_counter()
            for step in range(events):
                log(loss=0.5, step=step)
            logged = time.perf_counter()
            run.flush(120)
            ((rows,),) = ask("SELECT count(*) FROM metrics")
            rates.append((rows / (time.perf_counter() - began), rows / (logged - began)))
            assert rows == events
            run.finish()
    return {
        "events_s": statistics.median(rate[0] for rate in rates),
        "log_calls_s": statistics.median(rate[1] for rate in rates),
    }


def measure_latency(seconds: float, rate: int) -> dict[str, float]:
    """Log at a steady rate while a second thread asks for the newest step; a step is visible at the answer that has it."""
    import morphogen

    with pipeline():
        run = morphogen.record("bench")
        run.log(loss=0.0, step=0)
        ask("SELECT count(*) FROM metrics")
        total = int(seconds * rate)
        logged = np.zeros(total + 1)
        seen: list[tuple[float, int]] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                ((newest,),) = ask("SELECT max(step) FROM metrics", wait=False)
                seen.append((time.perf_counter(), int(newest)))
                if newest >= total:
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        began, step = time.perf_counter(), 0
        while step < total:
            due = min(total, int((time.perf_counter() - began) * rate))
            while step < due:
                step += 1
                run.log(loss=0.5, step=step)
                logged[step] = time.perf_counter()
            time.sleep(0.0005)
        thread.join(30)
        done.set()
        run.finish()
    answers = np.array([at for at, _ in seen])
    newest = np.maximum.accumulate(np.array([step for _, step in seen]))
    at = np.searchsorted(newest, np.arange(1, total + 1))
    latency = (answers[np.minimum(at, len(answers) - 1)] - logged[1:]) * 1e3
    latency = latency[WARM_UP * rate :]
    return {
        "median_ms": float(np.median(latency)),
        "p99_ms": float(np.percentile(latency, 99)),
        "rate_s": rate,
        "answers_s": len(seen) / seconds,
    }


def measure_idle(seconds: float) -> dict[str, float]:
    """Leave a broker and a projector alone, and add up what they hold and use."""
    import psutil

    from morphogen.bus import broker
    from morphogen.bus.settings import Settings

    with pipeline() as projector:
        assert projector is not None
        status = broker.status(Settings.from_environ())
        processes = [psutil.Process(projector.pid), psutil.Process(status.pid)]
        time.sleep(3)
        before = sum(sum(process.cpu_times()[:2]) for process in processes)
        time.sleep(seconds)
        after = sum(sum(process.cpu_times()[:2]) for process in processes)
        memory = [process.memory_info().rss / 2**20 for process in processes]
    return {
        "rss_mb": sum(memory),
        "projector_mb": memory[0],
        "broker_mb": memory[1],
        "cpu_percent": 100 * (after - before) / seconds,
    }


def main() -> None:
    """Run one measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["health", "scalars", "latency", "idle"])
    parser.add_argument("--events", type=int, help="events of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = {
        "health": lambda: measure_health(options.events or 100_000, options.rounds),
        "scalars": lambda: measure_scalars(options.events or 3_000_000, options.rounds),
        "latency": lambda: measure_latency(options.seconds, 10_000),
        "idle": lambda: measure_idle(options.seconds),
    }[options.what]()
    for name, value in figures.items():
        print(f"{name:24}{value:16,.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
