"""Where a replay begins and ends, how fast it goes, and how far something is: what a person types, as values."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from morphogen.schemas.moments import exact, parse_moment, unix_ns

from .errors import BadRange

Progress = Callable[[int, int, str], None]
"""Gets what is done, what there is in all, and the unit."""

_DIGITS = 100  # Python reads no more than some thousands


@dataclass(frozen=True)
class Instant:
    """A moment of storing as it was given: it begins at `ns` (unix nanoseconds) and is `width` of them long."""

    ns: int
    width: int = 1000

    def __str__(self) -> str:
        return exact(self.ns)


Point = int | datetime | Instant
"""A place in the log: a stream sequence, or a moment of storing; a datetime stands for its microsecond."""


def silent(done: int, total: int, unit: str) -> None:
    """Say nothing."""


def parse_point(text: str, now: datetime | None = None) -> int | Instant:
    """Read a sequence (`8123`), a time (`2026-11-20`, `2026-11-20T14:05:00+01:00`; local if it names no zone) or an
    age (`-2h`, `2h ago`), as `--as-of` does.

    Raises BadRange for anything else.
    """  # fmt: skip
    text = text.strip()
    if text.isdecimal():
        if len(text) > _DIGITS:
            raise BadRange(f"a number of {len(text)} digits is no place in the log: sequences end at {2**63 - 1}")
        return int(text)
    try:
        found = parse_moment(text, now or datetime.now(UTC))
    except OverflowError:
        raise BadRange(f"{text!r} lies outside of any calendar: write a time that the log can have") from None
    if found is None:
        raise BadRange(
            f"{text!r} is no place in the log: write a sequence (8123), a time (2026-11-20T14:05) or an age (-2h)"
        )
    moment, nanos = found
    return Instant(unix_ns(moment)) if nanos is None else Instant(unix_ns(moment) + nanos, 1)


def parse_speed(text: str) -> float | None:
    """Read `10x`, `0.5x`, `1` or `max`; None means as fast as it goes. Raises BadRange."""
    text = text.strip().lower()
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise BadRange(f"{text!r} is no speed: write a factor above 0, such as 10x or 0.5x, or max")
    return speed


def pinned(point: Point | None) -> int | Instant | None:
    """Return a point with a datetime as an instant; one without a zone is UTC."""
    if not isinstance(point, datetime):
        return point
    return Instant(unix_ns(point if point.tzinfo else point.replace(tzinfo=UTC)))


def due(first: int, stored: int, speed: float | None) -> float:
    """Return how many seconds after the start a message is due that was stored at `stored`, the first one at `first`.

    Both are unix nanoseconds. A clock that stepped back makes no message due before the start.
    """
    return 0.0 if speed is None else max(0, stored - first) / 1e9 / speed
