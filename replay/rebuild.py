"""Make tables anew from the first event on, beside the live ones, and put them in their place when they are done.

Where a projector runs it is asked to, for it alone owns the file; otherwise it is done here. Readers see the old
tables until the new ones are whole. A rebuild that was interrupted can be resumed.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.bus.connection import Connection
from morphogen.bus.errors import NoResponders, RequestTimeout
from morphogen.bus.past import extent
from morphogen.bus.requests import call
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, stream_info
from morphogen.consumers.projections.errors import PositionBeyondLog, StoreDamaged
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.consumers.projections.follow.projector import store_path
from morphogen.consumers.projections.projection import Projection
from morphogen.consumers.projections.sql.protocol import CONTROL, Control, decode_reply, encode
from morphogen.consumers.projections.store import Generation, Store
from morphogen.consumers.projections.store.duckfile import set_aside

from .bodiless import bodiless
from .errors import RebuildFailed
from .past_source import FOLD_BYTES, PastSource
from .span import Progress, silent

Operation = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

_POLL = 0.2  # seconds
_PATIENCE = 15.0  # seconds that a projector may be away (it restarts, or the broker does)
_ANSWER = 5.0  # seconds for an answer about a rebuild; one that was killed with the question in hand never gives it
_BUSY = 60.0  # seconds that a projector which is there may stay silent


@dataclass(frozen=True)
class RebuildReport:
    """Which projections were made anew, up to which sequence, and whether a running projector did it."""

    projections: tuple[str, ...]
    position: int
    by_projector: bool
    seconds: float
    bodiless: int = 0
    """Events of the log whose body lies in a blob that is gone, so that no table but `events` has them."""


async def rebuild(
    conn: Connection | None,
    settings: Settings,
    names: Iterable[str] | None = None,
    *,
    resume: bool = False,
    epoch: str | None = None,
    projections: Sequence[Projection] | None = None,
    progress: Progress = silent,
) -> RebuildReport:
    """Rebuild these projections, or all. Without a connection the archive alone is read (`epoch` may say whose).

    `resume` goes on with what an interrupted rebuild has built. A store that is damaged, or has seen more than the
    log holds, is kept aside and made anew when all are rebuilt. Raises RebuildFailed, StoreLocked, DeclarationError
    for a name that is not known, LogGap, and what else the bus raises.
    """
    began = time.monotonic()
    wanted = None if names is None else list(names)
    if conn is not None:
        with contextlib.suppress(NoResponders):
            return await _ask_projector(conn, wanted, resume, progress, began)
    reach = await extent(conn, settings, epoch)
    path = store_path(settings, reach.epoch)
    source = PastSource(conn, settings, epoch=reach.epoch)

    async def fill(*, fresh: bool) -> RebuildReport:
        with await asyncio.to_thread(Store.open, path, projections, epoch=reach.epoch) as store:
            empty = fresh or not store.front()  # then catching up makes everything anew
            built = list(store.generations) if empty and wanted is None else _begin(store, wanted, resume=resume)
            follower = Follower(store, source, batch_bytes=FOLD_BYTES)
            position = await follower.catch_up(progress=lambda done, total: progress(done, total, "messages"))
            for one in built:
                if one.error is not None:
                    raise RebuildFailed(one.error)
            made = tuple(sorted(one.projection.name for one in built))
            bare = await asyncio.to_thread(bodiless, store)
            return RebuildReport(made, position, False, time.monotonic() - began, bare)

    try:
        return await fill(fresh=False)
    except (StoreDamaged, PositionBeyondLog):
        if wanted is not None:
            raise
        await asyncio.to_thread(set_aside, path)
        return await fill(fresh=True)


def controls(store: Store) -> dict[str, Operation]:
    """Return the operations that a projector's SQL service has to answer, so that `rebuild` and `verify` can ask."""

    async def begin(args: dict[str, Any]) -> dict[str, Any]:
        begun = await asyncio.to_thread(
            _begin, store, args.get("names"), resume=bool(args.get("resume")), seen=args.get("seen")
        )
        return {"begun": [[one.projection.name, one.number] for one in begun]}

    async def generations(_args: dict[str, Any]) -> dict[str, Any]:
        return {
            "head": max(store.head, store.front()),
            "generations": [[one.projection, one.generation, one.seq, one.live, one.error] for one in store.status()],
        }

    async def without_body(_args: dict[str, Any]) -> dict[str, Any]:
        return {"count": await asyncio.to_thread(bodiless, store)}

    return {"rebuild": begin, "generations": generations, "bodiless": without_body}


