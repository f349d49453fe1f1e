"""What the whole system costs a training step: dormant slots, a record, a number logged each step, layers watched.

Three loops train equal networks on equal batches: bare, ours, and bare again, which shows the noise. They take turns in
random order, a block of some epochs each; after ours the publisher falls asleep, not to disturb the others. A virtual
core runs at half its speed while its twin is busy, so a yardstick (a fixed piece of work) is timed every few steps, outside of what is counted: the overhead is the mean step of ours over the bare
one, of those steps alone that ran at the machine's own speed. Beside the wall clock stands processor time: of the training
thread, and of the whole process until the log has acknowledged all that the block recorded (the median over the rounds of a
block against the bare one of its round). What recording puts off is done before a clock stops. Nothing has germinated:
this is what a run pays for being able to grow. The end of an epoch, with its decision, is timed by itself: how many steps
share it is the user's choice.

    python benchmarks/adaptation/overhead.py [--rounds 12] [--json FILE]
"""

import argparse
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hosts import HOSTS
from torch import nn
from training import loss_of

import morphogen
from morphogen.bus import broker
from morphogen.bus.settings import Settings
from morphogen.kernels.blueprints.timing import NEAR, torch_yardstick

EVERY = (None, 10, 50)  # optimizer steps from one look at the layers to the next; None lets growth choose
TARGET = 5.0  # percent
QUIET = 1.0  # seconds after which the publisher sleeps
STRETCH = 10  # steps between two looks at the yardstick
BLOCK = 0.4  # seconds of a block, at least: a run trains on while it is published, it does not begin anew each time


def deep(width: int) -> nn.Sequential:
    """Return 16 linear layers with a ReLU between them."""
    inner = [part for _ in range(15) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*inner, nn.Linear(width, 10))


@dataclass(frozen=True)
class Took:
    """What the steps of a block took, in ms: a row of (wall, of the training thread, yardstick) for each stretch."""

    stretches: list[tuple[float, float, float]]
    process: float  # a step's, of all threads, until the log has what was recorded


class Loop:
    """A training loop over one batch: its own network, optimizer and count of steps."""

    def __init__(self, host: str, yardstick: Callable[[], float], run: Any = None) -> None:
        self.yardstick = yardstick
        torch.manual_seed(0)
        self.model, self.inputs, self.targets = case(host)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.step = 0
        self.run = run

    def train(self, steps: int) -> None:
        """Train; with a run, log the loss of each step."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = loss_of(self.model(self.inputs), self.targets)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            value = loss.item()  # every loop looks at its loss
            self.step += 1
            if self.run is not None:
                self.run.log({"loss": value}, step=self.step)

    def timed(self, epochs: int, steps: int, epoch_ends: Callable[[], None]) -> Took:
        """Train for a block of epochs of so many steps each, and return what the steps took."""
        process, spent = time.process_time(), 0.0
        stretches = []
        before = self.yardstick()
        for done in range(STRETCH, epochs * steps + 1, STRETCH):
            wall, thread = time.perf_counter(), time.thread_time()
            self.train(STRETCH)
            if self.run is not None and done % steps == 0:
                self.run.settle()
            wall, thread = time.perf_counter() - wall, time.thread_time() - thread
            spent -= time.process_time()
            if done % steps == 0:
                epoch_ends()
            after = self.yardstick()
            spent += time.process_time()
            stretches.append((1e3 * wall, 1e3 * thread, max(before, after)))
            before = after
        if self.run is not None:
            self.run.flush()
        process = time.process_time() - process - spent
        return Took(stretches, 1e3 * process / (epochs * steps))


def case(host: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a network and the batch that it trains on."""
    if host == "digits":
        inputs, targets = HOSTS["digits"].split(0).train
        return HOSTS["digits"].model(0), inputs[:64], targets[:64]
    width = int(host)
    return deep(width), torch.randn(64, width), torch.randint(0, 10, (64,))


