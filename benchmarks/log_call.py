"""Cost of one `log()` of 32 scalars: Morphogen, compiled and not, wandb offline, TensorBoard, in turn within one run.

    python benchmarks/log_call.py [--calls 20000] [--json FILE]

They take turns in blocks, so that a machine that speeds up or slows down does so for all of them. Each call
is timed by itself; the clock's own cost is measured and taken off the median alike for all.
"""

import argparse
import contextlib
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = [f"train/metric_{index:02d}" for index in range(32)]
Log = Callable[[dict[str, float], int], object]


@contextlib.contextmanager
def morphogen_logger(folder: Path) -> Iterator[Log]:
    """Record on the embedded broker, as a user would with nothing configured."""
    import morphogen
    from morphogen.bus import broker
    from morphogen.bus.settings import Settings

    run = morphogen.record("bench", home=folder)
    yield lambda values, step: run.log(values, step=step)
    run.finish()
    broker.down(Settings.from_environ(home=folder))


@contextlib.contextmanager
def plain_logger(folder: Path) -> Iterator[Log]:
    """Record as where there was no C compiler."""
    from morphogen.bus.spool.records import PlainRecords, Records
    from morphogen.bus.spool.segment import Segment

    if Records is PlainRecords:
        raise ImportError("nothing is compiled here")
    begin = Segment.__init__

    def begin_plain(self: Segment, path: Path | None, fd: int, room: Any) -> None:
        begin(self, path, fd, room)
        if path is not None and folder in path.parents:
            self.records = PlainRecords(room)

    Segment.__init__ = begin_plain  # type: ignore[method-assign]
    try:
        with morphogen_logger(folder) as log:
            yield log
    finally:
        Segment.__init__ = begin  # type: ignore[method-assign]


@contextlib.contextmanager
def wandb_logger(folder: Path) -> Iterator[Log]:
    """Log with wandb in its offline mode."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(folder)}
    import wandb

    run = wandb.init(project="bench", dir=str(folder), mode="offline")
    yield lambda values, step: run.log(values, step=step)
    run.finish()


@contextlib.contextmanager
def tensorboard_logger(folder: Path) -> Iterator[Log]:
    """Write one scalar summary a value with torch's SummaryWriter, as its users do."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    yield log
    writer.close()


def clock_cost() -> float:
    """Return what two readings of the clock cost, in ns."""
    stamps = []
    for _ in range(2000):
        began = time.perf_counter_ns()
        stamps.append(time.perf_counter_ns() - began)
    return statistics.median(stamps)


def main() -> None:
    """Run the blocks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000, help="calls of ours; those of others are a tenth")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--pause-us", type=float, default=200.0, help="work between calls, as a training loop has")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    makers = {
        "morphogen": morphogen_logger,
        "not compiled": plain_logger,
        "wandb offline": wandb_logger,
        "tensorboard": tensorboard_logger,
    }
    took: dict[str, list[int]] = {name: [] for name in makers}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        loggers: dict[str, Log] = {}
        for name, make in makers.items():
            folder = Path(scratch) / name.replace(" ", "-")
            folder.mkdir()
            try:
                loggers[name] = stack.enter_context(make(folder))
            except ImportError:
                print(f"{name}: not installed, left out (pip install --group bench)")
        steps = dict.fromkeys(loggers, 0)
        for block in range(-1, options.blocks):  # the first block warms up
            for name, log in loggers.items():
                share = options.calls if name in {"morphogen", "not compiled"} else options.calls // 10
                for _ in range(max(20, share // options.blocks)):
                    steps[name] += 1
                    values = dict.fromkeys(NAMES, 0.5 + steps[name])
                    pause = time.perf_counter_ns() + options.pause_us * 1e3
                    while time.perf_counter_ns() < pause:
                        pass
                    began = time.perf_counter_ns()
                    log(values, steps[name])
                    ended = time.perf_counter_ns()
                    if block >= 0:
                        took[name].append(ended - began)
    clock = clock_cost()
    figures = {}
    for name, times in took.items():
        if times:
            times.sort()
            figures[name] = {
                "median_us": (times[len(times) // 2] - clock) / 1e3,
                "p99_us": (times[int(len(times) * 0.99)] - clock) / 1e3,
            }
    ours = figures["morphogen"]["median_us"]
    print(f"{'log() of 32 scalars':24}{'median us':>12}{'p99 us':>12}{'ratio':>10}")
    for name, figure in figures.items():
        ratio = figure["median_us"] / ours
        figure["ratio"] = ratio
        print(f"{name:24}{figure['median_us']:12.2f}{figure['p99_us']:12.2f}{ratio:9.1f}x")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
