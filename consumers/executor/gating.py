"""What is measured of a seed for its gates and for the log: only what was, None for the rest."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from torch import nn

from morphogen.kernels.slots import (
    GATE_OF,
    GateConfig,
    GateResult,
    Measurements,
    SeedHealth,
    Slot,
    Slots,
    Stage,
    evaluate_gate,
    health,
)
from morphogen.schemas import Names, SlotHealth

from .config import Bounds
from .seedling import Seedling
from .sentinel import Sentinel

SIGNALS = ("grad_norm", "grad_ratio", "weight_norm", "output_mean", "output_variance", "nonfinite")


def healths(slots: Slots, sentinel: Sentinel | None) -> dict[str, SeedHealth]:
    """Return the health of every seed; gradients are those of the last step, though the program has cleared them."""
    found = health(slots)
    norms = {} if sentinel is None else sentinel.grad_norms()
    for slot_id, one in found.items():
        slot = slots[slot_id]
        own = slot.params()
        seed = _per_weight(norms, own)
        if seed is None:
            continue
        host = _per_weight(norms, [p for p in slot.host.parameters() if not any(p is one_own for one_own in own)])
        found[slot_id] = msgspec.structs.replace(
            one,
            grad_norm=seed[0],
            grad_ratio=None if host is None or host[1] == 0 else seed[1] / host[1],
            nonfinite=0.0 if one.nonfinite is None else one.nonfinite,  # a step with others was not taken
        )
    return found


def _per_weight(norms: Mapping[int, float], params: Sequence[nn.Parameter]) -> tuple[float, float] | None:
    """Return the norm of some gradients, and that per root of their number of weights; None where none was measured."""
    known = [(norms[id(p)], p.numel()) for p in params if id(p) in norms]
    count = sum(number for _, number in known)
    if not count:
        return None
    norm = math.sqrt(math.fsum(value * value for value, _ in known))
    return norm, norm / math.sqrt(count)


def health_event(slots: Slots, measured: Mapping[str, SeedHealth]) -> SlotHealth | None:
    """Return the event that tells the health of all seeds, in the order of the slots; None where none stands."""
    standing = [slot for slot in slots.values() if slot.graft is not None]
    if not standing:
        return None
    vectors: dict[str, Any] = {}
    missing: dict[str, list[int]] = {}
    for signal in SIGNALS:
        values = [getattr(measured.get(slot.id), signal, None) for slot in standing]
        if any(value is not None for value in values):
            vectors[signal] = np.array([0.0 if value is None else value for value in values], np.float32)
            if gaps := [place for place, value in enumerate(values) if value is None]:
                missing[signal] = gaps
    return SlotHealth(
        slots=Names(slot.id for slot in standing),
        stages=[str(slot.stage) for slot in standing],
        alpha=np.array([slot.alpha for slot in standing], np.float64),
        epochs_in_stage=np.array([slot.epochs_in_stage for slot in standing], np.int32),
        missing=missing,
        **vectors,
    )


def measurements(slot: Slot, seedling: Seedling, health: SeedHealth | None, epoch: int) -> Measurements:
    """Return what is known of a seed now; a contribution of an earlier epoch is not."""
    judged = seedling.known(epoch)
    return Measurements(
        params=seedling.params,
        epochs_in_stage=slot.epochs_in_stage,
        alpha=slot.alpha,
        alpha_target=seedling.target,
        grad_norm=None if health is None else health.grad_norm,
        grad_ratio=None if health is None else health.grad_ratio,
        nonfinite=None if health is None else health.nonfinite,
        tripped=slot.tripped is not None,
        contribution=None if judged is None else judged.gain,
        accuracy_gain=None if judged is None else judged.accuracy_gain,
    )


def ask(slot: Slot, stage: Stage, measured: Measurements, bounds: Bounds) -> GateResult:
    """Ask the gate between a slot's stage and the next one."""
    config = GateConfig(
        min_training_epochs=bounds.min_training,
        min_holding_epochs=bounds.min_holding,
        min_contribution=bounds.min_contribution,
    )
    return evaluate_gate(GATE_OF[slot.stage, stage], measured, config)


def told(measured: Measurements) -> dict[str, float | None]:
    """Return measurements as the log holds them."""
    values = msgspec.structs.asdict(measured)
    return {name: None if value is None else float(value) for name, value in values.items()}
