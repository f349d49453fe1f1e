"""Moments as text: what a person types, a time or how long ago it was, and what a program is told."""

import re
from datetime import UTC, datetime, timedelta

_AGE = re.compile(
    r"-\s*(?P<back>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+)|(?P<ago>\d+(?:\.\d+)?)\s*(?P<name>[a-z]+)\s+ago", re.I
)
_UNITS = {
    unit: seconds
    for seconds, units in (
        (1e-3, "ms millisecond milliseconds"),
        (1.0, "s sec secs second seconds"),
        (60.0, "m min mins minute minutes"),
        (3600.0, "h hr hrs hour hours"),
        (86400.0, "d day days"),
        (604800.0, "w week weeks"),
    )
    for unit in units.split()
}
_NANOS = re.compile(r"(\.\d{6})(\d{1,3})(?!\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_moment(text: str, now: datetime) -> tuple[datetime, int | None] | None:
    """Read `2026-11-20`, `2026-11-20T14:05:00.123456789+01:00` (local if it names no zone), `-2h` or `2 hours ago`.

    Returns a datetime in UTC and the nanoseconds beyond its microseconds (None where the text is no finer than those); None
    for anything else. Raises OverflowError for an age that reaches beyond the calendar.
    """
    text = text.strip()
    if match := _AGE.fullmatch(text):
        seconds = _UNITS.get((match["unit"] or match["name"]).lower())
        if seconds is None:  # months and years are no spans of seconds
            return None
        return now.astimezone(UTC) - timedelta(seconds=float(match["back"] or match["ago"]) * seconds), None
    nanos = _NANOS.search(text)
    try:
        moment = datetime.fromisoformat(_NANOS.sub(r"\1", text))
    except ValueError:
        return None
    return in_utc(moment), int(nanos[2].ljust(3, "0")) if nanos else None


def in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC; one without a zone is taken as local."""
    try:
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and the last day of the calendar, seen from another zone
        return moment.replace(tzinfo=UTC)


def unix_ns(moment: datetime) -> int:
    """Return a moment with a zone as unix nanoseconds, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def exact(ns: int) -> str:
    """Return a time in unix nanoseconds to the nanosecond, in UTC: `2026-11-20T13:05:00.123456789Z`."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
