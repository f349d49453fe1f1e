"""A grown model again, from its description and a state_dict."""

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
import torch
from torch import nn

from morphogen.schemas import line_of

from .cutoff import Cutoff
from .errors import SlotError
from .lifecycle import RAMPED, SEEDED, Stage
from .ramps import Ramp
from .sites import kind_of
from .slot import Slot
from .slots import FORMAT, Slots, place

Build = Callable[[str, int], nn.Module]
"""Builds a seed again, of the right shapes, from `blueprint` and `generator_seed` as they were given to `germinate`."""


_Count = Annotated[int, msgspec.Meta(ge=0)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class _Ramp(msgspec.Struct, forbid_unknown_fields=True):
    start: _Share
    end: _Share
    steps: _Count
    curve: str
    done: _Count


class _Slot(msgspec.Struct, forbid_unknown_fields=True):
    slot: str
    stage: Stage
    epochs_in_stage: _Count
    germinated: _Count
    seed: str | None = None
    blueprint: str | None = None
    spec: str | None = None
    generator_seed: int = 0
    blend: str = "add"
    isolate: bool = False
    alpha: _Share = 0.0
    ramp: _Ramp | None = None
    tripped: str | None = None


class _Site(msgspec.Struct, forbid_unknown_fields=True):
    site: str
    given: list[_Count] | None
    gave: list[_Count] | None
    dtype: str | None


class _Description(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    slots_per_site: int
    sites: list[_Site]
    slots: list[_Slot]


def restore(
    model: nn.Module, description: Mapping[str, Any], build: Build | None = None, *, cutoff: Cutoff | None = None
) -> Slots:
    """Grow a fresh `model` as `Slots.describe()` says; `load_state_dict` then fills in the weights.

    Without `build`, seeds are built from the blueprints that they germinated with (`spec`). An optimizer that is made from
    `model.parameters()` now, or that the seeds `join` now, has its parameters in the order of the grown model's: its
    state_dict loads. Raises SlotError where the description does not fit, and whatever `build` raises; the model is
    then as it was.
    """
    try:
        found = msgspec.convert(description, _Description)
    except msgspec.ValidationError as error:
        raise SlotError(f"this is no description of slots: {error}") from error
    if found.format != FORMAT:
        raise SlotError(f"this description has format {found.format}, and this version reads {FORMAT}")
    _check(found)
    slots = place(model, [site.site for site in found.sites], found.slots_per_site, cutoff=cutoff)
    try:
        for site in found.sites:
            _shapes(slots, site)
        for entry in found.slots:
            _grow(slots, entry, build)
    except BaseException:
        for slot in slots.values():
            slot.uproot()
        raise
    slots.record_first_pass()
    return slots


def _check(found: _Description) -> None:
    """Refuse what no slots could have said of themselves."""
    number = len(found.sites) * found.slots_per_site
    if len(found.slots) != number:
        raise SlotError(f"the description has {len(found.slots)} slots, and its sites have {number}")
    twice = [name for name, times in Counter(entry.slot for entry in found.slots).items() if times > 1]
    if twice:
        raise SlotError(f"the description has the slot {twice[0]!r} twice")
    for entry in found.slots:
        if entry.stage in SEEDED and not entry.germinated:
            raise SlotError(f"{entry.slot}: a seed stands here, and none has germinated")
        ramp = entry.ramp
        if ramp is not None and entry.stage not in RAMPED:
            raise SlotError(f"{entry.slot}: a ramp is under way, and the slot is {entry.stage}")
        if ramp is not None and ramp.done > ramp.steps:
            raise SlotError(f"{entry.slot}: {ramp.done} steps of a ramp of {ramp.steps} are done")


def _grow(slots: Slots, entry: _Slot, build: Build | None) -> None:
    if entry.slot not in slots:
        raise SlotError(f"the description has a slot {entry.slot!r}, and the model has no such site")
    slot = slots[entry.slot]
    slot.germinated = entry.germinated
    if entry.stage in SEEDED:
        slot.germinated -= 1
        spec = _spec(entry)
        slot.germinate(
            _built(entry, spec) if build is None else build(entry.blueprint or "", entry.generator_seed),
            blueprint=entry.blueprint or "",
            generator_seed=entry.generator_seed,
            blend=entry.blend,
            isolate=entry.isolate,
            spec=spec,
        )
    _resume(slot, entry)


def _spec(entry: _Slot) -> bytes | None:
    try:
        return None if entry.spec is None else base64.b64decode(entry.spec, validate=True)
    except ValueError as error:
        raise SlotError(f"{entry.slot}: its spec is no base64: {error}") from error


def _built(entry: _Slot, spec: bytes | None) -> nn.Module:
    if spec is None:
        raise SlotError(
            f"{entry.slot}: the description does not say how {entry.blueprint!r} is built; "
            "give `build`, or `spec` when it germinates"
        )
    from morphogen.kernels import blueprints

    try:
        return blueprints.build(blueprints.decode(spec), seed=entry.generator_seed)
    except Exception as error:  # bytes that anybody may have written
        raise SlotError(f"{entry.slot}: its spec cannot be built: {type(error).__name__}: {line_of(error)}") from error


def _shapes(slots: Slots, entry: _Site) -> None:
    site = slots.site(entry.site)
    if entry.given is None or entry.gave is None or entry.dtype is None:
        return
    dtype = getattr(torch, entry.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise SlotError(f"{entry.site}: {entry.dtype!r} is no dtype of torch")
    site.given, site.gave, site.dtype = entry.given, entry.gave, dtype
    site.kind, site.in_shape, site.out_shape = kind_of(
        site.module, entry.given, entry.gave, batch_first=site.batch_first
    )


def _resume(slot: Slot, entry: _Slot) -> None:
    ramp = entry.ramp
    slot.resume(
        stage=entry.stage,
        epochs_in_stage=entry.epochs_in_stage,
        alpha=entry.alpha,
        ramp=None
        if ramp is None
        else (Ramp(start=ramp.start, end=ramp.end, steps=ramp.steps, curve=ramp.curve), ramp.done),
        tripped=entry.tripped,
    )
