"""The checksum of bytes that llama.cpp is still writing, a little behind it, while they are in the processor's cache.

llama.cpp copies a state in one call that tells nothing of how far it is: one run of bytes after the other, upwards. Within a
run the copy may go either way, as the C library likes. Random marks are laid out beforehand and vanish as they are
written over. A MiB is read once marks have vanished that lie at least as far behind its end as the longest run reaches:
they belong to a later run, so whatever covers the MiB is whole. How long the runs are is guessed, and seen when all is
written; where they are longer than the guess, or not known, all is read again. x86 shows stores of one processor to the
others in their order, which this needs; anywhere else, and where a GPU may write the bytes, the checksum is made afterwards.
"""

import os
import platform
import threading
import time
from typing import Any

import numpy as np

from .checksum import CHUNK, SHARED, checksum, combine, leaf, processors

_MARK = 16  # bytes
_EVERY = 1 << 16  # one mark at the end of so many bytes
_SEEN = 4  # marks that must be gone: one alone may have been hit by the few bytes that stand between two runs
_PROCESSORS = (
    4  # with fewer, a reader beside the writer takes more from it than two that read afterwards (measured with 2)
)
_PAUSE = 0.0002  # seconds between two looks


class Follower:
    """Follows the writer of `data`, from construction to `result`; `longest` is a guess at its longest run."""

    def __init__(self, data: memoryview, longest: int) -> None:
        self._data = data
        self._longest = longest
        self._leaves = -(-data.nbytes // CHUNK)
        self._digests: list[bytes] = [b""] * self._leaves
        self._marks = np.frombuffer(os.urandom(_MARK), np.uint8)
        whole = data.nbytes // _EVERY * _EVERY
        self._ends = np.frombuffer(data[:whole], np.uint8).reshape(-1, _EVERY)[:, -_MARK:]
        self._ends[:] = self._marks
        self._written = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="kv-checksum", daemon=True)
        self._thread.start()

    def result(self, longest: int | None) -> bytes:
        """Return the checksum, now that all is written; the two threads share what is left.

        `longest` are the bytes of the longest run that was written, None where that is not known.
        """
        if longest is None or longest > self._longest:
            self.abandon()
            return checksum(self._data)
        self._written.set()
        self._work()
        self._thread.join()
        return checksum(self._data) if self._failed is not None else combine(self._digests)

    def abandon(self) -> None:
        """Stop: what was read so far is of no use."""
        with self._lock:
            self._next = self._leaves
        self._written.set()
        self._thread.join()

    def _follow(self) -> None:
        try:
            while self._next < self._leaves and not self._written.is_set():
                if self._passed(self._next):
                    self._one()
                else:
                    time.sleep(_PAUSE)
            self._work()
        except BaseException as error:  # noqa: BLE001  (a thread has nobody else to tell)
            self._failed = error

    def _passed(self, place: int) -> bool:
        first = -(-((place + 1) * CHUNK + self._longest) // _EVERY)
        seen = self._ends[first : first + _SEEN]
        if len(seen) < _SEEN:
            return False  # the last ones wait for `result`
        return bool((seen != self._marks).any(axis=1).all())

    def _work(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        with self._lock:
            place = self._next
            if place >= self._leaves:
                return False
            self._next += 1
        self._digests[place] = leaf(self._data, place)
        return True


def follow(data: memoryview, *, longest: int, device: bool) -> Follower | None:
    """Return a follower of what is about to be written into `data`; None where it would not pay, or not be safe.

    `longest` is a guess at the bytes that are copied at once, `device` says whether something other than a processor may
    write them.
    """
    x86: Any = platform.machine().lower() in {"x86_64", "amd64"}
    if device or not x86 or data.nbytes < max(SHARED, 4 * longest) or processors() < _PROCESSORS:
        return None
    return Follower(data, longest)
