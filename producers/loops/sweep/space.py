"""The space of a sweep: axes of values, and the configurations they span.

A space is never unfolded: a configuration is found from its number, so that ten thousand or ten million of them cost
nothing until they are asked for. Numbers run row-major: the last axis turns fastest.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SpaceError

Config = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """Values of any kind, in the order written."""

    name: str
    values: tuple[Any, ...]

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values)

    def at(self, index: int) -> Any:
        """Return the value at a place."""
        return self.values[index]

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers that rise or fall, so that neighbours are alike."""
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        pairs = list(zip(self.values, self.values[1:], strict=False))
        return numbers and (all(a < b for a, b in pairs) or all(a > b for a, b in pairs))

    def plain(self) -> Any:
        """Return the axis as plain values, for the log."""
        return list(self.values)


@dataclass(frozen=True)
class Steps:
    """Numbers from `low` to at most `high`, `step` apart; with `log`, each `step` times the one before."""

    name: str
    low: float
    high: float
    step: float
    log: bool = False

    ordered = True

    @property
    def count(self) -> int:
        """How many values there are."""
        # A hair more than the quotient, so that range[0, 1, 0.1] ends at 1 although 0.1 is no binary fraction.
        if self.log:
            return math.floor(math.log(self.high / self.low) / math.log(self.step) + 1e-9) + 1
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def at(self, index: int) -> Any:
        """Return the value at a place."""
        value = self.low * self.step**index if self.log else self.low + index * self.step
        whole = all(isinstance(each, int) for each in (self.low, self.high, self.step))
        return value if whole else float(f"{value:.12g}")

    def plain(self) -> Any:
        """Return the axis as plain values, for the log."""
        return {"low": self.low, "high": self.high, "step": self.step, "log": self.log}


@dataclass(frozen=True)
class Continuous:
    """Any number between `low` and `high`; with `log`, by its order of magnitude."""

    name: str
    low: float
    high: float
    log: bool = False

    count = None
    ordered = True

    def within(self, share: float) -> float:
        """Return the number at `share` (0 to 1) of the way, rounded to 12 digits so that every machine agrees."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            found = math.exp(low + share * (high - low))
        else:
            found = self.low + share * (self.high - self.low)
        return min(max(float(f"{found:.12g}"), self.low), self.high)

    def plain(self) -> Any:
        """Return the axis as plain values, for the log."""
        return {"low": self.low, "high": self.high, "log": self.log}


Axis = Choice | Steps | Continuous


def axis_from(name: str, low: Any, high: Any, step: Any, log: bool) -> Axis:
    """Make the axis of `range[low, high, step] log`. Whole numbers without a step are 1 apart, or with log doubled.

    Raises SpaceError where the bounds or the step cannot be.
    """
    bounds = [low, high] if step is None else [low, high, step]
    if any(isinstance(each, bool) or not isinstance(each, int | float) or not math.isfinite(each) for each in bounds):
        raise SpaceError(f"parameter {name}: a range is made of finite numbers, not {bounds}")
    if low > high:
        raise SpaceError(f"parameter {name}: range[{low}, {high}] is empty: write the smaller bound first")
    if log and low <= 0:
        raise SpaceError(f"parameter {name}: a logarithmic range begins above 0, not at {low}")
    if step is None and isinstance(low, int) and isinstance(high, int):
        step = 2 if log else 1
    if step is None:
        return Continuous(name, float(low), float(high), log)
    if step <= (1 if log else 0):
        raise SpaceError(f"parameter {name}: the step of this range must be above {1 if log else 0}, not {step}")
    return Steps(name, low, high, step, log)


@dataclass(frozen=True)
class Space:
    """Axes by name, in the order written."""

    axes: tuple[Axis, ...]

    @property
    def size(self) -> int | None:
        """How many configurations there are, before any constraint; None where an axis is continuous."""
        counts = [axis.count for axis in self.axes]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def at(self, number: int) -> Config:
        """Return a configuration by its row-major number. The space must be finite."""
        found: Config = {}
        for axis in reversed(self.axes):
            assert not isinstance(axis, Continuous)
            number, place = divmod(number, axis.count)
            found[axis.name] = axis.at(place)
        return {axis.name: found[axis.name] for axis in self.axes}

    def plain(self) -> dict[str, Any]:
        """Return the axes as plain values, for the log."""
        return {axis.name: axis.plain() for axis in self.axes}


def key_of(config: Mapping[str, Any]) -> str:
    """Return the hash that a configuration is known by: 16 hex digits, whatever the order of its parameters."""
    text = json.dumps(config, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
