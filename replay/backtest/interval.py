"""A mean over runs with its 95% interval, and an honest nothing where there are too few of them.

Values of one run depend on each other, so that the run is what is counted: the estimate is a ratio over runs (the sum of
weighted values over the sum of weights), its standard error by the delta method, its interval by Student's t with one
degree of freedom less than there are runs (Cochran, Sampling Techniques, 1977, chapter 6).
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

LEAST = 3  # runs, below which nothing is estimated
_LEVEL = 0.95


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean with bounds; without support `mean`, `low` and `high` are None: unknown.

    `runs` and `values` say how much it stands on; `helped` is the share of the values above zero.
    """

    runs: int
    values: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    helped: float | None = None

    @property
    def known(self) -> bool:
        """Tell whether there was support."""
        return self.mean is not None

    def __str__(self) -> str:
        support = f"{self.values} in {self.runs} run{'' if self.runs == 1 else 's'}"
        if self.mean is None or self.low is None or self.high is None:
            return f"unknown ({support}: too few)" if self.values else "unknown (never seen)"
        return f"{self.mean:+.4g} [{self.low:+.4g}, {self.high:+.4g}] ({support})"


def estimate(values: Mapping[str, Sequence[tuple[float, float]]] | Iterable[tuple[str, float]]) -> Estimate:
    """Return the mean of values by run, given as {run: [(weight, value), ...]} or as pairs of run and value.

    Weights are above zero; only their ratios count.
    """
    runs = values if isinstance(values, Mapping) else _by_run(values)
    flat = [pair for pairs in runs.values() for pair in pairs]
    many, count = sum(1 for pairs in runs.values() if pairs), len(flat)
    if many < LEAST:
        return Estimate(runs=many, values=count)
    try:
        return _estimate(runs, flat, many)
    except (OverflowError, ValueError):  # numbers beyond all measure have no mean
        return Estimate(runs=many, values=count)


def _estimate(
    runs: Mapping[str, Sequence[tuple[float, float]]], flat: Sequence[tuple[float, float]], many: int
) -> Estimate:
    weight = math.fsum(w for w, _ in flat)
    mean = math.fsum(w * y for w, y in flat) / weight
    if not math.isfinite(mean):
        raise OverflowError
    helped = math.fsum(w for w, y in flat if y > 0) / weight
    residuals = [math.fsum(w * (y - mean) for w, y in pairs) for pairs in runs.values() if pairs]
    spread = math.sqrt(many / (many - 1) * math.fsum(part * part for part in residuals)) / weight
    half = t_quantile(0.5 + _LEVEL / 2, many - 1) * spread
    return Estimate(runs=many, values=len(flat), mean=mean, low=mean - half, high=mean + half, helped=helped)


def t_quantile(p: float, freedom: int) -> float:
    """Return the quantile of Student's t for 0.5 <= p < 1, by bisection on its distribution function."""
    if not 0.5 <= p < 1 or freedom < 1:
        raise ValueError(f"a quantile of t needs 0.5 <= p < 1 and freedom from 1, got {p} and {freedom}")
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < p:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        low, high = (middle, high) if _t_below(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def _t_below(t: float, freedom: int) -> float:
    """Return P(T <= t) for t >= 0: the closed sums for whole degrees of freedom (Abramowitz and Stegun, 26.7.3-4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for k in range(1, freedom, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        within = 2 / math.pi * (angle + sine * total)
    else:
        term, total = 1.0, 0.0
        for k in range(0, freedom, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        within = sine * total
    return 0.5 + within / 2


def _by_run(pairs: Iterable[tuple[str, float]]) -> dict[str, list[tuple[float, float]]]:
    runs: dict[str, list[tuple[float, float]]] = {}
    for run, value in pairs:
        runs.setdefault(run, []).append((1.0, value))
    return runs
