"""Bring one spool to the log, each record exactly once, whatever is killed meanwhile.

Each lane is published stop-and-wait: a frame goes out with a stable id and with the sequence that the last message
of its subject must have, and the next one follows its acknowledgement. On any doubt (a timeout, a refusal, a
reconnect, a restart) the last message of the subject says what the log has; nobody guesses.

The first frame of a main writer goes to its `run` lane and must find the subject empty: that is its claim of
(run, attempt, rank). Where another writer was first, this one takes the next attempt.
"""

import asyncio
import logging
import re
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from morphogen.schemas.errors import FrameError
from morphogen.schemas.frames import HEAD, decode_frame, frame_head
from morphogen.schemas.names import token

from ..connection import Connection
from ..errors import BusError, Disconnected, JetStreamApiError, NoResponders
from ..nats_py import Pieces
from ..streams import LOG, ensure_streams
from .cut import Cut
from .records import COMMITTED
from .writer import Writer

FRAME_RECORDS = 1900 * 1024  # bytes of records in a frame, where the broker takes that much
_HEADS = 16 * 1024  # bytes of a message beside its records, at most
LARGEST_RECORD = 480 * 1024  # a larger body travels as a blob
CLAIMING_FAMILY = "run"
ACK_TIMEOUT = 5.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 3.0
_WORTH_A_LINE = 8 * _FIRST_PAUSE  # a broker that has just come back refuses for a moment: nobody needs to hear
_WRONG_SEQUENCE = 10071
_NUMBER = re.compile(r"\d+(\.\d+)?")

_log = logging.getLogger("morphogen.bus")


class SourceLane(Protocol):
    """What the courier needs of a lane, a live one or a dead writer's."""

    family: str

    @property
    def done(self) -> int: ...  # noqa: D102
    @property
    def pending(self) -> bool: ...  # noqa: D102
    @property
    def pending_bytes(self) -> int: ...  # noqa: D102

    def cut(self, budget: int) -> Cut | None: ...  # noqa: D102
    def ack(self, last: int) -> None: ...  # noqa: D102


class Source(Protocol):
    """What the courier needs of a spool."""

    claimed: threading.Event

    @property
    def identity(self) -> Writer: ...  # noqa: D102
    @property
    def lanes(self) -> Mapping[str, SourceLane]: ...  # noqa: D102

    def move_to(self, attempt: int) -> None: ...  # noqa: D102


class _Fenced(Exception):
    """Another writer's frames are where ours should go."""


