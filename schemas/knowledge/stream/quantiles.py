"""Quantiles over windows, by linear interpolation between the two nearest of the ordered known values."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from math import floor, isinf

import numpy as np

from .columns import Floats, Places

SHARES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
_WIDE = 512  # rows in a window from which it is kept in order item by item instead of being sorted anew
_MANY = 1 << 20  # values in one matrix of windows


def of_windows(values: Floats, at: Places, starts: Places, shares: Sequence[float]) -> dict[float, Floats]:
    """Return quantiles of the rows `starts[i]` to `at[i]`, by share; NaN where none of them is known."""
    out = {share: np.full(len(at), np.nan) for share in shares}
    if not len(at):
        return out
    widest = int((at - starts).max()) + 1
    if widest > _WIDE:
        _sliding(values, at, starts, out)
        return out
    rows = max(1, _MANY // max(widest, 1))
    offsets = np.arange(max(widest, 1))
    for first in range(0, len(at), rows):
        part = slice(first, first + rows)
        places = at[part, None] - offsets
        inside = places >= starts[part, None]
        window = np.where(inside, values[np.where(inside, places, 0)], np.nan)
        window.sort(axis=1)  # NaN goes to the end
        known = np.count_nonzero(~np.isnan(window), axis=1)
        for share in shares:
            out[share][part] = _interpolated(window, known, share)
    return out


def _interpolated(ordered: Floats, known: Places, share: float) -> Floats:
    place = share * np.maximum(known - 1, 0)
    below = np.floor(place).astype(np.intp)
    rows = np.arange(len(ordered))
    low, high = ordered[rows, below], ordered[rows, np.minimum(below + 1, np.maximum(known - 1, 0))]
    with np.errstate(all="ignore"):
        part = place - below
        between = low + (high - low) * part
        between = np.where(np.isinf(low) | np.isinf(high), low * (1 - part) + high * part, between)
    return np.where((low == high) | (place == below), low, between)


def _sliding(values: Floats, at: Places, starts: Places, out: dict[float, Floats]) -> None:
    """Keep the window in order while it moves on; rows of one group stand side by side, and windows only move forward."""
    numbers = values.tolist()
    ordered: list[float] = []
    first = last = 0  # the rows that are in `ordered`
    for place, (here, start) in enumerate(zip(at.tolist(), starts.tolist(), strict=True)):
        if start >= last:
            ordered, first, last = [], start, start
        for row in range(first, start):
            if numbers[row] == numbers[row]:
                del ordered[bisect_left(ordered, numbers[row])]
        for row in range(last, here + 1):
            if numbers[row] == numbers[row]:
                insort(ordered, numbers[row])
        first, last = start, here + 1
        if ordered:
            for share, column in out.items():
                column[place] = quantile(ordered, share)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of ordered values, at least one."""
    place = share * (len(ordered) - 1)
    below = floor(place)
    return _between(ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below)


def _between(low: float, high: float, part: float) -> float:
    """Return what lies at `part` of the way; between an infinity and a number lies the infinity."""
    if low == high or part == 0:
        return low
    return low * (1 - part) + high * part if isinf(low) or isinf(high) else low + (high - low) * part


class Growing:
    """A quantile of values that only become more: two heaps that meet at it."""

    def __init__(self, share: float, values: Sequence[float] = ()) -> None:
        self._share = share
        self._count = len(values)
        ordered = sorted(values)
        cut = self._lower() if ordered else 0
        self._low = [-value for value in reversed(ordered[:cut])]  # a heap whose first is the largest of the lower part
        self._high = ordered[cut:]

    def add(self, value: float) -> float:
        """Take a value in and return the quantile."""
        self._count += 1
        if self._low and value < -self._low[0]:
            heapq.heappush(self._low, -value)
        else:
            heapq.heappush(self._high, value)
        wanted = self._lower()
        while len(self._low) < wanted:
            heapq.heappush(self._low, -heapq.heappop(self._high))
        while len(self._low) > wanted:
            heapq.heappush(self._high, -heapq.heappop(self._low))
        return self.value()

    def value(self) -> float:
        """Return the quantile of what was taken in, at least one value."""
        place = self._share * (self._count - 1)
        low = -self._low[0]
        high = self._high[0] if self._high else low
        return _between(low, high, place - floor(place))

    def _lower(self) -> int:
        return floor(self._share * (self._count - 1)) + 1
