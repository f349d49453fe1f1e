"""An event as one line of JSON, without losing what JSON has no word for.

NaN and the infinities become the strings "NaN", "Infinity" and "-Infinity", vectors become lists, bytes become
base64. The msgpack of the frames (`raw`) is the form that loses nothing.
"""

import base64
from collections.abc import Iterator

from morphogen.schemas import Frame, Record, decode, json_text

UNREADABLE = "$unreadable"


def lines(frame: Frame) -> Iterator[str]:
    """Yield a line of JSON, without its newline, for each event of a frame."""
    return (line(frame, index) for index in range(len(frame.records)))


def line(frame: Frame, index: int, record: Record | None = None) -> str:
    """Return the line of one event: its place, its envelope and its body (of `record`, where the frame refers to it)."""
    record = frame.records[index] if record is None else record
    return json_text(
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
            "body": decode(record.body),
        }
    )


def unreadable_line(seq: int, stored: int, subject: str, data: bytes, reason: str) -> str:
    """Return the line of a message that is no frame: its bytes in base64, and why it cannot be read."""
    return json_text(
        {
            "seq": seq,
            "type": UNREADABLE,
            "stored": stored,
            "subject": subject,
            "error": reason,
            "data": base64.b64encode(data).decode(),
        }
    )
