"""Running totals within stretches of an array, forwards and backwards, without a loop over rows.

A total at a row takes in what stands between the stretch's border and that row, strictly in order: it depends on nothing
else, so that the same rows give the same total however the log was cut into batches.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .columns import Floats, Mask, Places

_LONG = 2048  # rows from which a stretch is worth a call of its own
_MANY = 1 << 22  # rows in one matrix of padded stretches


class Stretches:
    """Consecutive stretches that cover an array; `starts` are their first rows."""

    def __init__(self, starts: Places, length: int) -> None:
        self.starts = starts
        self.length = length
        self.sizes: Places = np.diff(starts, append=length)
        self._plan: list[_Even | _Padded | _Alone] | None = None

    def ids(self) -> Places:
        """Return the number of the stretch that each row lies in."""
        return np.repeat(np.arange(len(self.starts)), self.sizes)

    def forward(self, values: Floats, op: np.ufunc, identity: float) -> Floats:
        """Return, for each row, the total from the beginning of its stretch."""
        out = np.empty_like(values)
        for part in self._parts():
            part.run(values, out, op, identity, backward=False)
        return out

    def backward(self, values: Floats, op: np.ufunc, identity: float) -> Floats:
        """Return, for each row, the total to the end of its stretch."""
        out = np.empty_like(values)
        for part in self._parts():
            part.run(values, out, op, identity, backward=True)
        return out

    def _parts(self) -> "list[_Even | _Padded | _Alone]":
        if self._plan is None:
            self._plan = list(_planned(self.starts, self.sizes))
        return self._plan


def _planned(starts: Places, sizes: Places) -> "Iterator[_Even | _Padded | _Alone]":
    """Yield stretches of one size that lie side by side as matrices, long ones alone, the others padded to alike sizes."""
    if len(sizes) > 2 and sizes[1] > 1 and (sizes[1:-1] == sizes[1]).all():
        yield from _planned(starts[:1], sizes[:1])
        yield _Even(int(starts[1]), len(sizes) - 2, int(sizes[1]))
        yield from _planned(starts[-1:], sizes[-1:])
        return
    long = sizes >= _LONG
    for start, size in zip(starts[long].tolist(), sizes[long].tolist(), strict=True):
        yield _Alone(start, start + size)
    short_starts, short_sizes = starts[~long], sizes[~long]
    if not len(short_sizes):
        return
    classes = np.ceil(np.log2(np.maximum(short_sizes, 1))).astype(np.int64)
    for which in np.unique(classes).tolist():
        chosen = classes == which
        width = int(short_sizes[chosen].max())
        rows = max(1, _MANY // width)
        some_starts, some_sizes = short_starts[chosen], short_sizes[chosen]
        for at in range(0, len(some_starts), rows):
            yield _Padded(some_starts[at : at + rows], some_sizes[at : at + rows], width)


class _Even:
    """Stretches of one size, side by side."""

    def __init__(self, start: int, count: int, size: int) -> None:
        self._rows = slice(start, start + count * size)
        self._shape = (count, size)

    def run(self, values: Floats, out: Floats, op: np.ufunc, _identity: float, *, backward: bool) -> None:
        matrix = values[self._rows].reshape(self._shape)
        into = out[self._rows].reshape(self._shape)
        if backward:
            matrix, into = matrix[:, ::-1], into[:, ::-1]
        if self._shape[1] <= 64 < self._shape[0]:  # many short ones: column after column is faster
            into[:, 0] = matrix[:, 0]
            for column in range(1, self._shape[1]):
                op(into[:, column - 1], matrix[:, column], out=into[:, column])
        else:
            op.accumulate(matrix, axis=1, out=into)


class _Alone:
    """One long stretch."""

    def __init__(self, start: int, end: int) -> None:
        self._rows = slice(start, end)

    def run(self, values: Floats, out: Floats, op: np.ufunc, _identity: float, *, backward: bool) -> None:
        part, into = values[self._rows], out[self._rows]
        if backward:
            op.accumulate(part[::-1], out=into[::-1])
        else:
            op.accumulate(part, out=into)


class _Padded:
    """Stretches of about the same size as rows of one matrix."""

    def __init__(self, starts: Places, sizes: Places, width: int) -> None:
        offsets = np.arange(width)
        self._inside: Mask = offsets < sizes[:, None]
        self._rows: Places = np.where(self._inside, starts[:, None] + offsets, starts[:, None])
        self._flat: Any = self._rows[self._inside]

    def run(self, values: Floats, out: Floats, op: np.ufunc, identity: float, *, backward: bool) -> None:
        matrix = np.where(self._inside, values[self._rows], identity)
        if backward:
            matrix = np.ascontiguousarray(op.accumulate(matrix[:, ::-1], axis=1)[:, ::-1])
        else:
            op.accumulate(matrix, axis=1, out=matrix)
        out[self._flat] = matrix[self._inside]
