"""A training loop that a newcomer might write, with growth in it or without."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morphogen.consumers.adaptation import grow
from morphogen.schemas import Event


class Listener:
    """A recorder that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Event, int | None, str | None, str]] = []

    def event(self, event: Event, *, step: int | None = None, cause: str | None = None) -> str:
        name = f"e{len(self.told)}"
        self.told.append((event, step, cause, name))
        return name

    def all(self, kind: type[Event]) -> list[Any]:
        return [event for event, *_ in self.told if type(event) is kind]


class Loop:
    """A stalled host, its data, and a loop over it."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(160, 6, generator=generator)
        targets = (inputs[:, 0] * inputs[:, 1] > 0).long() + 2 * (inputs[:, 2] * inputs[:, 3] > 0).long()
        self.train, self.validation = (inputs[:96], targets[:96]), (inputs[96:], targets[96:])
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2, 4))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-2)
        self.run = Listener()
        self.evaluations = 0

    def evaluate(self, model: nn.Module) -> tuple[float, float]:
        self.evaluations += 1
        output = model(self.validation[0])
        loss = nn.functional.cross_entropy(output, self.validation[1]).item()
        return loss, (output.argmax(1) == self.validation[1]).float().mean().item()

    def grow(self, **options: Any) -> Any:
        given = {"evaluate": self.evaluate, "example": self.train[0][:2], **options}
        return grow(given.pop("run", self.run), self.model, self.optimizer, **given)

    def epochs(self, number: int, after: Callable[[float], Any] = lambda loss: None, log: Any = None) -> None:
        inputs, targets = self.train
        for _ in range(number):
            self.model.train()
            loss = torch.zeros(())
            for batch in torch.randperm(len(inputs)).split(32):
                self.optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.model(inputs[batch]), targets[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                if log is not None:
                    log(loss.item())
            after(loss.item())

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}


@pytest.fixture(scope="session")
def loop() -> type[Loop]:
    return Loop


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of this size only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
