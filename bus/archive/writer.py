"""Writing the archive: messages in, one finished segment out.

Rows are kept in memory for one window (32 MiB of message bytes), then written as one row group in the file of their
day and run. So a reader needs one window in memory to bring the files of a segment back into the order of the log,
however many runs there are. No file stays open between windows: a process may have fewer open than there are runs.
Files carry their final name only when they are whole and on the disk.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..errors import ArchiveError
from ..pull import Message
from .manifest import ArchivedFile, Segment, sync_folder
from .rows import DICTIONARY, SCHEMA, STATISTICS, Row, place, row, table
from .trouble import told

WINDOW_BYTES = 32 << 20
WINDOW_ROWS = 1 << 15
SEGMENT_BYTES = 1 << 30
SEGMENT_ROWS = 1_000_000
SEGMENT_FILES = 256  # whose footers are in memory together, while writing and while reading
PART = ".part"


class SegmentWriter:
    """Write the messages from sequence `first` on into `folder`; `seal` or `abort` ends it."""

    def __init__(self, folder: Path, epoch: str, first: int) -> None:
        self.first = first
        self.position = first - 1
        self.rows = 0
        self.bytes = 0
        self._folder = folder
        self._epoch = epoch
        self._files: dict[tuple[str, str], _Part] = {}
        self._window_bytes = 0
        self._window_rows = 0
        self._windows: list[int] = []
        self._gaps: list[tuple[int, int]] = []
        self._stored: tuple[int, int] | None = None

    @property
    def full(self) -> bool:
        """Tell whether the segment should be sealed before more is added."""
        return self.bytes >= SEGMENT_BYTES or self.rows >= SEGMENT_ROWS or len(self._files) >= SEGMENT_FILES

    def add(self, messages: Sequence[Message]) -> int:
        """Take messages, which follow in sequence, until the segment is full; return how many were taken.

        A sequence that is left out is written down as one that the log does not have.
        """
        try:
            for taken, message in enumerate(messages):
                if self.full:
                    return taken
                self._add(message)
        except OSError as error:
            raise self._failed(error) from error
        return len(messages)

    def add_all(self, messages: Sequence[Message]) -> None:
        """Take messages, full or not: a segment that is written again has the range that it had."""
        try:
            for message in messages:
                self._add(message)
        except OSError as error:
            raise self._failed(error) from error

    def seal(self, last: int | None = None) -> Segment:
        """Finish the files, put them on the disk, and return what the manifest has to say of them.

        `last` is the end of the range where the log has nothing between the newest message and it.
        """
        if last is not None and last > self.position:
            self._gaps.append((self.position + 1, last))
            self.position = last
        try:
            if self._window_rows or not self._windows:
                self._flush()
            files = [part.finish() for part in self._files.values()]
            for folder in {self._folder / file.path for file in files}:
                sync_folder(folder.parent)
                sync_folder(folder.parent.parent)
            sync_folder(self._folder)
        except OSError as error:
            raise self._failed(error) from error
        files.sort(key=lambda file: file.first)
        return Segment(self.first, self.position, self._stored or (0, 0), self._windows, files, self._gaps)

    def abort(self) -> None:
        """Throw away what was written."""
        for part in self._files.values():
            part.discard()
        self._files.clear()

    def _add(self, message: Message) -> None:
        if message.seq <= self.position:
            raise ArchiveError(f"message {message.seq} came after {self.position}: the log is out of order")
        if message.seq != self.position + 1:
            self._gaps.append((self.position + 1, message.seq - 1))
        where = place(message)
        part = self._files.get(where)
        if part is None:
            part = self._files[where] = _Part(self._folder, *where, message.seq, self._epoch)
        part.rows.append(row(message))
        self.position = message.seq
        oldest, newest = self._stored or (message.stored, message.stored)
        self._stored = min(oldest, message.stored), max(newest, message.stored)
        self.rows += 1
        self.bytes += len(message.data)
        self._window_rows += 1
        self._window_bytes += len(message.data)
        if self._window_bytes >= WINDOW_BYTES or self._window_rows >= WINDOW_ROWS:
            self._flush()

    def _flush(self) -> None:
        for part in self._files.values():
            part.write(len(self._windows))
        self._windows.append(self.position)
        self._window_rows = self._window_bytes = 0

    def _failed(self, error: OSError) -> ArchiveError:
        self.abort()
        return ArchiveError(
            f"cannot write the archive in {self._folder}: {told(error)}; "
            f"then run it again, all before sequence {self.first} is safe"
        )


class _Part:
    """One file that is being written."""

    def __init__(self, folder: Path, day: str, run: str, first: int, epoch: str) -> None:
        self.rows: list[Row] = []
        self._folder = folder
        self._day = day
        self._run = run
        self._first = self._last = first
        self._count = 0
        self._windows: list[int] = []
        self._where = folder / f"day={day}" / f"run={run}"
        self._where.mkdir(parents=True, exist_ok=True)
        self._path = self._where / f"{first}.parquet{PART}"
        self._file = _Hashing(self._path)
        try:
            self._writer = pq.ParquetWriter(
                self._file,
                SCHEMA.with_metadata({"morphogen.epoch": epoch}),
                compression="zstd",
                compression_level=1,
                use_dictionary=DICTIONARY,
                write_statistics=STATISTICS,
                write_page_checksum=True,
            )
        except OSError:
            self._path.unlink(missing_ok=True)
            raise

    def write(self, window: int) -> None:
        """Write the rows at hand as the row group of a window."""
        if not self.rows:
            return
        self._writer.write_table(table(self.rows).cast(self._writer.schema), row_group_size=len(self.rows))
        self._file.put()
        self._windows.append(window)
        self._count += len(self.rows)
        self._last = self.rows[-1][0]
        self.rows = []

    def finish(self) -> ArchivedFile:
        """Close the file, put it on the disk, and give it its name."""
        self._writer.close()
        self._file.put(sync=True)
        name = f"{self._first}-{self._last}.parquet"
        self._path.replace(self._where / name)
        return ArchivedFile(
            path=f"day={self._day}/run={self._run}/{name}",
            first=self._first,
            last=self._last,
            rows=self._count,
            bytes=self._file.size,
            sha256=self._file.digest.hexdigest(),
            day=self._day,
            run=self._run,
            windows=self._windows,
        )

    def discard(self) -> None:
        """Remove what has no final name yet; a finished file that no manifest knows is swept at the next run."""
        with contextlib.suppress(Exception):
            self._writer.close()
        self._path.unlink(missing_ok=True)


class _Hashing:
    """What Parquet is written into: hashed on the way so that nothing is read twice, and kept until `put`."""

    def __init__(self, path: Path) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.closed = False
        self._path = path
        self._kept = bytearray()
        path.write_bytes(b"")

    def put(self, *, sync: bool = False) -> None:
        """Write what was kept to the end of the file; with `sync` all of the file is on the disk afterwards."""
        with self._path.open("ab") as file:
            file.write(self._kept)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        self._kept.clear()

    def write(self, data: Any) -> int:
        """Keep and hash."""
        view = memoryview(data).cast("B")
        self._kept += view
        self.digest.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        """Return how much was written."""
        return self.size

    def flush(self) -> None:
        """Do nothing: `put` hands it to the operating system."""

    def close(self) -> None:
        """Take no more."""
        self.closed = True

    def readable(self) -> bool:
        """Say no."""
        return False

    def writable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say no."""
        return False
