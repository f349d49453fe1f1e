"""A small network, its data and an executor that tells a list."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morphogen.consumers.executor import Bounds, Executor, ExecutorConfig, stock
from morphogen.consumers.executor.stock import Menu
from morphogen.kernels.slots import Slots, adapt
from morphogen.schemas import Action, AdaptationStarted, Event


class Story:
    """A network in training, epoch by epoch, with an executor beside it."""

    def __init__(
        self,
        *,
        config: dict[str, Any] | None = None,
        bounds: dict[str, Any] | None = None,
        menu: Menu = None,
        norm: bool = False,
        optimizer: Callable[[Any], torch.optim.Optimizer] = lambda params: torch.optim.Adam(params, 1e-2),
        slots: int = 1,
    ) -> None:
        generator = torch.Generator().manual_seed(3)
        self.inputs = torch.randn(48, 6, generator=generator)
        self.targets = (self.inputs[:, 0] * self.inputs[:, 1] > 0).long()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            middle: list[nn.Module] = [nn.BatchNorm1d(4)] if norm else []
            self.model = nn.Sequential(nn.Linear(6, 4), *middle, nn.ReLU(), nn.Linear(4, 2))
        self.optimizer = optimizer(self.model.parameters())
        self.events: list[Event] = []
        self.slept: list[float] = []
        self._menu = menu
        self._config = ExecutorConfig(**{"ramp_epochs": 1.0, "embargo": 0, **(config or {})})
        self._bounds = Bounds(**{"min_training": 1, "min_holding": 1, "max_active": None, **(bounds or {})})
        self.begun(adapt(self.model, slots=slots, example=self.inputs[:2]))
        self.number = 0
        self.losses: list[float] = []

    def begun(self, slots: Slots) -> None:
        """Put an executor beside these slots of the model."""
        self.slots = slots
        self.executor = Executor(
            slots,
            self.optimizer,
            say=self._say,
            stock=stock(slots.sites, self._menu),
            config=self._config,
            bounds=self._bounds,
            sleep=self.slept.append,
        )
        self.executor.take(AdaptationStarted(sites=list(slots.sites), policy="test"))

    def adopted(self, slots: Slots, state: Mapping[str, Any]) -> None:
        """Go on with slots that were restored for the model, and its weights."""
        self.model.load_state_dict(state)
        self.begun(slots)
        self.executor.adopt()

    def _say(self, event: Event, cause: str | None) -> str:
        self.events.append(event)
        return f"event-{len(self.events)}"

    def loss(self, model: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(model(self.inputs), self.targets)

    def step(self) -> float:
        self.model.train()
        loss = self.loss(self.model)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.losses.append(loss.item())
        return loss.item()

    def evaluate(self, model: nn.Module) -> tuple[float, float]:
        output = model(self.inputs)
        loss = nn.functional.cross_entropy(output, self.targets)
        return loss.item(), (output.argmax(1) == self.targets).float().mean().item()

    def epoch(self, *actions: Action, steps: int = 3, **measured: Any) -> list[bool]:
        """Train for an epoch, end it, and do `actions`; return which of them were done."""
        for _ in range(steps):
            self.step()
        measured = {"val_loss": self.losses[-1], "evaluate": self.evaluate, **measured}
        self.executor.end_epoch(self.number, **measured)
        done = [self.executor.apply(action, decision=f"d{self.number}").done for action in actions]
        self.executor.rest()
        self.number += 1
        return done

    def said(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def grown(self, slot: str = "0#0", blueprint: str = "mlp16", *, stage: str = "holding") -> None:
        """Bring a seed up to a stage."""
        assert self.epoch(Action(op="germinate", slot=slot, blueprint=blueprint)) == [True]
        for wanted in ("blending", "holding"):
            if self.slots[slot].stage != stage:
                assert self.epoch(Action(op="advance", slot=slot)) == [True]
                assert self.slots[slot].stage == wanted
        if stage == "fossilized":
            assert self.epoch(Action(op="fossilize", slot=slot)) == [True]

    def clean(self) -> bool:
        """Whether no trace of growth is left: no hook, no class, no parameter of a seed."""
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        own = {id(p) for p in self.model.parameters()}
        return (
            not self.optimizer._optimizer_step_pre_hooks
            and not self.optimizer._optimizer_step_post_hooks
            and all(type(module).__module__.startswith("torch.nn") for module in self.model.modules())
            and {id(p) for p in held} == own
            and {id(p) for p in self.optimizer.state} <= own
        )


@pytest.fixture(scope="session")
def story() -> type[Story]:
    return Story


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of this size only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