async def ask(
    conn: Connection, operation: str, args: dict[str, Any] | None = None, timeout: float = _BUSY
) -> dict[str, Any]:
    """Return what the running projector answers. Raises NoResponders where none runs, RebuildFailed with its reason."""
    request = encode(Control(op=operation, args=args or {}))
    reply = decode_reply(await call(conn, CONTROL, request, timeout=timeout))
    if reply.failure is not None:
        raise RebuildFailed(reply.failure.line)
    return dict(reply.values)


def _begin(
    store: Store, names: list[str] | None, *, resume: bool, seen: dict[str, int] | None = None
) -> list[Generation]:
    """Begin these rebuilds, but for those that `resume` goes on with.

    A generation newer than `seen`, the newest of each name when the asker looked, is what he asked for already.
    """
    known = [projection.name for projection in store.projections]
    wanted = known if names is None else names

    def kept(one: Generation) -> bool:
        if one.projection.name not in wanted:
            return False
        begun = seen is not None and one.number > seen.get(one.projection.name, 0)
        return begun or (resume and not one.live and one.seq > 0 and one.error is None)

    going = [one for one in store.generations if kept(one)]
    held = {one.projection.name for one in going}
    missing = [name for name in wanted if name not in held]
    return going + (store.rebuild(missing) if missing else [])


async def _ask_projector(
    conn: Connection, names: list[str] | None, resume: bool, progress: Progress, began: float
) -> RebuildReport:
    before = await _answer(conn, "generations", {}, none_is_final=True)
    seen: dict[str, int] = {}
    for name, number, *_ in before["generations"]:
        seen[name] = max(number, seen.get(name, 0))
    answer = await _answer(conn, "rebuild", {"names": names, "resume": resume, "seen": seen})
    begun = {(name, number) for name, number in answer["begun"]}
    goal = (await stream_info(conn, LOG)).last_seq  # the projector may not have read all of it yet
    while True:
        generations = (await _answer(conn, "generations", {}))["generations"]
        found = [(seq, live, error) for name, number, seq, live, error in generations if (name, number) in begun]
        if len(found) < len(begun):
            raise RebuildFailed(_why_gone(begun, {(name, number) for name, number, *_ in generations}))
        for _, _, error in found:
            if error is not None:
                raise RebuildFailed(error)
        done = min((seq for seq, _, _ in found), default=goal)
        progress(min(done, goal), goal, "messages")
        if done >= goal and all(live for _, live, _ in found):
            made = tuple(sorted(name for name, _ in begun))
            bare = (await _answer(conn, "bodiless", {}))["count"]
            return RebuildReport(made, done, True, time.monotonic() - began, bare)
        await asyncio.sleep(_POLL)


async def _answer(
    conn: Connection, operation: str, args: dict[str, Any], *, none_is_final: bool = False
) -> dict[str, Any]:
    """Ask until the projector answers, which may be killed with the question in hand and started again.

    Raises NoResponders where there is none and `none_is_final`, RebuildFailed after a while.
    """
    since = time.monotonic()
    while True:
        try:
            return await ask(conn, operation, args, timeout=_ANSWER)
        except (NoResponders, RequestTimeout) as silence:
            gone = isinstance(silence, NoResponders)
            if gone and none_is_final:
                raise
            if time.monotonic() - since > (_PATIENCE if gone else _BUSY):
                raise RebuildFailed(
                    "the projector stopped during the rebuild: start it again, it goes on where it was"
                ) from None
            await asyncio.sleep(_POLL)


def _why_gone(begun: set[tuple[str, int]], there: set[tuple[str, int]]) -> str:
    """Return why generations that were begun are not there any more."""
    name, number = min(begun - there)
    if any(other == name and newer > number for other, newer in there):
        return f"another rebuild of {name}, or one that a newer text called for, took the place of this one"
    return f"the tables of {name} are called for no more, or the projector has another store: run the rebuild again"
