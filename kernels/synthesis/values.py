"""Values of examples: what kind they are, when two are the same, and how a Python annotation names them.

Two values are the same if their MessagePack is: 1, 1.0 and True are three values, and NaN is one.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

_ENCODER = msgspec.msgpack.Encoder()
_SORTED = msgspec.msgpack.Encoder(order="sorted")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?")
_NAMES = {
    type(None): "none",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    list: "list",
    dict: "dict",
}


def plain(value: Any) -> Any:
    """Return a value with its tuples as lists, as it would come back from a recording."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def exact(value: Any) -> bytes | None:
    """Return what tells values apart, the order of keys included; None for what no recording can hold."""
    try:
        return blake2b(_ENCODER.encode(value), digest_size=12).digest()
    except (TypeError, OverflowError, UnicodeEncodeError, RecursionError, ValueError):
        return None


def loose(value: Any) -> bytes | None:
    """Return what tells values apart, whatever the order of keys."""
    try:
        return blake2b(_SORTED.encode(value), digest_size=12).digest()
    except (TypeError, OverflowError, UnicodeEncodeError, RecursionError, ValueError):
        return None


def same(one: Any, other: Any) -> bool:
    """Say whether two values are the same, whatever the order of keys."""
    return type(one) is type(other) and loose(one) == loose(other)


def kind_of(values: Iterable[Any]) -> str:
    """Return the kind that all values share (`int`, `str`, `list`, ...), `number` for int and float, else `mixed`."""
    kinds = {_NAMES.get(type(value), "other") for value in values}
    if len(kinds) == 1:
        return kinds.pop()
    return "number" if kinds == {"int", "float"} else "mixed"


def is_number(value: Any) -> bool:
    """Say whether a value is an int or a float, and no bool."""
    return type(value) in (int, float)


def is_date(value: Any) -> bool:
    """Say whether a value is a text such as 2026-03-01."""
    return isinstance(value, str) and bool(_DATE.fullmatch(value))


def is_moment(value: Any) -> bool:
    """Say whether a value is a text such as 2026-03-01T12:00:00."""
    return isinstance(value, str) and bool(_MOMENT.fullmatch(value))


def annotation(values: Sequence[Any], depth: int = 0) -> str:
    """Return the Python annotation that fits all values, `object` where they have little in common."""
    kinds = {_NAMES.get(type(value), "other") for value in values}
    optional = "none" in kinds and len(kinds) > 1
    present = [value for value in values if value is not None] if optional else list(values)
    found = _annotation(present, kinds - {"none"} if optional else kinds, depth)
    return f"{found} | None" if optional and found != "object" else found


def _annotation(values: list[Any], kinds: set[str], depth: int) -> str:
    if kinds == {"int", "float"}:
        return "int | float"
    if len(kinds) != 1 or depth > 2:
        return "object"
    (kind,) = kinds
    if kind == "list":
        inner = [item for value in values for item in value]
        return f"list[{annotation(inner, depth + 1)}]" if inner else "list[object]"
    if kind == "dict":
        if not all(isinstance(key, str) for value in values for key in value):
            return "dict[object, object]"
        inner = [item for value in values for item in value.values()]
        return f"dict[str, {annotation(inner, depth + 1)}]" if inner else "dict[str, object]"
    return {"none": "None", "other": "object"}.get(kind, kind)
