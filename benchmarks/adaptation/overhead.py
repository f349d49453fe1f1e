"""What the whole system costs a training step: dormant slots, a record, a number logged each step, layers watched.

Three loops train equal networks on equal batches: bare, ours, and bare again, which shows the noise. They take turns in
random order, a block of steps each; the overhead is the median over the rounds of a block against the bare one of its
round. Beside the wall clock stands processor time: of the training thread, and of the whole process until the log has
acknowledged all that the block recorded. What recording puts off is done before a clock stops. Nothing has germinated:
this is what a run pays for being able to grow. The end of an epoch, with its decision, is timed by itself.

    python benchmarks/adaptation/overhead.py [--rounds 30] [--json FILE]
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
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

EVERY = (None, 10, 50)  # optimizer steps from one look at the layers to the next; None lets growth choose
TARGET = 5.0  # percent
QUIET = 0.15  # seconds after which the publisher sleeps


def deep(width: int) -> nn.Sequential:
    """Return 16 linear layers with a ReLU between them."""
    inner = [part for _ in range(15) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*inner, nn.Linear(width, 10))


@dataclass(frozen=True)
class Took:
    """What a step took, in ms."""

    wall: float
    thread: float  # processor time of the training thread
    process: float  # of all threads, until the log has what was recorded


class Loop:
    """A training loop over one batch: its own network, optimizer and count of steps."""

    def __init__(self, host: str, run: Any = None) -> None:
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

    def timed(self, steps: int) -> Took:
        """Train and return what a step took."""
        wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
        self.train(steps)
        if self.run is not None:
            self.run.settle()
        wall, thread = time.perf_counter() - wall, time.thread_time() - thread
        if self.run is not None:
            self.run.flush()
        process = time.process_time() - process
        return Took(1e3 * wall / steps, 1e3 * thread / steps, 1e3 * process / steps)


def case(host: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a network and the batch that it trains on."""
    if host == "digits":
        inputs, targets = HOSTS["digits"].split(0).train
        return HOSTS["digits"].model(0), inputs[:64], targets[:64]
    width = int(host)
    return deep(width), torch.randn(64, width), torch.randint(0, 10, (64,))


def measure(host: str, every: int | None, rounds: int, block: int, settings: Settings) -> dict[str, Any]:
    """Return median times of a step of each loop, and what is added to the bare one, in percent."""
    with morphogen.record(f"overhead-{host}-{every}", settings=settings) as run:
        ours = Loop(host, run)
        loops = {"bare": Loop(host), "ours": ours, "bare again": Loop(host)}
        run.watch(ours.model, ours.optimizer, every=every)
        grower = morphogen.grow(run, ours.model, ours.optimizer, policy="heuristic", example=ours.inputs[:2],
                                budget={"earliest": 10**6})  # fmt: skip  # it decides, and may never germinate
        took: dict[str, list[Took]] = {kind: [] for kind in loops}
        epochs = []
        for number in range(rounds + 2):
            for kind in random.sample(list(loops), len(loops)):
                found = loops[kind].timed(block)
                if kind == "ours":
                    began = time.perf_counter()
                    grower.epoch(train_loss=1.0)
                    epochs.append(1e3 * (time.perf_counter() - began))
                    run.flush()
                    time.sleep(QUIET)
                if number >= 2:  # caches are warm, the length of an epoch is known
                    took[kind].append(found)
        grower.finish()
    return {
        "every": every,
        "step_ms": {kind: {name: statistics.median(v) for name, v in columns(times).items()} for kind, times in took.items()},
        "overhead_percent": added(took["ours"], took["bare"]),
        "noise_percent": added(took["bare again"], took["bare"]),
        "epoch_end_ms": statistics.median(epochs),
    }  # fmt: skip


def columns(times: list[Took]) -> dict[str, list[float]]:
    """Return the times by clock."""
    rows = [asdict(one) for one in times]
    return {name: [row[name] for row in rows] for name in rows[0]}


def added(times: list[Took], bare: list[Took]) -> dict[str, float]:
    """Return by clock the median of the ratios of paired blocks, less one, in percent."""
    ours, theirs = columns(times), columns(bare)
    return {
        name: 100 * (statistics.median(a / b for a, b in zip(ours[name], theirs[name], strict=True)) - 1)
        for name in ours
    }


def main() -> None:
    """Measure networks of three sizes and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--block", type=int, default=200, help="steps of a block, which is an epoch")
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
                    got = measure(host, every, options.rounds, options.block, settings)
                    found[name].append(got)
                    shares = "".join(
                        f"{got['overhead_percent'][clock]:>+9.1f}% ({got['noise_percent'][clock]:+.1f}%)".rjust(18)
                        for clock in ("wall", "thread", "process")
                    )
                    if options.json:  # after each line: what was measured is not lost with the rest
                        told = {"rounds": options.rounds, "block": options.block}
                        options.json.write_text(json.dumps({"options": told, "cases": found}, indent=1) + "\n")
                    step = got["step_ms"]["bare"]["wall"]
                    chosen = "auto" if every is None else str(every)
                    print(f"{name:24}{chosen:>7}{step:>9.2f} ms{shares}{got['epoch_end_ms']:>10.2f} ms", flush=True)
        finally:
            broker.down(settings)


if __name__ == "__main__":
    main()
