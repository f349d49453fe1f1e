"""The book of an archive: which files hold which sequences, and what they must hash to.

`<home>/archive/<epoch>/manifest.json` lists segments in the order of the log, without a hole between them. A segment
is a range of sequences whose messages lie in one file for each day and run; it enters the book in one atomic step
when all its files are on the disk. What is not in the book is not in the archive.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..errors import ArchiveBusy, ArchiveDamaged, ArchiveUnreadable
from .trouble import told

FORMAT = 1
NAME = "manifest.json"
_LOCK = ".lock"


class ArchivedFile(msgspec.Struct, frozen=True):
    """One Parquet file: its path below the archive, its sequences, and the windows of which it has a row group."""

    path: str
    first: int
    last: int
    rows: int
    bytes: int
    sha256: str
    day: str
    run: str  # as a token: the name of its folder
    windows: list[int]


class Segment(msgspec.Struct, frozen=True):
    """A range of sequences and the files that hold it.

    `windows[i]` is the last sequence of window i: the row groups of one window are read and merged together.
    `stored` is the broker's clock at the first and the newest message. `gaps` are ranges that the log did not have.
    """

    first: int
    last: int
    stored: tuple[int, int]
    windows: list[int]
    files: list[ArchivedFile]
    gaps: list[tuple[int, int]] = []

    @property
    def rows(self) -> int:
        """Return how many messages the segment holds."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Return the size of its files."""
        return sum(file.bytes for file in self.files)


class Manifest(msgspec.Struct, frozen=True):
    """All segments of the archive of one log."""

    epoch: str
    segments: list[Segment] = []
    format: int = FORMAT

    @property
    def covered(self) -> int:
        """Return the last sequence that is archived, 0 where none is."""
        return self.segments[-1].last if self.segments else 0

    def with_segment(self, segment: Segment) -> "Manifest":
        """Return a manifest with `segment` at its end, or in the place of the one with the same range."""
        kept = list(self.segments)
        for index, other in enumerate(kept):
            if (other.first, other.last) == (segment.first, segment.last):
                kept[index] = segment
                return Manifest(self.epoch, kept)
        if segment.first != self.covered + 1:
            raise ValueError(f"segment {segment.first}-{segment.last} does not follow sequence {self.covered}")
        return Manifest(self.epoch, [*kept, segment])


def load(folder: Path) -> Manifest | None:
    """Return the manifest of an archive folder, None where nothing was archived yet.

    Raises ArchiveDamaged where it is no manifest, does not hold together, or is missing beside archived files, and
    ArchiveUnreadable.
    """
    path = folder / NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        if any(folder.glob("day=*/run=*/*.parquet")):
            raise ArchiveDamaged(f"{path} is missing beside archived files: restore it from a backup") from None
        return None
    except OSError as error:
        raise ArchiveUnreadable(f"cannot read {path}: {told(error)}") from error
    except msgspec.MsgspecError as error:
        raise ArchiveDamaged(f"{path} cannot be read ({error}): restore it from a backup") from error
    if manifest.format != FORMAT:
        raise ArchiveDamaged(f"{path} has format {manifest.format}, this version reads {FORMAT}: upgrade morphogen")
    if manifest.epoch != folder.name:
        raise ArchiveDamaged(f"{path} belongs to log {manifest.epoch}: put it back into the folder of that name")
    expected = 1
    for segment in manifest.segments:
        if segment.first != expected or segment.last < segment.first or not _holds(segment):
            raise ArchiveDamaged(f"{path} is inconsistent at sequence {expected}: restore it from a backup")
        expected = segment.last + 1
    return manifest


def _holds(segment: Segment) -> bool:
    """Tell whether a segment's parts agree with each other and stay inside the archive's folder."""
    ordered = segment.windows == sorted(set(segment.windows))
    missing = sum(last - first + 1 for first, last in segment.gaps)
    inside = all(
        file.path == f"day={file.day}/run={file.run}/{file.first}-{file.last}.parquet"
        and not {"/", "\\"} & set(file.day + file.run)
        and all(0 <= window < len(segment.windows) for window in file.windows)
        for file in segment.files
    )
    return ordered and inside and segment.rows + missing == segment.last - segment.first + 1


def save(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest in one step; when this returns, it is on the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{NAME}.part"
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / NAME)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the archive for writing; the lock ends with the process. Raises ArchiveBusy where another one holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArchiveBusy(f"another process is archiving into {folder}: wait until it is done") from None
        yield
