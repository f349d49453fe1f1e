"""Lines of text that a job says."""

from typing import Any

import msgspec

from .event import Event


class LogLine(Event, type="log.line", version=1, high_rate=True):
    """One line of a job's log. `level` is the name that Python's logging gives it, in lower case."""

    message: str
    level: str = "info"
    logger: str | None = None
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
