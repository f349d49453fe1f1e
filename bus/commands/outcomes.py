"""What the log says of commands that may have been delivered before: done, or in the hands of whom.

After a broker was killed its memory of the last deliveries may be gone, and a command that somebody has just done, or
is doing, comes as if it were new. The log is asked before it is done again.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from morphogen.schemas import CommandAccepted, CommandFinished, FrameError, decode_event, decode_frame

from ..reader import read

if TYPE_CHECKING:
    from ..connection import Connection

CLOCK_SLACK = 60_000_000_000  # ns by which the clocks of a cluster's servers may differ
_LARGEST = 200_000  # commands remembered


class Held(NamedTuple):
    """A command that a worker took and has not reported on: whose hands, which delivery, when (unix ns)."""

    worker: str
    delivery: int
    time: int


class Outcomes:
    """What the workers of one target reported, read from the log as far as it is needed, and then only onwards."""

    def __init__(self, conn: "Connection", label: str) -> None:
        self._conn = conn
        self._subject = f"morphogen.log.*.outcome.{label}"
        self._lock = asyncio.Lock()
        self._from: int | None = None
        self._seq = 0
        self._done: set[str] = set()
        self._held: dict[str, Held] = {}

    async def look(self, command_id: str, issued: int) -> tuple[bool, Held | None]:
        """Return whether a command, issued at a time (unix ns), is done, and else who holds it."""
        async with self._lock:
            if self._from is None or issued < self._from or len(self._done) + len(self._held) > _LARGEST:
                self._from, self._seq = issued, 0
                self._done.clear()
                self._held.clear()
            since = self._from - CLOCK_SLACK if self._seq == 0 else None
            async for batch in read(self._conn, subjects=[self._subject], since_ns=since, after=self._seq):
                for message in batch:
                    with contextlib.suppress(FrameError):
                        self._take(message.data)
                self._seq = batch[-1].seq
            return command_id in self._done, self._held.get(command_id)

    def _take(self, data: bytes) -> None:
        for record in decode_frame(data).records:
            event = decode_event(record.type, record.version, record.body)
            if isinstance(event, CommandAccepted):
                self._held[event.command_id] = Held(event.worker, event.delivery, record.time)
            elif isinstance(event, CommandFinished):
                held = self._held.get(event.command_id)
                if event.ok:
                    self._done.add(event.command_id)
                if event.ok or (held is not None and held[:2] == (event.worker, event.delivery)):
                    self._held.pop(event.command_id, None)
