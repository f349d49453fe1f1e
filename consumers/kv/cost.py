"""Restore a KV state or compute it again: a model of what both cost, fitted to what was measured on this machine.

Each way costs a fixed overhead and a time per unit: bytes out of a tier, tokens of a prefill. Both are fitted by least
squares over what was seen, the newest counting most, in relative terms: what decides is near the break-even, where
the numbers are small. Pure: measurements come in, a decision goes out.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from morphogen.schemas.kv import TIERS

Choice = Literal["restore", "recompute"]
Reason = Literal["faster", "unavailable", "refused", "forced"]

_FADE = 0.9  # what an older measurement weighs against the next one
_RESTORE = 1e-9  # seconds a byte that is assumed before anything was measured: 1 GB/s
_PREFILL = 2e-3  # seconds a token that is assumed: 500 tokens a second


@dataclass(frozen=True)
class Line:
    """`seconds = overhead + slope * units`, from weighted sums of what was measured."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    assumed: float = _RESTORE  # seconds a unit
    by_unit: bool = False  # where no overhead can be told from the units: all is by the unit, else all but the assumed

    def observe(self, units: float, seconds: float) -> "Line":
        """Return the line with one more measurement; one that makes no sense is passed over."""
        if not (0 < units < float("inf")) or not (0 < seconds < float("inf")):
            return self
        share = 1.0 / (seconds * seconds)
        return replace(
            self,
            weight=self.weight * _FADE + share,
            x=self.x * _FADE + share * units,
            y=self.y * _FADE + share * seconds,
            xx=self.xx * _FADE + share * units * units,
            xy=self.xy * _FADE + share * units * seconds,
        )

    @property
    def measured(self) -> bool:
        """Whether anything was."""
        return self.weight > 0

    @property
    def fit(self) -> tuple[float, float]:
        """The overhead in seconds, and the seconds a unit; neither is below zero, and the slope is above it."""
        if not self.measured:
            return 0.0, self.assumed
        spread = self.xx * self.weight - self.x * self.x
        if spread > 1e-9 * self.xx * self.weight:
            slope = (self.xy * self.weight - self.x * self.y) / spread
            overhead = (self.y - slope * self.x) / self.weight
            if slope > 0 and overhead >= 0:
                return overhead, slope
            if slope > 0:
                return 0.0, self.xy / self.xx
        if self.by_unit:
            return 0.0, self.xy / self.xx
        slope = min(self.assumed, self.xy / self.xx)
        return max(0.0, (self.y - slope * self.x) / self.weight), slope

    def seconds(self, units: float) -> float:
        """Return what so many units are expected to take."""
        overhead, slope = self.fit
        return overhead + slope * units


@dataclass(frozen=True)
class Decision:
    """What to do, and the numbers that it follows from."""

    choice: Choice
    reason: Reason
    tokens: int
    size: int
    tier: str
    restore: float  # seconds
    recompute: float
    bandwidth: float  # bytes a second
    overhead: float
    prefill_rate: float  # tokens a second


@dataclass(frozen=True)
class Costs:
    """What restoring from each tier and prefilling cost here."""

    tiers: dict[str, Line] = field(default_factory=lambda: {tier: Line() for tier in TIERS})
    prefill: Line = field(default_factory=lambda: Line(assumed=_PREFILL, by_unit=True))

    def restored(self, tier: str, size: int, seconds: float) -> "Costs":
        """Return the model after a restore out of `tier` took so long."""
        line = self.tiers.get(tier, Line()).observe(size, seconds)
        return replace(self, tiers={**self.tiers, tier: line})

    def prefilled(self, tokens: int, seconds: float) -> "Costs":
        """Return the model after so many tokens were computed in that time."""
        return replace(self, prefill=self.prefill.observe(tokens, seconds))

    def decide(
        self, *, tokens: int, size: int, tier: str, available: bool = True, force: Choice | None = None
    ) -> Decision:
        """Return what is faster for a state of `tokens` tokens and `size` bytes in `tier`.

        `available` is false where the bytes are not to be had; `force` takes the choice away.
        """
        line = self.tiers.get(tier, Line())
        overhead, slope = line.fit
        restore, recompute = line.seconds(size), self.prefill.seconds(tokens)
        choice: Choice = "restore" if restore <= recompute else "recompute"
        reason: Reason = "faster"
        if not available:
            choice, reason = "recompute", "unavailable"
        elif force is not None:
            choice, reason = force, "forced"
        return Decision(
            choice, reason, tokens, size, tier, restore, recompute, 1 / slope, overhead, 1 / self.prefill.fit[1]
        )

    def break_even(self, tier: str, bytes_per_token: float) -> float | None:
        """Return from how many tokens on a restore is the faster way; None where it never is, 0 where it always is."""
        overhead, slope = self.tiers.get(tier, Line()).fit
        fixed, each = self.prefill.fit
        gain = each - slope * bytes_per_token
        if overhead <= fixed:
            return 0.0 if gain >= 0 else None
        return (overhead - fixed) / gain if gain > 0 else None
