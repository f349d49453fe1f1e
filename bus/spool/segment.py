"""One file of a lane: room that is allocated before it is mapped, filled by records from the front."""

import contextlib
import errno
import mmap
import os
from pathlib import Path

from .records import Records

PAGE = mmap.PAGESIZE
_ZEROS = bytes(1 << 20)
_TOUCHED = 1 << 20  # bytes at a time


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
    of a spool, `synced` the bytes that are known to have reached the disk.
    """

    __slots__ = ("fd", "map", "path", "records", "serial", "size", "synced")

    def __init__(self, path: Path | None, fd: int, room: mmap.mmap | bytearray) -> None:
        self.path = path
        self.fd = fd
        self.map = room
        self.size = len(room)
        self.records = Records(room)
        self.serial = 0
        self.synced = 0

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

    def touch(self) -> None:
        """Have the pages at hand for writing, before there is a record: 2 us that the step saves for each of them.

        The system writes the zeros: the interpreter's lock is free meanwhile. Where that cannot be, pages come later.
        """
        with contextlib.suppress(OSError), open("/dev/zero", "rb", buffering=0) as zeros, memoryview(self.map) as room:
            for start in range(0, self.size, _TOUCHED):
                with room[start : start + _TOUCHED] as part:
                    os.readv(zeros.fileno(), [part])

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