class Courier:
    """Publish what is pending in `source`; `kick` it whenever that may be something."""

    def __init__(
        self,
        conn: Connection,
        source: Source,
        *,
        budget: int = FRAME_RECORDS,
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        self.source = source
        self._conn = conn
        self._budget = budget
        self._on_progress = on_progress
        self._expected: dict[str, int] = {}  # family -> sequence of the last message on its subject; absent = in doubt
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._claimed = source.identity.kind != "main"
        self._fenced = False
        self._patient = True
        self._refusals: dict[str, str] = {}  # family -> why the log does not take its events
        self._moved = time.monotonic()
        self._blobs: dict[tuple[str, int], bytes] = {}
        if self._claimed:
            source.claimed.set()

    @property
    def busy(self) -> bool:
        """Tell whether frames are on their way."""
        return bool(self._tasks)

    @property
    def startable(self) -> bool:
        """Tell whether something is pending that `kick` would start."""
        if self._fenced or not self._claimed:
            return not self._tasks
        return any(lane.pending and lane.family not in self._tasks for lane in list(self.source.lanes.values()))

    def kick(self, patient: bool = False) -> bool:
        """Start publishing what is pending, and tell whether there was anything to start.

        With `patient`, a lane goes on only while it can fill large frames.
        """
        self._patient = patient
        settled = self._claimed and not self._fenced
        if self._tasks and not settled:
            return False
        waiting = [lane for lane in list(self.source.lanes.values()) if lane.family not in self._tasks and lane.pending]
        if waiting and not settled:
            self._start("", self._claim)
            return True
        for lane in waiting:
            self._start(lane.family, lambda lane=lane: self._deliver(lane))  # type: ignore[misc]
        return bool(waiting)

    async def finish(self, patience: float | None = None) -> bool:
        """Publish all that is pending and return; False after `patience` seconds in which the log took nothing."""
        self._moved = time.monotonic()
        while True:
            self.kick()
            if not self._tasks:
                return True
            left = None if patience is None else self._moved + patience - time.monotonic()
            if left is not None and left <= 0:
                return False
            await asyncio.wait(list(self._tasks.values()), timeout=left)

    @property
    def trouble(self) -> str:
        """Say why the log does not take what waits; "" where it takes all."""
        return "; ".join(dict.fromkeys(self._refusals.values()))

    def stop(self) -> None:
        """Give up what is on its way; it stays in the spool."""
        for task in self._tasks.values():
            task.cancel()

    def _start(self, family: str, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await self._persist(family, work)
            finally:
                self._tasks.pop(family, None)
                if self._on_progress is not None:
                    self._on_progress()

        self._tasks[family] = asyncio.get_running_loop().create_task(run())

    async def _persist(self, family: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` until it comes to an end; whatever fails is tried again, with growing pauses."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await work()
                self._note_refusal(family, "")
                return
            except _Fenced:
                self._fence()
                return
            except Disconnected:
                await self._until_connected()
                pause = _FIRST_PAUSE
                continue
            except NoResponders as error:
                reason = await self._make_streams() or str(error)
            except JetStreamApiError as error:
                reason = "" if error.err_code == _WRONG_SEQUENCE else error.description
            except BusError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001  (nothing may end the way to the log)
                reason = f"{type(error).__name__}: {error}"
            if reason and pause >= _WORTH_A_LINE:
                self._note_refusal(family, reason)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _until_connected(self) -> None:
        while True:
            try:
                await self._conn.wait_connected(3600.0)
                await asyncio.sleep(_FIRST_PAUSE / 10)  # what ended may not have been noticed yet
                return
            except Disconnected:
                raise asyncio.CancelledError from None  # the connection was closed: so are we
            except BusError:
                continue

    async def _make_streams(self) -> str:
        """Make the streams that are missing; return why that cannot be done, or ""."""
        try:
            await ensure_streams(self._conn)
        except (BusError, ValueError) as error:
            return str(error)
        return ""

    def _note_refusal(self, family: str, reason: str) -> None:
        """Keep why the log does not take a lane, and say it once for all lanes; other numbers are no other reason."""
        known = {_NUMBER.sub("", each) for each in self._refusals.values()}
        if reason:
            self._refusals[family] = reason
            if _NUMBER.sub("", reason) not in known:
                _log.warning("the log does not take events of run %s, they stay in the spool: %s", self._run, reason)
        elif self._refusals.pop(family, None) and not self._refusals:
            _log.info("the log takes events of run %s again", self._run)

    @property
    def _run(self) -> str:
        return self.source.identity.run

    def _subject(self, family: str, attempt: int) -> str:
        identity = self.source.identity
        return f"morphogen.log.{token(identity.run)}.{token(family)}.{identity.label(attempt)}"

    # ------------------------------------------------------------------ lanes

    async def _deliver(self, lane: SourceLane) -> None:
        """Publish a lane until nothing is left, or until others should share the next frame."""
        while not self._fenced:
            if lane.family not in self._expected:
                await self._resolve(lane)
            cut = lane.cut(self._room())
            if cut is None:
                return
            await self._publish(lane, cut)
            if self._patient and lane.pending_bytes < self._budget // 2:
                return

    def _room(self) -> int:
        """Return how many bytes of records a frame may have that this broker takes."""
        return max(1, min(self._budget, int(self._conn.nc.max_payload) - _HEADS))

    async def _publish(self, lane: SourceLane, cut: Cut) -> None:
        identity = self.source.identity
        if cut.count == 1 and cut.size > LARGEST_RECORD:
            records = await self._by_reference(lane, cut)
        else:
            records = None
        head = frame_head(
            run=identity.run, attempt=identity.attempt, rank=identity.rank, writer=identity.writer,
            family=lane.family, first=cut.first, last=cut.last, count=cut.count,
        )  # fmt: skip
        data = Pieces(head, cut.records if records is None else records)
        await self._send(lane.family, data, f"{identity.writer}.{lane.family}.{cut.first}-{cut.last}")
        self._blobs.pop((lane.family, cut.first), None)
        lane.ack(cut.last)
        self._moved = time.monotonic()
        if self._on_progress is not None:
            self._on_progress()

    async def _send(self, family: str, data: bytes | Pieces, message_id: str) -> None:
        """Publish one frame; when this returns, the log has it. On any error the lane is in doubt."""
        expected = self._expected.pop(family)
        headers = {"Nats-Msg-Id": message_id, "Nats-Expected-Last-Subject-Sequence": str(expected)}
        subject = self._subject(family, self.source.identity.attempt)
        ack = await self._conn.publish_ack(subject, data, headers, timeout=ACK_TIMEOUT)
        if not ack.duplicate:  # a duplicate may lie under an earlier attempt: look before the next one
            self._expected[family] = ack.seq

    async def _resolve(self, lane: SourceLane) -> None:
        """Ask the log how far it has this lane. Raises _Fenced where another writer has our place."""
        expected, last = await self._look(lane.family)
        if last > lane.done:
            lane.ack(last)
        self._expected[lane.family] = expected

    async def _look(self, family: str) -> tuple[int, int]:
        """Return the sequence that our subject ends with, and our last counter in it or in earlier attempts."""
        identity = self.source.identity
        last = expected = 0
        for attempt in dict.fromkeys(identity.attempts):
            message = await self._conn.last_message(LOG, self._subject(family, attempt))
            if message is None:
                continue
            try:
                frame = decode_frame(message.data, message.seq)
            except FrameError:
                # Whose it is cannot be told. Behind it we go on where we know we are: what is sent twice is folded once.
                if attempt == identity.attempt and family == CLAIMING_FAMILY:
                    raise _Fenced from None
            else:
                if frame.writer == identity.writer:
                    last = max(last, frame.last)
                elif attempt == identity.attempt:
                    raise _Fenced
            if attempt == identity.attempt:
                expected = message.seq
        return expected, last

    async def _by_reference(self, lane: SourceLane, cut: Cut) -> bytes:
        """Return a record that names the body of a large one, which is in the blob store by then."""
        kept = self._blobs.get((lane.family, cut.first))
        if kept is not None:
            return kept
        from ..blobs import put_bytes

        event = msgspec.msgpack.decode(cut.payload(), type=dict[str, msgspec.Raw])
        body = bytes(event["body"])
        sha256 = await put_bytes(self._conn, body)
        event["body"] = msgspec.Raw(msgspec.msgpack.encode({"$blob": sha256, "size": len(body)}))
        payload = stub(event)
        self._blobs[lane.family, cut.first] = payload
        return payload

    # ------------------------------------------------------------------ claims

    async def _claim(self) -> None:
        """Take (run, attempt, rank) for this writer, by the first message of its run subject."""
        if self._fenced:
            await self._next_attempt()
            self._fenced = False
        while True:
            identity = self.source.identity
            try:
                expected, last = await self._look(CLAIMING_FAMILY)
            except _Fenced:
                await self._next_attempt()
                continue
            lane = self.source.lanes.get(CLAIMING_FAMILY)
            if lane is not None and last > lane.done:
                lane.ack(last)
            self._expected[CLAIMING_FAMILY] = expected
            if not expected:
                cut = lane.cut(self._room()) if lane is not None else None
                try:
                    if cut is not None and lane is not None:
                        await self._publish(lane, cut)
                    else:
                        name = f"{identity.writer}.{CLAIMING_FAMILY}.claim-{identity.attempt}"
                        await self._send(CLAIMING_FAMILY, self._empty(last), name)
                except JetStreamApiError as error:
                    if error.err_code != _WRONG_SEQUENCE:
                        raise
                    continue  # somebody was faster, or a late frame of ours: look again
            self._claimed = True
            self.source.claimed.set()
            return

    def _empty(self, last: int) -> bytes:
        """Return a frame without records, which claims an attempt when the run lane has nothing to say."""
        identity = self.source.identity
        lane = self.source.lanes.get(CLAIMING_FAMILY)
        last = max(last, lane.done if lane is not None else 0)
        return frame_head(
            run=identity.run, attempt=identity.attempt, rank=identity.rank, writer=identity.writer,
            family=CLAIMING_FAMILY, first=last + 1, last=last, count=0,
        )  # fmt: skip

    def _fence(self) -> None:
        if not self._fenced:
            self._fenced = True
            self.source.claimed.clear()

    async def _next_attempt(self) -> None:
        identity = self.source.identity
        taken = await self._taken_attempts()
        mine = max((attempt for attempt, rank in taken if rank == identity.rank), default=identity.attempt)
        others = max((attempt for attempt, _ in taken), default=0)
        attempt = max(mine + 1, others, identity.attempt + 1)
        if self._claimed:
            _log.warning(
                "run %s, attempt %d, rank %d is recorded by another process as well; this one goes on as attempt %d",
                identity.run, identity.attempt, identity.rank, attempt,
            )  # fmt: skip
        self._claimed = False
        self._expected.clear()
        self.source.move_to(attempt)

    async def _taken_attempts(self) -> set[tuple[int, int]]:
        """Return the (attempt, rank) of all that the log has of this run."""
        pattern = f"morphogen.log.{token(self._run)}.>"
        taken: set[tuple[int, int]] = set()
        offset = 0
        while True:
            answer = await self._conn.js(f"STREAM.INFO.{LOG}", {"subjects_filter": pattern, "offset": offset})
            subjects = (answer["state"].get("subjects") or {}).keys()
            for subject in subjects:
                attempt, _, rank = subject.rpartition(".")[2].partition("-")
                rank = rank.partition("-")[0]
                if attempt.isdigit() and rank.isdigit():
                    taken.add((int(attempt), int(rank)))
            offset += len(subjects)
            if not subjects or offset >= int(answer.get("total", 0)):
                return taken


def stub(event: Mapping[str, msgspec.Raw]) -> bytes:
    """Return a record of these envelope values with its head."""
    payload = msgspec.msgpack.encode(event)
    return HEAD.pack(COMMITTED, len(payload), COMMITTED, zlib.crc32(payload)) + payload
