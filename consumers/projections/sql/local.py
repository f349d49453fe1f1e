"""Answer in this process, where no projector runs: own the store for a moment, catch up, answer, let it go."""

import asyncio
import contextlib
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
from .errors import PositionNotReached, SqlError
from .formats import Result
from .protocol import Ask
from .sandbox import Limits, Query, harden

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings

_BLOB_PATIENCE = 60.0  # seconds for one blob
_owner = threading.Lock()  # within one process, one at a time: DuckDB would share the file without asking


@contextlib.asynccontextmanager
async def opened(
    conn: "Connection", settings: "Settings", progress: Progress | None
) -> AsyncIterator[tuple[Store, Follower]]:
    """Own the store, caught up with the log, as long as the block lasts. Raises StoreLocked where another does."""
    info = await _log(conn)
    while not _owner.acquire(blocking=False):
        await asyncio.sleep(0.005)
    try:
        path = store_path(settings, info.epoch)
        store = await in_thread(lambda: Store.open(path, epoch=info.epoch))
        try:
            follower = Follower(store, LogSource(conn, settings), resolve=_blobs_of(conn))
            await follower.catch_up(progress=progress)
            yield store, follower
        finally:
            await asyncio.shield(in_thread(store.close))
    finally:
        _owner.release()


async def answer_here(conn: "Connection", settings: "Settings", ask: Ask, progress: Progress | None = None) -> Result:
    """Answer a query from the store itself. Raises StoreLocked where another process owns it."""
    async with opened(conn, settings, progress) as (store, follower):
        end = time.monotonic() + ask.timeout  # catching up is no part of the query's time
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
