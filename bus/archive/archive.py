"""The archive of the log: Parquet files by day and run, read back in the order of the log.

    <home>/archive/<epoch>/manifest.json
    <home>/archive/<epoch>/day=2026-11-20/run=digits/1-8123.parquet

Each message is one row (see `rows`), its bytes whole. Any tool may read the files; only `Archive` may
change them. Whatever it hands out was checked: sizes and page checksums on every read, SHA-256 in `verify`.
A file that the machine does not let us read is not called damaged: that raises ArchiveUnreadable.

Whoever reads the past comes by here, and most machines have no archive: Parquet is loaded where a file is opened.
"""

import contextlib
import errno
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArchiveDamaged, ArchiveUnreadable
from ..pull import Message
from ..settings import Settings
from .manifest import NAME, ArchivedFile, Manifest, Segment, load, locked, save
from .subjects import matches, tokens
from .trouble import told

if TYPE_CHECKING:
    import numpy.typing as npt

    from .writer import SegmentWriter

BATCH_BYTES = 8 << 20
BATCH_MESSAGES = 4096
_OURS = re.compile(r"day=\d{4}-\d\d-\d\d/run=[A-Za-z0-9_=~-]+/(\d+)(?:-\d+)?\.parquet(\.part)?")

Progress = Callable[[int, int, str], None]
Wanted = Callable[[str], bool]


def epochs(settings: Settings) -> list[str]:
    """Return the identities of the logs that have an archive here."""
    return sorted(path.parent.name for path in settings.archive_dir.glob(f"*/{NAME}"))


