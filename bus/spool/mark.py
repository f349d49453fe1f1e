"""How far the log has acknowledged a lane: one small mapped file, a hint that saves work after a restart.

The log itself is the truth (a lane's last message is read before anything is sent), so a lost or damaged mark
costs nothing but a look; it counts alone only where the log was trimmed behind the archive.
"""

import contextlib
import mmap
import os
import struct
import zlib
from pathlib import Path

from .segment import allocate

_PLACE = struct.Struct("<Q")
_WHOLE = struct.Struct("<QI")


class Mark:
    """Keep the highest acknowledged counter of a lane in `path`."""

    def __init__(self, path: Path | None) -> None:
        self._map: mmap.mmap | None = None
        if path is None:
            return
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                allocate(fd, _WHOLE.size)
                self._map = mmap.mmap(fd, _WHOLE.size)
            finally:
                os.close(fd)

    def set(self, n: int) -> None:
        """Note that all records up to `n` are in the log, or were given up."""
        if self._map is not None:
            _WHOLE.pack_into(self._map, 0, n, zlib.crc32(_PLACE.pack(n)))

    def close(self) -> None:
        """Let go of the mapping."""
        if self._map is not None:
            self._map.close()
            self._map = None

    @staticmethod
    def read(path: Path) -> int:
        """Return the counter that a file holds, 0 where it holds none that can be trusted."""
        try:
            n, crc = _WHOLE.unpack(path.read_bytes()[: _WHOLE.size])
        except (OSError, struct.error):
            return 0
        return int(n) if zlib.crc32(_PLACE.pack(n)) == crc else 0
