"""The log of a run, folded to what a policy has to know: pure, and the same bits on every replay.

`fold` takes one event after the other and never changes the state that it was given. Samples of layer health belong to
the epoch whose steps they are of, whenever they arrive; all else is taken in its own order (`timeline` restores it).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from morphogen.schemas import (
    AdaptationStarted,
    ArtifactQuarantined,
    EpochMeasured,
    Event,
    HostRestored,
    LayerHealth,
    SiteInfo,
    SlotAlphaChanged,
    SlotContribution,
    SlotFailed,
    SlotGerminated,
    SlotHealth,
    SlotStageChanged,
    vector,
)

from .limits import Setting
from .protocol import ACTIVE
from .samples import EMPTY, Bin, Sample, aligned

if TYPE_CHECKING:
    from .protocol import Floats

EPOCHS = 20  # the longest window
SEED_SIGNALS = ("grad_norm", "grad_ratio", "weight_norm", "output_mean", "output_variance", "nonfinite")
_NONE = Setting.of({})


@dataclass(frozen=True)
class Judgement:
    """A seed's measured contribution: what it takes off the loss, and what it adds to the accuracy."""

    epoch: int
    alpha: float
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class SlotState:
    """Where a slot stands."""

    slot: str
    site: str
    stage: str = "dormant"
    since: int = -1  # the epoch after which it entered the stage
    seed: str | None = None
    blueprint: str | None = None
    params: int = 0
    flops: int = 0
    alpha: float = 0.0
    target: float | None = None
    decision: str | None = None  # that germinated the seed
    health: Mapping[str, float] = field(default_factory=dict)
    contribution: Judgement | None = None
    germinated: int = 0
    pruned: int = 0
    failures: int = 0


@dataclass(frozen=True)
class State:
    """All that observations are made of; `epoch` is the last one that was measured, -1 before the first."""

    sites: tuple[SiteInfo, ...] = ()
    setting: Setting = _NONE
    seed: int = 0
    host_params: int = 0
    sizes: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)  # of each site, see `_sizes`
    epoch: int = -1
    epochs: tuple[EpochMeasured, ...] = ()  # the last EPOCHS of them
    best_loss: float | None = None
    best_epoch: int = -1
    plateau_since: int | None = None
    slots: Mapping[str, SlotState] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    past: tuple["Floats", ...] = ()  # a (layers, signals) mean for each epoch before the last one, EPOCHS at most
    boundary: int | None = None  # the step of the last epoch
    closing: Bin = EMPTY  # samples of the last epoch: some may still come
    coming: Bin = EMPTY  # samples of the steps after it
    changed: int | None = None  # the epoch after which something was last germinated, pruned or fossilized
    troubled: int | None = None  # the epoch of the last failure or rollback
    rollbacks: int = 0
    failures: int = 0
    quarantined: frozenset[str] = frozenset()

    @cached_property
    def active(self) -> int:
        """Seeds that are not judged yet."""
        return sum(slot.stage in ACTIVE for slot in self.slots.values())

    @cached_property
    def fossilized(self) -> int:
        """Seeds that have become a part of the host."""
        return sum(slot.stage == "fossilized" for slot in self.slots.values())

    @cached_property
    def grown(self) -> tuple[int, int]:
        """Parameters and FLOPs of all seeds that stand."""
        standing = [slot for slot in self.slots.values() if slot.stage in ACTIVE or slot.stage == "fossilized"]
        return sum(slot.params for slot in standing), sum(slot.flops for slot in standing)


def fold(state: State, event: Event, step: int | None = None) -> State:
    """Return the state after `event`, which was recorded at optimizer step `step`. Events of no meaning here pass by."""
    take = _FOLDS.get(type(event))
    return state if take is None else take(state, event, step)


def epoch_means(state: State) -> "tuple[Floats, ...]":
    """Return the mean health of the layers in each of the last epochs, oldest first, the newest one included."""
    if state.epoch < 0:
        return ()
    layers = newest_layers(state)
    return (*(aligned(array, state.layers, layers) for array in state.past), state.closing.mean(layers))


def newest_layers(state: State) -> tuple[str, ...]:
    """Return the layers whose health was measured, as of the last epoch that has any."""
    return state.closing.layers() or state.layers


def _started(state: State, event: AdaptationStarted, step: int | None) -> State:
    names = [f"{site.site}#{number}" for site in event.sites for number in range(site.slots)]
    begun = State(boundary=state.boundary, closing=state.closing, coming=state.coming)  # health may have come before
    return replace(
        begun,
        sites=tuple(event.sites),
        setting=Setting.of(event.config),
        seed=event.seed,
        host_params=event.host_params,
        sizes={site.site: _sizes(site) for site in event.sites},
        slots={name: SlotState(name, name.rpartition("#")[0]) for name in names},
    )


def _sizes(site: SiteInfo) -> tuple[float, float, float]:
    """Return how wide is what goes into a site and what comes out (features, or channels), and log(1 + parameters)."""
    widths = [
        float(shape[0] if site.kind == "image" else shape[-1]) if shape else math.nan
        for shape in (site.in_shape, site.out_shape)
    ]
    return widths[0], widths[1], math.log1p(max(0, site.params))


