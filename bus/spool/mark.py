"""How far the log has acknowledged a lane: one small file, a hint that saves work after a restart.

The log itself is the truth (a lane's last message is read before anything is sent), so a lost or damaged mark
costs nothing but a look; it counts alone only where the log was trimmed behind the archive.
"""

import contextlib
import os
import struct
import threading
import zlib
from pathlib import Path

from .segment import allocate

_PLACE = struct.Struct("<Q")
_WHOLE = struct.Struct("<QI")


class Mark:
    """Keep the highest acknowledged counter of a lane in `path`."""

    def __init__(self, path: Path | None) -> None:
        self._fd = -1
        self._lock = threading.Lock()  # what is closed may be another file's number by then
        self._n = self._written = 0
        if path is None:
            return
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                allocate(fd, _WHOLE.size)
            except OSError:
                os.close(fd)
                raise
            self._fd = fd

    def set(self, n: int) -> None:
        """Note that all records up to `n` are in the log, or were given up; `write` makes it last."""
        self._n = n

    def write(self) -> None:
        """Write down what was noted, if that is new.

        Not through a mapping: a page that the disk is just taking makes whoever writes it wait, with the interpreter's
        lock in hand, for which the training thread waits in turn. A call of the system gives the lock up.
        """
        n = self._n
        if self._fd >= 0 and n != self._written:
            with self._lock, contextlib.suppress(OSError):
                os.pwrite(self._fd, _WHOLE.pack(n, zlib.crc32(_PLACE.pack(n))), 0)
                self._written = n

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self.__del__()

    def __del__(self) -> None:
        fd, self._fd = self._fd, -1  # without the lock: a forked child has it as its parent held it
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    @staticmethod
    def read(path: Path) -> int:
        """Return the counter that a file holds, 0 where it holds none that can be trusted."""
        try:
            n, crc = _WHOLE.unpack(path.read_bytes()[: _WHOLE.size])
        except (OSError, struct.error):
            return 0
        return int(n) if zlib.crc32(_PLACE.pack(n)) == crc else 0
