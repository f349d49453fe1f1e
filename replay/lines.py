"""An event as one line of JSON, without losing what JSON has no word for.

NaN and the infinities become the strings "NaN", "Infinity" and "-Infinity", vectors become lists, bytes become
base64. The msgpack of the frames (`raw`) is the form that loses nothing.
"""

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import msgspec

from morphogen.schemas import Frame, Names, decode

UNREADABLE = "$unreadable"


def lines(frame: Frame) -> Iterator[str]:
    """Yield a line of JSON, without its newline, for each event of a frame."""
    for index, record in enumerate(frame.records):
        yield _dump(
            {
                "seq": frame.seq,
                "idx": index,
                "id": frame.event_id(index),
                "type": record.type,
                "version": record.version,
                "run": frame.run,
                "attempt": frame.attempt,
                "rank": frame.rank,
                "step": record.step,
                "time": record.time,
                "cause": record.cause,
                "body": _jsonable(decode(record.body)),
            }
        )


def unreadable_line(seq: int, stored: int, subject: str, data: bytes, reason: str) -> str:
    """Return the line of a message that is no frame: its bytes in base64, and why it cannot be read."""
    return _dump(
        {
            "seq": seq,
            "type": UNREADABLE,
            "stored": stored,
            "subject": subject,
            "error": reason,
            "data": base64.b64encode(data).decode(),
        }
    )


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return (
            value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        )
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(_jsonable(key)): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | Names):
        return [_jsonable(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, msgspec.msgpack.Ext):
        return {"$ext": value.code, "data": base64.b64encode(bytes(value.data)).decode()}
    if hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    return str(value)