class Archive:
    """The archive of one log, as its manifest tells at this moment. An archive that has no file yet is empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = load(folder) or Manifest(folder.name)

    @classmethod
    def of(cls, settings: Settings, epoch: str) -> "Archive":
        """Open the archive of the log `epoch` in the data folder. Raises ArchiveDamaged where it cannot be."""
        return cls(settings.archive_dir / epoch)

    @property
    def covered(self) -> int:
        """Return the last archived sequence; everything from 1 to it is here, except `gaps`."""
        return self.manifest.covered

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Return the ranges, first and last, that the log did not have when they were archived."""
        return [gap for segment in self.manifest.segments for gap in segment.gaps]

    @property
    def rows(self) -> int:
        """Return how many messages it holds."""
        return sum(segment.rows for segment in self.manifest.segments)

    @property
    def bytes(self) -> int:
        """Return the size of its files."""
        return sum(segment.bytes for segment in self.manifest.segments)

    def read(
        self,
        *,
        after: int = 0,
        upto: int | None = None,
        run: str | None = None,
        family: str | Iterable[str] | None = None,
    ) -> Iterator[list[Message]]:
        """Yield the messages after `after`, up to `upto`, in order, in lists of about 8 MiB; filters as in `read`.

        One window (32 MiB) is in memory and one file open at a time. Raises ArchiveDamaged and ArchiveUnreadable, which name the file.
        """
        run_token, families = tokens(run, family)
        wanted = None if run is None and family is None else lambda subject: matches(subject, run_token, families)
        end = self.covered if upto is None else upto
        for segment in self.manifest.segments:
            if segment.last <= after or segment.first > end:
                continue
            for window in self._windows(segment, after, end, run_token, wanted):
                yield from _batches(window)

    def sequence_at(self, ns: int) -> int | None:
        """Return the first sequence that was stored at `ns` (unix nanoseconds) or later; None where none was."""
        for segment in self.manifest.segments:
            if segment.stored[1] < ns:
                continue
            found: list[int] = []
            for file in segment.files:
                seqs, stored = _File(self.folder, file).times()
                found += seqs[stored >= ns][:1].tolist()
            if found:
                return min(found)
        return None

    def newest(self) -> tuple[int, int] | None:
        """Return sequence and broker's clock (unix ns) of the newest message; None where it holds none."""
        for segment in reversed(self.manifest.segments):
            if segment.files:
                return _File(self.folder, max(segment.files, key=lambda file: file.last)).newest()
        return None

    def _windows(
        self, segment: Segment, after: int, end: int, run_token: str | None, wanted: Wanted | None
    ) -> Iterator[list[Message]]:
        """Yield what each window of a segment has in (after, end] of the wanted subjects, its files merged by sequence."""
        chosen = [
            _File(self.folder, file)
            for file in segment.files
            if file.last > after and file.first <= end and (run_token is None or file.run == run_token)
        ]
        previous = segment.first - 1
        for index, last in enumerate(segment.windows):
            if last > after and previous < end:
                merged: list[Message] = []
                for file in chosen:
                    merged.extend(file.window(index, previous, last, wanted))
                merged.sort()  # by sequence, which is unique
                if previous < after or last > end:
                    merged = [message for message in merged if after < message.seq <= end]
                if merged:
                    yield merged
            previous = last

    def verify(self, progress: Progress | None = None) -> list[str]:
        """Read every byte against its SHA-256; return a line for each file that is not as it should be."""
        return [line for _, lines in self.damages(progress) for line in lines]

    def damages(self, progress: Progress | None = None, since: int = 0) -> list[tuple[Segment, list[str]]]:
        """Return the segments that have damaged files, with a line for each such file.

        Segments that end before sequence `since` are left out. Progress is in bytes.
        """
        found: list[tuple[Segment, list[str]]] = []
        segments = [segment for segment in self.manifest.segments if segment.last >= since]
        total = sum(segment.bytes for segment in segments)
        done = 0
        for segment in segments:
            lines = []
            for file in segment.files:
                try:
                    _check(self.folder, file, segment)
                except ArchiveDamaged as error:
                    lines.append(str(error))
                done += file.bytes
                if progress is not None:
                    progress(done, total, "bytes")
            if lines:
                found.append((segment, lines))
        return found

    def strangers(self) -> list[str]:
        """Return the Parquet files in the folder that no manifest knows of."""
        known = {file.path for segment in self.manifest.segments for file in segment.files}
        paths = (path.relative_to(self.folder).as_posix() for path in self.folder.glob("**/*.parquet*"))
        return sorted(set(paths) - known)

    def unfinished(self, name: str, log_first: int) -> bool:
        """Tell whether a stranger is a writer's, at work or killed: the next one sweeps what was left."""
        match = _OURS.fullmatch(name)
        return match is not None and (match[2] is not None or int(match[1]) >= max(self.covered + 1, log_first))

    @contextlib.contextmanager
    def writing(self, log_first: int) -> Iterator["ArchiveWriter"]:
        """Hold the archive for writing, alone, and sweep what a killed writer left. Raises ArchiveBusy.

        `log_first` is the first sequence that the log still has: nothing is deleted that it could not give again.
        """
        with locked(self.folder):
            self.manifest = load(self.folder) or Manifest(self.folder.name)
            save(self.folder, self.manifest)  # from here on, files beside no manifest mean that it was lost
            self._sweep(log_first)
            yield ArchiveWriter(self)

    def _sweep(self, log_first: int) -> None:
        """Delete unfinished files, and finished ones that never entered the manifest."""
        for name in self.strangers():
            if self.unfinished(name, log_first):
                (self.folder / name).unlink(missing_ok=True)


