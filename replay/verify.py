"""Prove that the tables are what the log says: fold all of it again into a store of its own, and compare.

On the way every byte of the past is looked at: checksums of the archive, CRCs of the records, missing sequences,
and whether log, archive and tables are of one and the same stream.
"""

import asyncio
import contextlib
import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from morphogen.bus.archive.archive import Archive
from morphogen.bus.connection import Connection
from morphogen.bus.errors import ArchiveError, ArchiveUnreadable
from morphogen.bus.overlap import foreign
from morphogen.bus.past import Extent, extent, other_logs
from morphogen.bus.reader import Message
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.consumers.projections.projection import Projection
from morphogen.consumers.projections.store import Store
from morphogen.schemas import FrameError, decode_frame, verify_frame

from .bodiless import bodiless, told
from .compare import Difference, TableCheck, check, first_difference
from .live_tables import LiveTables, live_tables
from .overlap import first_differing
from .past_source import FOLD_BYTES, PastSource
from .span import Progress, silent

_LISTED = 20  # damages that are named one by one


@dataclass
class VerifyReport:
    """What was compared, and everything that is wrong. `ok` when nothing is."""

    epoch: str
    position: int = 0
    """The sequence as of which tables were compared."""
    last: int = 0
    """The last sequence of the past; everything up to it was read."""
    messages: int = 0
    unreadable: int = 0
    """Messages that are no frames: strange, but what they are is in the tables too."""
    bodiless: int = 0
    """Events whose body lies in a blob that is gone, though live tables may have been made while it was there."""
    tables: list[TableCheck] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Lines on damaged files, damaged records, missing sequences, missing bodies and stopped projections."""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Tell whether the tables are what the log says, and the log is whole."""
        return not self.differences and not self.faults and all(table.equal for table in self.tables)

    def summary(self) -> str:
        """Return the outcome in one line."""
        wrong = self.differences or not all(table.equal for table in self.tables)
        without = ", without the bodies that are gone" if self.bodiless else ""
        advice = f"`morphogen rebuild` makes tables anew{without}" if wrong else "see above"
        verdict = "all is as the log says" if self.ok else f"NOT as the log says; {advice}"
        rows = sum(table.log[0] for table in self.tables)
        return (
            f"{len(self.tables)} tables with {rows:,} rows as of {self.position:,}, {self.messages:,} messages up to "
            f"{self.last:,}: {verdict}"
        )

    def lines(self) -> Iterator[str]:
        """Yield the report as text: first what is wrong, then what was looked at."""
        yield from (str(difference) for difference in self.differences)
        yield from self.faults
        yield from self.notes
        for table in self.tables:
            rows, digest = table.log
            yield f"{table.table}: {rows} rows, {digest}, {'equal' if table.equal else 'DIFFERENT'}"
        yield self.summary()


async def verify(
    conn: Connection | None,
    settings: Settings,
    *,
    epoch: str | None = None,
    projections: Sequence[Projection] | None = None,
    progress: Progress = silent,
) -> VerifyReport:
    """Fold the whole past again up to the live position, and compare every table with the live one as of then.

    Without a connection the archive is the past. The second store lies in the data folder meanwhile and needs as
    much room as the live one. Raises LogGap where the log's beginning is lost, ArchiveError where the log ends before
    its archive does, StoreLocked, StoreDamaged.
    """
    began = time.monotonic()
    reach = await extent(conn, settings, epoch)
    report = VerifyReport(reach.epoch, last=reach.last)
    await _check_archive(conn, settings, reach, report, progress)
    inspector = _Inspector(report, Archive.of(settings, reach.epoch).gaps)
    source = PastSource(conn, settings, epoch=reach.epoch, observe=inspector.look, holes=True)
    try:
        async with live_tables(conn, settings, reach.epoch, projections) as live:
            if live is not None:
                await _compare(conn, settings, source, live, report, projections, progress)
            async for batch in source.read(inspector.position, report.last):
                progress(batch[-1].seq, report.last, "messages read")
        inspector.close(report.last)
    except ArchiveUnreadable:  # no fault of what is verified
        raise
    except ArchiveError as error:
        name = str(error).split(" is damaged")[0]
        known = any(fault.startswith(name) or " is not the one in " in fault for fault in report.faults)
        report.faults += [] if known else [str(error)]
        report.notes.append(f"the past could be read up to {inspector.position} only; no table was compared beyond it")
    report.seconds = time.monotonic() - began
    return report


async def _check_archive(
    conn: Connection | None, settings: Settings, reach: Extent, report: VerifyReport, progress: Progress
) -> None:
    archive = Archive.of(settings, reach.epoch)
    damaged = await asyncio.to_thread(archive.verify, progress)
    report.faults += damaged
    if conn is not None and not damaged and archive.covered >= reach.live:
        differing = await first_differing(conn, archive, reach.live, archive.covered, progress)
        report.faults += [] if differing is None else [foreign(differing, archive)]
    report.notes += [f"messages {first}-{last} were lost before they were archived" for first, last in archive.gaps]
    now = Archive.of(settings, reach.epoch)  # another process may be archiving
    strangers = [name for name in now.strangers() if not now.unfinished(name, reach.live)]
    report.notes += [f"{archive.folder / name} is not of this archive: move it away" for name in strangers]
    if others := other_logs(settings, reach.epoch):
        line = f"{settings.archive_dir} has nothing of this log, but of {', '.join(others)}: see Restore in docs/operations.md"
        (report.notes if reach.last else report.faults).append(line)


