"""Measured health of seeds: read from gradients and weights as they stand, and from one forward pass when asked."""

import math
from collections.abc import Iterable

import msgspec
import torch
from torch import Tensor

from .host import NAME
from .slot import Slot
from .slots import Slots


class SeedHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one seed; None is not measured.

    `grad_ratio` is the seed's gradient norm over its host's, each over the root of its number of weights. `nonfinite`
    counts what is not finite among the seed's gradients and in the output that was measured.
    """

    slot: str
    seed: str
    grad_norm: float | None = None
    grad_ratio: float | None = None
    weight_norm: float | None = None
    output_mean: float | None = None
    output_variance: float | None = None
    nonfinite: float | None = None


def watch_outputs(slots: Slots) -> None:
    """Let every seed measure its output in its next forward pass in train mode; nothing is asked of dormant slots.

    Seeds inside a compiled graph are not reached: their outputs stay unmeasured.
    """
    for slot in slots.active():
        if slot.graft is not None:
            slot.graft.watching = True


def health(slots: Slots) -> dict[str, SeedHealth]:
    """Read what is known of every seed, by slot id, in the order of germination.

    Gradients are those that stand in `.grad` now: read between the backward pass and `zero_grad`. An output is given
    out once: after that it is not measured until `watch_outputs` asks again. Waits for the device.
    """
    return {slot.id: _health(slot) for slot in slots.active()}


def _health(slot: Slot) -> SeedHealth:
    graft = slot.graft
    assert graft is not None
    weights = slot.params()
    gradients = [parameter.grad for parameter in weights if parameter.grad is not None]
    own = _norm(gradients)
    statistics, graft.statistics = graft.statistics, None
    wrong: float | None = None
    if gradients or statistics is not None:
        wrong = float(sum(int(gradient.numel() - torch.isfinite(gradient).sum()) for gradient in gradients))
        wrong += statistics.nonfinite if statistics is not None else 0
    return SeedHealth(
        slot=slot.id,
        seed=graft.seed_id,
        grad_norm=own,
        grad_ratio=_ratio(slot, own, sum(gradient.numel() for gradient in gradients)),
        weight_norm=_norm([parameter.detach() for parameter in weights]),
        output_mean=None if statistics is None else statistics.mean,
        output_variance=None if statistics is None else statistics.variance,
        nonfinite=wrong,
    )


def _ratio(slot: Slot, own: float | None, count: int) -> float | None:
    host = [
        parameter.grad
        for name, parameter in slot.host.named_parameters()
        if parameter.grad is not None and NAME not in name.split(".")
    ]
    theirs = _norm(host)
    if own is None or not theirs or not count:
        return None
    return (own / math.sqrt(count)) / (theirs / math.sqrt(sum(gradient.numel() for gradient in host)))


def _norm(tensors: Iterable[Tensor]) -> float | None:
    norms = [torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64) for tensor in tensors]
    return float(torch.stack(norms).norm()) if norms else None
