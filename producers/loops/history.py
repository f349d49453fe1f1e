"""What the log holds of runs: read by anyone, and nothing is changed by it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from morphogen.bus.past import past
from morphogen.bus.streams import LOG
from morphogen.schemas import (
    Carried,
    Event,
    Frame,
    FrameError,
    LoopAnswered,
    LoopCheckpoint,
    LoopRecorded,
    LoopResumed,
    LoopStarted,
    Unknown,
    decode_event,
    decode_frame,
)
from morphogen.schemas.values import decode_hook

from .errors import UnknownRun
from .lanes import CHECKPOINTS, FAMILY, lane_subject, writer_of
from .state import State, advance

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

_state_decoder = msgspec.msgpack.Decoder(State, dec_hook=decode_hook)


class History:
    """What the log holds of one run: its state, its place, and what it carried. Reading it changes nothing."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.writer = writer_of(run)
        self.state = State()
        self.counter = 0  # of the last event of the lane
        self.seq = 0  # of the last message of the lane
        self.carried: list[tuple[int, int, str, Carried]] = []  # sequence, counter of the carrying event, step, event
        self.source: LoopStarted | LoopResumed | None = None  # the newest event that holds the program's text
        self.before: dict[str, int] = {}  # events carried before a checkpoint, by family: their copies are all sent

    def take(self, frame: Frame) -> None:
        """Fold one frame of the run's family: its own lane, and answers from anywhere."""
        if frame.replay is not None or frame.family != FAMILY:
            return
        own = frame.writer == self.writer
        for record in frame.records:
            if own:
                if record.n <= self.counter:
                    continue
                self.counter = record.n
            event = decode_event(record.type, record.version, record.body)
            if own or isinstance(event, LoopAnswered):
                advance(self.state, event, time=record.time, run=frame.run)
            if own and isinstance(event, LoopStarted | LoopResumed) and (event.text or event.text_blob):
                self.source = event
            if own and isinstance(event, LoopRecorded):
                self.carried.extend((frame.seq, record.n, event.path, carried) for carried in event.events)
        if own:
            self.seq = frame.seq

    def begin_at(self, checkpoint: LoopCheckpoint) -> None:
        """Begin at a checkpoint in place of the beginning."""
        self.state = _state_decoder.decode(checkpoint.state)
        self.counter, self.seq = checkpoint.counter, checkpoint.seq
        self.before = dict(self.state.lanes)
        source = decode_event(checkpoint.source_type, 1, checkpoint.source)
        self.source = source if isinstance(source, LoopStarted | LoopResumed) else None

    @property
    def known(self) -> bool:
        """Tell whether there is such a run."""
        return self.counter > 0


def read_history(bus: "Bus", run: str, *, see: Callable[[Frame], None] | None = None) -> History:
    """Read a run from the log and the archive. Raises UnknownRun where neither holds a loop of that name."""
    conn = bus.conn
    history = History(run)

    async def collect() -> None:
        if see is None:
            newest = await conn.last_message(LOG, lane_subject(run, label=CHECKPOINTS))
            if newest is not None:
                record = decode_frame(newest.data).records[-1]
                checkpoint = decode_event(record.type, record.version, record.body)
                if isinstance(checkpoint, LoopCheckpoint):
                    history.begin_at(checkpoint)
        async for batch in past(conn, conn.settings, after=history.seq, run=run, family=FAMILY):
            for message in batch:
                try:
                    frame = decode_frame(message.data, message.seq, message.stored)
                except FrameError:
                    continue
                history.take(frame)
                if see is not None:
                    see(frame)

    bus.run(collect())
    if not history.known:
        raise UnknownRun(f"the log holds no loop run {run!r}: see `morphogen loop list`")
    return history


def read_all(bus: "Bus") -> list[History]:
    """Return every run of a loop that the log or the archive holds, oldest first."""
    conn = bus.conn
    found: dict[str, History] = {}

    async def collect() -> None:
        async for batch in past(conn, conn.settings, family=FAMILY):
            for message in batch:
                try:
                    frame = decode_frame(message.data, message.seq, message.stored)
                except FrameError:
                    continue
                found.setdefault(frame.run, History(frame.run)).take(frame)

    bus.run(collect())
    return [history for history in found.values() if history.known]


def read_events(bus: "Bus", run: str) -> list[tuple[int, str, Event | Unknown]]:
    """Return the events of a run's lane, and the answers to it, as (time, type, event) in the order of the log."""
    found: list[tuple[int, str, Event | Unknown]] = []

    def see(frame: Frame) -> None:
        found.extend(
            (record.time, record.type, decode_event(record.type, record.version, record.body))
            for record in frame.records
        )

    read_history(bus, run, see=see)
    return found
