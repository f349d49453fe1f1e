"""Where every slot of a run stands, folded from its `slot.*` events alone: pure, and the same on every replay.

At the end of each epoch this is, bit for bit, what `standing` reads from the living slots; between two ends of an epoch
alpha is that of the last one, for a ramp goes on with the optimizer's steps and each step is no event.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from morphogen.schemas import (
    AdaptationStarted,
    Event,
    SlotAlphaChanged,
    SlotContribution,
    SlotFailed,
    SlotGerminated,
    SlotHealth,
    SlotStageChanged,
    vector,
)

LIVE = frozenset({"germinated", "training", "blending", "holding"})  # a seed stands and is not judged yet
STANDING = LIVE | {"fossilized"}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One slot. What belongs to a seed is None, or 0, where none stands."""

    slot: str
    site: str
    stage: str = "dormant"
    seed: str | None = None
    blueprint: str | None = None
    params: int = 0
    flops: int | None = None
    rng_seed: int | None = None
    blend: str | None = None
    alpha: float = 0.0
    alpha_to: float | None = None  # where the last ramp goes
    ramp: str | None = None
    ramp_steps: int | None = None
    epochs_in_stage: int = 0
    decision: str | None = None  # that germinated the seed
    contribution: float | None = None  # the last measured one, in loss
    germinated: int = 0  # so far
    pruned: int = 0
    failures: int = 0


States = Mapping[str, Standing]


def fold(states: States, event: Event) -> States:
    """Return the states after `event`; an event that is not about a slot changes nothing."""
    take = _FOLDS.get(type(event))
    return states if take is None else take(states, event)


def fold_all(events: Iterable[Event]) -> States:
    """Return the states after all of `events`, in their order."""
    states: States = {}
    for event in events:
        states = fold(states, event)
    return states


def _started(states: States, event: AdaptationStarted) -> States:
    names = [(f"{site.site}#{number}", site.site) for site in event.sites for number in range(site.slots)]
    return {name: Standing(slot=name, site=site) for name, site in names}


def _changed(states: States, slot: str, **changes: Any) -> States:
    known = states.get(slot) or Standing(slot=slot, site=slot.rpartition("#")[0] or slot)
    return {**states, slot: msgspec.structs.replace(known, **changes)}


def _cleared(known: Standing) -> Standing:
    return Standing(
        slot=known.slot, site=known.site, germinated=known.germinated, pruned=known.pruned, failures=known.failures
    )


def _germinated(states: States, event: SlotGerminated) -> States:
    known = states.get(event.slot)
    return _changed(
        states,
        event.slot,
        stage="germinated",
        seed=event.seed,
        blueprint=event.blueprint,
        params=event.params,
        flops=event.flops,
        rng_seed=event.rng_seed,
        alpha=0.0,
        epochs_in_stage=0,
        decision=event.decision,
        germinated=1 + (known.germinated if known else 0),
    )


def _stage(states: States, event: SlotStageChanged) -> States:
    known = states.get(event.slot)
    if event.to_stage == "pruned":
        known = _cleared(known or Standing(slot=event.slot, site=event.slot.rpartition("#")[0] or event.slot))
        return {**states, event.slot: msgspec.structs.replace(known, stage="pruned", pruned=known.pruned + 1)}
    return _changed(states, event.slot, stage=event.to_stage, alpha=event.alpha, epochs_in_stage=0)


def _alpha(states: States, event: SlotAlphaChanged) -> States:
    return _changed(
        states,
        event.slot,
        alpha=event.alpha_to if event.steps <= 0 else event.alpha_from,
        alpha_to=event.alpha_to,
        ramp=event.ramp,
        ramp_steps=event.steps,
        blend=event.blend,
    )


def _health(states: States, event: SlotHealth) -> States:
    alphas = vector(event.alpha).tolist()
    epochs = [] if event.epochs_in_stage is None else vector(event.epochs_in_stage).tolist()
    for place, slot in enumerate(event.slots):
        states = _changed(
            states,
            slot,
            alpha=float(alphas[place]),
            **({"epochs_in_stage": int(epochs[place])} if place < len(epochs) else {}),
        )
    return states


def _contribution(states: States, event: SlotContribution) -> States:
    if event.loss_with is None or event.loss_without is None:
        return _changed(states, event.slot, contribution=None)
    return _changed(states, event.slot, contribution=event.loss_without - event.loss_with)


def _failed(states: States, event: SlotFailed) -> States:
    if event.slot is None:
        return states
    known = states.get(event.slot)
    return _changed(states, event.slot, failures=1 + (known.failures if known else 0))


_FOLDS: dict[type[Event], Callable[[States, Any], States]] = {
    AdaptationStarted: _started,
    SlotGerminated: _germinated,
    SlotStageChanged: _stage,
    SlotAlphaChanged: _alpha,
    SlotHealth: _health,
    SlotContribution: _contribution,
    SlotFailed: _failed,
}
