"""Aggregates over all items so far: totals that are carried from batch to batch, strictly item by item."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .columns import Floats, Integer, Ints, Mask, Number, Places, Values, compact, joined, spread_like
from .partition import Partition
from .plan import Node, Over
from .quantiles import SHARES, Growing
from .scan import Stretches
from .vector import floats
from .windows import known

TOTALS = ("known", "sum", "min", "max", "anchor", "total", "squares", "weighted")
_EMPTY = {"min": np.inf, "max": -np.inf, "anchor": np.nan}


@dataclass(frozen=True, slots=True)
class Carried:
    """What one run keeps of one argument, a value for each group: totals, the first and last known values.

    `every` holds all known values with the group of each, where a quantile is asked for.
    """

    totals: dict[str, Floats]
    first: Values
    last: Values
    every: tuple[Floats, Ints] | None


@dataclass(frozen=True, slots=True)
class SoFar:
    """What one run keeps for all frames that go over everything, by group: how many items, and each argument's totals."""

    counts: Ints
    args: tuple[Carried, ...]


def nothing(args: Sequence[Values], quantiles: Sequence[bool]) -> SoFar:
    """Return what a run has before its first item."""
    none, floats_none = np.empty(0, np.int64), np.empty(0)
    carried = tuple(
        Carried(
            dict.fromkeys(TOTALS, floats_none),
            arg.take(slice(0, 0)),
            arg.take(slice(0, 0)),
            (floats_none, none) if wanted else None,
        )
        for arg, wanted in zip(args, quantiles, strict=True)
    )
    return SoFar(none, carried)


class Running:
    """The items of a batch sorted by group, with the totals of their groups before it."""

    def __init__(self, part: Partition, args: Sequence[Values], past: Sequence[SoFar]) -> None:
        self._part = part
        self._past = past
        self._order = part.order()
        self._group = part.group if self._order is None else part.group[self._order]
        self._args = [arg if self._order is None else arg.take(self._order) for arg in args]
        edge = np.concatenate([[True], self._group[1:] != self._group[:-1]])
        self._stretches = Stretches(np.flatnonzero(edge), len(self._group))
        self._first_rows = self._stretches.starts
        self._last_rows = self._first_rows + self._stretches.sizes - 1
        self._owners = self._group[self._first_rows]
        self._counts = self._by_group([one.counts for one in past], 0).astype(np.int64)
        self._folds = [_Fold(self, number) for number in range(len(args))]

    def results(self, wanted: Sequence[tuple[Over, int | None]]) -> dict[Node, Values]:
        """Return aggregates by node, for the items in the order they came; the number says which argument it is over."""
        return {node: self._in_order(self._aggregate(node.name, arg)) for node, arg in wanted}

    def kept(self) -> list[SoFar]:
        """Return what each run keeps after this batch."""
        counts = self._counts.copy()
        counts[self._owners] += self._stretches.sizes
        args = [fold.kept() for fold in self._folds]
        bases = self._part.base.tolist()
        return [
            SoFar(counts[a:b].copy(), tuple(one[number] for one in args))
            for number, (a, b) in enumerate(itertools.pairwise(bases))
        ]

    def _aggregate(self, name: str, arg: int | None) -> Values:
        if arg is None:
            before = np.repeat(self._counts[self._owners], self._stretches.sizes)
            within = np.arange(len(self._group)) - np.repeat(self._first_rows, self._stretches.sizes)
            return Integer(before + within + 1)
        with np.errstate(all="ignore"):
            return self._folds[arg].aggregate(name)

    def _by_group(self, parts: Sequence[Any], empty: float) -> Floats:
        out = np.full(self._part.total, empty, np.float64)
        for part, base in zip(parts, self._part.base.tolist(), strict=False):
            out[base : base + len(part)] = part
        return out

    def _in_order(self, value: Values) -> Values:
        if self._order is None:
            return value
        place = np.empty(len(self._order), np.intp)
        place[self._order] = np.arange(len(self._order))
        return value.take(place)


