"""A message of the log as a row of Parquet, and back.

The bytes of the message stay whole in the column `data`; the other columns are read from it, so that DuckDB, pandas
or polars can find what they look for without knowing frames. A message that is no frame has its reason in `error`.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from morphogen.schemas import FrameError, decode_frame, token, untoken

from ..pull import Message
from .subjects import subject_tokens

_NS = pa.timestamp("ns")  # UTC, without a zone, as DuckDB's TIMESTAMP_NS: a zone would cost the nanoseconds there
SCHEMA = pa.schema(
    [
        ("seq", pa.int64()),
        ("stored", _NS),
        ("subject", pa.string()),
        ("run", pa.string()),
        ("attempt", pa.int64()),
        ("rank", pa.int64()),
        ("writer", pa.string()),
        ("family", pa.string()),
        ("first", pa.int64()),
        ("last", pa.int64()),
        ("count", pa.int64()),
        ("types", pa.list_(pa.string())),
        ("min_step", pa.int64()),
        ("max_step", pa.int64()),
        ("min_time", _NS),
        ("max_time", _NS),
        ("replay", pa.string()),
        ("error", pa.string()),
        ("data", pa.binary()),
    ]
)
DICTIONARY = ["subject", "run", "writer", "family", "types.list.element", "replay", "error"]
STATISTICS = [name for name in SCHEMA.names if name not in {"types", "data"}]
NEEDED = ["seq", "stored", "subject", "data"]  # what makes a message again
_TOKEN = re.compile(r"[A-Za-z0-9_=-]{1,120}")

Row = tuple[Any, ...]


def place(message: Message) -> tuple[str, str]:
    """Return the day (UTC, of storing) and the run, as a token: the folders of a message."""
    day = datetime.fromtimestamp(message.stored // 1_000_000_000, UTC).strftime("%Y-%m-%d")
    run, _ = subject_tokens(message.subject)
    return day, run if _TOKEN.fullmatch(run) else token(run)


def row(message: Message) -> Row:
    """Return the values of a message, in the order of SCHEMA. Never raises: a message that is no frame is a row too."""
    seq, stored, subject, data = message.seq, message.stored, message.subject, message.data
    try:
        frame = decode_frame(data, seq, stored)
    except FrameError as error:
        run, family = map(_name, subject_tokens(subject))
        return (seq, stored, subject, run, None, None, None, family, *[None] * 9, str(error), data)
    steps = [record.step for record in frame.records if record.step is not None]
    times = [record.time for record in frame.records]
    return (
        seq, stored, subject, frame.run, _int64(frame.attempt), _int64(frame.rank), frame.writer, frame.family,
        _int64(frame.first), _int64(frame.last), len(frame.records), sorted({record.type for record in frame.records}),
        _int64(min(steps, default=None)), _int64(max(steps, default=None)),
        _int64(min(times, default=None)), _int64(max(times, default=None)), frame.replay, None, data,
    )  # fmt: skip


def table(rows: Sequence[Row]) -> Any:
    """Return rows as a pyarrow table."""
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def messages(part: Any) -> Iterator[Message]:
    """Yield the messages of a table that has the columns NEEDED."""
    return map(
        Message,
        part["seq"].to_pylist(),
        part["stored"].cast(pa.int64()).to_pylist(),
        part["subject"].to_pylist(),
        part["data"].to_pylist(),
    )


def _name(part: str) -> str:
    name = untoken(part)
    return part if name is None or not name.isprintable() else name


def _int64(value: int | None) -> int | None:
    """Return what a column can hold; a larger number is still in `data`."""
    return value if value is not None and -(2**63) <= value < 2**63 else None
