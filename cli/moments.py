"""Times for people: local ones, which can be typed back as they stand (`--as-of`, `--from`), as a time without a zone is local."""

from datetime import UTC, datetime


def moment(ns: int) -> str:
    """Return a time in unix nanoseconds as local time, to the second."""
    return datetime.fromtimestamp(ns // 1_000_000_000).strftime("%Y-%m-%d %H:%M:%S")


def exact(ns: int) -> str:
    """Return a time in unix nanoseconds for programs: in UTC, to the nanosecond, with its zone."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
