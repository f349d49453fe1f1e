"""Bodies as JSON text, the form in which nested values enter DuckDB.

DuckDB reads the literals NaN, Infinity and -Infinity, so that all floats survive; integers keep all their digits.
"""

import json
import re
from typing import Any

import msgspec
import numpy as np

from morphogen.schemas import Names, decode
from morphogen.schemas.jsontext import json_text

# A float64 or float32 of msgpack whose exponent is all ones. It may also be found inside other values: that costs time,
# not truth.
_NONFINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]|\xca[\x7f\xff][\x80-\xff]")


def raw_to_json(raw: "msgspec.Raw | bytes") -> str:
    """Return the JSON text of a msgpack body."""
    value = decode(raw)
    if _NONFINITE.search(bytes(raw)) is None:
        try:
            return _encoder.encode(value).decode()
        except (TypeError, ValueError, RecursionError):
            pass
    return to_json(value)


def to_json(value: Any) -> str:
    """Return the JSON text of a plain value; structs, vectors, bytes and keys that are no strings find a form."""
    return json_text(value, literals=True)


def _hook(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return msgspec.Raw(json.dumps(value.tolist()).encode())
    if isinstance(value, Names):
        return value.values
    raise TypeError(type(value).__name__)


_encoder = msgspec.json.Encoder(enc_hook=_hook)