class ArchiveWriter:
    """Adds segments to an archive; made by `Archive.writing`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def segment(self, first: int | None = None) -> "SegmentWriter":
        """Begin the next segment, or write the one that begins at `first` again."""
        from .writer import SegmentWriter

        archive = self._archive
        return SegmentWriter(archive.folder, archive.folder.name, archive.covered + 1 if first is None else first)

    def commit(self, segment: Segment) -> None:
        """Enter a sealed segment into the manifest; when this returns, it is part of the archive for good."""
        self._archive.manifest = self._archive.manifest.with_segment(segment)
        save(self._archive.folder, self._archive.manifest)


class _File:
    """A Parquet file of the archive, open only while something is read of it; its footer is read once."""

    def __init__(self, folder: Path, file: ArchivedFile) -> None:
        self._file = file
        self._path = folder / file.path
        self._footer: Any = None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with _told(self._path, self._file):
            size = self._path.stat().st_size
            if size != self._file.bytes:
                raise _damaged(self._path, self._file, f"it has {size} bytes instead of {self._file.bytes}")
            with pq.ParquetFile(
                self._path, metadata=self._footer, page_checksum_verification=True, pre_buffer=False
            ) as parquet:
                self._footer = parquet.metadata
                rows, groups = self._footer.num_rows, self._footer.num_row_groups
                if (rows, groups) != (self._file.rows, len(self._file.windows)):
                    raise _damaged(self._path, self._file, "it holds other rows than the manifest says")
                yield parquet

    def times(self) -> "tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]":
        """Return sequence and broker's clock of every row."""
        import pyarrow as pa

        with self._opened() as parquet:
            part = parquet.read(columns=["seq", "stored"], use_threads=False)
        return part["seq"].to_numpy(), part["stored"].cast(pa.int64()).to_numpy()

    def newest(self) -> tuple[int, int]:
        """Return sequence and broker's clock of the last row."""
        import pyarrow as pa

        with self._opened() as parquet:
            last = parquet.num_row_groups - 1
            part = parquet.read_row_group(last, columns=["seq", "stored"], use_threads=False)
            return part["seq"][-1].as_py(), part["stored"].cast(pa.int64())[-1].as_py()

    def window(self, index: int, previous: int, last: int, wanted: Wanted | None = None) -> list[Message]:
        """Return the messages of window `index`, whose sequences lie in (previous, last], of the wanted subjects.

        The bytes of messages are read only where one of them is wanted: most of an archive is of other families.
        """
        if index not in self._file.windows:
            return []
        from .rows import NEEDED, messages

        group = self._file.windows.index(index)
        with self._opened() as parquet:
            kept: list[str] | None = None
            if wanted is not None:
                subjects = parquet.read_row_group(group, columns=["subject"], use_threads=False)["subject"]
                kept = [subject for subject in subjects.unique().to_pylist() if wanted(subject)]
                if not kept:
                    return []
            part = parquet.read_row_group(group, columns=NEEDED, use_threads=False)
            found = list(messages(part if kept is None else _of(part, kept)))
        if not all(previous < message.seq <= last for message in found):
            raise _damaged(self._path, self._file, f"a row lies outside of {previous + 1}-{last}")
        return found


def _of(part: Any, subjects: list[str]) -> Any:
    """Return the rows of a table that have one of these subjects."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return part.filter(pc.is_in(part["subject"], value_set=pa.array(subjects)))


def _batches(window: list[Message]) -> Iterator[list[Message]]:
    batch: list[Message] = []
    size = 0
    for message in window:
        batch.append(message)
        size += len(message.data)
        if size >= BATCH_BYTES or len(batch) >= BATCH_MESSAGES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check(folder: Path, file: ArchivedFile, segment: Segment) -> None:
    path = folder / file.path
    digest = hashlib.sha256()
    with _told(path, file), path.open("rb") as opened:
        while piece := opened.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != file.sha256:
        raise _damaged(path, file, "its SHA-256 is not the one in the manifest")
    seqs, _ = _File(folder, file).times()
    if not np.all(seqs[1:] > seqs[:-1]) or (seqs[0], seqs[-1]) != (file.first, file.last) or file.last > segment.last:
        raise _damaged(path, file, "its rows are not in the order of the log")


@contextlib.contextmanager
def _told(path: Path, file: ArchivedFile) -> Iterator[None]:
    """Turn whatever a file's reading raises into one line that names it."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise _damaged(path, file, "it is missing") from None
    except MemoryError as error:
        raise _unreadable(path, OSError(errno.ENOMEM, "")) from error
    except (OSError, pa.ArrowException, KeyError, UnicodeError) as error:
        # What Parquet finds wrong has no number, and bytes that a disk cannot give back are lost.
        if isinstance(error, OSError) and error.errno not in (None, errno.EIO):
            raise _unreadable(path, error) from error
        raise _damaged(path, file, str(error).splitlines()[0][:200].rstrip(".")) from error


def _unreadable(path: Path, error: OSError) -> ArchiveUnreadable:
    return ArchiveUnreadable(f"cannot read archived file {path}: {told(error)}")


def _damaged(path: Path, file: ArchivedFile, why: Any) -> ArchiveDamaged:
    return ArchiveDamaged(
        f"archived file {path} is damaged: {why}. Restore it from a backup, or run `morphogen archive --repair` "
        f"while the log still has {file.first}-{file.last}"
    )
