"""The moment at which a query looks: a sequence of the log, or a time that is looked up in `frames`."""

import datetime as dt
import time
from typing import TYPE_CHECKING

from morphogen.schemas.moments import in_utc, parse_moment, unix_ns

from .errors import SqlError

if TYPE_CHECKING:
    from ..store.store import Store

AsOf = int | str | dt.datetime | None

_LAST_NS = 2**63 - 1000
_DIGITS = 100  # of a number: Python reads no more than some thousands


def parse_as_of(value: AsOf) -> tuple[int | None, int | None]:
    """Return `value` as (sequence, None) or (None, unix nanoseconds).

    A time is a datetime, an ISO string ("2026-11-20 23:40", "2026-11-20T22:40:00Z"; without a zone it is local),
    "5m ago" or "-5m". Digits alone are a sequence. Raises SqlError for anything else.
    """
    if value is None:
        return None, None
    if isinstance(value, bool):
        raise SqlError(f"as_of is {value}: give a sequence, a time, or a text such as '5m ago'")
    if isinstance(value, int):
        return _sequence(value), None
    if isinstance(value, dt.datetime):
        if value != value:  # noqa: PLR0124  (pandas' NaT, which is a datetime too)
            raise SqlError("as_of is NaT, which is no time: give one, a sequence, or a text such as '5m ago'")
        plain = dt.datetime.combine(value.date(), value.time(), value.tzinfo).replace(fold=value.fold)
        return None, _ns(plain) + getattr(value, "nanosecond", 0) % 1000
    text = str(value).strip()
    if text.isdecimal():
        return _sequence(int(text) if len(text) <= _DIGITS else 10**_DIGITS), None
    try:
        found = parse_moment(text, dt.datetime.now(dt.UTC))
    except OverflowError:  # longer ago than any log
        return None, 0
    if found is None:
        raise SqlError(
            f"as_of {text!r} is no sequence and no time: write 1234, '2026-11-20 23:40:00', "
            "'2026-11-20T23:40:00Z' or '5m ago'"
        )
    moment, nanos = found
    return None, _ns(moment) + (nanos or 0)


def cut_at(store: "Store", as_of: int | None, as_of_ns: int | None, position: int) -> int | None:
    """Return the sequence to cut at: the given one, or the last that was stored by a time.

    Raises SqlError where it lies beyond what the tables hold.
    """
    if as_of is not None:
        if as_of > position:
            raise beyond(as_of, position)
        return as_of
    if as_of_ns is None:
        return None
    ahead = as_of_ns - time.time_ns()
    # What the log has is past, whatever the clock here.
    if ahead > 1_000_000_000 and as_of_ns > (store.newest_ns() or 0):
        told = f"{ahead / 1e9:.0f} s" if as_of_ns < _LAST_NS else "centuries"
        raise SqlError(f"as_of lies {told} in the future: ask for a time that has passed")
    return store.seq_at(as_of_ns)


def beyond(as_of: int, end: int) -> SqlError:
    """Return the error of a sequence that the log has not reached."""
    return SqlError(f"as_of {as_of} lies beyond the end of the log, which is {end}")


def _sequence(value: int) -> int:
    if not 0 <= value < 2**63:
        told = value if abs(value) < 10**_DIGITS else "of so many digits"
        raise SqlError(f"as_of {told} is no sequence of the log: they go from 1 to {2**63 - 1}")
    return value


def _ns(moment: dt.datetime) -> int:
    return min(max(unix_ns(in_utc(moment)), 0), _LAST_NS)  # no log is older than 1970
