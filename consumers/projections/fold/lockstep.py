"""Msgpack values at many places of one buffer, read side by side: a value of all rows at a time, as arrays.

Rows go through the same layout in step, each with a cursor of its own, since a text or a small number takes another
number of bytes in each. Nothing is guessed: a row whose bytes are not what was asked for becomes a stray, and it is for
the caller to read it in another way. The buffer must be whole msgpack where the rows begin, and must end with `PAD`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from .spelling import LONGEST, LOW, NO_TEXT, Bits, Codes, Ints, Spelling

__all__ = ["LONGEST", "PAD", "Codes", "Floats", "Ints", "Lockstep", "Mask"]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Marks = npt.NDArray[np.uint8]

_WINDOW = 64
PAD = bytes(4 * _WINDOW)
"""What must follow the last row, so that a look ahead finds bytes."""

_NIL, _FALSE, _TRUE, _FLOAT64, _SHORT_TEXT, _UINT64 = 0xC0, 0xC2, 0xC3, 0xCB, 0xA0, 0xCF


def _by_mark(values: dict[int, int], kind: Any, other: int = 0) -> "npt.NDArray[Any]":
    table = np.full(256, other, kind)
    for mark, value in values.items():
        table[mark] = value
    return table


_WIDTHS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_SMALL = {mark: mark if mark < 0x80 else mark - 256 for mark in (*range(0x80), *range(0xE0, 0x100))}
_WHOLE = _by_mark(dict.fromkeys((*_WIDTHS, *_SMALL), 1), np.bool_)
_INT_SIZE = _by_mark({mark: 1 + width for mark, width in _WIDTHS.items()}, np.int64, 1)
_SHIFT = _by_mark({mark: 64 - 8 * width for mark, width in _WIDTHS.items()}, np.int64)
_KEEP = _by_mark({mark: (1 << 8 * _WIDTHS[mark]) - 1 for mark in (0xCC, 0xCD, 0xCE)}, np.int64, -1)
_FIXED = _by_mark(_SMALL, np.int64)
_IS_FIXED = _by_mark(dict.fromkeys(_SMALL, 1), np.bool_)
_TEXT_HEAD = _by_mark({**dict.fromkeys(range(0xA0, 0xC0), 1), 0xD9: 2, 0xDA: 3, 0xDB: 5}, np.int64)
_TEXT_SHIFT = _by_mark({0xD9: 56, 0xDA: 48, 0xDB: 32}, np.int64)
# What can be passed over unread: marks, and how many bytes the value takes, its mark counted.
_PLAIN_SIZE = _by_mark(
    {**{m: 1 + w for m, w in _WIDTHS.items()}, **dict.fromkeys(_SMALL, 1), _NIL: 1, _FALSE: 1, _TRUE: 1, _FLOAT64: 9, 0xCA: 5},
    np.int64,
)  # fmt: skip


class Lockstep:
    """Cursors into a buffer, one a row. Each call reads one value of every row and moves on behind it.

    A stretch of bytes at each cursor is copied out at once: as long as all rows move alike, what is read next stands in
    one column of that window, and nothing has to be gathered again.
    """

    def __init__(self, data: bytes, at: Ints) -> None:
        self._data = data
        self._words: Bits = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
        self._stretches = np.ndarray((len(data) - _WINDOW + 1,), f"V{_WINDOW}", data, strides=(1,))
        self._end = len(data) - len(PAD)
        self.good: Mask = np.ones(len(at), np.bool_)
        """Rows that were all that was asked for up to here."""
        self._strays: Ints | None = None
        self.at = at

    @property
    def at(self) -> Ints:
        """Where the cursors stand."""
        return self._anchor + self._offset if self._offset else self._anchor

    @at.setter
    def at(self, at: Ints) -> None:
        if self._strays is not None:
            at = np.where(self.good, at, 0)  # a stray stands at the beginning from here on, and says nothing
        self._anchor, self._offset = at, 0
        self._window: npt.NDArray[Any] | None = None

    def literal(self, wanted: bytes) -> None:
        """Pass over bytes, at most `LONGEST` of them, that must stand there in every row."""
        for start in range(0, len(wanted), 8):
            differs = self._differs(wanted, start)
            if differs.any():
                self._leave(differs == 0)
        self._offset += len(wanted)

    def stands(self, wanted: bytes) -> bool:
        """Tell whether these bytes, at most `LONGEST`, stand in every row, and pass over them if they do."""
        if any(self._differs(wanted, start).any() for start in range(0, len(wanted), 8)):
            return False
        self._offset += len(wanted)
        return True

    def integers(self, *, optional: bool = False) -> tuple[Ints, Mask | None]:
        """Read whole numbers of 64 bits; the mask tells where there is nil, which only `optional` ones may be."""
        marks = self._marks()
        first = int(marks[0]) if len(marks) else 0
        if _WHOLE[first] and (marks == first).all():
            values, missing = self._whole(marks), None
            self._offset += int(_INT_SIZE[first])
            return values, missing
        missing = self._nil(marks, _WHOLE[marks], optional=optional)
        values = self._whole(marks)
        self.at = self.at + _INT_SIZE[marks]
        return (values if missing is None else np.where(missing, 0, values)), missing

    def floats(self, *, optional: bool = False) -> tuple[Floats, Mask | None]:
        """Read numbers, NaN where there is nil."""
        marks = self._marks()
        real = marks == _FLOAT64
        values: Floats = self._word(1).view(">f8").astype(np.float64)
        if real.all():
            self._offset += 9
            return values, None
        nil = marks == _NIL
        if optional and (real | nil).all():
            self.at = self.at + np.where(real, 9, 1)
            return np.where(real, values, np.nan), nil
        missing = self._nil(marks, real | _WHOLE[marks], optional=optional)
        values = np.where(real, values, self._whole(marks))
        self.at = self.at + np.where(real, 9, _INT_SIZE[marks])
        return (values if missing is None else np.where(missing, np.nan, values)), missing

    def flags(self, *, optional: bool = False) -> tuple[Mask, Mask]:
        """Read truth values: where they are true, and where false."""
        marks = self._marks()
        true, false = marks == _TRUE, marks == _FALSE
        self._nil(marks, true | false, optional=optional)
        self._offset += 1
        return true, false

    def texts(self, *, optional: bool = False) -> tuple[Codes, list[str]]:
        """Read texts: a code for each row, -1 where there is nil, and the text of each code."""
        marks = self._marks()
        if ((marks & 0xE0) == _SHORT_TEXT).all():
            starts, lengths = self.at + 1, (marks & 0x1F).astype(np.int64)
            ends = starts + lengths
            if ends.max(initial=0) <= self._end:
                word = self._word(1)
                self.at = ends
                return self._words_of(starts, lengths, None, word)
        heads = _TEXT_HEAD[marks]
        missing = self._nil(marks, heads > 0, optional=optional)
        lengths = (marks & 0x1F).astype(np.int64)
        if (heads > 1).any():
            words = self._word(1).view(">u8").astype(np.uint64)
            lengths = np.where(heads > 1, (words >> _TEXT_SHIFT[marks].view(np.uint64)).astype(np.int64), lengths)
        starts = self.at + heads
        outside = starts + lengths > self._end
        if outside.any():
            self._leave(~outside)
        if self._strays is not None or missing is not None:
            lengths[~self.good | (heads == 0)] = 0
            starts = self.at + heads
        self.at = np.where(heads > 0, starts + lengths, self.at + 1)
        return self._words_of(starts, lengths, missing, None)

    def skip(self) -> None:
        """Pass over a number, a truth value or nil, or over texts where all are texts."""
        marks = self._marks()
        if (_TEXT_HEAD[marks] > 0).all():
            self.texts()
            return
        sizes = _PLAIN_SIZE[marks]
        if not (sizes > 0).all():
            self._leave(sizes > 0)
        self.at = self.at + sizes

    def only(self, kept: Mask) -> None:
        """Leave the rows that the caller does not want, for a reason of his own."""
        if not kept.all():
            self._leave(kept)

    # What stands at the cursors

    def _column(self, ahead: int, kind: str, size: int) -> "npt.NDArray[Any]":
        """Return numbers that stand `ahead` of each cursor, as a view."""
        if self._window is None or self._offset + ahead + size > _WINDOW:
            self.at = self.at  # the window begins anew where the cursors are
            self._window = self._stretches[self._anchor]
        return np.ndarray((len(self.good),), kind, self._window, self._offset + ahead, (_WINDOW,))

    def _marks(self) -> Marks:
        marks: Marks = self._column(0, "u1", 1)
        return marks

    def _word(self, ahead: int) -> Bits:
        word: Bits = self._column(ahead, "<u8", 8)
        return word

    def _differs(self, wanted: bytes, start: int) -> Bits:
        piece = wanted[start : start + 8]
        differs: Bits = (self._word(start) ^ np.uint64(int.from_bytes(piece, "little"))) & LOW[len(piece)]
        return differs

    def _whole(self, marks: Marks) -> Ints:
        first = int(marks[0]) if len(marks) else 0
        alike = bool((marks == first).all())
        if alike and _IS_FIXED[first]:
            return np.full(len(marks), _FIXED[first], np.int64)
        big = self._word(1).view(">u8").astype(np.uint64)
        huge = (marks == _UINT64) & (big > np.uint64((1 << 63) - 1))
        if huge.any():
            self._leave(~huge)
        if alike:
            marks = marks[:1]
        values: Ints = (big.view(np.int64) >> _SHIFT[marks]) & _KEEP[marks]
        fixed = _IS_FIXED[marks]
        return np.where(fixed, _FIXED[marks], values) if fixed.any() else values

    def _nil(self, marks: Marks, fits: Mask, *, optional: bool) -> Mask | None:
        """Leave the rows that neither fit nor may be nil; return where nil is, None if nowhere."""
        if fits.all():
            return None
        missing = marks == _NIL
        self._leave(fits | missing if optional else fits)
        return missing if optional and missing.any() else None

    def _leave(self, kept: Mask) -> None:
        self.good &= kept
        self._strays = np.flatnonzero(~self.good)

    def _words_of(
        self, starts: Ints, lengths: Ints, missing: Mask | None, word: Bits | None
    ) -> tuple[Codes, list[str]]:
        rows = None
        if missing is not None or not self.good.all():
            rows = np.flatnonzero(self.good if missing is None else self.good & ~missing)
            starts, lengths, word = starts[rows], lengths[rows], None
        found, book = Spelling(self._data, self._words).codes(starts, lengths, word)
        codes = found
        if rows is not None:
            codes = np.full(len(self.good), -1, np.int32)
            codes[rows] = found
        if (found == NO_TEXT).any():
            self._leave(codes != NO_TEXT)
        return codes, book
