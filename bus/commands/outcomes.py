"""What the log says of commands that may have been delivered before: done, tried how often, in the hands of whom.

After a broker was killed its memory of the last deliveries may be gone, and a command that somebody has just done, or
is doing, comes as if it were new. The log is asked before it is done again. Its order and the broker's clock count:
those who report may have clocks of their own.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

from morphogen.schemas import CommandAccepted, CommandFinished, FrameError, decode_event, decode_frame

from ..reader import Message, read

if TYPE_CHECKING:
    from ..connection import Connection

_LARGEST = 100_000  # commands remembered


class Held(NamedTuple):
    """A command that a worker took and has not reported on: whose hands, which try, when it was stored (unix ns)."""

    worker: str
    delivery: int
    stored: int


class Past(NamedTuple):
    """What was reported on a command: whether it is done, the number of its last try (0 for none), who holds it."""

    done: bool
    tries: int
    held: Held | None


class Outcomes:
    """What the workers of one target reported, read from the log as far as it is needed, and then only onwards."""

    def __init__(self, conn: "Connection", label: str) -> None:
        self._conn = conn
        self._subject = f"morphogen.log.*.outcome.{label}"
        self._lock = asyncio.Lock()
        self._from: int | None = None
        self._generation = conn.generation
        self._seq = 0
        self._done: set[str] = set()
        self._tries: dict[str, int] = {}
        self._held: dict[str, Held] = {}

    async def look(self, command_id: str, log_seq: int) -> Past:
        """Return what became of a command that stands in the log at `log_seq` (0 where it is not known)."""
        async with self._lock:
            restarted = self._generation != self._conn.generation  # a broker that lost power has lost its last messages
            if self._from is None or log_seq < self._from or restarted or len(self._tries) > _LARGEST:
                self._from = self._seq = log_seq
                self._generation = self._conn.generation
                self._done.clear()
                self._tries.clear()
                self._held.clear()
            async for batch in read(self._conn, subjects=[self._subject], after=self._seq):
                for message in batch:
                    with contextlib.suppress(FrameError):
                        self._take(message)
                self._seq = batch[-1].seq
            return Past(command_id in self._done, self._tries.get(command_id, 0), self._held.get(command_id))

    def _take(self, message: Message) -> None:
        for record in decode_frame(message.data).records:
            event = decode_event(record.type, record.version, record.body)
            if isinstance(event, CommandAccepted):
                self._tries[event.command_id] = max(event.delivery, self._tries.get(event.command_id, 0))
                self._held[event.command_id] = Held(event.worker, event.delivery, message.stored)
            elif isinstance(event, CommandFinished):
                held = self._held.get(event.command_id)
                if event.ok:
                    self._done.add(event.command_id)
                if event.ok or (held is not None and held[:2] == (event.worker, event.delivery)):
                    self._held.pop(event.command_id, None)


def lease(held: Held, now: int, ack_wait: float) -> float:
    """Return for how many of `ack_wait` seconds a command is still its holder's; `now` is the broker's clock (unix ns).

    A time that lies further ahead than that was told by a clock that has been set back since: it says nothing.
    """
    age = (now - held.stored) / 1e9
    return ack_wait - max(age, 0.0) if abs(age) < ack_wait else 0.0
