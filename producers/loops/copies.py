"""Copies of carried events in their own families: sent in the background, in order, each once.

The lane of the run is the truth; a copy is only where everybody looks. So nothing waits for a copy but the end of the process, and what a
killed process did not send is found by the last counter of each lane and sent by the next one.
"""

import asyncio
import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

from morphogen.bus.errors import BusError, JetStreamApiError, LogGap
from morphogen.schemas import FrameError, Record, decode_frame, encode_frame, encode_record

from .append import WRONG_SEQUENCE, append_after, newest_of
from .lanes import lane_subject, writer_of

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

_FRAME = 256 * 1024  # bytes of records in one frame
_PATIENCE = 30.0  # seconds that a copy waits for a lost broker
LABEL = "loop"


class Copies:
    """Send records to lanes of `run`; `attempt` goes into the head of each frame."""

    def __init__(self, bus: "Bus", run: str, attempt: int) -> None:
        self._bus = bus
        self._conn = bus.conn
        self._run = run
        self._attempt = attempt
        self._writer = writer_of(run)
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, Record]] = deque()
        self._pumping = False
        self._idle = threading.Event()
        self._idle.set()
        self._last: dict[str, int] = {}  # stream sequence of the newest copy, by family; -1 is not known
        self.error: BusError | None = None

    def push(self, records: list[tuple[str, Record]]) -> None:
        """Send records, given with their families, in this order and after all earlier ones."""
        if not records:
            return
        with self._lock:
            self._waiting.extend(records)
            self._idle.clear()
            if self._pumping:
                return
            self._pumping = True
        self._bus.start(self._pump())

    def flush(self, timeout: float) -> bool:
        """Wait until all is sent; False where the log could not be reached in time (the next resume sends the rest)."""
        return self._idle.wait(timeout) and self.error is None

    def sent(self, family: str) -> int:
        """Return the counter of the newest copy that log or archive hold in a family, 0 for none."""
        return self._bus.run(self._look(family))

    async def _pump(self) -> None:
        try:
            while True:
                with self._lock:
                    batch = self._take()
                    if not batch:
                        self._pumping = False
                        self._idle.set()
                        return
                await self._send(batch[0][0], [record for _, record in batch])
        except BusError as error:
            self.error = error
        except asyncio.CancelledError:
            raise
        finally:
            with self._lock:
                if self._pumping:
                    self._pumping = False
                    self._idle.set()

    def _take(self) -> list[tuple[str, Record]]:
        """Take what stands first, and what follows it in the same family, as far as it fits into a frame."""
        taken: list[tuple[str, Record]] = []
        size = 0
        while self._waiting and (not taken or self._waiting[0][0] == taken[0][0]):
            size += len(encode_record(self._waiting[0][1]))
            if taken and size > _FRAME:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _send(self, family: str, records: list[Record]) -> None:
        subject = lane_subject(self._run, family, LABEL)
        while records:
            if self._last.get(family, -1) < 0:
                have = await self._look(family)
                records = [record for record in records if record.n > have]
                if not records:
                    return
            data = encode_frame(
                records, run=self._run, attempt=self._attempt, rank=0, writer=self._writer, family=family
            )
            identity = f"{self._writer}.{family}.{records[0].n}-{records[-1].n}"
            try:
                self._last[family] = await append_after(
                    self._conn, subject, data, identity=identity, after=self._last[family], patience=_PATIENCE
                )
            except JetStreamApiError as error:
                if error.err_code != WRONG_SEQUENCE:
                    raise
                self._last[family] = -1  # it was sent before, here or by another: look what is missing
                continue
            return

    async def _look(self, family: str) -> int:
        newest = None
        with contextlib.suppress(LogGap):  # what only a missing archive has of a lane cannot be known
            newest = await newest_of(self._conn, lane_subject(self._run, family, LABEL))
        if newest is None:
            self._last[family] = 0
            return 0
        self._last[family] = newest[0]
        with contextlib.suppress(FrameError):
            return decode_frame(newest[1]).last
        return 0
