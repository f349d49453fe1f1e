"""Aggregates over the last N items, or the items of the last so many nanoseconds, for every item of a batch at once.

A window reaches over at most two blocks: stretches of N items, or of so many nanoseconds, that are fixed by the item's own
number or clock and not by where a batch was cut. So an aggregate is that of the end of one block and the beginning of the
next, both running totals: no sum is ever subtracted from another, an infinity or an outlier is gone with its window, and
any cut of the log into batches gives the same result to the last bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .columns import Floats, Integer, Ints, Mask, Number, Places, Values, compact, joined
from .partition import Partition
from .plan import Frame, Node, Over
from .quantiles import SHARES, of_windows
from .scan import Stretches
from .vector import floats


@dataclass(frozen=True, slots=True)
class Past:
    """What one run keeps for a frame: how many items each group has had, and the rows that windows still reach.

    Rows are sorted by group and item. `index` counts the items of a group from 0, `clock` is the run's clock at the item.
    """

    counts: Ints
    group: Ints
    index: Ints
    clock: Ints
    args: tuple[Values, ...]


def nothing(args: Sequence[Values]) -> Past:
    """Return the past of a run that has had no item."""
    none = np.empty(0, np.int64)
    return Past(none, none, none, none, tuple(arg.take(slice(0, 0)) for arg in args))


class Windows:
    """The items of a batch and the past that they reach back to, sorted by group, with a window for each new item."""

    def __init__(
        self, frame: Frame, part: Partition, runs: Ints, clock: Ints, args: Sequence[Values], past: Sequence[Past]
    ) -> None:
        self.frame = frame
        self._part = part
        self._runs = len(past)
        new = len(part.group)
        self._carried = sum(len(one.group) for one in past)
        group = np.concatenate(
            [one.group + base for one, base in zip(past, part.base.tolist(), strict=False)] + [part.group]
        )
        self._counts = np.zeros(part.total, np.int64)
        for one, base in zip(past, part.base.tolist(), strict=False):
            self._counts[base : base + len(one.counts)] = one.counts
        order = part.order()
        within = _within(part.group, order)
        index = np.concatenate([*(one.index for one in past), self._counts[part.group] + within])
        clocks = np.concatenate([*(one.clock for one in past), clock])
        values = [joined([*(one.args[i] for one in past), arg]) for i, arg in enumerate(args)]
        sorted_already = order is None and (self._carried == 0 or part.total <= 1)
        self._order = None if sorted_already else np.argsort(group, kind="stable")
        self._group, self._index, self._clock = self._sorted(group), self._sorted(index), self._sorted(clocks)
        self._args = [value if self._order is None else value.take(self._order) for value in values]
        if self._order is None:
            self._new: Any = slice(self._carried, self._carried + new)
            self._at: Places = np.arange(self._carried, self._carried + new)
            self._back: Places | None = None
        else:
            mine = self._order >= self._carried
            self._new = self._at = np.flatnonzero(mine)
            self._back = self._order[mine] - self._carried
        self._added = np.bincount(part.group, minlength=part.total).astype(np.int64)
        self._cache: dict[tuple[str, int], Any] = {}
        del runs

    def results(self, wanted: Sequence[tuple[Over, int | None]]) -> dict[Node, Values]:
        """Return aggregates by node, for the new items in the order they came; the number says which argument it is over."""
        return {node: self._in_order(self._aggregate(node.name, arg)) for node, arg in wanted}

    def kept(self, run_clock: Ints) -> list[Past]:
        """Return the past of each run after this batch; `run_clock` is each run's clock now."""
        counts = self._counts + self._added
        if self.frame.last is not None:
            keep = self._index > (counts[self._group] - self.frame.last)
        else:
            assert self.frame.duration_ns is not None
            owner = np.repeat(np.arange(self._runs), np.diff(self._part.base))
            keep = self._clock > (run_clock[owner] - self.frame.duration_ns)[self._group]
        rows = np.flatnonzero(keep)
        group = self._group[rows]
        edges = np.searchsorted(group, self._part.base).tolist()
        bases = self._part.base.tolist()
        kept = []
        for number in range(self._runs):
            mine = rows[edges[number] : edges[number + 1]]
            kept.append(
                Past(
                    counts[bases[number] : bases[number + 1]].copy(),
                    self._group[mine] - bases[number],
                    self._index[mine],
                    self._clock[mine],
                    tuple(compact(arg.take(mine)) for arg in self._args),
                )
            )
        return kept

    def _sorted(self, values: Ints) -> Ints:
        return values if self._order is None else values[self._order]

    def _in_order(self, value: Values) -> Values:
        if self._back is None:
            return value
        place = np.empty(len(self._back), np.intp)
        place[self._back] = np.arange(len(self._back))
        return value.take(place)

    # Windows and blocks

    @cached_property
    def _starts(self) -> Places:
        """The first row of each new item's window; one past the item where the window is empty."""
        frame = self.frame
        if frame.last is not None:
            return self._at - np.minimum(max(frame.last, 0) - 1, self._index[self._new])  # type: ignore[no-any-return]
        assert frame.duration_ns is not None
        if frame.duration_ns <= 0:
            return self._at + 1
        return _first_after(self._group, self._clock, self._at, frame.duration_ns)

    @cached_property
    def _blocks(self) -> Stretches:
        size = self.frame.last if self.frame.last is not None else self.frame.duration_ns
        assert size is not None
        number = (self._index if self.frame.last is not None else self._clock) // max(size, 1)
        if not len(number):
            return Stretches(np.empty(0, np.intp), 0)
        edge = (number[1:] != number[:-1]) | (self._group[1:] != self._group[:-1])
        return Stretches(np.flatnonzero(np.concatenate([[True], edge])), len(number))

    @cached_property
    def _block(self) -> Places:
        return self._blocks.ids()

    @cached_property
    def _crosses(self) -> Mask:
        """Whether each new item's window begins in an earlier block than the item lies in."""
        inside = np.minimum(self._starts, self._at)
        return self._block[inside] != self._block[self._new]  # type: ignore[no-any-return]

    def _once(self, name: str, arg: int, make: Any) -> Any:
        key = (name, arg)
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def _floats(self, arg: int) -> Floats:
        return self._once("floats", arg, lambda: floats(self._args[arg]))  # type: ignore[no-any-return]

    def _known(self, arg: int) -> Mask:
        def make() -> Mask:
            value = self._args[arg]
            if isinstance(value, Number):
                return ~np.isnan(value.values)
            return known(value)

        return self._once("known", arg, make)  # type: ignore[no-any-return]

    def _count(self, arg: int | None) -> Ints:
        """Return how many items of each window have a known value; all of them where there is no argument."""
        if arg is None:
            return self._at + 1 - self._starts

        def make() -> Ints:
            running = np.zeros(len(self._group) + 1, np.int64)
            np.cumsum(self._known(arg), out=running[1:])
            return running[self._at + 1] - running[self._starts]

        return self._once("count", arg, make)  # type: ignore[no-any-return]

    def _total(self, values: Floats, op: np.ufunc, identity: float) -> Floats:
        """Return the total of each window: of the end of one block and the beginning of the next."""
        head = self._blocks.forward(values, op, identity)[self._new]
        tail = self._blocks.backward(values, op, identity)[np.minimum(self._starts, self._at)]
        return np.where(self._crosses, op(tail, head), head)  # type: ignore[no-any-return]

    # Aggregates

    def _aggregate(self, name: str, arg: int | None) -> Values:
        if name == "count":
            return Integer(self._count(arg))
        assert arg is not None
        if name in ("first", "last"):
            return self._edge(name, arg)
        with np.errstate(all="ignore"):
            return Number(np.where(self._count(arg) > 0, self._number(name, arg), np.nan))

    def _number(self, name: str, arg: int) -> Floats:
        if name in SHARES:
            return self._quantile(name, arg)
        if name == "sum":
            return self._sum(arg)
        if name == "avg":
            return self._sum(arg) / self._count(arg)
        if name in ("min", "max"):
            op, identity = (np.minimum, np.inf) if name == "min" else (np.maximum, -np.inf)
            filled = np.where(self._known(arg), self._floats(arg), identity)
            return self._total(filled, op, identity)
        if name == "delta":
            last, first = floats(self._edge("last", arg)), floats(self._edge("first", arg))
            return last - first  # type: ignore[no-any-return]
        return self._spread_of(arg).std() if name == "std" else self._spread_of(arg).slope()

    def _sum(self, arg: int) -> Floats:
        filled = np.where(self._known(arg), self._floats(arg), 0.0)
        return self._once("sum", arg, lambda: self._total(filled, np.add, 0.0))  # type: ignore[no-any-return]

    def _edge(self, name: str, arg: int) -> Values:
        """Return the first or the last known value of each window."""
        there = self._known(arg)
        rows = np.arange(len(there))
        if name == "last":
            nearest = np.maximum.accumulate(np.where(there, rows, -1))[self._new]
            inside = nearest >= self._starts
        else:
            ahead = np.minimum.accumulate(np.where(there, rows, len(rows))[::-1])[::-1]
            nearest = ahead[np.minimum(self._starts, self._at)]
            inside = (nearest <= self._at) & (self._starts <= self._at)
        found = self._args[arg].take(np.where(inside, nearest, 0))
        return found if inside.all() else hidden(found, ~inside)

    def _quantile(self, name: str, arg: int) -> Floats:
        share = SHARES[name]

        def make() -> Mapping[float, Floats]:
            return of_windows(self._floats(arg), self._at, self._starts, tuple(SHARES.values()))

        return self._once("quantiles", arg, make)[share]  # type: ignore[no-any-return]

    def _spread_of(self, arg: int) -> "_Moments":
        return self._once("moments", arg, lambda: self._moments(arg))  # type: ignore[no-any-return]

    def _moments(self, arg: int) -> "_Moments":
        """Return sums over each window of what `std` and `slope` need.

        A window is the end of one block and the beginning of the next. Values are taken from the outermost of their
        part of the block and numbered from there, so that nothing depends on what else of a block is still known.
        """
        values, there = self._floats(arg), self._known(arg)
        blocks = self._blocks
        finite = np.isfinite(values)
        first = np.minimum(self._starts, self._at)
        parts = []
        for rows, scan, sign in ((self._new, blocks.forward, 1.0), (first, blocks.backward, -1.0)):
            anchor = self._anchors(values, finite, last=sign < 0)[self._block]
            shifted = np.where(there, values - anchor, 0.0)
            counts = scan(there.astype(np.float64), np.add, 0.0)
            count, total = counts[rows], scan(shifted, np.add, 0.0)[rows]
            squares = scan(shifted * shifted, np.add, 0.0)[rows]
            weighted = scan(np.where(there, shifted * (counts - 1.0) * sign, 0.0), np.add, 0.0)[rows]
            if sign < 0:  # numbered from the window's own beginning
                weighted = weighted + (count - 1.0) * total
            parts.append(_Moments(count, total, squares, weighted, anchor[rows]))
        head, tail = parts
        return head.after(tail, self._crosses)

    def _anchors(self, values: Floats, finite: Mask, *, last: bool) -> Floats:
        """Return the first or the last finite value of each block, 0 where it has none."""
        blocks, rows = self._blocks, np.arange(len(values))
        ends = blocks.starts + blocks.sizes
        if last:
            nearest = np.maximum.accumulate(np.where(finite, rows, -1))[ends - 1]
        else:
            nearest = np.minimum.accumulate(np.where(finite, rows, len(rows))[::-1])[::-1][blocks.starts]
        inside = (blocks.starts <= nearest) & (nearest < ends)
        return np.where(inside, values[np.where(inside, nearest, 0)], 0.0) if len(values) else values


