"""The past of the log as one sequence: what is archived first, then what the live log holds.

    async for batch in past(conn, settings, after=position): ...

It does not matter where the one ends and the other begins, whether they overlap, or whether the log is trimmed behind
the archive while somebody reads. What neither has is an error that names the missing sequences, never a silent hole.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .archive.archive import Archive, epochs
from .errors import ArchiveError, LogGap
from .overlap import demand_reach, demand_same
from .patience import patiently
from .reader import Message, read
from .settings import Settings
from .streams import LOG, StreamInfo, stream_info

if TYPE_CHECKING:
    from .connection import Connection

_CLOCK = (0, 2**63 - 1)  # unix ns that a broker can have stored something at

_log = logging.getLogger("morphogen.bus")


@dataclass(frozen=True)
class Extent:
    """How far the past reaches: `archived` and `last` are sequences, `live` is the first one that the log still has.

    Offline, the archive is all there is: `live` is one beyond it.
    """

    epoch: str
    archived: int
    live: int
    last: int


async def extent(conn: "Connection | None", settings: Settings, epoch: str | None = None) -> Extent:
    """Return how far the past reaches at this moment; without a connection, how far the archive does.

    Raises ArchiveError where, offline, the data folder has no archive, or several and `epoch` names none, and where the
    log ends before its archive does.
    """
    if conn is not None:
        info = await stream_info(conn, LOG)
        archive = Archive.of(settings, info.epoch)
        if archive.covered > info.last_seq:  # archived since, or an older copy of the log
            info = await stream_info(conn, LOG)
            demand_reach(info, archive)
        return Extent(info.epoch, archive.covered, info.first_seq, info.last_seq)
    archive = Archive.of(settings, _only_epoch(settings, epoch))
    return Extent(archive.folder.name, archive.covered, archive.covered + 1, archive.covered)


def other_logs(settings: Settings, epoch: str) -> list[str]:
    """Return the identities of the logs in the archive folder where `epoch` is none of them."""
    found = epochs(settings)
    return [] if epoch in found else found


async def sequence_at(conn: "Connection | None", settings: Settings, ns: int, epoch: str | None = None) -> int:
    """Return the first sequence that was stored at `ns` (unix nanoseconds) or later; one beyond the last if none.

    Raises LogGap where that may have been one of those that neither the archive nor the log has.
    """
    ns = min(max(ns, _CLOCK[0]), _CLOCK[1])
    reach = await extent(conn, settings, epoch)
    archive = Archive.of(settings, reach.epoch)
    found = await asyncio.to_thread(archive.sequence_at, ns)
    if found is not None:
        return found
    if conn is not None:
        reader = read(conn, after=archive.covered, since_ns=ns)
        try:
            async for batch in reader:
                found = batch[0].seq
                if found == reach.live:  # what was before it may be as young
                    _demand(await stream_info(conn, LOG), reach.epoch, archive.covered, None, settings)
                return found
        finally:
            await reader.aclose()
    return reach.last + 1


async def past(
    conn: "Connection | None",
    settings: Settings,
    *,
    after: int = 0,
    upto: int | None = None,
    run: str | None = None,
    family: str | Iterable[str] | None = None,
    since_ns: int | None = None,
    follow: bool = False,
    epoch: str | None = None,
    holes: bool = False,
) -> AsyncGenerator[list[Message], None]:
    """Yield the messages of the log after `after`, up to `upto`, in order, in lists that are never empty.

    Filters are those of `read`. Ends at the log's end as of the call, or, with `follow`, never. Without a connection
    the archive alone is read (`epoch` says whose, where the data folder has several). To resume, pass the last
    sequence that was dealt with as `after`.

    Raises LogGap where neither has a range of sequences, ArchiveError where the log is not the one that was archived,
    ArchiveDamaged, and what `read` raises. A hole amid the log shows only where no filter is; it is passed over, with a
    warning, by those who `follow`, and with `holes`. Who follows by a filter, and was there when the log was trimmed, goes
    on without the archive too, with a warning: of what was trimmed it has had what the broker sent.
    """
    families = family if family is None or isinstance(family, str) else tuple(family)
    reach = await extent(conn, settings, epoch)
    end = upto if follow and conn is not None else reach.last if upto is None else min(upto, reach.last)
    if conn is None and upto is not None and upto > reach.archived:
        raise ArchiveError(f"the archive ends at sequence {reach.archived}: start the broker to read up to {upto}")
    if since_ns is not None:
        after = max(after, await sequence_at(conn, settings, since_ns, epoch) - 1)
    if conn is not None:
        await demand_same(conn, Archive.of(settings, reach.epoch))
    filtered = run is not None or families is not None
    strict = not filtered and not follow and not holes
    position = after
    while end is None or position < end:
        archive = Archive.of(settings, reach.epoch)
        stop = archive.covered if end is None else min(end, archive.covered)
        if position < stop:
            parts = _threaded(archive.read(after=position, upto=stop, run=run, family=families))
            try:
                async for batch in parts:
                    yield batch
            finally:
                await parts.aclose()
            position = stop
            continue
        if conn is None:
            return
        _demand(await _info(conn, follow), reach.epoch, position, end, settings)
        trimmed = False
        reader = read(conn, after=position, upto=end, run=run, family=families, follow=follow)
        try:
            async for batch in reader:
                whole = len(batch) == batch[-1].seq - position
                if not whole and await _was_trimmed(conn, position, follow):
                    trimmed = not (follow and filtered) or Archive.of(settings, reach.epoch).covered > position
                    if trimmed:
                        break
                    _log.warning(
                        "the log was trimmed behind message %d while it was followed, and the archive is not here: "
                        "what had not come of that is passed over",
                        position,
                    )
                if strict and not whole:
                    first, last = first_hole(batch, position)
                    if sound := [message for message in batch if message.seq < first]:
                        yield sound
                    raise hole(first, last)
                position = batch[-1].seq
                yield batch
        finally:
            await reader.aclose()
        if not trimmed and not await _was_trimmed(conn, position, follow):
            if strict and end is not None and position < end:
                raise hole(position + 1, end)
            return


def hole(first: int, last: int) -> LogGap:
    """Return the error for messages that the log has lost from its midst."""
    return LogGap(
        first, last, "the broker's store was damaged. Restore it, or accept the loss: `morphogen archive --accept-gap`"
    )


def first_hole(batch: list[Message], position: int) -> tuple[int, int]:
    """Return the first sequences after `position` that a batch, which is not whole, leaves out."""
    for message in batch:
        if message.seq != position + 1:
            break
        position = message.seq
    return position + 1, message.seq - 1


async def _was_trimmed(conn: "Connection", position: int, follow: bool) -> bool:
    """Tell whether the log may have lost something after `position`, which the archive must then give."""
    info = await _info(conn, follow)
    return info.first_seq > position + 1 and info.last_seq > position


async def _info(conn: "Connection", follow: bool) -> StreamInfo:
    return await patiently(conn, lambda: stream_info(conn, LOG), follow=follow)


def _demand(info: StreamInfo, epoch: str, position: int, end: int | None, settings: Settings) -> None:
    """Raise LogGap where the log begins after what comes next, and the archive does not reach it either."""
    last = info.last_seq if end is None else min(info.last_seq, end)
    if info.first_seq <= position + 1 or position >= last or Archive.of(settings, epoch).covered > position:
        return
    raise LogGap(
        position + 1,
        min(info.first_seq - 1, last),
        f"the archive that has them belongs in {settings.archive_dir / epoch}: copy it there from the machine that trims "
        "the log, or from a backup",
    )


def _only_epoch(settings: Settings, wanted: str | None) -> str:
    found = epochs(settings)
    if wanted in found or (wanted is None and len(found) == 1):
        return wanted or found[0]
    if not found:
        raise ArchiveError(f"there is no archive in {settings.archive_dir}: start the broker to read the log")
    problem = "holds several logs" if wanted is None else f"holds no log {wanted}"
    raise ArchiveError(f"{settings.archive_dir} {problem}: name one of {', '.join(found)}")


async def _threaded(batches: Iterator[list[Message]]) -> AsyncGenerator[list[Message], None]:
    """Read ahead by one batch in a thread, so that files are unpacked while the caller works on the last one."""
    ahead = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
    try:
        while (batch := await asyncio.shield(ahead)) is not None:
            ahead = asyncio.ensure_future(asyncio.to_thread(next, batches, None))
            yield batch
    finally:
        await asyncio.wait([ahead])
        if not ahead.cancelled():
            ahead.exception()  # what failed after the caller left is nobody's error
        close = getattr(batches, "close", None)
        if close is not None:
            close()
