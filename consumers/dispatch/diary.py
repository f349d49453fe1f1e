"""Where a dispatcher's events go when nobody else records: onto this machine's disk when `tell` returns, in the log soon after."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from morphogen.bus.spool import Kind, Publisher, Spool
from morphogen.schemas import Event

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings


class Diary:
    """Tell events through a spool of this process's own. A kill right after `tell` loses none. Safe between threads."""

    def __init__(self, settings: "Settings") -> None:
        self._spool = Spool.create(settings, run="")
        self._publisher = Publisher(settings)  # what a killed process has left is published too
        self._publisher.add(self._spool)
        self._kinds: dict[type[Event], Kind] = {}

    def tell(self, event: Event) -> None:
        """Record an event."""
        kind = self._kinds.get(type(event))
        if kind is None:
            kind = self._kinds[type(event)] = Kind(event.type, event.version)
        self._spool.lane(event.family).append(kind, None, time.time_ns(), None, event.encode())

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the log has all that was told; False after `timeout` seconds."""
        return self._publisher.flush(timeout, self._spool)

    def close(self, timeout: float = 5.0) -> bool:
        """Send what waits and close; what is not sent stays on disk for the next start."""
        return self._publisher.close(timeout)


@contextlib.contextmanager
def open_diary(settings: "Settings") -> Iterator[Diary]:
    """Open a diary for a `with` block, and send what waits at its end."""
    diary = Diary(settings)
    try:
        yield diary
    finally:
        diary.close()
