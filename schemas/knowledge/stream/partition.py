"""Which items belong together: those of one run that agree in some fields, numbered as they first come."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .columns import Flag, Integer, Ints, Number, Places, Text, Values

Key = tuple[Any, ...]
"""Values of the fields that a group shares; None where one is unknown."""

Book = dict[Key, int]
"""The number of each key of a run, in the order of their first items."""


class Partition:
    """The groups of a batch.

    Groups of one run stand side by side: `base[r]` is the number of run r's first one, and `group` has that of each row.
    All keys that a run ever had count, also those that this batch has no item of.
    """

    def __init__(self, group: Ints, base: Ints) -> None:
        self.group = group
        self.base = base
        self.total = int(base[-1])

    def order(self) -> Places | None:
        """Return the rows sorted by group, those of a group in log order; None where they are so already."""
        if self.total <= 1 or len(self.group) < 2 or bool((self.group[1:] >= self.group[:-1]).all()):
            return None
        return np.argsort(self.group, kind="stable")


def partition(runs: Ints, fields: Sequence[Values], books: Sequence[Book]) -> Partition:
    """Group rows by run and fields; keys that are new are entered into the book of their run (one book a run)."""
    if not fields:
        for book in books:
            book.setdefault((), 0)
        return Partition(runs, np.arange(len(books) + 1, dtype=np.int64))
    codes, count = runs, len(books)
    words: list[list[Any]] = []
    for field in fields:
        codes_here, words_here = coded(field)
        words.append([*words_here, None])
        width = len(words_here) + 1
        if count > (1 << 62) // max(width, 1):
            codes, count = _dense(codes)
        codes = codes * width + np.where(codes_here < 0, width - 1, codes_here)
        count *= width
    used, inverse = distinct(codes, count)
    firsts = _first_rows(inverse, len(used))
    numbers = np.empty(len(used), np.int64)
    owners = runs[firsts]
    keys = list(zip(*(_plain(field, firsts) for field in fields), strict=True))
    for at in np.argsort(firsts, kind="stable").tolist():  # keys are numbered as they come, however batches are cut
        book = books[owners[at]]
        numbers[at] = book.setdefault(keys[at], len(book))
    base = np.zeros(len(books) + 1, np.int64)
    np.cumsum([len(book) for book in books], out=base[1:])
    return Partition((numbers + base[owners])[inverse], base)


def coded(field: Values) -> tuple[Ints, Sequence[Any]]:
    """Return a column as codes into the values that it has; -1 where unknown."""
    found: Any
    places: Any
    match field:
        case Text(codes=codes, words=words):
            return codes.astype(np.int64), words
        case Flag(true=true, false=false):
            return np.where(true, 1, np.where(false, 0, -1)).astype(np.int64), [False, True]
        case Number(values=values):
            gone = np.isnan(values)
            found, places = np.unique(np.where(gone, 0.0, values), return_inverse=True)
            return np.where(gone, -1, places).astype(np.int64), found
        case Integer(values=values, missing=missing):
            found, places = np.unique(values, return_inverse=True)
            return (places if missing is None else np.where(missing, -1, places)).astype(np.int64), found
        case _:
            texts = [None if one is None else repr(one) for one in field.values]
            book: dict[str | None, int] = {text: code for code, text in enumerate(dict.fromkeys(texts))}
            return np.array([-1 if text is None else book[text] for text in texts], np.int64), list(book)


def distinct(codes: Ints, count: int) -> tuple[Ints, Ints]:
    """Return which codes below `count` there are, and the place of each row's code among them."""
    if count <= max(4 * len(codes), 1024):
        seen = np.zeros(count, np.bool_)
        seen[codes] = True
        used = np.flatnonzero(seen)
        place = np.empty(count, np.int64)
        place[used] = np.arange(len(used))
        return used, place[codes]
    used, inverse = np.unique(codes, return_inverse=True)
    return used, inverse


def _dense(codes: Ints) -> tuple[Ints, int]:
    used, inverse = np.unique(codes, return_inverse=True)
    return inverse.astype(np.int64), len(used)


def _first_rows(inverse: Ints, count: int) -> Places:
    firsts = np.empty(count, np.intp)
    firsts[inverse[::-1]] = np.arange(len(inverse) - 1, -1, -1)  # of equal places the last assignment stays
    return firsts


def _plain(field: Values, at: Places) -> list[Any]:
    if isinstance(field, Number):
        return [value if value is None else value + 0.0 for value in field.plain(at)]  # -0.0 and 0.0 are one key
    return [tuple(one) if isinstance(one, list) else one for one in field.plain(at)]
