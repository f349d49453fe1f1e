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
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, KvGap

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

FAMILY = "kv"
_ROOM = 448 * 1024  # bytes of records in a frame
_RECORD = 96  # bytes of a record around its body, at most
_HEAD = 4096  # bytes of a frame around its records and of a message around a frame, at most
_PATIENCE = 10.0  # seconds that one attempt to write waits for the broker
_PAUSE = 1.0

_Body = tuple[Event, bytes]

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
        """Store all groups; a broker that is away is waited for, however long.

        What is larger than the broker takes is a `kv.gap` of its number.
        """
        room = _ROOM
        with contextlib.suppress(NoBroker):
            room = min(room, self._conn.nc.max_payload - _HEAD)
        for records in _frames(groups, room):
            await self._put(records)

    async def _put(self, bodies: list[_Body]) -> None:
        first, now = self._n + 1, time.time_ns()
        records = [
            Record(first + at, event.type, event.version, None, now, msgspec.Raw(body))
            for at, (event, body) in enumerate(bodies)
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
        self._n += len(bodies)
        self.frames += 1


def _frames(groups: Sequence[Sequence[Event]], room: int) -> Iterator[list[_Body]]:
    """Yield what one frame each holds: whole groups, and a group larger than `room` bytes in several."""
    frame: list[_Body] = []
    left = room
    for told in groups:
        group = [_encoded(event, event, room) for event in told]
        if sum(map(_size, group)) > room:
            group = [*(_encoded(_unnumbered(event), event, room) for event in told[:-1]), group[-1]]
        elif sum(map(_size, group)) > left:
            yield frame
            frame, left = [], room
        for one in group:
            if frame and _size(one) > left:
                yield frame
                frame, left = [], room
            frame.append(one)
            left -= _size(one)
    if frame:
        yield frame


def _encoded(event: Event, told: Event, room: int) -> _Body:
    """Return an event with its bytes; a gap of the number it was `told` under in place of one that fits into no frame."""
    body = event.encode()
    if len(body) + _RECORD <= room or not isinstance(told, KvBlocksStored | KvBlocksRemoved):
        return event, body
    number = told.event_id or 0
    gap = KvGap(
        engine=told.engine, dialect=told.dialect, worker=told.worker, first=number, last=number,
        reason=f"its {len(body):,} bytes are more than the log takes", received=number,
    )  # fmt: skip
    return gap, gap.encode()


def _size(one: _Body) -> int:
    return len(one[1]) + _RECORD


def _unnumbered(event: Event) -> Event:
    if isinstance(event, KvBlocksStored | KvBlocksRemoved | KvBlocksCleared):
        return msgspec.structs.replace(event, event_id=None)
    return event
