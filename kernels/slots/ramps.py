"""Ramps of alpha: pure functions of the number of optimizer steps."""

import math
from typing import Literal

import msgspec

from .errors import SlotError

Curve = Literal["linear", "cosine", "sigmoid"]
CURVES: tuple[str, ...] = ("linear", "cosine", "sigmoid")

STEEPNESS = 6.0  # of the sigmoid, at either end of the ramp


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """Alpha from `start` to `end` over `steps` optimizer steps; `steps` 0 is at once."""

    start: float
    end: float
    steps: int
    curve: str = "linear"

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if not 0.0 <= value <= 1.0:
                raise SlotError(f"a ramp's {name} is from 0 to 1, not {value}")
        if self.steps < 0:
            raise SlotError(f"a ramp takes 0 steps or more, not {self.steps}")
        if self.curve not in CURVES:
            raise SlotError(f"{self.curve!r} is no ramp; the ramps are {', '.join(CURVES)}")

    def at(self, step: int) -> float:
        """Give alpha after `step` steps: exactly `start` at 0, exactly `end` from `steps` on, monotonic between."""
        if step >= self.steps:
            return self.end
        if step <= 0:
            return self.start
        share = _shape(self.curve, step / self.steps)
        low, high = sorted((self.start, self.end))
        return min(max(self.start + (self.end - self.start) * share, low), high)


def _shape(curve: str, share: float) -> float:
    """Bend `share`, from 0 to 1; every curve goes from 0 to 1."""
    if curve == "cosine":
        return 0.5 - 0.5 * math.cos(math.pi * share)
    if curve == "sigmoid":
        low = 1.0 / (1.0 + math.exp(STEEPNESS))
        return (1.0 / (1.0 + math.exp(STEEPNESS - 2.0 * STEEPNESS * share)) - low) / (1.0 - 2.0 * low)
    return share
