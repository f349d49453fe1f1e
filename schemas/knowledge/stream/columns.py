"""Values of many items side by side: one array a field, unknown being a value of its own in each.

Number   float64, NaN where unknown
Integer  int64, with a mask where some are unknown
Text     a code for each row into a list of words, -1 where unknown
Flag     two masks: surely true, surely false; neither where unknown
Lists    Python lists, None where unknown
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Codes: TypeAlias = npt.NDArray[np.int32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Places: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """Numbers; NaN is unknown. `missing` tells those that were never there from NaN as a reading, for who stores them."""

    values: Floats
    missing: Mask | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, at: Any) -> "Number":
        """Return some rows."""
        return Number(self.values[at], None if self.missing is None else self.missing[at])

    def plain(self, at: Places) -> list[Any]:
        """Return some rows as Python values, None where unknown."""
        return [None if value != value else value for value in self.values[at].tolist()]  # noqa: PLR0124


@dataclass(frozen=True, slots=True, eq=False)
class Integer:
    """Whole numbers, exact; `missing` is None where all are known."""

    values: Ints
    missing: Mask | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, at: Any) -> "Integer":
        """Return some rows."""
        return Integer(self.values[at], None if self.missing is None else self.missing[at])

    def plain(self, at: Places) -> list[Any]:
        """Return some rows as Python values, None where unknown."""
        found: list[Any] = self.values[at].tolist()
        if self.missing is None:
            return found
        return [None if gone else value for value, gone in zip(found, self.missing[at].tolist(), strict=True)]

    def floats(self) -> Floats:
        """Return the numbers as float64, NaN where unknown."""
        out = self.values.astype(np.float64)
        if self.missing is not None:
            out[self.missing] = np.nan
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Strings that repeat."""

    codes: Codes
    words: Sequence[str]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, at: Any) -> "Text":
        """Return some rows."""
        return Text(self.codes[at], self.words)

    def plain(self, at: Places) -> list[Any]:
        """Return some rows as Python values, None where unknown."""
        return [None if code < 0 else self.words[code] for code in self.codes[at].tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class Flag:
    """Truth values: where they are true, and where they are false."""

    true: Mask
    false: Mask

    def __len__(self) -> int:
        return len(self.true)

    def take(self, at: Any) -> "Flag":
        """Return some rows."""
        return Flag(self.true[at], self.false[at])

    def plain(self, at: Places) -> list[Any]:
        """Return some rows as Python values, None where unknown."""
        pairs = zip(self.true[at].tolist(), self.false[at].tolist(), strict=True)
        return [True if yes else False if no else None for yes, no in pairs]


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Lists of plain values."""

    values: "npt.NDArray[np.object_]"

    def __len__(self) -> int:
        return len(self.values)

    def take(self, at: Any) -> "Lists":
        """Return some rows."""
        return Lists(self.values[at])

    def plain(self, at: Places) -> list[Any]:
        """Return some rows as Python values, None where unknown."""
        return list(self.values[at])


Values: TypeAlias = Number | Integer | Text | Flag | Lists


def numbers(values: Sequence[float | int | None]) -> Number:
    """Return numbers from Python values; None is unknown."""
    missing = np.array([value is None for value in values], np.bool_) if None in values else None
    return Number(np.array(values, np.float64), missing)  # numpy makes NaN of None


def integers(values: Sequence[int | None]) -> Integer:
    """Return whole numbers from Python values; None is unknown."""
    missing = np.array([value is None for value in values], np.bool_)
    filled = np.array([0 if value is None else value for value in values], np.int64)
    return Integer(filled, missing if missing.any() else None)


def texts(values: Sequence[str | None]) -> Text:
    """Return strings from Python values; None is unknown."""
    words = [word for word in dict.fromkeys(values) if word is not None]
    book: dict[str | None, int] = {word: code for code, word in enumerate(words)}
    book[None] = -1
    return Text(np.fromiter(map(book.__getitem__, values), np.int32, len(values)), words)


def flags(values: Sequence[bool | None]) -> Flag:
    """Return truth values from Python values; None is unknown."""
    return Flag(
        np.array([value is True for value in values], np.bool_),
        np.array([value is False for value in values], np.bool_),
    )


def lists(values: Sequence[Sequence[Any] | None]) -> Lists:
    """Return lists from Python values; None is unknown."""
    out = np.empty(len(values), np.object_)
    for i, value in enumerate(values):
        out[i] = value
    return Lists(out)


MAKERS = {"number": numbers, "int": integers, "text": texts, "flag": flags, "list": lists}
"""What makes a column of a kind from Python values."""


def joined(parts: Sequence[Values]) -> Values:
    """Return columns of one kind end to end, at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Number):
        some = [part for part in parts if isinstance(part, Number)]
        return Number(np.concatenate([part.values for part in some]), _one_mask(some))
    if isinstance(first, Integer):
        whole = [part for part in parts if isinstance(part, Integer)]
        return Integer(np.concatenate([part.values for part in whole]), _one_mask(whole))
    if isinstance(first, Flag):
        flagged = [part for part in parts if isinstance(part, Flag)]
        return Flag(np.concatenate([part.true for part in flagged]), np.concatenate([part.false for part in flagged]))
    if isinstance(first, Text):
        return _one_book([part for part in parts if isinstance(part, Text)])
    return Lists(np.concatenate([part.values for part in parts if isinstance(part, Lists)]))


