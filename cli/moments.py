"""Times for people: local ones, which can be typed back as they stand (`--as-of`, `--from`), as a time without a zone is local."""

from datetime import datetime


def moment(ns: int) -> str:
    """Return a time in unix nanoseconds as local time, to the second; with its zone where the clock shows it again."""
    local = datetime.fromtimestamp(ns // 1_000_000_000)
    return str(local.astimezone() if local.fold else local)
