"""Where the recorder's events go: into a run that is being recorded, or through a spool of this process's own.

Either way an event is on this machine's disk when `tell` returns, and in the log soon after. Values too large for an event go
into a blob, named by the very hash that the event tells.
"""

import atexit
import hashlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

from morphogen.bus.settings import Settings
from morphogen.bus.spool import Kind, Publisher, Spool
from morphogen.schemas.event import Event
from morphogen.schemas.values import encode

if TYPE_CHECKING:
    from morphogen.bus import Bus
    from morphogen.producers.run import Run

_PAUSE = 30.0  # seconds in which a broker that was not there is not asked again
_PATIENCE = 2.0  # seconds that an agent waits for a broker before a large value travels in its event
_log = logging.getLogger("morphogen.executions")


class Outlet(Protocol):
    """Where events and large values go."""

    settings: Settings

    def tell(self, event: Event, cause: str | None = None) -> str | None:
        """Record an event; return its id, None where it was refused (which is said in the program's log)."""
        ...

    def keep(self, data: bytes) -> str | None:
        """Store bytes and return the blob's name, their sha256 in hex; None where no broker takes them now."""
        ...


class _Keeping:
    """Store blobs over a connection that is opened when the first is stored."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._bus: Bus | None = None
        self._lock = threading.Lock()
        self._not_before = 0.0

    def keep(self, data: bytes) -> str | None:
        """Store bytes and return the blob's name; None where no broker takes them now."""
        from morphogen.bus import Bus
        from morphogen.bus.errors import BusError

        with self._lock:
            if time.monotonic() < self._not_before:
                return None
            try:
                if self._bus is None:
                    self._bus = Bus.open(self.settings, name="executions", deadline=_PATIENCE)
                name = self._bus.blobs.put(data)
            except BusError as error:
                self._not_before = time.monotonic() + _PAUSE
                _log.warning("large values of executions travel in their events for now: %s", error)
                return None
        assert name == hashlib.sha256(data).hexdigest()
        return name

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()


class RunOutlet(_Keeping):
    """Into a run that is being recorded."""

    def __init__(self, run: "Run") -> None:
        super().__init__(run.settings)
        self._run = run

    def tell(self, event: Event, cause: str | None = None) -> str | None:
        """Record an event in the run."""
        return self._run.event(event, cause=cause)


class OwnOutlet(_Keeping):
    """Through a spool of this process, outside of any run."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._spool = Spool.create(settings, run="")
        self._publisher = Publisher(settings)  # what a killed process has left is published too
        self._publisher.add(self._spool)
        self._kinds: dict[type[Event], Kind] = {}

    def tell(self, event: Event, cause: str | None = None) -> str | None:
        """Record an event."""
        kind = self._kinds.get(type(event))
        if kind is None:
            kind = self._kinds[type(event)] = Kind(event.type, event.version)
        count = self._spool.lane(event.family).append(kind, None, time.time_ns(), cause, encode(event))
        if not count:
            _log.warning("%s was not recorded: the spool takes no more; make room in %s", event.type,
                         self.settings.spool_dir)  # fmt: skip
            return None
        return f"{self._spool.writer}.{event.family}.{count}"

    def flush(self, timeout: float) -> bool:
        """Wait until the log has all that was told."""
        return self._publisher.flush(timeout, self._spool)

    def end(self, timeout: float) -> bool:
        """Send what waits and close; what is not sent stays on disk for the next start."""
        super().close()
        return self._publisher.close(timeout)


_own: dict[Settings, OwnOutlet] = {}
_runs: dict[int, RunOutlet] = {}
_guard = threading.Lock()


def outlet(run: "Run | None" = None, settings: Settings | None = None) -> Outlet:
    """Return where events go: into `run`, else through the spool of this process for these settings."""
    with _guard:
        if run is not None:
            if id(run) not in _runs:
                _runs[id(run)] = RunOutlet(run)
                run.before_end(lambda: _leave(id(run)))
            return _runs[id(run)]
        chosen = settings or Settings.from_environ()
        if chosen not in _own:
            if not _own:
                atexit.register(close)
            _own[chosen] = OwnOutlet(chosen)
        return _own[chosen]


def _leave(run: int) -> None:
    with _guard:
        left = _runs.pop(run, None)
    if left is not None:
        left.close()


def flush(timeout: float = 30.0) -> bool:
    """Wait until the log has all executions recorded outside of runs; False where it has not within `timeout` seconds."""
    with _guard:
        outlets = list(_own.values())
    end = time.monotonic() + timeout
    done = [each.flush(max(0.0, end - time.monotonic())) for each in outlets]
    return all(done)


def close(timeout: float = 5.0) -> bool:
    """Send what waits, and close; called at the end of the process. What is not sent is sent by the next start."""
    with _guard:
        outlets = list(_own.values())
        _own.clear()
    done = [each.end(timeout) for each in outlets]
    return all(done)
