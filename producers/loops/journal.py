"""The lane of one run: read it, lead it, write it.

One process leads a run. Each of its messages says which message it follows, so the broker refuses the first message of a
process that was overtaken: that one is fenced, whatever it believes. Events are collected by `add` and travel together in one frame at the
next `commit`, which returns when the broker has stored it; the state is always that of all events added.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from morphogen.bus.emit import emit
from morphogen.bus.errors import BusError, JetStreamApiError, LogGap
from morphogen.schemas import (
    Carried,
    EncodeError,
    Event,
    LoopAnswered,
    LoopCheckpoint,
    LoopRecorded,
    LoopResumed,
    LoopStarted,
    Record,
    decode_event,
    encode,
    encode_frame,
)

from .append import WRONG_SEQUENCE, append_after, newest_of
from .context import Recorded
from .copies import Copies
from .errors import Fenced, LoopError, RunExists
from .history import History, read_all, read_events, read_history
from .lanes import ANSWERS, CHECKPOINTS, FAMILY, lane_subject, writer_of
from .llm.converse import REPLY_MAX
from .state import State, advance
from .tracing import TRACED, steps_of

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

_FRAME = 400 * 1024  # bytes of bodies in one frame
_PATIENCE = 60.0  # seconds that a commit waits for a lost broker
_COPIES = 5.0  # seconds that a checkpoint waits for copies
_NOT_CARRIED = frozenset({FAMILY, "command", "dead"})


__all__ = ["History", "Journal", "Log", "Store", "answer", "read_all", "read_events", "read_history"]


class Store(Protocol):
    """Where a journal writes: the log, or a list in memory."""

    def append(self, data: bytes, identity: str, after: int) -> int:
        """Store a frame as the one that follows sequence `after`; return its sequence. Raises JetStreamApiError 10071."""
        ...

    def push(self, records: list[tuple[str, Record]]) -> None:
        """Send copies, with their families, in the background."""
        ...

    def sent(self, family: str) -> int:
        """Return the counter of the newest copy in a family."""
        ...

    def flush(self, timeout: float) -> bool:
        """Wait for the copies."""
        ...


class Log:
    """The lane of a run in the log."""

    def __init__(self, bus: "Bus", run: str, attempt: int) -> None:
        self._bus = bus
        self._conn = bus.conn
        self._subject = lane_subject(run)
        copies = Copies(bus, run, attempt)
        self.push, self.sent, self.flush = copies.push, copies.sent, copies.flush

    def append(self, data: bytes, identity: str, after: int) -> int:
        """Store a frame, waiting for a lost broker."""
        return self._bus.run(
            append_after(self._conn, self._subject, data, identity=identity, after=after, patience=_PATIENCE)
        )


class Journal:
    """Lead a run: collect events, commit them, keep the state. Safe to use from several threads."""

    def __init__(
        self, store: Store, history: History, clock: Callable[[], int] = time.time_ns, *, bus: "Bus | None" = None
    ) -> None:
        self._bus = bus
        self._store = store
        self._history = history
        self._clock = clock
        self._token = secrets.token_hex(4)
        self._lock = threading.RLock()
        self._buffer: list[Record] = []
        self._copied: list[tuple[str, Record]] = []
        self._fenced: str | None = None
        self.commits = 0

    @classmethod
    def begin(
        cls,
        bus: "Bus",
        run: str,
        started: LoopStarted,
        also: Sequence[Event] = (),
        clock: Callable[[], int] = time.time_ns,
    ) -> "Journal":
        """Begin a new run, with `also` of other families: its name is claimed by its first message. Raises RunExists."""
        taken = RunExists(
            f"a loop run {run!r} has begun already: `morphogen loop resume {run}` goes on with it, "
            "--run gives another name"
        )
        with contextlib.suppress(LogGap):  # of a name that only a missing archive knows, nothing can be told
            if bus.run(newest_of(bus.conn, lane_subject(run))) is not None:
                raise taken
        journal = cls(Log(bus, run, 1), History(run), clock, bus=bus)
        journal.add(started)
        if also:
            journal.add(LoopRecorded(path="run", events=journal.carried(*also)))
        try:
            journal.commit()
        except Fenced:
            raise taken from None
        return journal

    @classmethod
    def lead(cls, bus: "Bus", history: History, clock: Callable[[], int] = time.time_ns) -> "Journal":
        """Take over a run that was read; the first commit fences whoever led it. Copies that are missing are sent."""
        journal = cls(Log(bus, history.run, history.state.attempt + 1), history, clock, bus=bus)
        journal.send_missing()
        return journal

    @property
    def run(self) -> str:
        """The run's name."""
        return self._history.run

    @property
    def state(self) -> State:
        """Where the run stands, with all that was added."""
        return self._history.state

    @property
    def writer(self) -> str:
        """The writer of this run's lanes."""
        return self._history.writer

    @property
    def waiting(self) -> int:
        """How many events are collected and not yet in the log."""
        return len(self._buffer)

    def add(self, *events: Event) -> None:
        """Collect events for the next commit; the state has them at once. Raises EncodeError."""
        with self._lock:
            for event in events:
                body = event.encode()
                if len(body) > _FRAME:
                    raise EncodeError(
                        f"a {event.type} event of {len(body):,} bytes does not fit into one frame: "
                        "put its data into a blob, or record less at once"
                    )
                # What is read back is what counts: tuples become lists, numpy numbers plain ones.
                seen = decode_event(event.type, event.version, body)
                if self.state.traced is not None and (traced := steps_of(self.state, seen, self._bus)):
                    self.add(LoopRecorded(path=TRACED, events=self.carried(*traced)))  # before what they tell of
                self._history.counter += 1
                now = self._clock()
                record = Record(
                    self._history.counter, event.type, event.version, self.state.steps or None, now, msgspec.Raw(body)
                )
                if isinstance(seen, LoopStarted | LoopResumed) and (seen.text or seen.text_blob):
                    self._history.source = seen
                advance(self.state, seen, time=now, run=self.run)
                self._buffer.append(record)
                if isinstance(seen, LoopRecorded):
                    self._carry(record.n, seen)

    def carried(self, *events: Event) -> list[Carried]:
        """Return events of other families in the form in which `loop.recorded` holds them. Raises LoopError."""
        step, now = self.state.steps or None, self._clock()
        found = []
        for event in events:
            if not event.type or event.family in _NOT_CARRIED:
                raise LoopError(
                    f"a step cannot record a {event.type or type(event).__name__} event: that family is not its own"
                )
            body = msgspec.msgpack.decode(event.encode())
            found.append(Carried(type=event.type, version=event.version, time=now, body=body, step=step))
        return found

    def commit(self, *events: Event) -> int:
        """Put all that was collected, and `events`, into the log; return the sequence when the broker has stored it.

        Raises Fenced where another process leads the run, or a BusError where the log cannot be reached: then the
        process must not act any more, and a resume finds out what was stored.
        """
        with self._lock:
            self.add(*events)
            self.refuse_if_fenced()
            while self._buffer:
                batch, rest = _cut(self._buffer)
                attempt = max(1, self.state.attempt)
                writer = self._history.writer
                data = encode_frame(batch, run=self.run, attempt=attempt, rank=0, writer=writer, family=FAMILY)
                self._history.seq = self._append(data, batch)
                self._buffer = rest
                self.commits += 1
            copied, self._copied = self._copied, []
            self._store.push(copied)
            return self._history.seq

    def refuse_if_fenced(self) -> None:
        """Raise Fenced where another process is known to lead the run."""
        if self._fenced is not None:
            raise Fenced(self._fenced)

    def past(self, families: Sequence[str] = ()) -> list[Recorded]:
        """Return what the run recorded, oldest first, in these families or in all."""
        with self._lock:
            return [
                Recorded(seq, path, decode_event(one.type, one.version, encode(one.body)))
                for seq, _, path, one in self._history.carried
                if not families or one.type.partition(".")[0] in families
            ]

    def checkpoint(self) -> bool:
        """Put the state beside the lane, so that a resume begins there; tell whether that was done.

        Only when every copy is sent, and only where the state fits: it is a short cut and nothing else.
        """
        with self._lock:
            source = self._history.source
            if self._bus is None or source is None or self._buffer or not self.close(_COPIES):
                return False
            event = LoopCheckpoint(
                seq=self._history.seq,
                counter=self._history.counter,
                state=encode(self.state),
                source_type=source.type,
                source=source.encode(),
            )
            if len(event.state) + len(event.source) > _FRAME:
                return False
            identity = f"{self._history.writer}.checkpoint.{self._history.counter}.{self._token}"
            self._bus.run(emit(self._bus.conn, event, run=self.run, label=CHECKPOINTS, msg_id=identity))
            self._history.before = dict(self.state.lanes)
            self._history.carried.clear()
            return True

    def send_missing(self) -> None:
        """Send the copies that the process before us did not."""
        have = {family: self._store.sent(family) for family in self.state.lanes}
        counts = dict(self._history.before)
        missing = []
        for _, n, _, carried in self._history.carried:
            family = _family(carried)
            counts[family] = counts.get(family, 0) + 1
            if counts[family] > have[family]:
                missing.append((family, _copy(carried, counts[family], f"{self._history.writer}.{FAMILY}.{n}")))
        self._store.push(missing)

    def close(self, timeout: float = 10.0) -> bool:
        """Wait until the copies are sent; False where they could not be: the next resume sends them."""
        return self._store.flush(timeout)

    def _append(self, data: bytes, batch: list[Record]) -> int:
        identity = f"{self._history.writer}.{FAMILY}.{batch[0].n}.{self._token}"
        try:
            return self._store.append(data, identity, self._history.seq)
        except JetStreamApiError as error:
            if error.err_code != WRONG_SEQUENCE:
                self._fenced = f"run {self.run}: the log refused a step ({error.description}): mend that and resume"
                raise
            self._fenced = f"run {self.run} was taken over by another process: this one stops here"
            raise Fenced(self._fenced) from None
        except BusError:
            self._fenced = f"run {self.run}: it is not known whether the last step is in the log: resume the run"
            raise

    def _carry(self, n: int, event: LoopRecorded) -> None:
        totals = dict(self.state.lanes)
        for carried in event.events:
            totals[_family(carried)] -= 1
        cause = f"{self._history.writer}.{FAMILY}.{n}"
        for carried in event.events:
            family = _family(carried)
            totals[family] += 1
            self._copied.append((family, _copy(carried, totals[family], cause)))
            # The sequence is known after the commit: until then it is that of a message to come.
            self._history.carried.append((self._history.seq + 1, n, event.path, carried))


