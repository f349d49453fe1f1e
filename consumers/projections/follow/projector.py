"""The projector process: owns the store of a log, follows the log, and lets a service answer queries from it.

It reconnects for ever, and where the log was made anew it opens that log's own store.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.bus.connection import Connection, connect
from morphogen.bus.errors import BusError, Disconnected, NoBroker, RequestTimeout, StreamMissing, StreamReplaced
from morphogen.bus.streams import LOG, ensure_streams, stream_info

from ..errors import StoreLocked
from ..projection import Projection
from ..store.generation import Folded
from ..store.store import Store
from .follower import Follower
from .source import LogSource, Progress, Source

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings

Serve = Callable[[Store, Connection], Coroutine[Any, Any, None]]
"""A service beside the fold; it runs until it is cancelled."""

_log = logging.getLogger("morphogen.projections")
_SWITCH = 0.0005  # seconds: whoever answers a query must not wait for a fold to give up the interpreter
_LOCKED_PATIENCE, _LOCKED_PAUSE = 15.0, 0.03  # seconds; short, so that a stream of queries leaves a gap to slip in
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between tries to reach a broker


def _threads() -> int:
    """Return DuckDB's threads beside a fold, a broker and a training job: half of the processors.

    With one thread it commits a few rows in three quarters of the time: nothing is handed from core to core.
    """
    return max(1, min(8, (os.cpu_count() or 2) // 2))


def store_path(settings: "Settings", epoch: str) -> Path:
    """Return where the store of a log lies."""
    return settings.projections_dir / f"{epoch}.duckdb"


async def catch_up(
    settings: "Settings",
    conn: Connection,
    store: Store,
    upto: int | None = None,
    progress: Progress | None = None,
    *,
    source: Source | None = None,
) -> int:
    """Bring a store up to the end of the log (or to `upto`), build what must be built, and return the position."""
    return await Follower(store, source or LogSource(conn, settings)).catch_up(upto, progress)


async def run_projector(
    settings: "Settings",
    *,
    stop: asyncio.Event,
    on_commit: Callable[[Folded], None] | None = None,
    serve: Serve | None = None,
    projections: Sequence[Projection] | None = None,
    memory_limit: str | None = None,
) -> None:
    """Follow the log until `stop` is set, or SIGTERM or SIGINT comes.

    Raises StoreLocked, StoreDamaged, PositionBeyondLog and DeclarationError, whose text is one line for the user; a
    broker that is away is waited for.
    """
    sys.setswitchinterval(_SWITCH)
    locked_until: float | None = None
    with _signals(stop):
        tries = 0
        while not stop.is_set():
            try:
                async with _connected(settings) as conn:
                    epoch = (await stream_info(conn, LOG)).epoch
                    path = store_path(settings, epoch)
                    with await asyncio.to_thread(
                        Store.open, path, projections, epoch=epoch, memory_limit=memory_limit, threads=_threads()
                    ) as store:
                        tries, locked_until = 0, None
                        follower = Follower(store, LogSource(conn, settings), on_commit=on_commit)
                        await _work(follower, store, conn, stop, serve)
            except (StreamReplaced, StreamMissing) as error:
                _log.warning("%s; opening the store of the log that is there now", error)
            except StoreLocked:
                # Somebody who asked while no projector ran owns it for a moment; another projector, for ever.
                if locked_until is None:
                    locked_until = time.monotonic() + _LOCKED_PATIENCE
                if time.monotonic() > locked_until:
                    raise
                await _pause(stop, _LOCKED_PAUSE)
                continue
            except (NoBroker, Disconnected, RequestTimeout) as error:
                if tries == 0:
                    _log.warning("%s; the projector waits for the broker", error)
            await _pause(stop, _PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1


async def _work(follower: Follower, store: Store, conn: Connection, stop: asyncio.Event, serve: Serve | None) -> None:
    """Follow the log, with the service beside it; the first of both that fails ends the other."""
    following = asyncio.create_task(follower.follow(stop), name="projector")
    tasks = [following]
    if serve is not None:
        tasks.append(asyncio.create_task(serve(store, conn), name="projector-service"))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if len(tasks) > 1:
            tasks[1].cancel()
        if not stop.is_set():
            following.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


@contextlib.asynccontextmanager
async def _connected(settings: "Settings") -> AsyncIterator[Connection]:
    conn = await connect(settings, name="projector")
    try:
        await ensure_streams(conn)
        yield conn
    finally:
        with contextlib.suppress(BusError):
            await conn.close()


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set `stop`, where this loop may have signals at all (that of the main thread)."""
    loop = asyncio.get_running_loop()
    taken = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(RuntimeError, ValueError, NotImplementedError):
            loop.add_signal_handler(number, stop.set)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