def _epoch(state: State, event: EpochMeasured, step: int | None) -> State:
    closing, coming = state.coming.split(step)
    loss = event.val_loss if event.val_loss is not None else event.train_loss
    better = loss is not None and math.isfinite(loss) and (state.best_loss is None or loss < state.best_loss)
    since = state.plateau_since if state.plateau_since is not None else event.epoch
    return replace(
        state,
        epoch=event.epoch,
        epochs=(*state.epochs, event)[-EPOCHS:],
        best_loss=loss if better else state.best_loss,
        best_epoch=event.epoch if better else state.best_epoch,
        plateau_since=since if event.plateau else None,
        past=epoch_means(state)[-(EPOCHS - 1) :],
        layers=newest_layers(state),
        boundary=step,
        closing=closing,
        coming=coming,
    )


def _layers(state: State, event: LayerHealth, step: int | None) -> State:
    if step is None:
        newest = state.coming.sample
        step = state.coming.stride + (newest.step if newest is not None else state.boundary or 0)
    late = state.boundary is not None and step <= state.boundary
    into = state.closing if late else state.coming
    if not into.takes(step):
        return state
    into = into.add(Sample.of(event, step))
    return replace(state, closing=into) if late else replace(state, coming=into)


def _changed(state: State, slot: str, **changes: Any) -> State:
    known = state.slots.get(slot) or SlotState(slot, slot.rpartition("#")[0] or slot)
    return replace(state, slots={**state.slots, slot: replace(known, **changes)})


def _germinated(state: State, event: SlotGerminated, step: int | None) -> State:
    known = state.slots.get(event.slot)
    state = _changed(
        state,
        event.slot,
        stage="germinated",
        since=state.epoch,
        seed=event.seed,
        blueprint=event.blueprint,
        params=event.params,
        flops=event.flops or 0,
        alpha=0.0,
        target=None,
        decision=event.decision,
        health={},
        contribution=None,
        germinated=1 + (known.germinated if known else 0),
    )
    return replace(state, changed=state.epoch)


def _stage(state: State, event: SlotStageChanged, step: int | None) -> State:
    known = state.slots.get(event.slot)
    if known is not None and known.stage == event.to_stage == "germinated":
        return state  # told already by the event that names the seed
    changes: dict[str, Any] = {"stage": event.to_stage, "since": state.epoch, "alpha": event.alpha}
    if event.to_stage == "pruned":
        changes |= {"pruned": 1 + (known.pruned if known else 0), "params": 0, "flops": 0, "target": None}
    if event.to_stage == "dormant":
        changes |= {"seed": None, "blueprint": None, "health": {}, "contribution": None, "decision": None}
    state = _changed(state, event.slot, **changes)
    return replace(state, changed=state.epoch) if event.to_stage in {"pruned", "fossilized"} else state


def _alpha(state: State, event: SlotAlphaChanged, step: int | None) -> State:
    alpha = event.alpha_to if event.steps <= 0 else event.alpha_from
    return _changed(state, event.slot, alpha=alpha, target=event.alpha_to)


def _slot_health(state: State, event: SlotHealth, step: int | None) -> State:
    columns = {signal: getattr(event, signal) for signal in SEED_SIGNALS}
    slots = dict(state.slots)
    for at, (slot, alpha) in enumerate(zip(event.slots, vector(event.alpha).tolist(), strict=False)):
        known = slots.get(slot) or SlotState(slot, slot.rpartition("#")[0] or slot)
        health = {
            signal: float(values[at])
            for signal, values in columns.items()
            if values is not None and at < len(values) and at not in event.missing.get(signal, ())
        }
        slots[slot] = replace(known, alpha=float(alpha), health=health)
    return replace(state, slots=slots)


def _contribution(state: State, event: SlotContribution, step: int | None) -> State:
    judged = Judgement(
        epoch=state.epoch,
        alpha=event.alpha,
        loss=_less(event.loss_without, event.loss_with),
        accuracy=_less(event.accuracy_with, event.accuracy_without),
    )
    return _changed(state, event.slot, contribution=judged)


def _less(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return None
    difference = one - other
    return difference if math.isfinite(difference) else None


def _failed(state: State, event: SlotFailed, step: int | None) -> State:
    state = replace(state, failures=state.failures + 1, troubled=state.epoch)
    if event.slot is None:
        return state
    known = state.slots.get(event.slot)
    return _changed(state, event.slot, failures=1 + (known.failures if known else 0))


def _restored(state: State, event: HostRestored, step: int | None) -> State:
    return replace(state, rollbacks=state.rollbacks + 1, troubled=state.epoch)


def _quarantined(state: State, event: ArtifactQuarantined, step: int | None) -> State:
    return replace(state, quarantined=state.quarantined | {event.blueprint})


_FOLDS: dict[type[Event], Callable[[State, Any, int | None], State]] = {
    AdaptationStarted: _started,
    EpochMeasured: _epoch,
    LayerHealth: _layers,
    SlotGerminated: _germinated,
    SlotStageChanged: _stage,
    SlotAlphaChanged: _alpha,
    SlotHealth: _slot_health,
    SlotContribution: _contribution,
    SlotFailed: _failed,
    HostRestored: _restored,
    ArtifactQuarantined: _quarantined,
}
