"""Small real training runs: a healthy one, and one for each trouble that the standard facts name.

Each trains on scikit-learn's digits with one thread, a second or two, and records as a user's loop would.
`python scenarios.py NAME ...` trains those named, one after the other.
"""

import os
import sys
import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
from sklearn.datasets import load_digits
from torch import nn

import morphogen

STEPS = 300
BATCH = 64


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    digits = load_digits()
    return torch.from_numpy((digits.data / 16.0).astype(np.float32)), torch.from_numpy(digits.target).long()


def _mlp(depth: int, width: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(64, width), activation()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def train(
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int = STEPS,
    data_seconds: float = 0.0,
    leak_mb: float = 0.0,
    target_noise: bool = False,
    nan_from: int | None = None,
) -> None:
    """Train `model` and record loss, times, memory and the health of each layer, one event of each a step.

    `data_seconds` is how long the loader takes for a batch; `leak_mb` is what each step forgets to free;
    `target_noise` draws labels at random, so that there is nothing to learn; from step `nan_from` on the loss is NaN.
    """
    torch.set_num_threads(1)
    inputs, targets = _data()
    order = torch.Generator().manual_seed(0)
    leaked = []
    process = psutil.Process(os.getpid())
    with morphogen.record(name) as run:
        run.watch(model, optimizer, every=1)
        for step in range(1, steps + 1):
            began = time.perf_counter()
            chosen = torch.randint(0, len(inputs), (BATCH,), generator=order)
            x, y = inputs[chosen], targets[chosen]
            if target_noise:
                y = torch.randint(0, 10, (BATCH,), generator=order)
            if data_seconds:
                time.sleep(data_seconds)
            loaded = time.perf_counter()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            if nan_from is not None and step >= nan_from:
                loss = loss * torch.log(torch.tensor(-1.0))
            loss.backward()
            optimizer.step()
            if leak_mb:
                leaked.append(np.ones(int(leak_mb * 131072)))
            ended = time.perf_counter()
            run.log(
                loss=loss,
                data_ms=(loaded - began) * 1e3,
                step_ms=(ended - began) * 1e3,
                rss_mb=process.memory_info().rss / 2**20,
                step=step,
            )
        assert run.flush(30)


def healthy(name: str) -> None:
    """A small network that learns as it should."""
    torch.manual_seed(1)
    model = _mlp(4, 64, nn.ReLU)
    train(name, model, torch.optim.Adam(model.parameters(), lr=1e-3))


def vanishing(name: str) -> None:
    """Sixteen sigmoid layers: next to nothing of the gradient reaches the first."""
    torch.manual_seed(1)
    model = _mlp(16, 32, nn.Sigmoid)
    train(name, model, torch.optim.SGD(model.parameters(), lr=0.1), steps=80)


def exploding(name: str) -> None:
    """A deep network whose weights start far too large."""
    torch.manual_seed(1)
    model = _mlp(10, 64, nn.ReLU)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8.0)
    train(name, model, torch.optim.SGD(model.parameters(), lr=1e-12), steps=60)


def dead(name: str) -> None:
    """A layer whose biases are so low that its ReLUs never fire."""
    torch.manual_seed(1)
    model = _mlp(4, 64, nn.ReLU)
    with torch.no_grad():
        model[2].bias.fill_(-30.0)  # type: ignore[operator, union-attr]
    train(name, model, torch.optim.Adam(model.parameters(), lr=1e-3), steps=80)


def plateau(name: str) -> None:
    """Labels drawn at random: the loss stays where guessing leaves it."""
    torch.manual_seed(1)
    model = _mlp(3, 16, nn.ReLU)
    train(name, model, torch.optim.SGD(model.parameters(), lr=1e-2), target_noise=True, steps=260)


def divergence(name: str) -> None:
    """A learning rate that no network survives."""
    torch.manual_seed(1)
    model = _mlp(4, 64, nn.ReLU)
    train(name, model, torch.optim.SGD(model.parameters(), lr=30.0), steps=120)


def leak(name: str) -> None:
    """Every step keeps two megabytes that nobody needs again."""
    torch.manual_seed(1)
    model = _mlp(3, 32, nn.ReLU)
    train(name, model, torch.optim.Adam(model.parameters(), lr=1e-3), leak_mb=2.0, steps=260)


def stall(name: str) -> None:
    """A loader that takes far longer than the step."""
    torch.manual_seed(1)
    model = _mlp(3, 32, nn.ReLU)
    train(name, model, torch.optim.Adam(model.parameters(), lr=1e-3), data_seconds=0.02, steps=70)


def broken(name: str) -> None:
    """The logarithm of a negative number, from step 40 on."""
    torch.manual_seed(1)
    model = _mlp(3, 32, nn.ReLU)
    train(name, model, torch.optim.Adam(model.parameters(), lr=1e-3), nan_from=40, steps=70)


SCENARIOS = {
    each.__name__: each for each in (healthy, vanishing, exploding, dead, plateau, divergence, leak, stall, broken)
}

if __name__ == "__main__":
    for chosen in sys.argv[1:]:
        SCENARIOS[chosen](chosen)
