"""Columns on their way to Arrow: numbers with gaps, and strings that repeat.

Arrow arrays are made from buffers, never by `pyarrow.array`: that would import pandas wherever it is installed, which
costs a short-lived process half a second and a long-lived one 60 MB.
"""

import datetime as dt
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]

_BUILDERS = {
    "BIGINT": (pa.int64(), np.int64), "INT8": (pa.int64(), np.int64), "LONG": (pa.int64(), np.int64),
    "INTEGER": (pa.int32(), np.int32), "INT": (pa.int32(), np.int32), "SMALLINT": (pa.int16(), np.int16),
    "TINYINT": (pa.int8(), np.int8), "UBIGINT": (pa.uint64(), np.uint64), "UINTEGER": (pa.uint32(), np.uint32),
    "USMALLINT": (pa.uint16(), np.uint16), "UTINYINT": (pa.uint8(), np.uint8), "DOUBLE": (pa.float64(), np.float64),
    "FLOAT": (pa.float32(), np.float32), "REAL": (pa.float32(), np.float32),
    "TIMESTAMP_NS": (pa.timestamp("ns"), np.int64),
}  # fmt: skip
_OF_DTYPE = {
    np.dtype(name): kind
    for name, kind in {
        "i8": pa.int64(), "i4": pa.int32(), "i2": pa.int16(), "i1": pa.int8(), "u8": pa.uint64(), "u4": pa.uint32(),
        "u2": pa.uint16(), "u1": pa.uint8(), "f8": pa.float64(), "f4": pa.float32(), "f2": pa.float16(),
    }.items()
}  # fmt: skip
TEXT = ("VARCHAR", "TEXT", "STRING")
_FLAG = ("BOOLEAN", "BOOL")
_FEW = 256  # words of one column that are worth being kept for the next batch
_PLAIN = 1024  # rows up to which a dictionary costs DuckDB more than it saves
_BLOB = ("BLOB", "BYTEA", "BINARY", "VARBINARY")
WIDE = ("HUGEINT", "INT128", "UHUGEINT", "UINT128", "BIGNUM", "VARINT")
"""Integers for which Arrow has no type: they travel as text."""
_EPOCH = dt.datetime(1970, 1, 1)


class Words:
    """Strings that repeat: a code for each row, -1 where there is none, and the word of each code."""

    __slots__ = ("codes", "words")

    def __init__(self, codes: "npt.NDArray[np.int32]", words: Sequence[str]) -> None:
        self.codes = codes
        self.words = words

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, at: Any) -> "Words":
        return Words(self.codes[at], self.words)

    def at(self, row: int) -> Any:
        """Return one of the strings, None where there is none."""
        code = self.codes[row]
        return None if code < 0 else self.words[code]

    def repeat(self, lengths: "npt.NDArray[np.integer[Any]]") -> "Words":
        """Repeat each row as often as `lengths` says."""
        return Words(self.codes.repeat(lengths), self.words)

    def values(self) -> list[str | None]:
        """Return the strings, row by row."""
        return [None if code < 0 else self.words[code] for code in self.codes.tolist()]

    def arrow(self) -> pa.Array:
        """Return them as a dictionary array; a few as plain text, which DuckDB takes in less time."""
        if len(self.codes) <= _PLAIN:
            return text(self.values())
        missing = self.codes < 0
        codes = from_numpy(self.codes, pa.int32(), missing if missing.any() else None)
        words = _same_text(tuple(self.words)) if len(self.words) <= _FEW else text(self.words)
        return pa.DictionaryArray.from_arrays(codes, words)


class Gaps:
    """Numbers of which some are missing; a NaN is a number and not missing."""

    __slots__ = ("missing", "numbers")

    def __init__(self, numbers: "npt.NDArray[Any]", missing: "Mask | None" = None) -> None:
        self.numbers = numbers
        self.missing = missing

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, at: Any) -> "Gaps":
        return Gaps(self.numbers[at], None if self.missing is None else self.missing[at])

    def at(self, row: int) -> Any:
        """Return one of the numbers, None where it is missing."""
        return None if self.missing is not None and self.missing[row] else self.numbers[row].item()

    def repeat(self, lengths: "npt.NDArray[np.integer[Any]]") -> "Gaps":
        """Repeat each row as often as `lengths` says."""
        return Gaps(self.numbers.repeat(lengths), None if self.missing is None else self.missing.repeat(lengths))


def strings(values: Sequence[str | None]) -> Words:
    """Return strings that repeat, the words in the order of their first use."""
    if not values:
        return Words(np.empty(0, np.int32), [])
    first = values[0]
    if first is not None and values.count(first) == len(values):
        return Words(np.zeros(len(values), np.int32), [first])
    words = [word for word in dict.fromkeys(values) if word is not None]
    book: dict[str | None, int] = {word: code for code, word in enumerate(words)}
    book[None] = -1
    return Words(np.fromiter(map(book.__getitem__, values), np.int32, len(values)), words)


def nullable(values: "npt.NDArray[Any]", missing: "Mask | None") -> Gaps:
    """Return a column that is NULL where `missing` is true; NaN stays NaN."""
    return Gaps(values, missing)


