"""One query in the service: a thread makes the parts of its answer, and the loop sends them."""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from .answer import Chunks, answer_parts
from .asof import cut_at
from .errors import SqlCancelled, SqlError, SqlTooLong
from .protocol import Ask
from .sandbox import Limits, Query

if TYPE_CHECKING:
    from .service import Service

_log = logging.getLogger("morphogen.projections")
_GRACE = 0.25  # seconds after which a query that ignored DuckDB's own limit is interrupted


class Running:
    """One query between its thread, which makes chunks, and the loop, which sends them."""

    def __init__(self, service: "Service", ask: Ask, end: float) -> None:
        self._service = service
        self._ask = ask
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Queue[bytes | SqlError | None] = asyncio.Queue()
        self._room = threading.Semaphore(8)
        self._over = threading.Event()
        self._reason: SqlError = SqlCancelled("the query was cancelled")
        self._query: Query | None = None
        self._began: float | None = None

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the parts of the answer; close it to interrupt the query."""
        self._service._harden()
        self._service._guard_memory()
        self._service._at_work.add(self)
        self._service._workers.do(self._work)
        left = self._end - time.monotonic()
        alarm = self._loop.call_later(max(0.0, left) + _GRACE, self._late)
        try:
            while (item := await self._ready.get()) is not None:
                if isinstance(item, SqlError):
                    raise item
                self._room.release()
                yield item
        finally:
            alarm.cancel()
            self.stop()

    @property
    def age(self) -> float:
        """Seconds since a thread took it up."""
        return 0.0 if self._began is None else time.monotonic() - self._began

    def stop(self, reason: SqlError | None = None) -> None:
        """Interrupt the query, if it still runs."""
        if not self._over.is_set():
            self._reason = reason or self._reason
            self._over.set()
            query = self._query
            if query is not None:
                query.stop(reason)
            self._room.release()  # wakes the thread where it waits to hand a part over

    def _late(self) -> None:
        error = SqlTooLong(f"no answer within {self._ask.timeout:g} s: narrow the query, or allow more with a timeout")
        self._ready.put_nowait(error)  # the asker need not wait for a function that cannot be interrupted
        self.stop(error)

    def _work(self) -> None:
        """Run the query in a thread of the pool."""
        end: SqlError | None = None
        try:
            self._answer()
        except SqlError as error:
            end = error
        except Exception as error:  # noqa: BLE001  whatever it is, it is that query's and not the service's end
            _log.debug("a query failed", exc_info=True)
            end = SqlError(f"the query failed: {' '.join(str(error).split())[:300] or type(error).__name__}")
        self._service._at_work.discard(self)
        if end is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._ready.put_nowait, end)

    def _answer(self) -> None:
        service, ask = self._service, self._ask
        self._began = time.monotonic()
        if self._over.is_set():
            raise self._reason
        left = self._end - time.monotonic()
        if left <= 0:
            raise SqlTooLong(f"no thread was free within {ask.timeout:g} s: try again, or allow more with a timeout")
        store = service._store
        position = store.position()
        stopped = [one.error for one in store.generations if one.error is not None]
        as_of = cut_at(store, ask.as_of, ask.as_of_ns, position)
        # DuckDB gets the whole of what was allowed, in round seconds, so that cursors serve again: the alarm of
        # `parts` counts what was spent waiting.
        limits = Limits(
            seconds=math.ceil(min(ask.timeout, service._limits.longest)),
            rows=ask.max_rows,
            bytes=service._limits.bytes,
            memory=service._limits.query_memory,
        )
        con = store._con
        cursor, limited = service._cursors.take(limits)
        query = Query(
            cursor, ask.sql, params=ask.params, as_of=as_of, limits=limits, timeout=ask.timeout, limited=limited
        )
        self._query = query
        if self._over.is_set():
            query.close()
            raise self._reason
        with query:
            last: bytes | None = None
            for part in answer_parts(query, Chunks(), position, as_of, stopped):
                if last is not None:
                    self._hand_over(last)
                last = part
            self._hand_over_last(last)
        if query.reusable and store._con is con:
            service._cursors.give(cursor, limits)

    def _hand_over(self, part: bytes) -> None:
        if not self._room.acquire(timeout=self._service._limits.idle):
            raise SqlTooLong(f"the answer was given up: nobody took it for {self._service._limits.idle:g} s")
        if self._over.is_set():
            raise self._reason
        self._loop.call_soon_threadsafe(self._ready.put_nowait, part)

    def _hand_over_last(self, part: bytes | None) -> None:
        """Hand over the end, which is sent while this thread cleans up: nothing can stop the query any more."""
        if self._over.is_set():
            raise self._reason
        self._over.set()
        self._loop.call_soon_threadsafe(self._finish, part)

    def _finish(self, part: bytes | None) -> None:
        if part is not None:
            self._ready.put_nowait(part)
        self._ready.put_nowait(None)
