"""One lock for a folder, held for microseconds, that a dead process can never keep.

A record lock (`fcntl`) belongs to the process: the kernel drops it when the process dies, and a forked child does not
inherit it, as it would with `flock`. It does not tell threads apart, so a lock of the process stands before it.
"""

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LeaseError

_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, pid
_inside: dict[str, threading.Lock] = {}
os.register_at_fork(after_in_child=_inside.clear)  # a thread that held one of them does not exist in the child


@contextmanager
def locked(folder: Path, timeout: float = 10.0) -> Iterator[None]:
    """Hold the lock of a folder. Raises LeaseError where another process keeps it for longer than `timeout` seconds."""
    path = folder / "lock"
    deadline = time.monotonic() + timeout
    inside = _inside.setdefault(str(path), threading.Lock())
    if not inside.acquire(timeout=timeout):
        raise LeaseError(f"{path} is held by another thread for more than {timeout:g} s")
    try:
        handle = _acquire(path, deadline, timeout)
        try:
            yield
        finally:
            os.close(handle)  # which drops the lock
    finally:
        inside.release()


def _acquire(path: Path, deadline: float, timeout: float) -> int:
    pause = 0.00005
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return handle
            # The folder was removed and made again meanwhile: this is the lock of nothing.
        except OSError as error:
            if not isinstance(error, BlockingIOError | PermissionError):
                os.close(handle)
                raise
            if time.monotonic() >= deadline:
                told = _owner(handle)
                os.close(handle)
                raise LeaseError(
                    f"{path} is held by {told} for more than {timeout:g} s: is it stopped? Continue or end it"
                ) from error
            time.sleep(pause)
            pause = min(pause * 2, 0.001)
        os.close(handle)


def _owner(handle: int) -> str:
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, asked))
    return "another process" if kind == fcntl.F_UNLCK else f"process {pid}"
