"""The envelopes of many records as columns, read from the bytes of their frames without an object for each.

Records of one writer are laid out alike: those that equal the first byte by byte where no number stands give their
numbers as columns of a matrix. What is left after some layouts goes through its bytes in step (`lockstep`). Bodies are
not looked into: they are stretches of one buffer, for whoever folds them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from .arrays import Gaps, Words, strings
from .lockstep import PAD, Codes, Ints, Lockstep, Mask
from .spelling import one_book
from .starts import RECORD_HEAD

_STRIDE = 1 << 14  # records at a time, so that what is read together lies in the processor's cache
_LAYOUTS = 8  # of one stride, that are tried before the rest goes in step
_FEW = 64  # records of one layout below which going in step costs less
_WIDEST = 192
_VERSIONS = 2**31  # beyond them a record cannot be read


class Bodies(NamedTuple):
    """Bodies of events, one a row: bytes `starts` to `ends` of `data`, which ends with the padding that `lockstep` asks."""

    data: bytes
    starts: Ints
    ends: Ints

    def raw(self, row: int) -> bytes:
        """Return one of them."""
        return self.data[self.starts[row] : self.ends[row]]

    def raws(self) -> list[bytes]:
        """Return all of them."""
        data = self.data
        return [data[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]


def joined(raws: "Sequence[bytes | msgspec.Raw]") -> Bodies:
    """Return bodies that lie apart, end to end."""
    lengths = np.fromiter(map(len, raws), np.int64, len(raws))
    ends = np.cumsum(lengths)
    return Bodies(b"".join([*raws, PAD]), ends - lengths, ends)


@dataclass(frozen=True, eq=False)
class Envelopes:
    """What records say of themselves, one element a record; bodies are bytes `starts` to `ends` of `data`."""

    data: bytes
    n: Ints
    kinds: Words
    version: Ints
    step: Gaps
    time: Ints
    cause: Words
    starts: Ints
    ends: Ints

    def take(self, at: Ints) -> "Envelopes":
        """Return some of them."""
        kinds = strings(self.kinds[at].values())  # with no type in its words of which no record is left
        return Envelopes(
            self.data, self.n[at], kinds, self.version[at], self.step[at], self.time[at], self.cause[at],
            self.starts[at], self.ends[at],
        )  # fmt: skip


class _Columns(NamedTuple):
    """What is read of some records."""

    kinds: Codes
    n: Ints
    version: Ints
    step: Ints
    unstepped: Mask
    time: Ints
    cause: Codes
    body: Ints

    def put(self, at: Ints, some: "_Columns") -> None:
        """Take over what was read of the records at these places."""
        pairs: Iterable[tuple[Any, Any]] = zip(self, some, strict=True)
        for mine, theirs in pairs:
            mine[at] = theirs


def read(data: bytes, starts: Ints) -> Envelopes | None:
    """Return the envelopes of the records that begin at `starts`; None where any is laid out as none of ours is."""
    pieces, kinds, causes = [], [], []
    for at in range(0, len(starts), _STRIDE):
        found = _read_some(data, starts[at : at + _STRIDE])
        if found is None:
            return None
        some, books = found
        pieces.append(some)
        kinds.append((some.kinds, list(books.kinds)))
        causes.append((some.cause, list(books.causes)))
    _, n, version, step, unstepped, time, _, body = (np.concatenate(some) for some in zip(*pieces, strict=True))
    ends = starts + RECORD_HEAD + np.ndarray((len(data) - 3,), ">u4", data, strides=(1,))[starts + 1]
    if not (body < ends).all() or not (np.abs(version) < _VERSIONS).all():
        return None
    steps = Gaps(step, unstepped if unstepped.any() else None)
    return Envelopes(data, n, Words(*one_book(kinds)), version, steps, time, Words(*one_book(causes)), body, ends)


class _Books(NamedTuple):
    """Codes of the words that were met."""

    kinds: dict[str, int]
    causes: dict[str, int]


def _read_some(data: bytes, starts: Ints) -> tuple[_Columns, _Books] | None:
    count = len(starts)
    every = _Columns(
        np.empty(count, np.int32), np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64),
        np.empty(count, np.bool_), np.empty(count, np.int64), np.empty(count, np.int32), np.empty(count, np.int64),
    )  # fmt: skip
    books = _Books({}, {})
    left = np.arange(count)
    for _ in range(_LAYOUTS):
        if len(left) < _FEW:
            break
        found = _alike(data, starts[left], books)
        if found is None:
            break
        same, some = found
        if same is None:
            if len(left) == count:
                return some, books
            every.put(left, some)
            return every, books
        every.put(left[same], some)
        left = left[~same]
    if len(left):
        in_step = _in_step(Lockstep(data, starts[left]), starts[left], books)
        if in_step is None:
            return None
        every.put(left, in_step[0])
    return every, books


_Edges = dict[str, tuple[int, int]]


def _in_step(rows: Lockstep, starts: Ints, books: _Books) -> tuple[_Columns, _Edges] | None:
    """Read records in step; return where the values of the first stand, too."""
    edges: _Edges = {}

    def ends(name: str, begin: Ints) -> None:
        edges[name] = (int(begin[0] - starts[0]), int(rows.at[0] - starts[0]))

    rows.literal(b"\xce")
    rows.at = starts + 5
    rows.literal(b"\xce")
    rows.at = starts + RECORD_HEAD
    rows.literal(b"\x87\xa1n")
    at = rows.at
    n, _ = rows.integers()
    ends("n", at)
    rows.literal(b"\xa4type")
    kinds = rows.texts()
    rows.literal(b"\xa7version")
    version, _ = rows.integers()
    rows.literal(b"\xa4step")
    at = rows.at
    step, unstepped = rows.integers(optional=True)
    ends("step", at)
    rows.literal(b"\xa4time")
    at = rows.at
    time, _ = rows.integers()
    ends("time", at)
    rows.literal(b"\xa5cause")
    causes = rows.texts(optional=True)
    rows.literal(b"\xa4body")
    if not rows.good.all():
        return None
    missing = np.zeros(len(starts), np.bool_) if unstepped is None else unstepped
    kind, cause = _entered(kinds, books.kinds), _entered(causes, books.causes)
    return _Columns(kind, n, version, step, missing, time, cause, rows.at), edges


def _entered(found: tuple[Codes, list[str]], book: dict[str, int]) -> Codes:
    """Return codes of a book in place of those that these texts have among themselves; -1 stays."""
    codes, words = found
    return np.array([*(book.setdefault(word, len(book)) for word in words), -1], np.int32)[codes]


def _alike(data: bytes, starts: Ints, books: _Books) -> tuple[Mask | None, _Columns] | None:
    """Read the records that have the layout of the first; return which they are (None for all), and what they say."""
    found = _in_step(Lockstep(data, starts[:1]), starts[:1], books)
    if found is None:
        return None
    first, edges = found
    width = int(first.body[0] - starts[0])
    words = -(-width // 8)
    if words * 8 > _WIDEST:
        return None
    look = np.ndarray((len(data) - words * 8 + 1,), f"V{words * 8}", data, strides=(1,))[starts].view("<u8")
    fixed = np.zeros(words * 8, np.uint8)
    fixed[:width] = 0xFF
    fixed[1:5] = fixed[6:RECORD_HEAD] = 0
    for begin, end in edges.values():
        fixed[begin + 1 : end] = 0  # behind the mark; a number in the mark itself has to be the same in all
    matrix = look.reshape(len(starts), words)
    differs = (matrix ^ matrix[0]) & fixed.view("<u8")
    same: Mask | None = None
    if differs.any():
        same = np.bitwise_or.reduce(differs, axis=1) == 0
        matrix = matrix[same]
        starts = starts[same]
    cells = matrix.view(np.uint8).reshape(len(starts), words * 8)
    count = len(starts)
    return same, _Columns(
        np.full(count, first.kinds[0], np.int32), _numbers(cells, edges["n"], first.n), np.full(count, first.version[0]),
        _numbers(cells, edges["step"], first.step), np.full(count, first.unstepped[0]),
        _numbers(cells, edges["time"], first.time), np.full(count, first.cause[0], np.int32), starts + width,
    )  # fmt: skip


def _numbers(cells: "np.ndarray[Any, np.dtype[np.uint8]]", edge: tuple[int, int], first: Ints) -> Ints:
    begin, end = edge
    if end - begin == 1:
        return np.full(len(cells), first[0])
    kind = _DTYPES[int(cells[0, begin])]
    return np.ndarray((len(cells),), kind, cells, begin + 1, cells.strides[:1]).astype(np.int64)


_DTYPES = {0xCC: "u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8", 0xD0: "i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8"}