async def _compare(
    conn: Connection | None,
    settings: Settings,
    source: PastSource,
    live: LiveTables,
    report: VerifyReport,
    projections: Sequence[Projection] | None,
    progress: Progress,
) -> None:
    report.position = live.position
    report.faults += [f"stopped: {reason}" for reason in live.stopped.values()]
    if live.position > report.last:  # it went on meanwhile, and the tables with it
        report.last = (await extent(conn, settings, report.epoch)).last
    if live.position > report.last:
        report.faults.append(
            f"the tables have seen message {live.position}, but the log ends at {report.last}: it was restored from an "
            "older copy; `morphogen rebuild` makes the tables anew from it"
        )
        return
    with _workplace(settings.home) as folder:
        store = await asyncio.to_thread(Store.open, folder / "verify.duckdb", projections, epoch=report.epoch)
        try:
            follower = Follower(store, source, batch_bytes=FOLD_BYTES)
            await follower.catch_up(live.position, lambda done, total: progress(done, total, "messages folded"))
            if bare := await asyncio.to_thread(bodiless, store):
                report.bodiless = bare
                report.faults.append(told(bare, archive=conn is None))
            names = [_whole_name(store, table) for table in store.tables()]
            failed = {one.projection.name: one.error for one in store.generations if one.error is not None}
            report.faults += [f"stopped: {failed[name]}" for name in failed.keys() - live.stopped.keys()]
            missing = failed.keys() | live.stopped.keys()
            skipped = {
                table for one in store.generations if one.projection.name in missing for table in one.projection.tables
            }
            with store.reading(live.position) as cursor:
                for done, name in enumerate(names):
                    if name.removesuffix("_versions") in skipped or name in skipped:
                        continue
                    if not name.startswith("_") and name not in live.tables:
                        report.notes.append(f"table {name} is not among the live ones: is the projector an older one?")
                        continue
                    checked = await asyncio.to_thread(check, name, live.side, cursor)
                    report.tables.append(checked)
                    if not checked.equal:
                        found = await asyncio.to_thread(first_difference, name, live.side, cursor)
                        report.differences += [found] if found is not None else []
                    progress(done + 1, len(names), "tables compared")
        finally:
            await asyncio.to_thread(store.close)


def _whole_name(store: Store, table: str) -> str:
    """Return the view that shows all rows of a table: of a keyed one, not just the newest of each key."""
    keyed = any(table in projection.keys for projection in store.projections)
    return f"{table}_versions" if keyed else table


class _Inspector:
    """Looks at every message that passes: is it whole, and does it follow the one before?"""

    def __init__(self, report: VerifyReport, known_gaps: Sequence[tuple[int, int]]) -> None:
        self.position = 0
        self._report = report
        self._known = set(known_gaps)
        self._damaged = 0

    def look(self, batch: list[Message]) -> None:
        """Check messages, which come once each and in order."""
        for message in batch:
            if message.seq <= self.position:
                continue  # read a second time, for a projection that stood elsewhere
            if message.seq != self.position + 1:
                self._gap(self.position + 1, message.seq - 1)
            self.position = message.seq
            self._report.messages += 1
            try:
                verify_frame(message.data)
            except FrameError as error:
                self._judge(message, error)

    def close(self, last: int) -> None:
        """Say what was found, now that everything up to `last` has passed."""
        if self.position < last:
            self._gap(self.position + 1, last)
            self.position = last
        if self._damaged > _LISTED:
            self._report.faults.append(f"{self._damaged - _LISTED} more messages have damaged records")
        if self._report.unreadable:
            self._report.notes.append(f"{self._report.unreadable} messages of the log are no frames of Morphogen")

    def _judge(self, message: Message, error: FrameError) -> None:
        try:
            decode_frame(message.data)
        except FrameError:
            self._report.unreadable += 1
            return
        self._damaged += 1
        if self._damaged <= _LISTED:
            self._report.faults.append(f"message {message.seq} ({message.subject}): {error}")

    def _gap(self, first: int, last: int) -> None:
        if (first, last) not in self._known:
            self._report.faults.append(f"the log has nothing from {first} to {last}: its store was damaged")


@contextlib.contextmanager
def _workplace(home: Path) -> Iterator[Path]:
    """Give a folder below `home` for as long as it is needed, and sweep those of processes that were killed."""
    home.mkdir(parents=True, exist_ok=True)  # tables behind a broker elsewhere may be all that is known here
    with (home / ".verify.lock").open("a") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        for left in home.glob("verify-*"):
            with contextlib.suppress(OSError), (left / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix="verify-", dir=home))
        lock = (folder / "lock").open("a")
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()
