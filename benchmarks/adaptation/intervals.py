"""Means with 95% intervals, of one arm and of paired differences; Student's t, since twenty seeds are not many."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean and the half width of its 95% interval; NaN where one number alone gives none."""

    mean: float
    half: float
    n: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half

    @property
    def clear_of_zero(self) -> bool:
        """Whether zero lies outside; never true of a single number."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if math.isnan(self.half) else f"{self.mean:.2f} ± {self.half:.2f}"


def interval(values: Sequence[float]) -> Interval:
    """Return mean and 95% interval of independent values; raises ValueError where there are none."""
    from scipy import stats  # type: ignore[import-untyped]

    if not len(values):
        raise ValueError("an interval needs at least one value: no run of this arm is in the log")
    found = np.asarray(values, float)
    if len(found) == 1:
        return Interval(float(found[0]), math.nan, 1)
    error = found.std(ddof=1) / math.sqrt(len(found))
    return Interval(float(found.mean()), float(stats.t.ppf(0.975, len(found) - 1) * error), len(found))


@dataclass(frozen=True)
class Paired:
    """One arm minus another over the seeds that both have, and in how many of them it was ahead."""

    difference: Interval
    ahead: int
    behind: int

    def __str__(self) -> str:
        sign = "+" if self.difference.mean >= 0 else ""
        return f"{sign}{self.difference} ({self.ahead}/{self.difference.n})"


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired | None:
    """Return the difference by seed; None where the arms share no seed."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    return Paired(interval(differences), sum(d > 0 for d in differences), sum(d < 0 for d in differences))
