"""Read a stream: from a position or a time on, of one run or all, to its present end or for ever.

    async for batch in read(conn, after=position, family="metrics"):
        for message in batch: ...

The reader keeps its place by stream sequence and asks nothing of the broker but messages: whoever needs to resume
stores the last sequence it has dealt with and passes it as `after`. A lost broker is waited for; nothing is
skipped and nothing comes twice.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from morphogen.schemas import token

from .errors import BusError, JetStreamApiError, NoBroker, StreamMissing, StreamReplaced
from .pull import Message, Pull
from .streams import BLOBS, COMMANDS, DEAD, LOG, REPLAY, stream_info

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Message", "read"]

NAMES = {"log": LOG, "commands": COMMANDS, "dead": DEAD, "blobs": BLOBS, "replay": REPLAY}

_log = logging.getLogger("morphogen.bus")
_BY_FAMILY = {"log": "morphogen.log", "replay": "morphogen.replay"}
_BY_RUN = {
    "log": "morphogen.log.{run}.*.*",
    "replay": "morphogen.replay.{run}.*.*",
    "dead": "morphogen.dead.{run}.*",
}
_PATIENCE = 60.0  # seconds without a broker after which a reader that only wants the present end gives up
_POLL = 2.0  # seconds between looks at the connection while nothing comes
_NO_STREAM = 10059
_NO_CONSUMER = 10014


async def read(
    conn: "Connection",
    *,
    after: int = 0,
    upto: int | None = None,
    run: str | None = None,
    family: str | Iterable[str] | None = None,
    since_ns: int | None = None,
    follow: bool = False,
    stream: str = "log",
    subjects: Iterable[str] | None = None,
) -> AsyncGenerator[list[Message], None]:
    """Yield the messages of `stream` in order, in lists that are never empty.

    `after` and `upto` are stream sequences (after < seq <= upto), `since_ns` is the broker's clock, `run` and
    `family` (one or several) are names; `subjects` are filters in the broker's own form instead of the two. Ends at
    the stream's end as of the call; with `follow` it goes on with what is stored later, until `upto` or until it
    is closed. At most 32 MB lie between the broker and the caller.

    Raises StreamMissing, StreamReplaced where the stream was deleted and made again meanwhile, Disconnected when
    the connection is closed, NoBroker where there is none for a minute (never with `follow`).
    """
    name = NAMES.get(stream, stream)
    if name == COMMANDS:
        raise ValueError("commands are taken by workers, not read: read family 'command' of the log")
    filters = _filters(stream, run, family) if subjects is None else list(subjects)
    position = after
    epoch: str | None = None
    end = upto
    while True:
        pull: Pull | None = None
        woken = None
        try:
            info = await stream_info(conn, name)
            if epoch is not None and info.epoch != epoch:
                raise StreamReplaced(
                    f"stream {name} was replaced by another while it was read: start again at its beginning"
                )
            if epoch is None:
                epoch = info.epoch
                if not follow:
                    end = info.last_seq if end is None else min(end, info.last_seq)
            if end is not None and position >= end:
                return
            since = since_ns if position == after else None
            pull = Pull(conn, name, filters=filters, start=position + 1, since_ns=since)
            woken = _on_reconnect(conn, pull)
            await pull.open()
            if not follow and pull.pending == 0:
                return
            while pull.broken is None or pull.ready:
                beats = pull.beats
                batch = await pull.take(_POLL)
                if not batch:
                    if not conn.connected:
                        pull.stop("the connection was lost")
                    elif pull.beats > beats and await _is_over(conn, name, pull, follow, end):
                        return
                    continue
                finished = not follow and pull.pending == 0 and not pull.ready
                batch, done = _cut(batch, position, end)
                if batch:
                    if not filters:
                        began = position if since is None or position != after else batch[0].seq - 1
                        await _note_gap(conn, name, began, batch)
                    position = batch[-1].seq
                    yield batch
                if done or finished:
                    return
            _log.debug("reading %s again from %d: %s", name, position + 1, pull.broken)
        except (StreamMissing, StreamReplaced):
            raise
        except BusError as error:
            _judge(error, name)
            _log.debug("reading %s again from %d: %s", name, position + 1, error)
        finally:
            if woken is not None:
                with contextlib.suppress(ValueError):
                    conn.on_reconnect.remove(woken)
            if pull is not None:
                await pull.close()
        await _until_connected(conn, follow)


def _filters(stream: str, run: str | None, family: str | Iterable[str] | None) -> list[str]:
    """Return the broker's filters for a run and families."""
    if run is None and family is None:
        return []
    run_token = "*" if run is None else token(run)
    if family is None or stream not in _BY_FAMILY:
        if stream in _BY_RUN and family is None:
            return [_BY_RUN[stream].format(run=run_token)]
        raise ValueError(f"stream {stream!r} is not read by {'run' if family is None else 'family'}: give subjects")
    families = {family} if isinstance(family, str) else set(family)
    if not families:
        raise ValueError("no family is asked for: name one, or none at all for every family")
    return [f"{_BY_FAMILY[stream]}.{run_token}.{token(name)}.*" for name in sorted(families)]


def _cut(batch: list[Message], position: int, end: int | None) -> tuple[list[Message], bool]:
    """Return what lies after `position` and not beyond `end`, and whether the end was reached."""
    if batch[0].seq <= position:
        batch = [message for message in batch if message.seq > position]
    if end is None or not batch or batch[-1].seq < end:
        return batch, False
    return [message for message in batch if message.seq <= end], True


async def _is_over(conn: "Connection", name: str, pull: Pull, follow: bool, end: int | None) -> bool:
    """Ask the broker, which is idle, whether all that was wanted has come: the filter may match nothing up to the end."""
    if follow and (end is None or (await stream_info(conn, name)).last_seq < end):
        return False
    return await pull.delivered_all() and not pull.ready


def _judge(error: BusError, name: str) -> None:
    """Raise where asking again is no use: the stream is not there, or the broker refuses for good."""
    if not isinstance(error, JetStreamApiError):
        return
    if error.err_code == _NO_STREAM:
        raise StreamMissing(
            f"the broker has no stream {name}; it appears with the first recording or `morphogen up`"
        ) from error
    if 400 <= error.code < 500 and error.err_code != _NO_CONSUMER:
        raise error


async def _note_gap(conn: "Connection", name: str, position: int, batch: list[Message]) -> None:
    """Say it loudly where the log itself has lost messages; one that was trimmed at its start has not."""
    if batch[-1].seq - position == len(batch) or name != LOG:
        return
    first = (await stream_info(conn, name)).first_seq
    for message in batch:
        if message.seq != position + 1 and message.seq > first:
            _log.warning(
                "the log holds nothing from sequence %d to %d: the broker's store was damaged",
                max(position + 1, first),
                message.seq - 1,
            )
        position = message.seq


def _on_reconnect(conn: "Connection", pull: Pull) -> "Callable[[], Awaitable[None]]":
    async def stop() -> None:
        pull.stop("the connection is a new one")

    conn.on_reconnect.append(stop)
    return stop


async def _until_connected(conn: "Connection", follow: bool) -> None:
    """Wait until the broker is there. Raises Disconnected where the connection is closed for good."""
    await asyncio.sleep(0.05)
    while True:
        try:
            await conn.wait_connected(_PATIENCE)
        except NoBroker:
            if not follow:
                raise
        else:
            return
