"""Write what another engine said into the log: many events in one frame, each message of the engine whole in one.

A frame is named by its writer and the number of its first record, so that the same frame sent again, after a broker was
lost, is in the log once. The number of the engine's message stands in the last event of it: a process that begins anew
reads there how far the one before it came. A book is of one log, and writes nothing into another that took its place.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from morphogen.bus.errors import NoBroker, NoResponders, RequestTimeout, StreamReplaced
from morphogen.schemas import Event, Record, encode_frame, token
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, KvGap

from .waiting import log_there, patiently

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

FAMILY = "kv"
_ROOM = 448 * 1024  # bytes of records in a frame
_RECORD = 96  # bytes of a record around its body, at most
_HEAD = 4096  # bytes of a frame around its records and of a message around a frame, at most
_PATIENCE = 5.0  # seconds that one attempt to write waits for the broker
_PAUSE = 1.0  # seconds without a word of the log after which it may be another one

_Body = tuple[Event, bytes]


def run_of(engine: str) -> str:
    """Return the run under which the events of an engine stand in the log."""
    return f"kv.{engine}"


class Logbook:
    """Writes groups of events, in order; a group stands in one frame unless it is larger than a frame.

    `epoch` is the log's, by default that of the log that is there at the first write.
    """

    def __init__(self, conn: "Connection", engine: str, epoch: str | None = None) -> None:
        self._conn, self._epoch = conn, epoch
        self._sure = 0  # the generation of the connection at which it was that log
        self._heard = 0.0  # when that was, or something was written last
        self._run = run_of(engine)
        self._writer = secrets.token_hex(8)
        self._n = 0
        self.frames = 0

    async def write(self, groups: Sequence[Sequence[Event]]) -> None:
        """Store all groups; a broker that is away is waited for, however long.

        What is larger than the broker takes is a `kv.gap` of its number. Raises StreamReplaced as `demand_same` does.
        """
        room = _ROOM
        with contextlib.suppress(NoBroker):
            room = min(room, self._conn.nc.max_payload - _HEAD)
        for records in _frames(groups, room):
            await self._put(records)

    async def demand_same(self) -> None:
        """Wait for the broker. Raises StreamReplaced where its log is another than this book's."""
        await patiently(self._conn, self._make_sure, f"what {self._run} says")

    async def _make_sure(self) -> None:
        while self._sure != (generation := self._conn.generation) or time.monotonic() - self._heard > _PAUSE:
            epoch = await log_there(self._conn)
            if epoch != (self._epoch or epoch):
                raise StreamReplaced(f"the log that {self._run} was written to is gone: another is in its place")
            self._epoch, self._sure, self._heard = epoch, generation, time.monotonic()

    async def _publish(self, subject: str, data: bytes, name: str) -> None:
        """Publish where the log is the same; a link that ended since fails, so that the next one is asked first."""
        await self._make_sure()
        try:
            await self._conn.publish_ack(subject, data, {"Nats-Msg-Id": name}, _PATIENCE)
        except (NoResponders, RequestTimeout):
            self._sure = 0  # the streams may be gone while the broker stays
            raise
        self._heard = time.monotonic()

    async def _put(self, bodies: list[_Body]) -> None:
        first, now = self._n + 1, time.time_ns()
        records = [
            Record(first + at, event.type, event.version, None, now, msgspec.Raw(body))
            for at, (event, body) in enumerate(bodies)
        ]
        data = encode_frame(records, run=self._run, attempt=0, rank=0, writer=self._writer, family=FAMILY)
        subject, name = f"morphogen.log.{token(self._run)}.{FAMILY}.0-0", f"{self._writer}-{first}"
        await patiently(self._conn, lambda: self._publish(subject, data, name), f"what {self._run} says")
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
