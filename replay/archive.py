"""Move the log into its Parquet archive, and let the log forget what is safely there.

What was archived counts segment by segment: a kill or Ctrl-C at any moment costs at most the segment in work, which
the next run writes anew. The log is trimmed only after the archived files were read back, hashed, and compared
with the log message by message.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from morphogen.bus.archive.archive import Archive, ArchiveWriter
from morphogen.bus.archive.writer import SegmentWriter
from morphogen.bus.connection import Connection
from morphogen.bus.errors import ArchiveDamaged, LogGap
from morphogen.bus.overlap import demand_same, foreign
from morphogen.bus.past import first_hole, hole, sequence_at
from morphogen.bus.reader import Message, read
from morphogen.bus.settings import Settings
from morphogen.bus.streams import DUPLICATE_WINDOW_S, LOG, stream_info, trim

from .finishing import finish
from .overlap import first_differing
from .span import Progress, silent

KEEP = 7 * 86400.0
_EVER = 2**63 - 1  # nanoseconds


@dataclass(frozen=True)
class ArchiveReport:
    """What one run of the archive did: new sequences `first` to `last` (none where last < first), and its state now.

    `archived` is its last sequence, `rows` the messages in it: the log may have lost some. `trimmed` is how many
    messages the log forgot; `repaired` are the first sequences of segments written again.
    """

    epoch: str
    first: int
    last: int
    messages: int
    archived: int
    files: int
    bytes: int
    rows: int
    trimmed: int = 0
    repaired: tuple[int, ...] = ()


async def archive(
    conn: Connection,
    settings: Settings,
    *,
    upto: int | None = None,
    trim_log: bool = False,
    keep: float = KEEP,
    repair: bool = False,
    accept_gap: bool = False,
    progress: Progress = silent,
    now_ns: int | None = None,
) -> ArchiveReport:
    """Archive all that the log has (up to `upto`) and the archive has not, and return what was done.

    `trim_log` then purges the archived part of the log, less what was stored within the last `keep` seconds (at
    least the two minutes in which the broker refuses duplicates), counted back from `now_ns`: the broker's clock, by which
    they were stored, unless another is given. `repair` writes damaged files again, as long as the log has their messages.
    `accept_gap` goes on where the log has lost messages, and notes which.

    Raises LogGap, ArchiveDamaged, ArchiveBusy, ArchiveError (the disk; a log that is not the one that was archived),
    and what the bus raises.
    """
    info = await stream_info(conn, LOG)
    box = Archive.of(settings, info.epoch)
    with box.writing(info.first_seq) as writer:
        await demand_same(conn, box)
        repaired = await _repair(conn, box, writer, info.first_seq, progress) if repair else ()
        first = box.covered + 1
        if info.first_seq > first and info.last_seq >= first and not accept_gap:
            raise LogGap(first, info.first_seq - 1, f"restore {box.folder}, or accept the gap to go on without them")
        end = info.last_seq if upto is None else min(upto, info.last_seq)
        messages = 0
        if end >= first:
            messages = await _extend(conn, box, writer, end, accept_gap=accept_gap, progress=progress)
        trimmed = 0
        if trim_log:
            seconds = max(keep, DUPLICATE_WINDOW_S)
            now = info.now if now_ns is None else now_ns
            upper = await sequence_at(conn, settings, now - int(min(seconds * 1e9, _EVER))) - 1
            trimmed = await _trim(conn, box, min(upper, box.covered), progress)
    files = sum(len(segment.files) for segment in box.manifest.segments)
    return ArchiveReport(
        info.epoch, first, box.covered, messages, box.covered, files, box.bytes, box.rows, trimmed, repaired
    )


async def _extend(
    conn: Connection, box: Archive, writer: ArchiveWriter, end: int, *, accept_gap: bool, progress: Progress
) -> int:
    """Append (covered, end] to the archive; return how many messages that were."""
    start = box.covered
    count = 0
    segment = writer.segment()
    try:
        async for batch in _whole(conn, start, end, accept_gap):
            offset = 0
            while offset < len(batch):
                offset += await finish(segment.add, batch[offset:] if offset else batch)
                if segment.full:
                    await finish(_commit, writer, segment)
                    segment = writer.segment()
            count += len(batch)
            progress(batch[-1].seq - start, end - start, "messages")
        if box.covered < end:
            await finish(_commit, writer, segment, end)
    except asyncio.CancelledError:
        if segment.rows and box.covered < segment.position:
            _commit(writer, segment)
        raise
    finally:
        segment.abort()
    return count


async def _whole(conn: Connection, after: int, end: int, accept_gap: bool) -> AsyncGenerator[list[Message], None]:
    """Read the log, and raise LogGap where it has lost messages, or was trimmed meanwhile by somebody else."""
    position = after
    reader = read(conn, after=after, upto=end)
    try:
        async for batch in reader:
            if len(batch) != batch[-1].seq - position and not (accept_gap and position == after):
                first = (await stream_info(conn, LOG)).first_seq
                if first > position + 1:
                    raise LogGap(position + 1, first - 1, "the log was trimmed while it was archived")
                if not accept_gap:
                    raise hole(*first_hole(batch, position))
            position = batch[-1].seq
            yield batch
        if position < end and not accept_gap:
            raise hole(position + 1, end)
    finally:
        await reader.aclose()


def _commit(writer: ArchiveWriter, segment: SegmentWriter, last: int | None = None) -> None:
    writer.commit(segment.seal(last))


async def _repair(
    conn: Connection, box: Archive, writer: ArchiveWriter, log_first: int, progress: Progress
) -> tuple[int, ...]:
    """Write segments with damaged files again. Raises ArchiveDamaged where the log no longer has one."""
    repaired = []
    for old, lines in await asyncio.to_thread(box.damages, progress):
        if old.first + sum(last - first + 1 for first, last in old.gaps if first == old.first) < log_first:
            damage = lines[0].split(". Restore")[0]
            raise ArchiveDamaged(f"{damage}; the log begins at {log_first}, so only a backup has it: restore it")
        segment = writer.segment(old.first)
        try:
            async for batch in read(conn, after=old.first - 1, upto=old.last):
                await finish(segment.add_all, batch)
            await finish(_commit, writer, segment, old.last)
        finally:
            segment.abort()
        repaired.append(old.first)
    return tuple(repaired)


async def _trim(conn: Connection, box: Archive, upto: int, progress: Progress) -> int:
    """Compare what the log still has up to `upto` with the archive, then let the log forget it."""
    first = (await stream_info(conn, LOG)).first_seq
    if upto < first:
        return 0
    for segment, lines in await asyncio.to_thread(box.damages, progress, first):
        if segment.first <= upto:
            raise ArchiveDamaged(f"nothing was trimmed: {lines[0]}")
    differing = await first_differing(conn, box, first, upto, progress)
    if differing is not None:
        raise ArchiveDamaged(f"nothing was trimmed: {foreign(differing, box)}")
    return await trim(conn, upto + 1)
