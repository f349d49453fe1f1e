"""Who is credited with what: the rewards of a run's seeds, folded from its events.

All seeds of a run share one beginning, the last epoch before the first of them germinated, and one gain: what the run
has reached beyond what the host was expected to reach alone since then.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from morphogen.schemas import (
    AdaptationStarted,
    EpochMeasured,
    Event,
    HostRestored,
    SlotAlphaChanged,
    SlotContribution,
    SlotFailed,
    SlotGerminated,
    SlotStageChanged,
)

from .limits import Setting, Weights
from .reward import STANDING, Judged, Reward, contributed, expected_alone, reward

_CURVE = 15  # epochs before the first germination that the expectation stands on


@dataclass(frozen=True)
class _Seed:
    params: int = 0
    moves: int = 0
    failures: int = 0
    rollbacks: int = 0
    measured: SlotContribution | None = None
    stage: str = "germinated"

    @property
    def contribution(self) -> float:
        """What it contributes above zero, as far as it takes part and that was measured."""
        found = self.measured
        if found is None or self.stage not in STANDING:
            return 0.0
        return max(
            0.0,
            contributed(found.loss_with, found.loss_without, found.accuracy_with, found.accuracy_without) or 0.0,
        )


@dataclass(frozen=True)
class Ledger:
    """The account of one run. `take` its events in their order; `judge` a seed when it is kept, pruned or left over.

    Both return a new ledger and leave this one as it is.
    """

    weights: Weights = field(default_factory=Weights)
    host_params: int = 0
    curve: tuple[EpochMeasured, ...] = ()
    begun: tuple[EpochMeasured, ...] | None = None  # the curve as it was at the first germination
    seeds: Mapping[str, _Seed] = field(default_factory=dict)  # by slot
    credited: float = 0.0

    def take(self, event: Event) -> "Ledger":
        """Return the account after `event`; what does not matter here passes by."""
        take = _TAKES.get(type(event))
        return self if take is None else take(self, event)

    def judge(self, slot: str, stage: str, *, latency_share: float | None = None) -> "tuple[Ledger, Reward, Judged]":
        """Return the account, the reward, and what it stands on, of the seed in `slot`, which is in `stage` now.

        `latency_share` is what the seed adds to the host's forward pass, as a share of it, where it was measured.
        """
        seed = self.seeds.get(slot, _Seed())
        now = self.curve[-1] if self.curve else None
        measured = seed.measured
        judged = Judged(
            stage=stage,
            loss_with=None if measured is None else measured.loss_with,
            loss_without=None if measured is None else measured.loss_without,
            accuracy_with=None if measured is None else measured.accuracy_with,
            accuracy_without=None if measured is None else measured.accuracy_without,
            loss_now=None if now is None else now.val_loss,
            accuracy_now=None if now is None else now.val_accuracy,
            loss_alone=self._alone("val_loss"),
            accuracy_alone=self._alone("val_accuracy"),
            credited=self.credited,
            rivals=math.fsum(other.contribution for name, other in self.seeds.items() if name != slot),
            params=seed.params,
            host_params=self.host_params,
            latency_share=latency_share,
            alpha_moves=seed.moves,
            failures=seed.failures,
            rollbacks=seed.rollbacks,
        )
        found = reward(judged, self.weights)
        rest = {name: other for name, other in self.seeds.items() if name != slot}
        return replace(self, credited=self.credited + found.credited, seeds=rest), found, judged

    def _alone(self, curve: str) -> float | None:
        if self.begun is None or not self.begun or not self.curve:
            return None
        since = self.curve[-1].epoch - self.begun[-1].epoch
        return expected_alone(
            [getattr(epoch, curve) for epoch in self.begun],
            since,
            epoch=self.begun[-1].epoch,
            higher=curve == "val_accuracy",
        )

    def _seed(self, slot: str, **changes: Any) -> "Ledger":
        return replace(self, seeds={**self.seeds, slot: replace(self.seeds.get(slot, _Seed()), **changes)})


def _started(ledger: Ledger, event: AdaptationStarted) -> Ledger:
    return replace(ledger, weights=Setting.of(event.config).reward, host_params=event.host_params)


def _epoch(ledger: Ledger, event: EpochMeasured) -> Ledger:
    return replace(ledger, curve=(*ledger.curve, event)[-_CURVE:])


def _germinated(ledger: Ledger, event: SlotGerminated) -> Ledger:
    begun = ledger.curve if ledger.begun is None else ledger.begun
    return replace(ledger, begun=begun, seeds={**ledger.seeds, event.slot: _Seed(params=event.params)})


def _alpha(ledger: Ledger, event: SlotAlphaChanged) -> Ledger:
    return ledger._seed(event.slot, moves=ledger.seeds.get(event.slot, _Seed()).moves + 1)


def _stage(ledger: Ledger, event: SlotStageChanged) -> Ledger:
    return ledger._seed(event.slot, stage=event.to_stage) if event.slot in ledger.seeds else ledger


def _contribution(ledger: Ledger, event: SlotContribution) -> Ledger:
    return ledger._seed(event.slot, measured=event)


def _failed(ledger: Ledger, event: SlotFailed) -> Ledger:
    if event.slot is None or event.slot not in ledger.seeds:
        return ledger
    return ledger._seed(event.slot, failures=ledger.seeds[event.slot].failures + 1)


def _restored(ledger: Ledger, event: HostRestored) -> Ledger:
    for slot in event.slots:
        if slot in ledger.seeds:
            ledger = ledger._seed(slot, rollbacks=ledger.seeds[slot].rollbacks + 1)
    return ledger


_TAKES: dict[type[Event], Callable[[Ledger, Any], Ledger]] = {
    AdaptationStarted: _started,
    EpochMeasured: _epoch,
    SlotGerminated: _germinated,
    SlotAlphaChanged: _alpha,
    SlotContribution: _contribution,
    SlotStageChanged: _stage,
    SlotFailed: _failed,
    HostRestored: _restored,
}