def measure(host: str, every: int | None, rounds: int, steps: int, settings: Settings) -> dict[str, Any]:
    """Return median times of a step of each loop, and what is added to the bare one, in percent."""
    with morphogen.record(f"overhead-{host}-{every}", settings=settings) as run:
        yardstick = torch_yardstick(time.perf_counter_ns)
        ours = Loop(host, yardstick, run)
        loops = {"bare": Loop(host, yardstick), "ours": ours, "bare again": Loop(host, yardstick)}
        run.watch(ours.model, ours.optimizer, every=every)
        grower = morphogen.grow(run, ours.model, ours.optimizer, policy="heuristic", example=ours.inputs[:2],
                                budget={"earliest": 10**6})  # fmt: skip  # it decides, and may never germinate
        took: dict[str, list[Took]] = {kind: [] for kind in loops}
        ends: list[float] = []

        def epoch_ends() -> None:
            began = time.perf_counter()
            grower.epoch(train_loss=1.0)
            ends.append(1e3 * (time.perf_counter() - began))

        began = time.perf_counter()
        loops["bare"].train(steps)
        length = math.ceil(BLOCK / (time.perf_counter() - began))
        for number in range(rounds + 2):
            for kind in random.sample(list(loops), len(loops)):
                found = loops[kind].timed(length, steps, epoch_ends if kind == "ours" else lambda: None)
                if kind == "ours":
                    time.sleep(QUIET)
                if number >= 2:  # caches are warm, the length of an epoch is known
                    took[kind].append(found)
        grower.finish()
    least = min(one[2] for times in took.values() for block_ in times for one in block_.stretches)
    quiet = {kind: own_speed(times, least) for kind, times in took.items()}
    return {
        "every": every,
        "epochs_in_a_block": length,
        "step_ms": {kind: found[0] for kind, found in quiet.items()},
        "quiet_share": {kind: found[1] for kind, found in quiet.items()},
        "overhead_percent": added(quiet["ours"][0], quiet["bare"][0], took["ours"], took["bare"]),
        "noise_percent": added(quiet["bare again"][0], quiet["bare"][0], took["bare again"], took["bare"]),
        "epoch_end_ms": statistics.median(ends),
    }


def own_speed(times: list[Took], least: float) -> tuple[dict[str, float], float]:
    """Return the mean step by clock, of the stretches whose yardsticks were near the least, and their share of all."""
    every = [one for block in times for one in block.stretches]
    quiet = [one for one in every if one[2] <= NEAR * least] or every
    mean = {name: statistics.fmean(one[at] for one in quiet) / STRETCH for at, name in enumerate(("wall", "thread"))}
    return mean, len(quiet) / len(every)


def added(ours: dict[str, float], bare: dict[str, float], times: list[Took], others: list[Took]) -> dict[str, float]:
    """Return by clock what ours takes more than the bare loop, in percent."""
    found = {name: 100 * (ours[name] / bare[name] - 1) for name in ours}
    ratios = [a.process / b.process for a, b in zip(times, others, strict=True)]
    return {**found, "process": 100 * (statistics.median(ratios) - 1)}


def main() -> None:
    """Measure networks of three sizes and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=200, help="steps of an epoch")
    parser.add_argument(
        "--hosts", nargs="*", default=["digits", "64", "256"], help="`digits`, or the width of 16 layers"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {}
    print(f"percent added to a step (aim: at most {TARGET:g}); in brackets the bare loop against itself")
    print(f"{'':24}{'every':>7}{'bare step':>12}{'wall':>18}{'thread':>18}{'process':>18}{'epoch end':>13}")
    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as home:
        settings = Settings.from_environ(home=Path(home))
        broker.ensure(settings)
        try:
            for host in options.hosts:
                name = "digits host" if host == "digits" else f"16 layers of {host}"
                found[name] = []
                for every in EVERY:
                    got = measure(host, every, options.rounds, options.steps, settings)
                    found[name].append(got)
                    shares = "".join(
                        f"{got['overhead_percent'][clock]:>+9.1f}% ({got['noise_percent'][clock]:+.1f}%)".rjust(18)
                        for clock in ("wall", "thread", "process")
                    )
                    if options.json:  # after each line: what was measured is not lost with the rest
                        told = {"rounds": options.rounds, "steps": options.steps}
                        options.json.write_text(json.dumps({"options": told, "cases": found}, indent=1) + "\n")
                    step = got["step_ms"]["bare"]["wall"]
                    chosen = "auto" if every is None else str(every)
                    share = f"{100 * min(got['quiet_share'].values()):>6.0f}% quiet"
                    print(
                        f"{name:24}{chosen:>7}{step:>9.2f} ms{shares}{got['epoch_end_ms']:>10.2f} ms{share}", flush=True
                    )
        finally:
            broker.down(settings)


if __name__ == "__main__":
    main()
