"""Whether an archive and the log that the broker has belong together: a store may be restored from an older copy.

Both carry the same identity then, and the same sequences mean other messages.
"""

import asyncio
from typing import TYPE_CHECKING

from .archive.archive import Archive
from .errors import ArchiveDamaged, ArchiveError
from .streams import LOG, StreamInfo, stored_message, stream_info

if TYPE_CHECKING:
    from .connection import Connection


async def demand_same(conn: "Connection", archive: Archive) -> None:
    """Compare the newest message that both have by when it was stored, to the nanosecond.

    Raises ArchiveError where the log is not the one that was archived, or ends before its archive does.
    """
    try:
        newest = await asyncio.to_thread(archive.newest)
    except ArchiveDamaged:  # named by whoever needs what is in it
        newest = None
    if archive.covered == 0:
        return
    info = await stream_info(conn, LOG)  # asked after the archive was read: it can only have gone on
    demand_reach(info, archive)
    if newest is not None and newest[0] >= info.first_seq:
        stored = await _stored(conn, newest[0])
        if stored is not None and stored != newest[1]:
            raise ArchiveError(foreign(newest[0], archive))


def demand_reach(info: StreamInfo, archive: Archive) -> None:
    """Raise ArchiveError where the log, as of after the archive was opened, ends before its archive does."""
    if info.last_seq < archive.covered:
        raise ArchiveError(
            f"the log ends at {info.last_seq}, its archive {archive.folder} at {archive.covered}: {_RESTORED}"
        )


def foreign(seq: int, archive: Archive) -> str:
    """Return the line for a message that is another one in the archive."""
    return f"message {seq} of the log is not the one in {archive.folder}: {_RESTORED}"


_RESTORED = (
    "the broker's store was restored from an older copy. Restore the newest one, or move that folder away to go on "
    "with this log (see Restore in docs/operations.md)"
)


async def _stored(conn: "Connection", seq: int) -> int | None:
    """Return when the log stored a message (unix ns); None where it no longer has it."""
    found = await stored_message(conn, LOG, seq=seq)
    return None if found is None else found.stored_ns
