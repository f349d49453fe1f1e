"""Is one configuration better than another, or is it noise?

Three instruments, none of which supposes a bell curve:

* the interval of a median from order statistics, that is, by inverting the sign test (Conover, Practical Nonparametric
  Statistics, 3rd ed., 3.2; Thompson 1936);
* for two samples, the exact rank-sum test (Mann and Whitney 1947), in mid-ranks where values are equal;
* for pairs measured in turn, the same interval of the median of their ratios, which no slow drift of the machine touches.

Where the repeats are too few for the level asked for, nothing can be significant; then a candidate counts as better only
if every repeat of it beats every repeat of the other, the strongest that so few can say. One repeat each is the bare number.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, isfinite
from typing import Literal

Verdict = Literal["better", "tie", "worse"]

_EXACT = 20_000  # ways to deal the ranks that are counted one by one


@dataclass(frozen=True)
class Interval:
    """A median, bounds that hold it, and with what confidence they do (at most what was asked for, if too few)."""

    median: float
    low: float
    high: float
    level: float


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the median of `values` (at least one) with the narrowest sign-test interval of at least `level`.

    With fewer than six values no interval reaches 95%; the whole range is then given with the level that it has.
    """
    ordered = sorted(values)
    n = len(ordered)
    depth, covered = 1, _coverage(n, 1)
    while depth + 1 <= n // 2 and _coverage(n, depth + 1) >= level:
        depth += 1
        covered = _coverage(n, depth)
    return Interval(statistics.median(ordered), ordered[depth - 1], ordered[n - depth], covered)


def ratios(values: Sequence[float], base: Sequence[float], *, maximize: bool) -> list[float]:
    """Return how many times better each value is than the baseline measured beside it; above 1 is better.

    A pair in which either is not above 0 has no ratio and is left out.
    """
    pairs = [(a, b) for a, b in zip(values, base, strict=False) if a > 0 and b > 0]
    return [a / b if maximize else b / a for a, b in pairs]


def compare(
    candidate: Sequence[float], other: Sequence[float], *, maximize: bool = True, alpha: float = 0.05
) -> Verdict:
    """Tell whether `candidate` is better or worse than `other` beyond noise, both samples of at least one value."""
    mine, theirs = (candidate, other) if maximize else ([-v for v in candidate], [-v for v in other])
    if min(mine) > max(theirs):
        return "better"
    if max(mine) < min(theirs):
        return "worse"
    if not _enough(len(mine), len(theirs), alpha):
        return "tie"
    higher, lower = rank_sum(mine, theirs)
    if higher <= alpha:
        return "better"
    return "worse" if lower <= alpha else "tie"


def rank_sum(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the one-sided p values that `a` lies higher, and that it lies lower, than `b` by chance alone.

    Exact up to twenty thousand ways to deal the ranks, with ties by mid-ranks; the normal approximation with the
    correction for ties and continuity beyond.
    """
    ranks = _midranks([*a, *b])
    total = sum(ranks[: len(a)])
    if comb(len(a) + len(b), len(a)) <= _EXACT:
        sums = _dealt(tuple(sorted(ranks)), len(a))
        return sum(each >= total for each in sums) / len(sums), sum(each <= total for each in sums) / len(sums)
    n, m = len(a), len(b)
    mean = n * (n + m + 1) / 2
    counts = [ranks.count(rank) for rank in set(ranks)]
    spread = n * m / 12 * ((n + m + 1) - sum(t**3 - t for t in counts) / ((n + m) * (n + m - 1)))
    if spread <= 0:
        return 1.0, 1.0
    normal = statistics.NormalDist(0, spread**0.5)
    return 1 - normal.cdf(total - mean - 0.5), normal.cdf(total - mean + 0.5)


def noise(values: Sequence[float]) -> float:
    """Return the spread of repeats as a share of their median: the scaled median deviation, robust to a jolt."""
    if len(values) < 2 or not all(map(isfinite, values)):
        return 0.0
    middle = statistics.median(values)
    apart = statistics.median(abs(value - middle) for value in values)
    return 1.4826 * apart / abs(middle) if middle else 0.0


def _enough(n: int, m: int, alpha: float) -> bool:
    """Tell whether samples of these sizes can be significant at all."""
    return 1 / comb(n + m, n) <= alpha


def _coverage(n: int, depth: int) -> float:
    """Return how surely the median lies between the `depth`-th smallest and the `depth`-th largest of n."""
    return 1 - 2 * sum(comb(n, k) for k in range(depth)) / 2**n if n > 1 else 0.0


def _midranks(values: list[float]) -> list[float]:
    ordered = sorted(values)
    places: dict[float, list[int]] = {}
    for place, value in enumerate(ordered, start=1):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]


@lru_cache(maxsize=256)
def _dealt(ranks: tuple[float, ...], n: int) -> list[float]:
    return [sum(chosen) for chosen in combinations(ranks, n)]
