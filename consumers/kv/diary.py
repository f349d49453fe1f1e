"""What a worker or a session tells the log: on this machine's disk when `tell` returns, in the log soon after.

Events go through the spool, as a training job's do: a kill right after `tell` loses none of them, an outage of the
broker holds nobody up, and the path of a handoff waits for no acknowledgement.
"""

import time
from typing import TYPE_CHECKING

from morphogen.bus import broker
from morphogen.bus.spool import Kind, Publisher, Spool
from morphogen.schemas import Event

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings


class Diary:
    """Record events under one run; close it, so that what waits is sent."""

    def __init__(self, settings: "Settings", run: str) -> None:
        self.run = run
        self._spool = Spool.create(settings, run=run)
        self._publisher = Publisher(settings)  # what a killed worker left is published too
        self._publisher.add(self._spool)
        self._kinds: dict[type[Event], Kind] = {}

    @classmethod
    def where_heard(cls, settings: "Settings", run: str) -> "Diary | None":
        """Return a diary where a broker is configured or runs in the data folder, else None: nothing is started."""
        if settings.urls or broker.status(settings).running:
            return cls(settings, run)
        return None

    def tell(self, event: Event, *, cause: str | None = None) -> str:
        """Record an event, and return the id that a later one may name as its cause. Safe to call from any thread."""
        kind = self._kinds.get(type(event))
        if kind is None:
            kind = self._kinds[type(event)] = Kind(event.type, event.version)
        lane = self._spool.lane(event.family)
        count = lane.append(kind, None, time.time_ns(), cause, event.encode())
        return f"{self._spool.writer}.{event.family}.{count}"

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all that was told is in the log; False after `timeout` seconds."""
        return self._publisher.flush(timeout, self._spool)

    def close(self, timeout: float = 5.0) -> bool:
        """Send what waits for at most `timeout` seconds; what is not sent stays on disk for the next start."""
        return self._publisher.close(timeout)
