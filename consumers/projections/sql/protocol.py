"""What travels between the SQL service and those who ask: small msgpack structs around Arrow IPC bytes.

A request for rows is an `Ask`. Most answers are small and soon there, so it is first sent as a plain request with
`at_once` set: the reply is one `Part` that holds everything, or that says `later`. Then it is asked for as a stream
of `Part`s: the first carries the `Head`, each some bytes of one Arrow IPC stream, the last the `Done`, or, anywhere,
the `Failure` that ends it.
Status, waiting and snapshots are single requests on the control subject.
"""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import msgspec

from .errors import SqlError

QUERY = "morphogen.sql.query"
CONTROL = "morphogen.sql.control"
QUEUE = "projector"
CHUNK = 480 * 1024  # bytes of Arrow in one part; with its frame it stays below 512 KiB

_INT, _DECIMAL, _DATE, _TIME, _DATETIME, _UUID, _MOMENT = range(1, 8)


class Ask(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One query. `as_of` cuts at a sequence, `as_of_ns` at a moment (unix ns); `wait` is a sequence to have first.

    With `fresh` the answer holds everything that the log held when the service got the request. `at_once` is how many
    seconds the asker of a plain request has for an answer that fits in one part.
    """

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    as_of: int | None = None
    as_of_ns: int | None = None
    wait: int | None = None
    fresh: bool = False
    timeout: float = 30.0
    max_rows: int | None = None
    at_once: float | None = None


class Head(msgspec.Struct, kw_only=True):
    """What is known before the first row: column types in DuckDB's names, the position, the cut."""

    types: list[str]
    position: int
    as_of: int | None = None
    stopped: list[str] = []
    """Why projections that failed go on no more: their tables do not show what came since."""


class Done(msgspec.Struct, kw_only=True):
    """The end of a whole answer."""

    rows: int
    truncated: bool
    seconds: float


class Failure(msgspec.Struct, kw_only=True):
    """Why there is no answer: the name of an error class, its line, and where in the text it is."""

    kind: str
    line: str
    detail: str = ""


class Part(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of an answer."""

    head: Head | None = None
    data: bytes = b""
    done: Done | None = None
    failure: Failure | None = None
    later: bool = False


class Control(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request of one reply: `op` is status, wait, snapshot, or one that the projector adds."""

    op: str
    args: dict[str, Any] = {}


class Reply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to a Control: values by name, or a failure."""

    values: dict[str, Any] = {}
    failure: Failure | None = None


class Status(msgspec.Struct, kw_only=True):
    """How the projector stands: `position` is projected, `head` is in the log, `lag` lies between."""

    position: int
    head: int
    lag: int
    epoch: str
    tables: list[str]
    version: str
    pid: int
    host: str
    running: int = 0
    answered: int = 0
    stopped: dict[str, str] = {}
    """Why the projections that failed go on no more, by name."""


def _enc_hook(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return msgspec.msgpack.Ext(_UUID, value.bytes)
    if hasattr(value, "tolist"):  # numpy's and torch's: a number where it is one, else a list
        return value.tolist()
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    kind = type(value).__name__
    raise NotImplementedError(f"a parameter cannot be of type {kind}; pass numbers, text, bytes, times or lists")


def packed_params(value: Any) -> Any:
    """Return parameters with what msgpack would change (wide ints, decimals, dates, times) as extensions.

    Times may have nanoseconds, as a Moment, pandas' and numpy's have; NaT is NULL.
    """
    if isinstance(value, dict):
        return {str(name): packed_params(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [packed_params(inner) for inner in value]
    if isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    if getattr(getattr(value, "dtype", None), "kind", "") == "M":  # numpy's: as a list they would be plain integers
        return _packed_times(value)
    if isinstance(value, dt.datetime):
        if value != value:  # noqa: PLR0124  (pandas' NaT)
            return None
        if nanosecond := getattr(value, "nanosecond", 0):
            utc = value if value.tzinfo is None else value.astimezone(dt.UTC)
            plain = dt.datetime.combine(utc.date(), utc.time())
            return msgspec.msgpack.Ext(_MOMENT, f"{plain.isoformat(' ', 'microseconds')}{nanosecond:03d}".encode())
    for kind, code in _CODES:
        if isinstance(value, kind):
            text = value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
            return msgspec.msgpack.Ext(code, text.encode())
    return value


def _packed_times(value: Any) -> Any:
    """Return numpy's datetime64, or an array or a Series of them, as `packed_params` does the datetimes that they are."""
    if value.ndim:
        return [packed_params(inner) for inner in value]
    if value != value:  # noqa: PLR0124  (NaT)
        return None
    plain = value.item()
    if isinstance(plain, dt.date):
        return packed_params(plain)
    moment = value.astype("datetime64[ns]")
    if moment.astype(value.dtype) != value:
        raise SqlError(f"the time {value} lies outside of what nanoseconds can count (1677 to 2262)")
    return msgspec.msgpack.Ext(_MOMENT, str(moment).replace("T", " ").encode())


def _ext_hook(code: int, data: memoryview) -> Any:
    raw = bytes(data)
    if code == _UUID:
        return uuid.UUID(bytes=raw)
    if code == _MOMENT:
        from duckdb import Value, sqltypes  # only here: who asks a projector may do without

        return Value(raw.decode(), sqltypes.TIMESTAMP_NS)
    readers: dict[int, Any] = {
        _INT: int, _DECIMAL: Decimal, _DATE: dt.date.fromisoformat, _TIME: dt.time.fromisoformat,
        _DATETIME: dt.datetime.fromisoformat,
    }  # fmt: skip
    if code not in readers:
        raise ValueError(f"a parameter of unknown kind {code}")
    return readers[code](raw.decode())


_CODES: tuple[tuple[type, int], ...] = (
    (int, _INT), (Decimal, _DECIMAL), (dt.datetime, _DATETIME), (dt.date, _DATE), (dt.time, _TIME),
)  # fmt: skip

encode = msgspec.msgpack.Encoder(enc_hook=_enc_hook).encode
decode_ask = msgspec.msgpack.Decoder(Ask, ext_hook=_ext_hook).decode
decode_part = msgspec.msgpack.Decoder(Part).decode
decode_control = msgspec.msgpack.Decoder(Control).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
