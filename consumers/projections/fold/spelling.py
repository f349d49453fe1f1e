"""Texts that repeat, as codes: rows with equal bytes get one code, and each text is decoded once."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Bits = npt.NDArray[np.uint64]

LONGEST = 64
"""Bytes of a text that is compared word by word; the few longer ones go through a dictionary."""

NO_TEXT = -2
"""The code of bytes that are no UTF-8."""

_ROUNDS = 4
_SLOTS = 12  # bits of the table in which rows find those that they are equal to
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)
LOW = np.array([(1 << 8 * count) - 1 for count in range(8)] + [(1 << 64) - 1], np.uint64)
"""Masks that keep so many of the first bytes of a word."""


class Spelling:
    """Texts in a buffer; `words` has the eight bytes from each place of it on."""

    def __init__(self, data: bytes, words: Bits) -> None:
        self._data = data
        self._words = words

    def codes(self, starts: Ints, lengths: Ints, word: Bits | None) -> tuple[Codes, list[str]]:
        """Return a code for each text, and the text of each code; `word` has their first eight bytes, if known."""
        found = np.full(len(starts), -1, np.int32)
        book: list[str] = []
        if not len(starts):
            return found, book
        longest = int(lengths.max())
        if longest <= LONGEST:
            self._match(starts, lengths, longest, word, found, book)
        left = np.flatnonzero(found == -1)
        if len(left):
            self._one_by_one(left, starts, lengths, found, book)
        return found, book

    def _match(
        self, starts: Ints, lengths: Ints, longest: int, word: Bits | None, found: Codes, book: list[str]
    ) -> None:
        """Give rows with equal bytes one code; what finds no equal in the table within some rounds is left."""
        sizes = lengths.astype(np.uint64)
        parts = [sizes]
        if longest < 8:  # the length fits into the last byte of the one word that there is
            first_word = self._words[starts] if word is None else word
            parts = [first_word & LOW[lengths] | sizes << np.uint64(56)]
        for offset in range(0, longest if longest >= 8 else 0, 8):
            inside = np.clip(lengths - offset, 0, 8)
            parts.append(self._words[starts + offset] & LOW[inside])
        if all((part == part[0]).all() for part in parts):
            found[:] = self._enter(int(starts[0]), int(lengths[0]), book)
            return
        rows = np.arange(len(starts))
        for turn in range(_ROUNDS):
            mixed = np.zeros(len(rows), np.uint64)
            for number, part in enumerate(parts):
                mixed = (mixed ^ part) * _MIX[(number + turn) % len(_MIX)]
                mixed ^= mixed >> np.uint64(29)
            slots = (mixed * _MIX[turn] >> np.uint64(64 - _SLOTS)).astype(np.intp)
            table = np.zeros(1 << _SLOTS, np.intp)
            table[slots] = np.arange(len(rows))
            first = table[slots]
            same = np.logical_and.reduce([part == part[first] for part in parts])
            used = table[np.flatnonzero(np.bincount(slots, minlength=1 << _SLOTS))]
            code_of = np.empty(len(rows), np.int32)
            for one in used.tolist():
                code_of[one] = self._enter(int(starts[rows[one]]), int(lengths[rows[one]]), book)
            found[rows[same]] = code_of[first[same]]
            if same.all():
                return
            rows, parts = rows[~same], [part[~same] for part in parts]

    def _one_by_one(self, left: Ints, starts: Ints, lengths: Ints, found: Codes, book: list[str]) -> None:
        known = {word: code for code, word in enumerate(book)}
        for row, start, length in zip(left.tolist(), starts[left].tolist(), lengths[left].tolist(), strict=True):
            try:
                word = str(self._data[start : start + length], "utf-8")
            except UnicodeDecodeError:
                found[row] = NO_TEXT
                continue
            if word not in known:
                known[word] = len(book)
                book.append(word)
            found[row] = known[word]

    def _enter(self, start: int, length: int, book: list[str]) -> int:
        word = _decoded(self._data[start : start + length])
        if word is None:
            return NO_TEXT
        book.append(word)
        return len(book) - 1


@lru_cache(maxsize=4096)
def _decoded(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def one_book(parts: Sequence[tuple[Codes, list[str]]]) -> tuple[Codes, list[str]]:
    """Return texts that were read in pieces as one column."""
    if len(parts) == 1:
        return parts[0]
    book: dict[str, int] = {}
    pieces = []
    for codes, words in parts:
        table = [book.setdefault(word, len(book)) for word in words]
        pieces.append(np.array([*table, -1], np.int32)[codes])
    return np.concatenate(pieces), list(book)