def _one_mask(parts: "Sequence[Number] | Sequence[Integer]") -> Mask | None:
    if all(part.missing is None for part in parts):
        return None
    return np.concatenate([np.zeros(len(part), np.bool_) if part.missing is None else part.missing for part in parts])


def _one_book(parts: Sequence[Text]) -> Text:
    book: dict[str, int] = {}
    pieces = []
    for part in parts:
        codes = [book.setdefault(word, len(book)) for word in part.words]
        pieces.append(np.array([*codes, -1], np.int32)[part.codes])
    return Text(np.concatenate(pieces), list(book))


def compact(value: Values) -> Values:
    """Return the same column with no word that no row has: what is kept for long must not hold on to what it was cut from."""
    if isinstance(value, Text):
        used = np.unique(value.codes[value.codes >= 0])
        table = np.full(len(value.words) + 1, -1, np.int32)
        table[used] = np.arange(len(used), dtype=np.int32)
        return Text(table[value.codes], [value.words[code] for code in used.tolist()])
    return value


def packed(value: Values) -> list[Any]:
    """Return a column as plain values for msgpack."""
    match value:
        case Number(values=values):
            return ["n", values.tobytes()]
        case Integer(values=values, missing=missing):
            return ["i", values.tobytes(), None if missing is None else missing.tobytes()]
        case Text(codes=codes, words=words):
            return ["t", codes.tobytes(), list(words)]
        case Flag(true=true, false=false):
            return ["f", true.tobytes(), false.tobytes()]
        case Lists(values=values):
            return ["l", list(values)]


def unpacked(plain: Sequence[Any]) -> Values:
    """Return the column that `packed` was given."""
    match plain[0]:
        case "n":
            return Number(np.frombuffer(plain[1], np.float64))
        case "i":
            return Integer(
                np.frombuffer(plain[1], np.int64), None if plain[2] is None else np.frombuffer(plain[2], np.bool_)
            )
        case "t":
            return Text(np.frombuffer(plain[1], np.int32), list(plain[2]))
        case "f":
            return Flag(np.frombuffer(plain[1], np.bool_), np.frombuffer(plain[2], np.bool_))
        case _:
            return lists(plain[1])


def spread_like(value: Values, length: int) -> Values:
    """Return a column of the same kind with `length` unknown rows."""
    none = np.zeros(length, np.bool_)
    match value:
        case Number():
            return Number(np.full(length, np.nan))
        case Integer():
            return Integer(np.zeros(length, np.int64), ~none)
        case Text(words=words):
            return Text(np.full(length, -1, np.int32), words)
        case Flag():
            return Flag(none, none)
        case Lists():
            return lists([None] * length)
