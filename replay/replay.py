"""Send a stretch of the past somewhere again: chosen by run and type, at the pace it had, faster, or at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from morphogen.bus.bodies import REFERENCE, reference, restored
from morphogen.bus.connection import Connection
from morphogen.bus.errors import ArchiveError
from morphogen.bus.past import extent, other_logs, past, sequence_at
from morphogen.bus.reader import Message
from morphogen.bus.settings import Settings
from morphogen.schemas import Frame, FrameError, decode_frame

from .choice import Choice
from .errors import BadRange
from .lines import UNREADABLE
from .sinks import Sink
from .span import Instant, Point, Progress, due, pinned, silent


@dataclass(frozen=True)
class ReplayReport:
    """What a replay did: it went over sequences `first` to `last`, and put `events` in `frames` into the sink."""

    first: int
    last: int
    frames: int
    events: int
    unreadable: int
    bodiless: int = 0
    """Of the events, those whose body lies in a blob that could not be had, where the sink wants bodies."""


class Replay:
    """One replay. `position` is the last sequence that is dealt with: go on from the one after it.

    `from_` and `to` (both included) are sequences or moments of storing; the default is everything. `types` are
    patterns such as `health.*`. `speed` is a factor on the pace at which the log was stored, None for no pause.
    Without a connection the archive alone is read (`epoch` says whose, where the data folder has several). `sleep` and
    `clock` are the time it lives in.
    """

    def __init__(
        self,
        conn: Connection | None,
        settings: Settings,
        sink: Sink,
        *,
        from_: Point | None = None,
        to: Point | None = None,
        run: str | None = None,
        types: Iterable[str] = (),
        speed: float | None = None,
        epoch: str | None = None,
        progress: Progress = silent,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if speed is not None and speed <= 0:
            raise BadRange(f"a speed is a factor above 0, got {speed:g}")
        self.position = 0
        self._conn = conn
        self._settings = settings
        self._sink = sink
        self._from = pinned(from_)
        self._to = pinned(to)
        self._run = run
        self._choice = Choice(types)
        self._speed = speed
        self._epoch = epoch
        self._progress = progress
        self._sleep = sleep
        self._clock = clock
        self._started = 0.0
        self._first_stored: int | None = None
        self._frames = self._events = self._unreadable = self._bodiless = 0

    async def run(self) -> ReplayReport:
        """Do it. When cancelled, the sink is closed properly and `position` says how far it came.

        Raises BadRange, SinkFailed, LogGap, and what else the bus raises.
        """
        complete = False
        try:
            first, last = await self._range()
            self.position = first - 1
            await self._sink.begin(self.position)
            self._started = self._clock()
            batches = past(
                self._conn,
                self._settings,
                after=first - 1,
                upto=last,
                run=self._run,
                family=self._choice.families,
                epoch=self._epoch,
            )
            try:
                async for batch in batches:
                    for message in batch:
                        await self._pause(message.stored)
                        await self._put(message)
                        self.position = message.seq
                    self._progress(self.position - first + 1, last - first + 1, "messages")
            finally:
                await batches.aclose()
            self.position = max(last, first - 1)
            complete = True
        finally:
            await self._sink.close(self.position, complete)
        return ReplayReport(first, last, self._frames, self._events, self._unreadable, self._bodiless)

    async def _range(self) -> tuple[int, int]:
        """Return the first and last sequence to go over; nothing, if the last is below the first."""
        reach = await extent(self._conn, self._settings, self._epoch)
        if reach.last == 0 and (others := other_logs(self._settings, reach.epoch)):
            raise ArchiveError(
                f"the log is empty, but {self._settings.archive_dir} holds {', '.join(others)}: `morphogen replay "
                "--offline` reads it"
            )
        first, last = 1, reach.last
        if isinstance(self._from, Instant):
            first = await self._at(self._from.ns)
        elif self._from is not None:
            first = max(1, self._from)
        if isinstance(self._to, Instant):
            last = min(last, await self._at(self._to.ns + self._to.width) - 1)
        elif self._to is not None:
            last = min(last, self._to)
        if _backwards(self._from, self._to):
            raise BadRange(f"a replay from {self._from} to {self._to} runs backwards: swap them")
        return first, last

    async def _at(self, ns: int) -> int:
        return await sequence_at(self._conn, self._settings, ns, self._epoch)

    async def _pause(self, stored: int) -> None:
        if self._speed is None:
            return
        if self._first_stored is None:
            self._first_stored = stored
        wait = due(self._first_stored, stored, self._speed) - (self._clock() - self._started)
        if wait > 0:
            await self._sleep(wait)

    async def _put(self, message: Message) -> None:
        try:
            frame = decode_frame(message.data, message.seq, message.stored)
        except FrameError as error:
            if self._choice.wants(UNREADABLE):
                self._unreadable += 1
                await self._sink.put(message, None, str(error))
            return
        thinned = self._choice.thin(frame, message.data, self._sink.replay)
        if thinned is None:
            return
        kept, data = thinned
        self._frames += 1
        self._events += len(kept.records)
        message = message._replace(data=data)
        if self._sink.whole and REFERENCE in data:
            message, kept = await self._whole(message, kept)
        await self._sink.put(message, kept, None)

    async def _whole(self, message: Message, frame: Frame) -> tuple[Message, Frame]:
        """Return a message and its frame with the bodies that they refer to; count those that cannot be had."""
        if self._conn is not None:
            message = await restored(self._conn, message)
            frame = decode_frame(message.data, message.seq, message.stored)
        self._bodiless += sum(reference(record.body) is not None for record in frame.records)
        return message, frame


def _backwards(first: int | Instant | None, last: int | Instant | None) -> bool:
    """Tell whether two places of one kind are the wrong way round; a sequence and a moment cannot be compared."""
    if isinstance(first, Instant) and isinstance(last, Instant):
        return first.ns >= last.ns + last.width
    return isinstance(first, int) and isinstance(last, int) and first > last


async def replay(
    conn: Connection | None,
    settings: Settings,
    sink: Sink,
    *,
    from_: Point | None = None,
    to: Point | None = None,
    run: str | None = None,
    types: Iterable[str] = (),
    speed: float | None = None,
    epoch: str | None = None,
    progress: Progress = silent,
) -> ReplayReport:
    """Go over a stretch of the past and put it into `sink`; see `Replay`, which can also say how far it came."""
    job = Replay(
        conn, settings, sink, from_=from_, to=to, run=run, types=types, speed=speed, epoch=epoch, progress=progress
    )  # fmt: skip
    return await job.run()