def answer(bus: "Bus", run: str, path: str, sha256: str, text: str, *, by: str | None = None) -> None:
    """Answer what a run waits for; any client of the bus may do this in the same way: one `loop.answered` event.

    Raises LoopError for a text that no run takes: of more than 256 KiB, or not text.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise LoopError(f"the answer holds {error.object[error.start]!a}, which is no character: write UTF-8") from None
    if size > REPLY_MAX:
        raise LoopError(
            f"the answer has {size:,} bytes, and at most {REPLY_MAX:,} are taken: "
            "put the rest into a file of the workspace and name it; the run goes on waiting"
        )
    event = LoopAnswered(path=path, sha256=sha256, text=text, by=by)
    identity = f"{writer_of(run)}.answer.{sha256[:16]}.{secrets.token_hex(8)}"
    bus.run(emit(bus.conn, event, run=run, label=ANSWERS, msg_id=identity))


def _family(carried: Carried) -> str:
    return carried.type.partition(".")[0]


def _copy(carried: Carried, n: int, cause: str) -> Record:
    return Record(
        n, carried.type, carried.version, carried.step, carried.time, msgspec.Raw(encode(carried.body)), cause
    )


def _cut(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """Return what fits into one frame, at least one, and the rest."""
    size = 0
    for index, record in enumerate(records):
        size += len(record.body) + 200
        if index and size > _FRAME + 50_000:
            return records[:index], records[index:]
    return records, []
