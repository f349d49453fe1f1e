"""The SQL service: answers everyone's queries from inside the one process that owns the store.

    service = await serve(store, conn)
    ...
    await service.close()

Queries run in a few threads, each on a cursor of its own, and leave as Arrow chunks with flow control. Nothing that
an asker does holds the projector up: a query has limits of time, memory and bytes, one that nobody takes the answer
of is ended, and past a bounded queue the reply is "busy".
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.bus.aside import in_thread
from morphogen.bus.requests import Responder, respond
from morphogen.bus.streams import LOG, stream_info
from morphogen.schemas.errors import MorphogenError

from .asof import beyond
from .cursors import Cursors
from .errors import PositionNotReached, SnapshotFailed, SqlBusy, SqlCancelled, SqlError, SqlTooLarge
from .protocol import (
    CONTROL,
    QUERY,
    QUEUE,
    Ask,
    Control,
    Failure,
    Part,
    Reply,
    Status,
    decode_ask,
    decode_control,
    encode,
)
from .running import Running
from .sandbox import MEMORY, MemoryFence, data_size, harden
from .snapshot import write_snapshot
from .workers import Workers

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings

    from ..store.store import Store

_log = logging.getLogger("morphogen.projections")
_LATER = encode(Part(later=True))
_HEADROOM = 1 << 30  # bytes beyond DuckDB's limit that all queries together may take
_YOUNG = 0.5  # seconds within which a query is not held responsible for the memory that is taken
_LOOK = 0.02  # seconds between two looks at the memory while queries run
_PARTING = 3.0  # seconds that queries have to end when the service closes


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """What all askers together may take: `threads` run at once, `waiting` wait, a query at most `longest` seconds.

    `idle` is how long an answer waits for its asker to take the next chunk before its transaction is ended.
    """

    threads: int = 4
    waiting: int = 64
    longest: float = 3600.0
    idle: float = 30.0
    bytes: int = 1 << 30
    memory: int = MEMORY
    query_memory: int = 512 << 20


async def serve(
    store: "Store",
    conn: "Connection",
    settings: "Settings | None" = None,
    *,
    limits: ServiceLimits | None = None,
    controls: "Mapping[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] | None" = None,
) -> "Service":
    """Harden the store and answer on the bus until the Service is closed.

    `controls` adds operations to status, wait and snapshot, such as the projector's rebuild.
    """
    service = Service(store, conn, limits or ServiceLimits(), dict(controls or {}))
    await service._open(settings)
    return service


async def serve_until_cancelled(store: "Store", conn: "Connection") -> None:
    """Serve with the usual limits until this task is cancelled, as `run_projector` wants it."""
    service = await serve(store, conn)
    try:
        await asyncio.Event().wait()
    finally:
        await service.close()


class Service:
    """Answers while it is open; make one with `serve`."""

    def __init__(self, store: "Store", conn: "Connection", limits: ServiceLimits, controls: dict[str, Any]) -> None:
        self._store = store
        self._conn = conn
        self._limits = limits
        self._controls = {"status": self._status, "wait": self._wait, "snapshot": self._snapshot, **controls}
        self._temporary: Path | None = None
        self._hardened: object = None
        self._workers = Workers(limits.threads)
        self._cursors = Cursors(store)
        self._one_snapshot = asyncio.Lock()
        self._responders: list[Responder] = []
        self._fence = MemoryFence()
        self._most = data_size() + limits.memory + _HEADROOM
        self._at_work: set[Running] = set()  # also those that nobody waits for any more
        self._watch: asyncio.Task[None] | None = None
        self._waiting = 0
        self._answered = 0

    async def _open(self, settings: "Settings | None") -> None:
        folder = self._store.path.parent if settings is None else settings.projections_dir
        self._temporary = folder / "spill"
        self._harden()
        room = self._limits.threads + self._limits.waiting + 64  # past that it is the queue of the bus that waits
        self._responders.append(await respond(self._conn, CONTROL, self._control, queue=QUEUE, concurrency=room))
        self._responders.append(await respond(self._conn, QUERY, self._query, queue=QUEUE, concurrency=room))

    async def close(self) -> None:
        """Stop answering; queries that run are interrupted and their askers told."""
        for responder in self._responders:
            await responder.close()
        self._responders = []
        for running in list(self._at_work):
            running.stop(SqlCancelled("the service was closed"))
        end = time.monotonic() + _PARTING
        while self._at_work and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self._workers.close()
        self._cursors.clear()
        if self._watch is not None:
            self._watch.cancel()
        self._fence.lift()

    def _harden(self) -> None:
        """Close the database off; again after the store had to open its file anew."""
        con = self._store._con
        if self._hardened is not con:
            self._cursors.clear()
            harden(self._store.cursor(), temporary=self._temporary, memory=self._limits.memory)
            self._hardened = con

    def _guard_memory(self) -> None:
        """Put the fence up before a query begins, and see to it that it is moved along and taken down again."""
        if self._watch is None or self._watch.done():
            self._fence.renew()
            self._watch = asyncio.create_task(self._watch_memory(), name="morphogen sql memory")

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            if not self._at_work:
                self._fence.lift()
                return
            if self._fence.renew() > self._most:
                # Not those that have only begun: they are not the ones that hold it.
                for running in [one for one in list(self._at_work) if one.age > _YOUNG]:
                    running.stop(
                        SqlTooLarge("all queries together need more memory than they may: this one was stopped")
                    )

    # Queries

    async def _query(self, payload: bytes) -> AsyncGenerator[bytes, None]:
        try:
            ask = decode_ask(payload)
            if ask.at_once is not None:
                yield await self._at_once(ask, ask.at_once)
                return
            async with contextlib.aclosing(self._parts(ask)) as parts:
                async for part in parts:
                    yield part
        except SqlError as error:
            yield encode(Part(failure=_failure(error)))
        except (MorphogenError, ValueError) as error:  # a message that is no Ask is a ValueError too
            yield encode(Part(failure=Failure(kind="SqlError", line=" ".join(str(error).split()))))

    async def _at_once(self, ask: Ask, patience: float) -> bytes:
        """Return the answer where it is one part and soon there, otherwise that it must be asked for as a stream."""
        whole: bytes | None = None
        try:
            async with asyncio.timeout(patience), contextlib.aclosing(self._parts(ask)) as parts:
                async for part in parts:
                    if whole is not None:
                        return _LATER
                    whole = part
        except SqlError:
            raise
        except TimeoutError:
            return _LATER
        return whole or _LATER

    async def _parts(self, ask: Ask) -> AsyncGenerator[bytes, None]:
        if self._waiting >= self._limits.threads + self._limits.waiting:
            raise SqlBusy(f"{self._waiting} queries are being answered or wait; try again in a moment")
        self._waiting += 1
        try:
            end = time.monotonic() + min(ask.timeout, self._limits.longest)
            await self._reach(ask, end)
            async with contextlib.aclosing(Running(self, ask, end).parts()) as parts:
                async for part in parts:
                    yield part
            self._answered += 1
        finally:
            self._waiting -= 1

    async def _reach(self, ask: Ask, end: float) -> None:
        """Wait until the tables are as far as the query wants them."""
        goal = ask.wait or 0
        if ask.as_of is not None and ask.as_of > max(goal, self._store.position()):
            if ask.as_of > (end_of_log := await self._log_end()):
                raise beyond(ask.as_of, end_of_log)
            goal = ask.as_of
        if ask.fresh or (ask.as_of_ns is not None and self._beyond_tables(ask.as_of_ns)):
            goal = max(goal, await self._log_end())
        await reach(self._store, goal, max(0.0, end - time.monotonic()), whole=ask.fresh or ask.wait is not None)

    def _beyond_tables(self, ns: int) -> bool:
        """Tell whether messages stored by that time may still be on their way into the tables."""
        newest = self._store.newest_ns()
        return newest is None or ns >= newest

    async def _log_end(self) -> int:
        return (await stream_info(self._conn, LOG)).last_seq

    # Control

    async def _control(self, payload: bytes) -> bytes:
        try:
            request: Control = decode_control(payload)
            operation = self._controls.get(request.op)
            if operation is None:
                raise SqlError(f"this projector knows no {request.op!r}; it knows {', '.join(sorted(self._controls))}")
            return encode(Reply(values=await operation(request.args)))
        except SqlError as error:
            return encode(Reply(failure=_failure(error)))
        except (MorphogenError, ValueError, OSError) as error:
            return encode(Reply(failure=Failure(kind="SqlError", line=" ".join(str(error).split()))))

    async def _status(self, _args: dict[str, Any]) -> dict[str, Any]:
        position, head = self._store.position(), await self._log_end()
        status = Status(
            position=position,
            head=head,
            lag=max(0, head - position),
            epoch=self._store.epoch,
            tables=await asyncio.to_thread(self._store.views),
            version=metadata.version("morphogen"),
            pid=os.getpid(),
            host=socket.gethostname(),
            running=self._waiting,
            answered=self._answered,
            stopped={one.projection: one.error for one in self._store.status() if one.error is not None},
        )
        return {name: getattr(status, name) for name in status.__struct_fields__}

    async def _wait(self, args: dict[str, Any]) -> dict[str, Any]:
        seq = args.get("seq")
        goal = await self._log_end() if seq is None else int(seq)
        await reach(self._store, goal, float(args.get("timeout", 30.0)), whole=True)
        return {"position": self._store.position()}

    async def _snapshot(self, args: dict[str, Any]) -> dict[str, Any]:
        host = socket.gethostname()
        if args.get("host", host) != host:
            raise SnapshotFailed(f"the projector runs on {host} and writes its snapshots there: ask for one on {host}")
        target, form = str(args["target"]), str(args.get("format", "duckdb"))
        async with self._one_snapshot:
            path = await in_thread(lambda: write_snapshot(self._store, target, form))
        return {"path": str(path), "host": host}


async def reach(store: "Store", goal: int, timeout: float, *, whole: bool) -> None:
    """Return when the tables hold the log up to `goal` and, if `whole`, all that it calls for are there.

    Raises PositionNotReached after `timeout` seconds.
    """
    if await store.reached(goal, timeout, whole=whole):
        return
    if store.position() >= goal:
        raise PositionNotReached(
            f"tables that the log calls for are still being made after {timeout:.1f} s: "
            f"{', '.join(store.in_the_making()) or 'those of the newest text'}; allow more time, or do not wait for them"
        )
    raise PositionNotReached(
        f"the tables hold the log up to {store.position()}, not up to {goal}, after {timeout:.1f} s: is the projector "
        "behind, or the sequence beyond the end of the log?"
    )


def _failure(error: SqlError) -> Failure:
    return Failure(kind=type(error).__name__, line=error.line, detail=error.detail)
