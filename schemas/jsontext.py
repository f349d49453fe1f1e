"""Bodies as JSON text, without losing what JSON has no word for.

Vectors become lists, bytes become base64, extensions nobody knows become `{"$ext": code, "data": base64}`. NaN and the
infinities become the strings "NaN", "Infinity", "-Infinity", or, for readers that take them, the bare literals. What is
nested deeper than 200 is told by a word, so that no body is too deep to be written down.
"""

import base64
import json
import math
from typing import Any

import msgspec

from .values import Names

_DEEPEST = 200
_TOO_DEEP = f"<nested deeper than {_DEEPEST}>"


def json_text(value: Any, *, literals: bool = False) -> str:
    """Return any value that a body can hold as one line of JSON; `literals` writes NaN and Infinity bare."""
    return json.dumps(jsonable(value, literals=literals), ensure_ascii=False, separators=(",", ":"), allow_nan=literals)


def jsonable(value: Any, *, literals: bool = False) -> Any:
    """Return the value as dicts with string keys, lists, strings, numbers, booleans and None."""
    return _plain(value, literals, _DEEPEST)


def _plain(value: Any, literals: bool, left: int) -> Any:
    if isinstance(value, float):
        return value if literals or math.isfinite(value) else _word(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if left < 0:
        return _TOO_DEEP
    if isinstance(value, dict):
        return {_key(key, literals, left - 1): _plain(item, literals, left - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | Names):
        return [_plain(item, literals, left - 1) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, msgspec.msgpack.Ext):
        return {"$ext": value.code, "data": base64.b64encode(bytes(value.data)).decode()}
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.structs.asdict(value), literals, left)
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), literals, left)
    return str(value)


def _key(key: Any, literals: bool, left: int) -> str:
    return key if isinstance(key, str) else str(_plain(key, literals, left))


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
