"""Files that were mapped to be read and that nobody looks at now: opened again, they need no pages mapped anew.

A writer writes its next state into the file of one that was released. Who reads it then finds the same file under another
name, and its own mapping of it, which saves the kernel's work of making one and taking it down. A file that has no name any
more is let go of within seconds, since its memory is only given back then.
"""

import mmap
import os
import threading
import weakref

from .descriptors import at_hand

_LOOK = 2.0  # seconds between two looks for files that have no name any more


class Reading:
    """A file, mapped read-only, and a handle on it."""

    def __init__(self, handle: int, mapping: mmap.mmap) -> None:
        self.handle, self.mapping = handle, mapping
        self.close = weakref.finalize(self, os.close, handle)

    @property
    def size(self) -> int:
        """The bytes that are mapped."""
        return len(self.mapping)


class Idle:
    """Readings by file, the newest last, of at most `room` bytes and no more than `at_hand` says."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: dict[tuple[int, int], Reading] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def take(self, handle: int) -> Reading | None:
        """Return the reading of an open file, None where there is none that shows all of it. The handle stays yours."""
        if not self._room:
            return None
        told = os.fstat(handle)
        with self._lock:
            found = self._kept.pop((told.st_dev, told.st_ino), None)
        return found if found is not None and found.size == told.st_size else None

    def put(self, reading: Reading) -> None:
        """Keep a reading that nobody has a view of, where there is room."""
        if reading.size > self._room:
            return
        told = os.fstat(reading.handle)
        with self._lock:
            self._kept[told.st_dev, told.st_ino] = reading
            while sum(one.size for one in self._kept.values()) > self._room or len(self._kept) > at_hand():
                del self._kept[next(iter(self._kept))]
            self._wake()

    def purge(self, *, again: bool = False) -> None:
        """Let go of files that have no name any more; look `again` in a while, where some are left."""
        with self._lock:
            self._kept = {key: one for key, one in self._kept.items() if os.fstat(one.handle).st_nlink}
            if again:
                self._timer = None
                self._wake()

    def clear(self) -> None:
        """Let go of all."""
        self._kept = {}
        self._lock = threading.Lock()  # a forked child may have been born with a locked one, and without the timer
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._timer is None and self._kept:
            self._timer = threading.Timer(_LOOK, _look, (weakref.ref(self),))
            self._timer.daemon = True
            self._timer.start()


def _look(idle: "weakref.ref[Idle]") -> None:
    found = idle()
    if found is not None:
        found.purge(again=True)