@lru_cache(maxsize=256)
def _same_text(words: tuple[str, ...]) -> pa.Array:
    """Return a few words as an Arrow array; those of one batch are mostly those of the next."""
    return text(words)


def to_arrow(values: Any, kind: str) -> pa.Array:
    """Return a column as an Arrow array for a DuckDB column of type `kind`."""
    if isinstance(values, Words):
        return values.arrow()
    if isinstance(values, pa.Array) or isinstance(values, pa.ChunkedArray):  # noqa: SIM101  (a union is built each time)
        return values
    kind = kind.split(" USING ", maxsplit=1)[0].upper()
    if isinstance(values, Gaps):
        return from_numpy(values.numbers, _arrow_type(values.numbers, kind), values.missing)
    if isinstance(values, np.ndarray):
        if values.dtype == np.bool_:
            return flags(values)
        if values.dtype in _OF_DTYPE:
            if values.dtype.kind == "f" and kind in _BUILDERS and np.dtype(_BUILDERS[kind][1]).kind in "iu":
                _refuse_fractions(values.tolist(), kind)
            return from_numpy(values, _arrow_type(values, kind))
        values = values.tolist()
    if kind in TEXT:
        return text(values)
    if kind in _BLOB:
        return binary(values)
    if kind in _BUILDERS or kind in _FLAG:
        return _listed(values, kind)
    if kind in WIDE:
        _refuse_fractions(values, kind)
        return text([None if value is None else str(int(value)) for value in values])
    return pa.array(values)  # a type that few have, such as a list or a decimal: DuckDB casts it


def from_numpy(values: "npt.NDArray[Any]", kind: pa.DataType, missing: "Mask | None" = None) -> pa.Array:
    """Return numbers as an Arrow array over the same memory, null where `missing` is true."""
    if not values.flags.c_contiguous:
        values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [_validity(missing), pa.py_buffer(values)])


def flags(values: "npt.NDArray[np.bool_]", missing: "Mask | None" = None) -> pa.Array:
    """Return truth values as an Arrow array."""
    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [_validity(missing), pa.py_buffer(bits)])


def text(values: Sequence[str | None]) -> pa.Array:
    """Return strings that hardly repeat as an Arrow array."""
    return _joined([None if value is None else value.encode("utf-8", "replace") for value in values], pa.large_string())


def binary(values: Sequence[bytes | None]) -> pa.Array:
    """Return byte strings as an Arrow array."""
    return _joined([None if value is None else bytes(value) for value in values], pa.large_binary())


def nothing(length: int, kind: pa.DataType) -> pa.Array:
    """Return a column of nulls."""
    return pa.nulls(length, kind)


def _joined(values: list[bytes | None], kind: pa.DataType) -> pa.Array:
    missing = None if None not in values else np.array([value is None for value in values])
    known: Iterable[bytes] = values if missing is None else [value or b"" for value in values]  # type: ignore[assignment]
    parts = list(known)
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
    buffers = [_validity(missing), pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))]
    return pa.Array.from_buffers(kind, len(parts), buffers)


def _listed(values: Sequence[Any], kind: str) -> pa.Array:
    if kind == "TIMESTAMP_NS":  # pandas' and numpy's NaT
        values = [None if value is not None and value != value else value for value in values]  # noqa: PLR0124
    missing = np.array([value is None for value in values], np.bool_) if None in values else None
    filled = values if missing is None else [0 if value is None else value for value in values]
    if kind in _FLAG:
        return flags(np.array(filled, np.bool_), missing)
    arrow, dtype = _BUILDERS[kind]
    if kind == "TIMESTAMP_NS":
        filled = [value if type(value) is int else _nanoseconds(value) for value in filled]
    elif dtype not in {np.float64, np.float32}:
        _refuse_fractions(filled, kind)
    return from_numpy(np.array(filled, dtype), arrow, missing)


def _refuse_fractions(values: Sequence[Any], kind: str) -> None:
    """Raise ValueError for a number that an integer column would cut."""
    if set(map(type, values)) <= {int, bool, type(None)}:
        return
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value!r} is no integer, and the column is {kind}")
        if isinstance(value, Number) and value != int(value):  # type: ignore[call-overload]
            raise ValueError(f"{value!r} is no integer, and the column is {kind}")


def _nanoseconds(value: Any) -> Any:
    """Return a time as nanoseconds since 1970; one without a zone is UTC. What is no time is returned as it is."""
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[ns]").astype(np.int64))
    if not isinstance(value, dt.datetime):
        return value
    plain = value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)
    return (plain - _EPOCH) // dt.timedelta(microseconds=1) * 1000 + getattr(value, "nanosecond", 0)


def _arrow_type(values: "npt.NDArray[Any]", kind: str) -> pa.DataType:
    return pa.timestamp("ns") if kind == "TIMESTAMP_NS" and values.dtype == np.int64 else _OF_DTYPE[values.dtype]


def _validity(missing: "Mask | None") -> "pa.Buffer | None":
    return None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))
