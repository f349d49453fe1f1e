"""Count the attempts of a run on this machine: one small file for each rank, under a lock.

Two processes that start at once get different numbers. Machines that share no data folder may get the same; the
claim in the log settles that (see `courier`).
"""

import contextlib
import fcntl
import os
from pathlib import Path

from morphogen.schemas.names import token


def next_attempt(folder: Path, run: str, rank: int) -> int:
    """Return one more than the last attempt of (run, rank), and note it. Raises OSError."""
    return _update(folder, run, rank, None)


def note_attempt(folder: Path, run: str, rank: int, attempt: int) -> None:
    """Note that `attempt` was taken, so that later ones go beyond it; without a folder to write to, do nothing."""
    with contextlib.suppress(OSError):
        _update(folder, run, rank, attempt)


def _update(folder: Path, run: str, rank: int, at_least: int | None) -> int:
    path = folder / token(run) / str(rank)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the claim in the log decides
            fcntl.flock(fd, fcntl.LOCK_EX)
        text = os.pread(fd, 32, 0).strip()
        last = int(text) if text.isdigit() else 0
        attempt = last + 1 if at_least is None else max(last, at_least)
        if attempt != last:
            os.pwrite(fd, b"%-20d\n" % attempt, 0)
        return attempt
    finally:
        os.close(fd)