@dataclass(frozen=True, slots=True)
class _Moments:
    """Known values, their number within a window running from 0: count, sum, sum of squares, sum of value times number.

    Values are taken from `anchor`, which keeps the digits of those that lie far from 0 and close together.
    """

    count: Floats
    total: Floats
    squares: Floats
    weighted: Floats
    anchor: Floats

    def after(self, tail: "_Moments", where: Mask) -> "_Moments":
        """Return the moments of `tail` with these following it, where asked; all values from the anchor of the tail."""
        only_head = ~where | (tail.count == 0)
        only_tail = where & (self.count == 0)
        shift = self.anchor - tail.anchor
        total = self.total + self.count * shift
        squares = self.squares + 2 * shift * self.total + self.count * shift * shift
        own_numbers = self.count * (self.count - 1) / 2
        weighted = self.weighted + shift * own_numbers + tail.count * total
        both = _Moments(
            self.count + tail.count, tail.total + total, tail.squares + squares, tail.weighted + weighted, tail.anchor
        )
        names = ("count", "total", "squares", "weighted", "anchor")
        chosen = {
            name: np.where(
                only_head, getattr(self, name), np.where(only_tail, getattr(tail, name), getattr(both, name))
            )
            for name in names
        }
        return _Moments(**chosen)

    def std(self) -> Floats:
        """Return the sample standard deviation; unknown for fewer than two values."""
        about = self.squares - self.total * self.total / self.count
        return np.where(self.count >= 2, np.sqrt(np.where(about < 0, 0.0, about) / (self.count - 1)), np.nan)

    def slope(self) -> Floats:
        """Return the slope of least squares against the values' number; unknown for fewer than two values."""
        count = self.count
        about = self.weighted - (count - 1) / 2 * self.total
        return np.where(count >= 2, about / (count * (count * count - 1) / 12), np.nan)


