"""Single values on their way from Arrow to Python, JSON and the eye."""

import base64
import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa

_EPOCH = dt.datetime(1970, 1, 1)
_WIDE = {"HUGEINT", "UHUGEINT", "BIGNUM"}
_ENDS = {size: sign + "infinity" for bits in (31, 63) for size, sign in ((2**bits - 1, ""), (1 - 2**bits, "-"))}


class Moment(dt.datetime):
    """A datetime that also knows its `nanosecond` within the microsecond (0 to 999); `isoformat` writes nine digits."""

    nanosecond: int = 0

    @classmethod
    def of(cls, ns: int, zone: dt.tzinfo | None = None) -> "Moment | int":
        """Return the moment `ns` nanoseconds after 1970, or the number itself where no datetime reaches that far."""
        try:
            plain = _EPOCH + dt.timedelta(microseconds=ns // 1000)
        except OverflowError:
            return ns
        if zone is not None:
            plain = plain.replace(tzinfo=dt.UTC).astimezone(zone)
        moment = cls(*plain.timetuple()[:6], plain.microsecond, plain.tzinfo, fold=plain.fold)
        moment.nanosecond = ns % 1000
        return moment

    def isoformat(self, sep: str = "T", timespec: str = "nanoseconds") -> str:
        """Return the ISO form, with nanoseconds unless another precision is asked for."""
        if timespec != "nanoseconds":
            return super().isoformat(sep, timespec)
        text = super().isoformat(sep, "microseconds")
        at = text.index(".") + 7
        return f"{text[:at]}{self.nanosecond:03d}{text[at:]}"

    def __str__(self) -> str:
        return self.isoformat(" ")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (_moment, (super().__reduce_ex__(protocol), self.nanosecond))


def _moment(parts: Any, nanosecond: int) -> Moment:
    moment: Moment = parts[0](*parts[1])
    moment.nanosecond = nanosecond
    return moment


def python_values(column: Any, sql_type: str = "") -> list[Any]:
    """Return an Arrow array as Python values, without pandas and without losing nanoseconds.

    Dates and times that Python's calendar has not are "infinity" and "-infinity", or the plain count since 1970.
    """
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        zone = None if kind.tz is None else dt.UTC
        return [
            None if ns is None else _ENDS[ns] if ns in _ENDS else Moment.of(ns, zone)
            for ns in column.cast(pa.int64()).to_pylist()
        ]
    if pa.types.is_time(kind) and kind.unit == "ns":
        return [None if ns is None else _time_text(ns) for ns in column.cast(pa.int64()).to_pylist()]
    if sql_type in _WIDE:
        return [None if value is None else int(value) for value in column.to_pylist()]
    if pa.types.is_map(kind):
        keys, items = _inner(column.keys), _inner(column.items)
        return _gathered(column, lambda a, b: _mapping(keys[a:b], items[a:b]))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values = _inner(column.values)
        return _gathered(column, lambda a, b: values[a:b])
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        values = _inner(column.values.slice(column.offset * size, len(column) * size))
        valid = column.is_valid().to_pylist()
        return [values[row * size : (row + 1) * size] if there else None for row, there in enumerate(valid)]
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        parts = [_inner(column.field(number)) for number in range(kind.num_fields)]
        rows = zip(*parts, strict=True) if parts else ((),) * len(column)
        valid = column.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, valid, strict=True)]
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _dated(column)
    return list(column.to_pylist())


def jsonable(value: Any, document: bool = False) -> Any:
    """Return a value as JSON can write it; a `document` is JSON text already, and becomes what it says.

    One that is nested too deeply for that stays text.
    """
    if document and isinstance(value, str):
        try:
            return jsonable(json.loads(value))
        except (ValueError, RecursionError):
            return value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _key(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) and not is_interval(value):
        return [jsonable(inner) for inner in value]
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else shown(value)


def shown(value: Any, *, whole: bool = False) -> str:
    """Return a value for the eye: numbers with six digits and bytes in hexadecimal, or both `whole`, as Python has them."""
    if value is None:
        return "NULL"
    if isinstance(value, float) and not whole:
        return f"{value:.6g}" if abs(value) < 1e15 else repr(value)
    if isinstance(value, bytes) and not whole:
        return "0x" + value.hex()
    if is_interval(value):
        return f"{value.months} months {value.days} days {_seconds(value.nanoseconds)} s"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_within(key, whole)}: {_within(one, whole)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_within(one, whole) for one in value) + "]"
    if isinstance(value, tuple):  # a key with its value, where the keys of a map are lists or structs
        return "(" + ", ".join(_within(one, whole) for one in value) + ")"
    return str(value)


def _key(value: Any) -> str:
    return repr(value) if isinstance(value, float) else shown(value)


def is_interval(value: Any) -> bool:
    """Tell whether a value is pyarrow's MonthDayNano, which is a tuple too."""
    return isinstance(value, pa.MonthDayNano)


def _inner(column: Any) -> list[Any]:
    """Return the values within others: of the decimals there, those that a HUGEINT arrives as are integers."""
    return python_values(column, "HUGEINT" if column.type == pa.decimal128(38, 0) else "")


def _within(value: Any, whole: bool) -> str:
    return repr(value) if isinstance(value, str) else shown(value, whole=whole)


def _seconds(nanoseconds: int) -> str:
    """Return nanoseconds as seconds, with as many digits as it takes to say them exactly."""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}{seconds}" + (f".{rest:09d}".rstrip("0") if rest else "")


def _dated(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return [_far(scalar) for scalar in column]


def _far(scalar: Any) -> Any:
    try:
        if scalar.value not in _ENDS:
            return scalar.as_py()
    except (OverflowError, ValueError):
        pass
    return _ENDS.get(scalar.value, scalar.value)


def _gathered(column: Any, take: Any) -> list[Any]:
    """Cut the flat values of a list or map array into its rows."""
    offsets = column.offsets.to_pylist()
    valid = column.is_valid().to_pylist()
    return [take(offsets[row], offsets[row + 1]) if there else None for row, there in enumerate(valid)]


def _mapping(keys: list[Any], values: list[Any]) -> Any:
    try:
        return dict(zip(keys, values, strict=True))
    except TypeError:  # a key that is a list or a struct
        return list(zip(keys, values, strict=True))


def _time_text(ns: int) -> str:
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:09d}"
