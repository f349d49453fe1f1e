"""One file of a lane: room that is allocated before it is mapped, filled by records from the front."""

import contextlib
import errno
import mmap
import os
from pathlib import Path

from .records import Records

PAGE = mmap.PAGESIZE
_ZEROS = bytes(1 << 20)


def allocate(fd: int, size: int) -> None:
    """Reserve `size` bytes on disk for `fd`. Raises OSError (ENOSPC) where there is no room.

    A sparse file would map just as well, and kill the process with SIGBUS at the first write to a full disk.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
        return
    for start in range(0, size, len(_ZEROS)):
        os.pwrite(fd, _ZEROS[: min(len(_ZEROS), size - start)], start)


class Segment:
    """Hold the `records` of a lane from some counter on.

    `path` is None for a segment that lives in memory only. `size` is its room, `serial` its age among the segments
    of a spool, `synced` the bytes that are known to have reached the disk, `warmed` those up to which pages are at hand.
    """

    __slots__ = ("fd", "map", "path", "records", "serial", "size", "synced", "warmed")

    def __init__(self, path: Path | None, fd: int, room: mmap.mmap | bytearray) -> None:
        self.path = path
        self.fd = fd
        self.map = room
        self.size = len(room)
        self.records = Records(room)
        self.serial = 0
        self.synced = 0
        self.warmed = 0

    @classmethod
    def on_disk(cls, path: Path, size: int) -> "Segment":
        """Create the file, reserve its room, and map it. Raises OSError."""
        size = round_up(size)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            allocate(fd, size)
            return cls(path, fd, mmap.mmap(fd, size))
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise

    @classmethod
    def in_memory(cls, size: int) -> "Segment":
        """Map memory that no file backs: what it holds dies with the process. Raises OSError, MemoryError."""
        return cls(None, -1, mmap.mmap(-1, round_up(size)))

    @classmethod
    def full(cls, first: int) -> "Segment":
        """Return one that has no room for anything: whoever meets it, with record `first`, takes the slow path."""
        segment = cls(None, -1, bytearray())
        segment.records.first = first
        return segment

    def warm(self, upto: int) -> None:
        """Have the pages up to byte `upto` at hand for writing, where the system can do that.

        Else the step that writes first to a page, or again after a sync, waits for it.
        """
        start = max(self.end, self.warmed) // PAGE * PAGE
        stop = min(round_up(upto), self.size)
        if self.fd >= 0 and start < stop and isinstance(self.map, mmap.mmap):
            self.warmed = stop
            with contextlib.suppress(ImportError):  # ctypes is not in every build of Python
                from .pages import populate

                populate(self.map, start, stop - start)

    @property
    def first(self) -> int:
        """The counter of the first record."""
        return self.records.first

    @property
    def last(self) -> int:
        """The counter of the last record, `first - 1` while it is empty."""
        return self.records.first + self.records.count - 1

    @property
    def end(self) -> int:
        """Where the last record ends."""
        return self.records.end

    def sync(self) -> None:
        """Have the disk take what was written since the last sync."""
        end, fd = self.end, self.fd  # which another thread may close meanwhile
        if fd >= 0 and end > self.synced:
            with contextlib.suppress(OSError):  # nothing better can be done; the memory still holds it
                os.fdatasync(fd)
                self.synced = end
                warmed, self.warmed = self.warmed, 0  # a page that was written out is to be asked for again
                self.warm(warmed)

    def discard(self) -> None:
        """Delete the file; the mapping goes with the last one that holds it."""
        self.release()
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def release(self) -> None:
        """Close the descriptor and keep the file; the mapping stays readable."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)


def round_up(size: int) -> int:
    """Return `size` as whole pages."""
    return -(-size // PAGE) * PAGE


def is_disk_full(error: OSError) -> bool:
    """Tell whether the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
