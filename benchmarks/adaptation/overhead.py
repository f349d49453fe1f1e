"""What the whole system costs a training step: dormant slots, a record, a number logged each step, layers watched.

Both loops train one and the same network, in blocks of steps in random order; a round has a block of each, and the ratio
is the median over rounds of a block against the bare one of its round. What recording puts off is done before the clock
stops. Nothing has germinated: this is what a run pays for being able to grow.

    python benchmarks/adaptation/overhead.py [--rounds 60] [--json FILE]
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
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

EVERY = (10, 50)  # optimizer steps from one look at the layers to the next


def deep(width: int) -> nn.Sequential:
    """Return 16 linear layers with a ReLU between them."""
    inner = [part for _ in range(15) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*inner, nn.Linear(width, 10))


class Loop:
    """A training loop over one batch, with or without all of our parts."""

    def __init__(self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.model, self.inputs, self.targets = model, inputs, targets
        self.optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        self.step = 0

    def bare(self, steps: int) -> float:
        """Train and return the seconds of a step."""
        began = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss_of(self.model(self.inputs), self.targets).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return (time.perf_counter() - began) / steps

    def recorded(self, steps: int, run: Any, settle: Callable[[], object]) -> float:
        """Train, log the loss of each step, and return the seconds of a step, what was put off included."""
        began = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = loss_of(self.model(self.inputs), self.targets)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.step += 1
            run.log({"loss": loss.item()}, step=self.step)
        settle()
        return (time.perf_counter() - began) / steps


def measure(name: str, loop: Loop, every: int, rounds: int, block: int, settings: Settings) -> dict[str, Any]:
    """Return median seconds of a step of both loops, and the median ratio less one in percent."""
    took: dict[str, list[float]] = {"bare": [], "ours": [], "bare again": []}

    def ours() -> float:
        with morphogen.record(f"overhead-{name}", settings=settings) as run:
            run.watch(loop.model, loop.optimizer, every=every)
            grower = morphogen.grow(run, loop.model, loop.optimizer, policy="none", example=loop.inputs[:2])
            loop.recorded(
                2 * every if every < block else block, run, run.settle
            )  # a watch is warm after its first steps
            found = loop.recorded(block, run, run.settle)
            grower.finish()
        return found

    kinds: dict[str, Callable[[], float]] = {
        "bare": lambda: loop.bare(block),
        "ours": ours,
        "bare again": lambda: loop.bare(block),
    }
    for _ in range(rounds):
        for kind in random.sample(list(kinds), len(kinds)):
            took[kind].append(kinds[kind]())
    ratios = {
        kind: 100 * (statistics.median(t / b for t, b in zip(times, took["bare"], strict=True)) - 1)
        for kind, times in took.items()
    }
    return {
        "every": every,
        "step_ms": {kind: 1e3 * statistics.median(times) for kind, times in took.items()},
        "overhead_percent": ratios["ours"],
        "noise_percent": ratios["bare again"],
    }


def main() -> None:
    """Measure networks of three sizes and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--block", type=int, default=100, help="steps of a block")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = HOSTS["digits"].split(0).train
    cases = {
        "digits host, 166 weights": Loop(HOSTS["digits"].model(0), digits[0][:64], digits[1][:64]),
        "16 layers of 64": Loop(deep(64), torch.randn(64, 64), torch.randint(0, 10, (64,))),
        "16 layers of 256": Loop(deep(256), torch.randn(128, 256), torch.randint(0, 10, (128,))),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    print(f"{'':26}{'every':>7}{'bare step':>12}{'ours':>12}{'overhead':>11}{'bare again':>12}")
    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as home:
        settings = Settings.from_environ(home=Path(home))
        broker.ensure(settings)
        try:
            for name, loop in cases.items():
                loop.bare(20)
                found[name] = []
                for every in EVERY:
                    got = measure(
                        name.split(",")[0].replace(" ", "-"), loop, every, options.rounds, options.block, settings
                    )
                    found[name].append(got)
                    steps = got["step_ms"]
                    print(
                        f"{name:26}{every:>7}{steps['bare']:>9.2f} ms{steps['ours']:>9.2f} ms"
                        f"{got['overhead_percent']:>+10.1f}%{got['noise_percent']:>+11.1f}%",
                        flush=True,
                    )
        finally:
            broker.down(settings)
    if options.json:
        told = {"rounds": options.rounds, "block": options.block}
        options.json.write_text(json.dumps({"options": told, "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
