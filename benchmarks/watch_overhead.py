"""Measure what watching costs: a 16-layer network whose step takes 3 ms, bare and watched, in one run.

How large a batch makes such a step differs from machine to machine: it is found out first, and printed.

Each kind trains a network of its own, all equal, and is attached to it once. Each round takes a block of steps of every
kind, in random order, and the ratio of a kind is the median over the rounds of its block against the bare block of the
same round. So a noisy neighbour hits all kinds alike. Samples that our watch works out later are worked out before the clock stops.
Beside the clock stands the processor time of the training thread, which others on the machine disturb less.

    python benchmarks/watch_overhead.py [--rounds 200] [--json FILE]
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import nn

from morphogen.producers.watch import LayerSample, Watch
from morphogen.producers.watch import watch as planning
from morphogen.producers.watch.library import library

STEP = 3e-3  # seconds that the bare step is to take
WARM_UP, AFTER_OTHERS = 50, 10  # steps that are not measured: the first of a loop, and those after another loop's


class Attached(NamedTuple):
    """What ends a watch: `settle` does what it has put off, `close` takes it away."""

    settle: Callable[[], None]
    close: Callable[[], None]


Attach = Callable[[nn.Module, torch.optim.Optimizer], Attached]


def trained(width: int) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """Return 16 linear layers with a ReLU between them, always the same, and what trains them."""
    torch.manual_seed(0)
    inner = [part for _ in range(15) for part in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(*inner, nn.Linear(width, 10))
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def nothing() -> None:
    """Do nothing."""


def bare(model: nn.Module, optimizer: torch.optim.Optimizer) -> Attached:
    """Attach nothing."""
    return Attached(nothing, nothing)


def watched(every: int, *, compiled: bool = True) -> Attach:
    """Attach our watch, as it is or as it would be without its compiled routine."""

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> Attached:
        kept = deque[LayerSample](maxlen=1)  # as a recorder, which writes a sample and lets it go
        with nullcontext() if compiled else mock.patch.object(planning, "library", return_value=None):
            watch = Watch(model, optimizer, every, emit=kept.append)

        def close() -> None:
            watch.close()
            assert kept and kept[-1].signals["grad_norm"] is not None
            assert kept[-1].signals["activation_mean"] is not None

        return Attached(watch.flush, close)

    return attach


def wandb_watched() -> tuple[Attach, Callable[[], None]] | None:
    """Attach wandb's watch, which logs at every step; None where wandb is not installed."""
    try:
        import wandb
    except ImportError:
        return None
    folder = tempfile.TemporaryDirectory()
    run = wandb.init(mode="offline", dir=folder.name, project="overhead")

    def attach(model: nn.Module, optimizer: torch.optim.Optimizer) -> Attached:
        run.watch(model, log="all", log_freq=1)
        handle = optimizer.register_step_post_hook(lambda *_: run.log({"step": 1}))

        def close() -> None:
            handle.remove()
            run.unwatch(model)

        return Attached(nothing, close)

    def finish() -> None:
        run.finish()
        folder.cleanup()

    return attach, finish


def training_step(model: nn.Sequential, optimizer: torch.optim.Optimizer, batch: int) -> Callable[[], None]:
    """Return a step on one random batch."""
    width = model[0].in_features
    inputs, labels = torch.randn(batch, width), torch.randint(0, 10, (batch,))
    loss_of = nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        loss_of(model(inputs), labels).backward()
        optimizer.step()

    return step


def fitting_batch(width: int) -> int:
    """Return the batch, in steps of 32 rows, whose bare step comes nearest to STEP at the machine's own speed."""
    model, optimizer = trained(width)
    took: dict[int, float] = {}
    batch = 32
    while not took or (took[max(took)] < STEP and batch <= 4096):
        step = training_step(model, optimizer, batch)
        times = []
        for _ in range(200):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        took[batch] = statistics.quantiles(times, n=10)[0]  # of the moments in which nothing else ran
        batch += 32
    return min(took, key=lambda rows: abs(took[rows] - STEP))


class Loop:
    """A training loop of its own, with what is attached to it."""

    def __init__(self, attach: Attach, width: int, batch: int) -> None:
        model, optimizer = trained(width)
        self.attached = attach(model, optimizer)
        self._step = training_step(model, optimizer, batch)
        for _ in range(WARM_UP):
            self._step()
        self.attached.settle()

    def timed(self, steps: int) -> tuple[float, float]:
        """Return the mean seconds of a step, by the wall clock and of the training thread's processor time."""
        for _ in range(AFTER_OTHERS):
            self._step()
        self.attached.settle()
        start, began = time.perf_counter(), time.thread_time()
        for _ in range(steps):
            self._step()
        worked = time.thread_time() - began
        self.attached.settle()
        return (time.perf_counter() - start) / steps, worked / steps


def main() -> None:
    """Run the comparison, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="blocks of each kind")
    parser.add_argument("--block", type=int, default=20, help="steps of a block")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, help="rows of a batch; as many as make a step of 3 ms by default")
    parser.add_argument("--threads", type=int, default=1, help="of torch; two virtual cores may be one")
    parser.add_argument("--no-wandb", dest="wandb", action="store_false", help="leave wandb out")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.batch = options.batch or fitting_batch(options.width)

    kinds: dict[str, Attach] = {
        "bare loop": bare,
        "watch(every=1)": watched(1),
        "watch(every=10)": watched(10),
        "every=1, not compiled": watched(1, compiled=False),
        "every=10, not compiled": watched(10, compiled=False),
        "bare loop again": bare,
    }
    if library() is None:
        kinds = {kind: attach for kind, attach in kinds.items() if "compiled" not in kind}
        print("the compiled routine was not built: NumPy reads")
    theirs = wandb_watched() if options.wandb else None
    if theirs is not None:
        kinds["wandb.watch(log_freq=1)"] = theirs[0]
    loops = {kind: Loop(attach, options.width, options.batch) for kind, attach in kinds.items()}
    took: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind in random.sample(list(kinds), len(kinds)):
            took[kind].append(loops[kind].timed(options.block))
    for loop in loops.values():
        loop.attached.close()
    if theirs is not None:
        theirs[1]()

    table: dict[str, Any] = {}
    print(f"16 linear layers of {options.width}, batch {options.batch}, SGD with momentum, {options.threads} threads")
    print(f"{'':26}{'step':>9}{'overhead':>12}{'of the thread':>16}")
    for kind, times in took.items():
        ratios = [
            [mine[clock] / bare[clock] for mine, bare in zip(times, took["bare loop"], strict=True)] for clock in (0, 1)
        ]
        overhead, busy = ((statistics.median(ratio) - 1) * 100 for ratio in ratios)
        typical = statistics.median(wall for wall, _ in times)
        table[kind] = {"step_ms": typical * 1e3, "overhead_percent": overhead, "thread_percent": busy}
        print(f"{kind:26}{typical * 1e3:6.2f} ms{overhead:+11.1f}%{busy:+15.1f}%")
    if theirs is None:
        print("wandb: not compared")
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": None}, "kinds": table}, indent=2))


if __name__ == "__main__":
    main()
