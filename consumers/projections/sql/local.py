"""Answer in this process, where no projector runs: own the store for a moment, catch up, answer, let it go."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from morphogen.bus.aside import in_thread
from morphogen.bus.blobs import get_bytes
from morphogen.bus.errors import StreamMissing
from morphogen.bus.streams import LOG as LOG_STREAM
from morphogen.bus.streams import StreamInfo, ensure_streams, stream_info

from ..follow.follower import Follower
from ..follow.projector import store_path
from ..follow.source import LogSource, Progress
from ..store.store import Store
from .answer import Answer, Chunks, answer_parts
from .asof import cut_at
from .errors import PositionNotReached, SqlError, SqlTooLong
from .formats import Result
from .protocol import Ask
from .sandbox import Limits, Query, harden

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings

_BLOB_PATIENCE = 60.0  # seconds for one blob
_owner = threading.Lock()  # within one process, one at a time: DuckDB would share the file without asking
_inherited = False  # this process was forked while another thread of its parent had a store open


@contextlib.asynccontextmanager
async def turn(end: float) -> AsyncIterator[None]:
    """Be the one of this process who may open a store, as long as the block lasts.

    Raises SqlTooLong where it still is another thread's turn at the monotonic time `end`, SqlError in a child that was
    forked while it was.
    """
    if _inherited:  # DuckDB would give it the parent's open database, without the threads and without the lock
        raise SqlError(
            "this process was forked while another thread of its parent was asking, and can only ask a projector: "
            "start one with `morphogen projector`, or fork while none asks"
        )
    while not _owner.acquire(blocking=False):
        if time.monotonic() >= end:
            raise SqlTooLong(
                "another thread of this process was still asking when the time was over: allow more with a timeout, "
                "or start `morphogen projector`, which answers many at once"
            )
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        _owner.release()


@contextlib.asynccontextmanager
async def opened(
    conn: "Connection", settings: "Settings", progress: Progress | None
) -> AsyncIterator[tuple[Store, Follower]]:
    """Own the store, caught up with the log, as long as the block lasts; have the `turn` of this process for it.

    Raises StoreLocked where another process owns it.
    """
    info = await _log(conn)
    path = store_path(settings, info.epoch)
    store = await in_thread(lambda: Store.open(path, epoch=info.epoch))
    try:
        follower = Follower(store, LogSource(conn, settings), resolve=_blobs_of(conn))
        await follower.catch_up(progress=progress)
        yield store, follower
    finally:
        await asyncio.shield(in_thread(store.close))


async def answer_here(
    conn: "Connection", settings: "Settings", ask: Ask, end: float, progress: Progress | None = None
) -> Result:
    """Answer a query from the store itself, by the monotonic time `end`.

    Raises StoreLocked where another process owns it.
    """
    async with turn(end):
        left = end - time.monotonic()
        async with opened(conn, settings, progress) as (store, follower):
            return await _answer(store, follower, ask, time.monotonic() + left)  # catching up is no part of its time


async def _answer(store: Store, follower: Follower, ask: Ask, end: float) -> Result:
    goal = ask.wait or 0
    while store.position() < goal:
        if time.monotonic() >= end:
            raise PositionNotReached(
                f"the log ends at {store.position()} and did not reach {goal} within {ask.timeout:g} s"
            )
        await asyncio.sleep(0.02)
        await follower.catch_up()
    return await _run(store, ask, max(0.05, end - time.monotonic()))


async def _run(store: Store, ask: Ask, left: float) -> Result:
    position = store.position()
    as_of = cut_at(store, ask.as_of, ask.as_of_ns, position)
    harden(store.cursor(), temporary=store.path.parent / "spill")
    limits = Limits(seconds=left, rows=ask.max_rows)
    query = Query(store.cursor(), ask.sql, params=ask.params, as_of=as_of, limits=limits, timeout=ask.timeout)

    def work() -> Result:
        answer = Answer()
        with query:
            for part in answer_parts(query, Chunks(), position, as_of):
                answer.add(part)
        return answer.result()

    alarm = asyncio.get_running_loop().call_later(left + 0.25, lambda: query.stop(query.too_long()))
    running = asyncio.ensure_future(in_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        query.stop()
        with contextlib.suppress(SqlError):
            await running  # the store may not be closed under it
        raise
    finally:
        alarm.cancel()


def _blobs_of(conn: "Connection") -> Callable[[str], bytes]:
    """Return what fetches a blob, for the fold, which runs in another thread than the loop of `conn`."""
    loop = asyncio.get_running_loop()
    return lambda sha256: asyncio.run_coroutine_threadsafe(get_bytes(conn, sha256), loop).result(_BLOB_PATIENCE)


async def _log(conn: "Connection") -> StreamInfo:
    """Return what the log holds, making it where nothing was ever recorded: its tables are then empty."""
    try:
        return await stream_info(conn, LOG_STREAM)
    except StreamMissing:
        await ensure_streams(conn)
        return await stream_info(conn, LOG_STREAM)


def _forked() -> None:
    global _owner, _inherited  # noqa: PLW0603  the child's own; the thread that holds the parent's is not in it
    _inherited = _inherited or _owner.locked()
    _owner = threading.Lock()


os.register_at_fork(after_in_child=_forked)