def known(value: Values) -> Mask:
    """Return which rows of a column are known."""
    from .vector import known_rows

    return known_rows(value)


def hidden(value: Values, where: Mask) -> Values:
    """Return a column that is unknown where asked."""
    from .columns import Flag, Lists, Text

    match value:
        case Number(values=values):
            return Number(np.where(where, np.nan, values))
        case Integer(values=values, missing=missing):
            return Integer(values, where if missing is None else missing | where)
        case Text(codes=codes, words=words):
            return Text(np.where(where, -1, codes).astype(np.int32), words)
        case Flag(true=true, false=false):
            return Flag(true & ~where, false & ~where)
        case Lists(values=values):
            out = values.copy()
            out[where] = None
            return Lists(out)


def _within(group: Ints, order: Places | None) -> Ints:
    """Return how many rows of the same group come before each row."""
    rows = np.arange(len(group))
    if not len(group):
        return rows
    ordered = group if order is None else group[order]
    edge = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    starts = np.flatnonzero(edge)
    counted = rows - np.repeat(starts, np.diff(starts, append=len(group)))
    if order is None:
        return counted
    out = np.empty_like(counted)
    out[order] = counted
    return out


def _first_after(group: Ints, clock: Ints, at: Places, duration: int) -> Places:
    """Return, for rows sorted by group and clock, the first row of the same group whose clock is above clock - duration."""
    if not len(at):
        return at
    low = clock.min()
    limit = clock[at] - duration
    width = int(clock.max() - low) + 2
    if int(group[-1] + 1) * width < 1 << 62:
        places = group * width + (clock - low + 1)
        return np.searchsorted(places, group[at] * width + np.maximum(limit - low + 1, 0), side="right")  # type: ignore[no-any-return]
    out = np.empty(len(at), np.intp)
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(group)], strict=True):
        mine = (at >= start) & (at < end)
        out[mine] = start + np.searchsorted(clock[start:end], limit[mine], side="right")
    return out
