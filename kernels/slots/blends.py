"""How a seed's output joins the host's: three blends, and the straight-through that trains a seed before it is blended."""

from typing import Literal

import torch
from torch import Tensor

Blend = Literal["add", "multiply", "gate"]
BLENDS: tuple[str, ...] = ("add", "multiply", "gate")


def blended(blend: str, host: Tensor, seed: Tensor, alpha: Tensor | float, gate: Tensor | None) -> Tensor:
    """Blend `seed` into `host`, both of one shape and dtype.

    add: `h + a*s`, which is `lerp(h, h + s, a)` without its rounding; multiply: `h * (1 + a*tanh(s))`; gate: as add, with
    `a * sigmoid(g)` for `a`, where `g` is learned. Each is the host at alpha 0, up to the sign of zeros: see `Graft`.
    """
    if blend == "multiply":
        return host * (1 + alpha * torch.tanh(seed))
    return host + alpha * _gated(seed, gate)


def straight_through(blend: str, host: Tensor, seed: Tensor, gate: Tensor | None) -> Tensor:
    """Give `host`, the same bits, with the gradient that `seed` and `gate` would have at alpha 1.

    What is subtracted is +0.0 for every finite number: that leaves also -0.0 as it is, where adding it would not.
    """
    part = host.detach() * torch.tanh(seed) if blend == "multiply" else _gated(seed, gate)
    part = torch.nan_to_num(part, nan=0.0, posinf=0.0, neginf=0.0)
    return host - (part.detach() - part)


def _gated(seed: Tensor, gate: Tensor | None) -> Tensor:
    return seed if gate is None else seed * torch.sigmoid(gate).to(seed.dtype)