class _Fold:
    """One argument of a Running."""

    def __init__(self, running: Running, number: int) -> None:
        self._r = running
        self._values = running._args[number]
        self._past = [one.args[number] for one in running._past]
        self._there: Mask = known(self._values)
        self._numbers: Floats = floats(self._values) if isinstance(self._values, Number | Integer) else np.zeros(0)
        self._made: dict[str, Any] = {}

    def aggregate(self, name: str) -> Values:
        if name == "count":
            return Integer(self._scan("known").astype(np.int64))
        if name in ("first", "last"):
            return self._edge(name)
        return Number(np.where(self._scan("known") > 0, self._number(name), np.nan))

    def kept(self) -> list[Carried]:
        """Return what each run keeps of this argument."""
        numeric = len(self._numbers) == len(self._there)
        totals = {}
        for name in TOTALS:
            carried = self._carried(name)
            if numeric or name == "known":
                with np.errstate(all="ignore"):
                    carried[self._r._owners] = self._scan(name)[self._r._last_rows]
            totals[name] = carried
        edges = {name: self._kept_edge(name) for name in ("first", "last")}
        bases = self._r._part.base.tolist()
        every = self._every() if self._past[0].every is not None else None
        out = []
        for number, (a, b) in enumerate(itertools.pairwise(bases)):
            mine = {name: total[a:b].copy() for name, total in totals.items()}
            held = None if every is None else every[number]
            first, last = (compact(edges[name].take(slice(a, b))) for name in ("first", "last"))
            out.append(Carried(mine, first, last, held))
        return out

    def _number(self, name: str) -> Floats:
        count = self._scan("known")
        if name in SHARES:
            return self._quantile(SHARES[name])
        if name in ("sum", "min", "max"):
            return self._scan(name)
        if name == "avg":
            return self._scan("sum") / count
        if name == "delta":
            return floats(self._edge("last")) - floats(self._edge("first"))  # type: ignore[no-any-return]
        if name == "std":
            total = self._scan("total")
            about = self._scan("squares") - total * total / count
            return np.where(count >= 2, np.sqrt(np.where(about < 0, 0.0, about) / (count - 1)), np.nan)
        about = self._scan("weighted") - (count - 1) / 2 * self._scan("total")
        return np.where(count >= 2, about / (count * (count * count - 1) / 12), np.nan)

    def _carried(self, name: str) -> Floats:
        return self._r._by_group([one.totals[name] for one in self._past], _EMPTY.get(name, 0.0))

    def _scan(self, name: str) -> Floats:
        """Return a total for each row, from the first item of its group on."""
        if name not in self._made:
            self._made[name] = self._scanned(name)
        return self._made[name]  # type: ignore[no-any-return]

    def _scanned(self, name: str) -> Floats:
        r, there = self._r, self._there
        if name == "anchor":
            return np.repeat(self._anchors(), r._stretches.sizes)
        op, identity = {"min": (np.minimum, np.inf), "max": (np.maximum, -np.inf)}.get(name, (np.add, 0.0))
        if name == "known":
            values = there.astype(np.float64)
        elif name in ("sum", "min", "max"):
            values = np.where(there, self._numbers, identity)
        else:
            values = np.where(there, self._numbers - self._scan("anchor"), 0.0)
            if name == "squares":
                values = values * values
            elif name == "weighted":
                values = np.where(there, values * (self._scan("known") - 1.0), 0.0)
        carried = self._carried(name)[r._owners]
        values[r._first_rows] = op(carried, values[r._first_rows])
        return r._stretches.forward(values, op, identity)

    def _anchors(self) -> Floats:
        """Return the first finite value of each group that has rows here; 0 as long as there is none."""
        r = self._r
        carried = self._carried("anchor")[r._owners]
        rows = np.arange(len(self._there))
        finite = np.isfinite(self._numbers)
        ahead = np.minimum.accumulate(np.where(finite, rows, len(rows))[::-1])[::-1][r._first_rows]
        found = np.where(ahead <= r._last_rows, self._numbers[np.minimum(ahead, len(rows) - 1)], np.nan)
        return np.where(np.isnan(carried), found, carried)

    def _edge(self, name: str) -> Values:
        """Return the first or the last known value of each row's group up to the row."""
        r, there = self._r, self._there
        rows = np.arange(len(there))
        starts = np.repeat(r._first_rows, r._stretches.sizes)
        before = self._edge_before(name)
        carried_at = len(rows) + np.repeat(np.arange(len(r._owners)), r._stretches.sizes)
        if name == "last":
            nearest = np.maximum.accumulate(np.where(there, rows, -1))
            chosen = np.where(nearest >= starts, nearest, carried_at)
        else:
            ahead = np.minimum.accumulate(np.where(there, rows, len(rows))[::-1])[::-1][starts]
            had = np.repeat(known(before), r._stretches.sizes)
            chosen = np.where(had | (ahead > rows), carried_at, np.minimum(ahead, len(rows) - 1))
        return joined([self._values, before]).take(chosen)

    def _edge_before(self, name: str) -> Values:
        """Return the edges that the groups with rows here had before; unknown for new ones."""
        return self._all_edges(name).take(self._r._owners)

    def _all_edges(self, name: str) -> Values:
        held = [getattr(one, name) for one in self._past]
        bases = self._r._part.base.tolist()
        parts: list[Values] = []
        for value, a, b in zip(held, bases[:-1], bases[1:], strict=True):
            parts += [value, spread_like(value, b - a - len(value))]
        return joined(parts)

    def _kept_edge(self, name: str) -> Values:
        before, rows = self._all_edges(name), self._edge(name)
        place: Places = np.arange(self._r._part.total)
        place[self._r._owners] = len(before) + self._r._last_rows
        return joined([before, rows]).take(place)

    def _quantile(self, share: float) -> Floats:
        out = np.full(len(self._there), np.nan)
        held = self._held()
        stretches = zip(
            self._r._owners.tolist(), self._r._first_rows.tolist(), self._r._stretches.sizes.tolist(), strict=True
        )
        numbers = self._numbers.tolist()
        for group, start, size in stretches:
            growing = Growing(share, held[group])
            now = growing.value() if len(held[group]) else np.nan
            for row in range(start, start + size):
                value = numbers[row]
                if value == value:  # noqa: PLR0124  NaN is unknown
                    now = growing.add(value)
                out[row] = now
        return out

    def _held(self) -> list[list[float]]:
        held: list[list[float]] = [[] for _ in range(self._r._part.total)]
        for one, base in zip(self._past, self._r._part.base.tolist(), strict=False):
            assert one.every is not None
            for value, group in zip(one.every[0].tolist(), one.every[1].tolist(), strict=True):
                held[base + group].append(value)
        return held

    def _every(self) -> list[tuple[Floats, Ints]]:
        r = self._r
        out = []
        bases = r._part.base.tolist()
        group, numbers = r._group[self._there], self._numbers[self._there]
        edges = np.searchsorted(group, bases).tolist()
        for number, one in enumerate(self._past):
            assert one.every is not None
            a, b = edges[number], edges[number + 1]
            values = np.concatenate([one.every[0], numbers[a:b]])
            out.append((values, np.concatenate([one.every[1], group[a:b] - bases[number]])))
        return out
