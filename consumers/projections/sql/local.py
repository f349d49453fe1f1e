"""Answer in this process, where no projector runs: own the store for a moment, catch up, answer, let it go."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from morphogen.bus.aside import in_thread
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

_GRACE = 0.25  # seconds in which a query heeds its limit, and then an interrupt
_owner = threading.Lock()  # within one process, one at a time: DuckDB would share the file without asking
_inherited = False  # this process was forked while another thread of its parent had a store open


@contextlib.asynccontextmanager
async def turn(end: float) -> AsyncIterator[contextlib.ExitStack]:
    """Be the one of this process who may open a store, as long as the block lasts.

    Yields what is let go of in the end, the turn last; whoever takes that over (`pop_all`) lets go of it later.
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
                "another thread of this process was still asking, or at work on what it had been asked, when the time "
                "was over: allow more with a timeout, or start `morphogen projector`, which answers many at once"
            )
        await asyncio.sleep(0.005)
    held = contextlib.ExitStack()
    held.callback(_owner.release)
    try:
        yield held
    finally:
        await asyncio.shield(in_thread(held.close))


async def opened(
    conn: "Connection", settings: "Settings", held: contextlib.ExitStack, progress: Progress | None
) -> tuple[Store, Follower]:
    """Own the store, caught up with the log, until `held`, which `turn` gave, is closed.

    Raises StoreLocked where another process owns it.
    """
    info = await _log(conn)
    path = store_path(settings, info.epoch)
    store = await in_thread(lambda: Store.open(path, epoch=info.epoch))
    held.callback(store.close)
    follower = Follower(store, LogSource(conn, settings))
    await follower.catch_up(progress=progress)
    return store, follower


async def answer_here(
    conn: "Connection", settings: "Settings", ask: Ask, end: float, progress: Progress | None = None
) -> Result:
    """Answer a query from the store itself, by the monotonic time `end`.

    Raises StoreLocked where another process owns it.
    """
    async with turn(end) as held:
        left = end - time.monotonic()
        store, follower = await opened(conn, settings, held, progress)
        end = time.monotonic() + left  # catching up is no part of its time
        await _reach(store, follower, ask, end)
        return await _run(store, held, ask, max(0.05, end - time.monotonic()))


async def _reach(store: Store, follower: Follower, ask: Ask, end: float) -> None:
    goal = ask.wait or 0
    while store.position() < goal:
        if time.monotonic() >= end:
            raise PositionNotReached(
                f"the log ends at {store.position()} and did not reach {goal} within {ask.timeout:g} s"
            )
        await asyncio.sleep(0.02)
        await follower.catch_up()


async def _run(store: Store, held: contextlib.ExitStack, ask: Ask, left: float) -> Result:
    """Answer within `left` seconds; a query that heeds no interrupt keeps what is `held` until it ends by itself."""
    position = store.position()
    as_of = cut_at(store, ask.as_of, ask.as_of_ns, position)
    harden(store.cursor(), temporary=store.path.parent / "spill")
    limits = Limits(seconds=left, rows=ask.max_rows)
    query = Query(store.cursor(), ask.sql, params=ask.params, as_of=as_of, limits=limits, timeout=ask.timeout)

    def work() -> Result:
        answer = Answer()
        with held.pop_all(), query:  # the store may not be closed under it: its own thread does that, whenever it ends
            for part in answer_parts(query, Chunks(), position, as_of):
                answer.add(part)
        return answer.result()

    running = asyncio.ensure_future(in_thread(work))
    running.add_done_callback(lambda task: task.cancelled() or task.exception())  # maybe nobody asks for it any more
    try:
        await asyncio.wait([running], timeout=left + _GRACE)
    finally:
        if not running.done():  # its time is over, or its asker went away
            query.stop(query.too_long())
            await _ended(running)
    if not running.done():
        raise query.too_long()
    return running.result()


async def _ended(running: "asyncio.Task[Result]") -> None:
    """Give an interrupted query time to end, whoever wants to be gone: the interpreter's end would abort in its thread."""
    end = time.monotonic() + _GRACE
    while not running.done() and (left := end - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([running], timeout=left)


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
