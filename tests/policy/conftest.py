"""A run on paper: it emits what a training job and its executor would, so that policies can be tried without a network.

Each arm (site, blueprint) takes a fixed share off the loss once it is blended; the host itself learns by a curve.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from morphogen.bus import Settings
from morphogen.bus.broker import Endpoint
from morphogen.consumers.policy import Decided, Dish, Limits, Policy, Told, config_of
from morphogen.consumers.policy.decide import Decider
from morphogen.schemas import (
    SIGNALS,
    Action,
    AdaptationStarted,
    EpochMeasured,
    Event,
    LayerHealth,
    Names,
    SiteInfo,
    SlotAlphaChanged,
    SlotContribution,
    SlotGerminated,
    SlotHealth,
    SlotStageChanged,
)

from .remote import Remote

MENU = (Dish(name="norm", params=8), Dish(name="rank1", params=40), Dish(name="mlp16", params=400))
STEPS = 4  # optimizer steps of an epoch


@dataclass
class Play:
    """One run. `helps` maps 'site|blueprint' to the share of the loss that it takes away."""

    policy: Policy
    helps: Mapping[str, float] = field(default_factory=dict)
    limits: Limits = field(default_factory=lambda: Limits(horizon=60, cooldown=2))
    epochs: int = 60
    plateau_from: int = 8
    host: Callable[[int], float] = lambda epoch: 1.0 + 2.0 * 0.5**epoch
    sites: tuple[str, ...] = ("layers.0", "layers.1", "layers.2")
    slots: int = 1
    health: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self.told: list[Told] = []
        self.decided: list[Decided] = []
        self.states: list[object] = []
        self.decider = Decider(self.policy, scope="play")
        self._count: dict[str, int] = {}
        self._time = 0
        self.step = 0
        self.seeds: dict[str, dict[str, object]] = {}

    def tell(self, event: Event, step: int | None = None) -> None:
        family = event.family
        self._count[family] = self._count.get(family, 0) + 1
        self._time += 10
        self.told.append(Told(family, self._count[family], self._time, step, event))
        self.decider.take(event, step)

    def begin(self) -> None:
        wide = [64, *(2 for _ in self.sites)]
        sites = [
            SiteInfo(site=name, kind="features", in_shape=[wide[at]], out_shape=[2], slots=self.slots, params=50)
            for at, name in enumerate(self.sites)
        ]
        config = config_of(self.limits, dict.fromkeys(self.sites, MENU))
        self.tell(
            AdaptationStarted(sites=sites, policy=self.policy.name, config=config, host_params=166, seed=self.seed), 0
        )

    def share(self, without: str | None = None) -> float:
        taken = 0.0
        for slot, seed in self.seeds.items():
            if slot != without and seed["stage"] in {"blending", "holding", "fossilized"}:
                taken += self.helps.get(f"{slot.rpartition('#')[0]}|{seed['name']}", 0.0) * float(seed["alpha"])  # type: ignore[arg-type]
        return max(0.05, 1.0 - taken)

    def epoch(self, epoch: int) -> Decided:
        generator = np.random.default_rng((self.seed, epoch))
        for _ in range(STEPS):
            self.step += 1
            if self.health:
                signals = {name: generator.normal(size=len(self.sites)).astype("<f4") for name in SIGNALS}
                self.tell(LayerHealth(layers=Names(self.sites), missing={"dead_share": [0]}, **signals), self.step)
        loss = self.host(epoch) * self.share()
        for slot, seed in self.seeds.items():
            if seed["stage"] == "blending":
                seed["alpha"] = 1.0
            if seed["stage"] == "holding":
                without = self.host(epoch) * self.share(slot)
                self.tell(
                    SlotContribution(
                        slot=slot,
                        seed=f"{slot}.1",
                        split="val",
                        n=100,
                        alpha=1.0,
                        loss_with=loss,
                        loss_without=without,
                    ),
                    self.step,
                )
        if self.seeds:
            self.tell(
                SlotHealth(
                    slots=Names(self.seeds),
                    stages=[str(seed["stage"]) for seed in self.seeds.values()],
                    alpha=np.array([seed["alpha"] for seed in self.seeds.values()], "<f4"),
                    grad_norm=generator.normal(size=len(self.seeds)).astype("<f4"),
                ),
                self.step,
            )
        self.tell(
            EpochMeasured(epoch=epoch, train_loss=loss, val_loss=loss, plateau=epoch >= self.plateau_from), self.step
        )
        decided = self.decider.decide()
        self.decided.append(decided)
        self.states.append(self.decider.state)
        for event in decided.events:
            self.tell(event, self.step)
        self.act(decided.action, decided.decision)
        return decided

    def act(self, action: Action, decision: str) -> None:
        slot = action.slot or ""
        if action.op == "germinate":
            self.seeds[slot] = {"stage": "germinated", "name": action.blueprint, "alpha": 0.0, "decision": decision}
            self.tell(
                SlotGerminated(slot=slot, seed=f"{slot}.1", blueprint="00", params=10, decision=decision), self.step
            )
        elif action.op == "advance":
            ahead = {"germinated": "training", "training": "blending", "blending": "holding"}
            self.move(slot, ahead[str(self.seeds[slot]["stage"])], decision)
        elif action.op == "fossilize":
            self.move(slot, "fossilized", decision)
        elif action.op == "prune":
            for stage in ("pruned", "embargoed", "resetting", "dormant"):
                self.move(slot, stage, decision)
            del self.seeds[slot]
        elif action.op == "set_alpha":
            self.seeds[slot]["alpha"] = action.alpha
            self.alpha(slot, action.alpha or 0.0, decision)

    def alpha(self, slot: str, to: float, decision: str) -> None:
        self.tell(
            SlotAlphaChanged(
                slot=slot, seed=f"{slot}.1", alpha_from=0.0, alpha_to=to, ramp="linear", steps=STEPS, decision=decision
            ),
            self.step,
        )

    def move(self, slot: str, stage: str, decision: str) -> None:
        seed = self.seeds[slot]
        self.tell(
            SlotStageChanged(
                slot=slot,
                seed=f"{slot}.1",
                from_stage=str(seed["stage"]),
                to_stage=stage,
                reason="asked",
                alpha=float(seed["alpha"]),  # type: ignore[arg-type]
                decision=decision,
            ),
            self.step,
        )
        seed["stage"] = stage
        if stage == "blending":
            self.alpha(slot, 1.0, decision)

    def run(self) -> "Play":
        self.begin()
        for epoch in range(self.epochs):
            self.epoch(epoch)
        return self


@pytest.fixture(scope="session")
def play() -> type[Play]:
    """The run on paper."""
    return Play


@pytest.fixture
def remote(play: Any, settings: Settings, broker: Endpoint) -> Callable[..., Remote]:
    """Begin a run that asks for a policy from elsewhere, by name."""

    def make(name: str, policy: str = "remote", more: str = "") -> Remote:
        return Remote(play, settings, name, policy, more)

    return make
