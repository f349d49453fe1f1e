"""Write what another engine said into the log: many events in one frame, each message of the engine whole in one.

A frame is named by its writer and the number of its first record, so that the same frame sent again, after a broker was
lost, is in the log once. The number of the engine's message stands in the last event of it: a process that begins anew
reads there how far the one before it came.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from morphogen.bus.emit import publish_once
from morphogen.bus.errors import Disconnected, NoBroker, NoResponders, RequestTimeout
from morphogen.schemas import Event, Record, encode_frame, token
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

FAMILY = "kv"
_ROOM = 448 * 1024  # bytes of bodies in a frame
_PATIENCE = 10.0  # seconds that one attempt to write waits for the broker
_PAUSE = 1.0

_log = logging.getLogger("morphogen.kv")


def run_of(engine: str) -> str:
    """Return the run under which the events of an engine stand in the log."""
    return f"kv.{engine}"


class Logbook:
    """Writes groups of events, in order; a group stands in one frame unless it is larger than a frame."""

    def __init__(self, conn: "Connection", engine: str) -> None:
        self._conn = conn
        self._run = run_of(engine)
        self._writer = secrets.token_hex(8)
        self._n = 0
        self.frames = 0

    async def write(self, groups: Sequence[Sequence[Event]]) -> None:
        """Store all groups; a broker that is away is waited for, however long."""
        for events in _frames(groups):
            await self._put(events)

    async def _put(self, events: list[Event]) -> None:
        first, now = self._n + 1, time.time_ns()
        records = [
            Record(first + at, event.type, event.version, None, now, msgspec.Raw(event.encode()))
            for at, event in enumerate(events)
        ]
        data = encode_frame(records, run=self._run, attempt=0, rank=0, writer=self._writer, family=FAMILY)
        subject, name = f"morphogen.log.{token(self._run)}.{FAMILY}.0-0", f"{self._writer}-{first}"
        while True:
            try:
                await publish_once(self._conn, subject, data, msg_id=name, timeout=_PATIENCE)
                break
            except (NoBroker, NoResponders, RequestTimeout, Disconnected) as error:
                _log.warning("what %s says waits for the broker: %s", self._run, error)
                with contextlib.suppress(NoBroker):
                    await self._conn.wait_connected(_PATIENCE)  # Disconnected where the connection was closed
                await asyncio.sleep(_PAUSE)
        self._n += len(events)
        self.frames += 1


def _frames(groups: Sequence[Sequence[Event]]) -> Iterator[list[Event]]:
    frame: list[Event] = []
    room = _ROOM
    for told in groups:
        group, sizes = told, [_size(event) for event in told]
        if sum(sizes) > _ROOM:
            group = [*(_unnumbered(event) for event in told[:-1]), told[-1]]
        elif sum(sizes) > room:
            yield frame
            frame, room = [], _ROOM
        for event, size in zip(group, sizes, strict=True):
            if frame and size > room:
                yield frame
                frame, room = [], _ROOM
            frame.append(event)
            room -= size
    if frame:
        yield frame


def _size(event: Event) -> int:
    """Return about what an event takes up, without encoding it."""
    if isinstance(event, KvBlocksStored):
        tokens = 0 if event.tokens is None else event.tokens.nbytes
        return 512 + tokens + len(event.hashes) + sum(len(name) + 12 for name in event.block_hashes)
    if isinstance(event, KvBlocksRemoved):
        return 512 + len(event.hashes) + sum(len(name) + 5 for name in event.block_hashes)
    return 1024


def _unnumbered(event: Event) -> Event:
    if isinstance(event, KvBlocksStored | KvBlocksRemoved | KvBlocksCleared):
        return msgspec.structs.replace(event, event_id=None)
    return event
