"""Two threads between the reader and the file: one decodes and folds, one commits.

DuckDB works without Python's lock, so that the next batch is decoded while the last one is inserted. A batch is all
that has arrived meanwhile: little traffic makes small commits at once, much traffic makes large ones.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import StoreFull
from ..fold.batch import Message
from ..store.generation import Folded
from ..store.store import Store
from .folder import Folder

_log = logging.getLogger("morphogen.projections")
BATCH_BYTES = 32 << 20  # of messages in one commit: half of that was measured to cost a third more where rows are many
PACE = 0.003  # seconds between the beginnings of two batches, at least, where little is waiting
WAITING_BYTES = 64 << 20  # that may lie in line before the reader is held back
AHEAD_BYTES = 1 << 20  # in line that are worth being folded while another commit is under way
_PAUSES = (0.5, 1.0, 2.0, 5.0)  # seconds between tries to commit where there is no room


class Conveyor:
    """Takes messages from an event loop, folds and commits them in order. Close it when done."""

    def __init__(
        self,
        store: Store,
        folder: Folder,
        *,
        batch_bytes: int = BATCH_BYTES,
        on_commit: Callable[[Folded], None] | None = None,
    ) -> None:
        self.store = store
        self.folder = folder
        self._batch_bytes = batch_bytes
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._eased = asyncio.Event()  # set, on the loop, when something left the line that somebody waits for
        self._waiting = 0
        self._over = asyncio.Event()  # set, on the loop, when a thread has ended
        self._state = threading.Condition()
        self._line: deque[Message] = deque()
        self._line_bytes = 0
        self._folding = False
        self._taken = 0.0
        self._folded: Folded | None = None  # waits for the committer
        self._closed = False
        self._interrupted = threading.Event()
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=f"morphogen-{work.__name__.strip('_')}", daemon=True)
            for work in (self._fold, self._commit)
        ]
        for thread in self._threads:
            thread.start()

    async def put(self, messages: Sequence[Message]) -> None:
        """Append messages; wait while too many bytes are in line. Raises what stopped the threads."""
        size = sum(len(message.data) for message in messages)
        with self._state:
            self._line.extend(messages)
            self._line_bytes += size
            self._state.notify_all()
        await self._until(lambda: self._line_bytes <= WAITING_BYTES)

    async def drain(self) -> None:
        """Wait until everything that was put is committed. Raises what stopped the threads."""
        await self._until(self._empty)

    async def over(self) -> None:
        """Wait until the threads have ended. Raises what stopped them, also while nothing is put."""
        await self._over.wait()
        if self._error is not None:
            raise self._error

    async def close(self, *, drain: bool = True) -> None:
        """End the threads, after what is in line is committed, or (`drain=False`) after the commit under way."""
        if drain:
            with contextlib.suppress(Exception):
                await self.drain()
        self._end()
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _end(self) -> None:
        self._interrupted.set()
        with self._state:
            self._closed = True
            self._state.notify_all()

    def _empty(self) -> bool:
        return not self._line and not self._folding and self._folded is None

    async def _until(self, ready: Callable[[], bool]) -> None:
        with self._state:
            self._waiting += 1
        try:
            while True:
                self._eased.clear()
                with self._state:
                    if self._error is not None:
                        raise self._error
                    if ready() or self._closed:
                        return
                await self._eased.wait()
        finally:
            with self._state:
                self._waiting -= 1

    def _ease(self) -> None:
        if self._waiting:  # to wake the loop costs as much as to fold some events
            self._on_loop(self._eased.set)

    def _on_loop(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(call)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  whoever puts or drains gets it
            with self._state:
                self._error = error
            self._end()
        self._on_loop(self._eased.set)
        self._on_loop(self._over.set)

    def _fold(self) -> None:
        while messages := self._next():
            self._ease()
            folded = self.folder.fold(messages)
            with self._state:
                self._state.wait_for(lambda: self._folded is None or self._closed)
                if self._folded is None:
                    self._folded, self._folding = folded, False
                self._state.notify_all()

    def _next(self) -> list[Message]:
        """Wait for messages and take what is in line; nothing when closed.

        While a commit is under way, little is left in line: what comes meanwhile goes into the same next commit.
        """
        with self._state:
            self._state.wait_for(
                lambda: self._closed or (self._line and (self._folded is None or self._line_bytes >= AHEAD_BYTES))
            )
            self._state.wait_for(
                lambda: self._closed or self._line_bytes >= AHEAD_BYTES,
                timeout=max(0.0, self._taken + PACE - time.monotonic()),
            )
            if self._closed:
                return []
            self._folding = True
            self._taken = time.monotonic()
            return self._take()

    def _take(self) -> list[Message]:
        taken: list[Message] = []
        size = 0
        while self._line and (not taken or size + len(self._line[0].data) <= self._batch_bytes):
            message = self._line.popleft()
            size += len(message.data)
            taken.append(message)
        self._line_bytes -= size
        return taken

    def _commit(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: self._folded is not None or self._closed)
                folded = self._folded
            if folded is None or not self._write(folded):
                return
            with self._state:
                self._folded = None
                self._state.notify_all()
            self._ease()
            if self._on_commit is not None:
                self._on_commit(folded)

    def _write(self, folded: Folded) -> bool:
        """Commit, again and again while there is no room; return False where that was interrupted."""
        tries = 0
        while True:
            try:
                if tries == 0 or not self.store.holds(folded):
                    self.store.commit(folded)
                if tries:
                    _log.warning("the store has room again: it goes on at message %d", folded.first)
                return True
            except StoreFull as error:
                if tries == 0:
                    _log.error("%s; nothing is lost, the projector tries again until it succeeds", error)
            if self._interrupted.wait(_PAUSES[min(tries, len(_PAUSES) - 1)]):
                return False
            tries += 1
            with contextlib.suppress(StoreFull):
                self.store.reopen_if_broken()
