"""The values that are within reach: vectors over all examples, smallest expression first, each different vector once.

Bottom-up enumeration with observational equivalence (Udupa et al., TRANSIT, PLDI 2013): two expressions with the same value in
every example are one, and the smaller, earlier one stands for it. What grows from a value is told by `growing`.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .examples import Budget
from .operators import FUNCTIONS
from .program import Const, Each, Expr, Op, Ref
from .values import exact, kind_of, loose

_FAULTS = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError, MemoryError)
_SLACK = 2  # by which a rival may be larger than what is taken
_RIVALS = 24  # of one value that are kept
_LARGEST = 400_000  # characters or items of one value that is still worked on


class OutOfBudget(Exception):
    """The search has looked as long as it may."""


class Search:
    """What one synthesis has spent. `clock` gives seconds."""

    def __init__(self, budget: Budget, clock: Callable[[], float]) -> None:
        self.budget = budget
        self.tried = 0
        self.tests: dict[str, list[Expr]] = {}  # other tests that tell the same apart, by the one that was taken
        self._clock = clock
        self._end = clock() + budget.seconds

    def tick(self, count: int = 1) -> None:
        """Count what was looked at; OutOfBudget when time is up."""
        self.tried += count
        if self._clock() > self._end:
            raise OutOfBudget


class Entry:
    """An expression and its value in every example. `rank` tells lists apart: 0 as found, 1 kept, 2 ordered, 3 cut, 4 mapped,
    5 what differs of it, 6 pieces of a text.
    """

    __slots__ = ("base", "expr", "keys", "kind", "places", "rank", "rivals", "simple", "size", "values")

    def __init__(self, expr: Expr, values: list[Any], size: int, rank: int, simple: bool) -> None:
        self.expr = expr
        self.values = values
        self.size = size
        self.kind = kind_of(values)
        self.rank = rank
        self.simple = simple
        self.keys: list[bytes | None] | None = None
        self.base: Entry | None = None  # the list that this one's items were taken from,
        self.places: list[list[int]] = []  # and the places where they stand in it, for each example
        self.rivals: list[tuple[int, Expr]] = []  # what else has this value in every example, with its size

    def per_example(self) -> list[bytes | None]:
        """Return what tells the value apart in each example, whatever the order of keys."""
        if self.keys is None:
            self.keys = [loose(value) for value in self.values]
        return self.keys


class Bank:
    """All values that were found in one place of the program: `count` of each, one per example."""

    def __init__(self, search: Search, count: int, *, depth: int = 0, most: int | None = None) -> None:
        self.search = search
        self.count = count
        self.depth = depth
        self.most = most if most is not None else search.budget.values
        self.entries: list[Entry] = []
        self.hints: list[str] = []  # texts that stand in what is looked for: worth comparing with
        self._seen: dict[bytes, Entry] = {}
        self._loose: dict[bytes, Entry] = {}
        self._indexed = 0
        self._pushed = 0
        self.aliases: dict[str, list[tuple[int, Expr]]] = {}  # what always was what a parameter is
        self._queue: list[tuple[int, int, Entry]] = []
        self._inner: dict[int, Bank | None] = {}
        self.grown: list[Entry] = []  # those whose growth is done

    @property
    def var(self) -> str:
        """The variable of what goes through a list here."""
        return f"item{self.depth}"

    def add(self, expr: Expr, values: Sequence[Any], size: int, *, rank: int = 0, simple: bool = False) -> Entry | None:
        """Keep a value, unless there is one with the same in every example; return what is kept of it."""
        if len(self.entries) >= self.most:
            return None
        self.search.tick()
        kept = list(values)
        if any(isinstance(value, str | list | dict | bytes) and len(value) > _LARGEST for value in kept):
            return None
        key = exact(kept)
        if key is None:
            return None
        known = self._seen.get(key)
        if known is not None:
            if isinstance(known.expr, Ref) and known.simple and self.depth == 0:
                self.aliases.setdefault(known.expr.name, []).append((size, expr))
            if self.depth == 0 and size <= known.size + _SLACK and len(known.rivals) < _RIVALS:
                known.rivals.append((size, expr))
            return known if known.size <= size else None
        entry = Entry(expr, kept, size, rank, simple and kind_of(kept) not in ("list", "dict", "mixed", "other"))
        self._seen[key] = entry
        self.entries.append(entry)
        heapq.heappush(self._queue, (size, len(self.entries), entry))
        return entry

    def op(self, name: str, size: int, *operands: Any, rank: int = 0, simple: bool = False) -> Entry | None:
        """Keep an operation on entries; any other operand is a constant."""
        function = FUNCTIONS[name]
        columns = [one.values if isinstance(one, Entry) else [one] * self.count for one in operands]
        try:
            values = [function(*row) for row in zip(*columns, strict=True)]
        except _FAULTS:
            return None
        parts = tuple(one.expr if isinstance(one, Entry) else Const(one) for one in operands)
        return self.add(Op(name, parts), values, size, rank=rank, simple=simple)

    def cheapen(self, entry: Entry, size: int) -> None:
        """Count a value as small as this from now on: the program has it already."""
        if entry.size > size:
            entry.size = size
            self._pushed += 1
            heapq.heappush(self._queue, (size, -self._pushed, entry))

    def find(self, target: Sequence[Any]) -> Entry | None:
        """Return the smallest value that is this one in every example, whatever the order of keys."""
        key = exact(list(target))
        if key is not None and key in self._seen:
            return self._seen[key]
        if kind_of(target) not in ("dict", "list"):
            return None
        for entry in self.entries[self._indexed :]:
            if entry.kind in ("dict", "list"):
                self._loose.setdefault(b"".join(part or b"" for part in entry.per_example()), entry)
        self._indexed = len(self.entries)
        return self._loose.get(b"".join(loose(value) or b"" for value in target))

    def of_kind(self, *kinds: str) -> list[Entry]:
        """Return the entries of these kinds, smallest first."""
        return sorted((entry for entry in self.entries if entry.kind in kinds), key=lambda entry: entry.size)

    def grow(self, limit: int) -> None:
        """Derive from every value of at most this size what one more operation gives."""
        from .growing import grown_from

        while self._queue and self._queue[0][0] < limit and len(self.entries) < self.most:
            entry = heapq.heappop(self._queue)[2]
            self.grown.append(entry)
            grown_from(self, entry)

    def derive(self, entry: Entry, expr: Expr, places: Sequence[Sequence[int]], size: int, rank: int) -> Entry | None:
        """Keep the list of the items at these places of a list, for each example."""
        values = [[value[place] for place in at] for value, at in zip(entry.values, places, strict=True)]
        found = self.add(expr, values, size, rank=rank)
        if found is not None and found.expr is expr:
            before = entry.places if entry.base is not None else [list(range(len(value))) for value in entry.values]
            found.base = entry.base or entry
            found.places = [[old[place] for place in at] for old, at in zip(before, places, strict=True)]
        return found

    def inside(self, entry: Entry) -> "Bank | None":
        """Return the bank of the items of a list, of all examples in a row; a list taken from another shares that one's."""
        entry = entry.base or entry
        if id(entry) not in self._inner:
            items = [item for value in entry.values for item in value]
            inner = None
            if items and len(items) <= 20_000:
                inner = Bank(self.search, len(items), depth=self.depth + 1, most=160)
                inner.add(Ref(self.var), items, 1)
                inner.grow(4)
            self._inner[id(entry)] = inner
        return self._inner[id(entry)]

    def column(self, entry: Entry, inner: Entry) -> list[list[Any]]:
        """Return an inner value for each item of a list, in pieces by example."""
        if entry.base is None:
            return split(inner.values, [len(value) for value in entry.values])
        whole = split(inner.values, [len(value) for value in entry.base.values])
        return [[piece[place] for place in at] for piece, at in zip(whole, entry.places, strict=True)]

    def mapped(self, entry: Entry, inner: Entry, size: int, *, rank: int = 4) -> Entry | None:
        """Keep the list of an inner value for each item of a list."""
        return self.add(Each(entry.expr, self.var, inner.expr), self.column(entry, inner), size, rank=rank)

    def scalars(self, most: int = 24) -> list[Entry]:
        """Return the simple values that others are compared with, smallest first."""
        return sorted((entry for entry in self.entries if entry.simple), key=lambda entry: entry.size)[:most]


def split(values: Sequence[Any], lengths: Sequence[int]) -> list[list[Any]]:
    """Return values in pieces of these lengths."""
    pieces: list[list[Any]] = []
    at = 0
    for length in lengths:
        pieces.append(list(values[at : at + length]))
        at += length
    return pieces


def repeated(values: Sequence[Any], lengths: Sequence[int]) -> Iterator[Any]:
    """Give each value as often as its length says."""
    for value, length in zip(values, lengths, strict=True):
        for _ in range(length):
            yield value
