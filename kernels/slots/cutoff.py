"""The cutoff: a seed whose output is not finite, or explodes, is cut off in the forward pass in which it does so.

On a processor, and outside of compiled graphs, the check is a branch: the host's output is given on, no graph leads to the
seed any more, and the reason stands in `Slot.tripped` before the forward pass ends. Inside `torch.compile` and on a GPU a
branch would break the graph or stall the stream, so there the choice is a select and the reason a number in a buffer;
reading `Slot.tripped` then waits for the device. In exported graphs, under `torch.func` and in tracing there is no check.
"""

import math

import msgspec
import torch
from torch import Tensor

from .errors import SlotError

EXPLODING = 1
NONFINITE = 2


class Cutoff(msgspec.Struct, frozen=True, kw_only=True):
    """When a seed is cut off.

    `exploding` bounds the root mean square of the seed's output over that of the host's; `floor` is the least that the
    host's counts as, so that a host that gives zeros cuts nothing off. A host that is itself not finite cuts nothing off.
    """

    enabled: bool = True
    exploding: float = 1e3
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.exploding > 0 and self.floor > 0):
            raise SlotError("a cutoff's `exploding` and `floor` are above 0; `enabled=False` switches the check off")


def reason(code: int) -> str | None:
    """Say what a number in the buffer means."""
    return {EXPLODING: "exploding: the seed's output left its bound", NONFINITE: "nonfinite: the seed's output"}.get(
        code
    )


def check(seed: Tensor, host: Tensor, config: Cutoff) -> str | None:
    """Say what is wrong with a seed's output, or None: waits for the device."""
    count = seed.numel()
    if not count:
        return None
    root = math.sqrt(count)
    found = _norm(seed).item() / root
    if found <= config.exploding * config.floor:  # most seeds end here, after one pass over their output
        return None
    own = _norm(host).item() / root
    if not math.isfinite(own):
        return None
    limit = config.exploding * max(own, config.floor)
    if found <= limit:
        return None
    if not math.isfinite(found) and not bool(torch.isfinite(seed).all()):
        wrong = count - int(torch.isfinite(seed).sum())
        return f"nonfinite: {wrong} of {count} numbers of the seed's output"
    return f"exploding: root mean square {found:.3g} of the seed's output is above {limit:.3g}"


def verdict(seed: Tensor, host: Tensor, config: Cutoff) -> Tensor:
    """Give the number of what is wrong, 0 for nothing, as a tensor on the device: waits for nothing."""
    found, own = _norm(seed), _norm(host)
    limit = config.exploding * own.clamp_min(config.floor * seed.numel() ** 0.5)
    good = (found <= limit) | ~torch.isfinite(own)
    code = torch.where(torch.isfinite(found), EXPLODING, NONFINITE)
    return torch.where(good, 0, code).to(torch.int32)


def _norm(values: Tensor) -> Tensor:
    """L2 norm; in float32 for the half precisions, whose own sums overflow early."""
    values = values.detach()
    wide = values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float32
    norm: Tensor = torch.linalg.vector_norm(values, dtype=wide)
    return norm
