"""A grown model again, from its description and a state_dict."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch
from torch import nn

from .cutoff import Cutoff
from .errors import SlotError
from .lifecycle import SEEDED, Stage
from .ramps import Ramp
from .sites import kind_of
from .slots import FORMAT, Slots, place

Build = Callable[[str, int], nn.Module]
"""Builds a seed again, of the right shapes, from `blueprint` and `generator_seed` as they were given to `germinate`."""


class _Ramp(msgspec.Struct, forbid_unknown_fields=True):
    start: float
    end: float
    steps: int
    curve: str
    done: int


class _Slot(msgspec.Struct, forbid_unknown_fields=True):
    slot: str
    stage: Stage
    epochs_in_stage: int
    germinated: int
    seed: str | None = None
    blueprint: str | None = None
    spec: str | None = None
    generator_seed: int = 0
    blend: str = "add"
    isolate: bool = False
    alpha: float = 0.0
    ramp: _Ramp | None = None
    tripped: str | None = None


class _Site(msgspec.Struct, forbid_unknown_fields=True):
    site: str
    given: list[int] | None
    gave: list[int] | None
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
    state_dict loads. Raises SlotError, with the model as it was, where the description does not fit.
    """
    try:
        found = msgspec.convert(description, _Description)
    except msgspec.ValidationError as error:
        raise SlotError(f"this is no description of slots: {error}") from error
    if found.format != FORMAT:
        raise SlotError(f"this description has format {found.format}, and this version reads {FORMAT}")
    slots = place(model, [site.site for site in found.sites], found.slots_per_site, cutoff=cutoff)
    grown: list[str] = []
    try:
        for site in found.sites:
            _shapes(slots, site)
        for entry in found.slots:
            if entry.slot not in slots:
                raise SlotError(f"the description has a slot {entry.slot!r}, and the model has no such site")
            slot = slots[entry.slot]
            slot.germinated = entry.germinated
            if entry.stage in SEEDED:
                slot.germinated -= 1
                slot.germinate(
                    _built(entry, build),
                    blueprint=entry.blueprint or "",
                    generator_seed=entry.generator_seed,
                    blend=entry.blend,
                    isolate=entry.isolate,
                    spec=None if entry.spec is None else base64.b64decode(entry.spec),
                )
                grown.append(slot.id)
            _resume(slots, entry)
    except SlotError:
        for slot_id in grown:
            slots[slot_id].uproot()
        raise
    slots.record_first_pass()
    return slots


def _built(entry: _Slot, build: Build | None) -> nn.Module:
    if build is not None:
        return build(entry.blueprint or "", entry.generator_seed)
    if entry.spec is None:
        raise SlotError(
            f"{entry.slot}: the description does not say how {entry.blueprint!r} is built; "
            "give `build`, or `spec` when it germinates"
        )
    from morphogen.kernels import blueprints

    return blueprints.build(blueprints.decode(base64.b64decode(entry.spec)), seed=entry.generator_seed)


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


def _resume(slots: Slots, entry: _Slot) -> None:
    ramp = entry.ramp
    slots[entry.slot].resume(
        stage=entry.stage,
        epochs_in_stage=entry.epochs_in_stage,
        alpha=entry.alpha,
        ramp=None
        if ramp is None
        else (Ramp(start=ramp.start, end=ramp.end, steps=ramp.steps, curve=ramp.curve), ramp.done),
        tripped=entry.tripped,
    )
