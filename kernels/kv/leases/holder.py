"""Who holds a lease: a process that cannot be mistaken for another one, and whether it still lives.

A pid alone is not enough: the kernel hands it out again. With the moment at which the process started, the boot and the
namespace in which the pid means anything, it is.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import msgspec

_STATE, _THREADS, _START = 0, 17, 19  # fields of /proc/PID/stat, counted from the state


class Holder(msgspec.Struct, frozen=True):
    """A process: its pid, its start in clock ticks since boot, and the boot and namespace in which both hold."""

    pid: int
    start: int
    boot: str  # 8 hex digits
    space: int  # inode of the pid namespace


Liveness = Callable[[Holder], bool | None]
"""Answers whether a holder lives; None where that cannot be seen from here, so that only time can tell."""


def me() -> Holder:
    """Return the calling process; asked anew each time, since a fork changes the answer."""
    return _holder(os.getpid())


@lru_cache(maxsize=4)
def _holder(pid: int) -> Holder:
    start = started(pid)
    assert start is not None, "a running process has an entry in /proc"
    return Holder(pid, start, boot(), space())


os.register_at_fork(after_in_child=_holder.cache_clear)


@lru_cache(maxsize=1)
def boot() -> str:
    """Return what tells this boot of this machine from every other one, in 8 hex digits."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:8]
    except OSError:  # a sandbox may have none; the moment of the boot will do
        lines = Path("/proc/stat").read_text().splitlines()
        return f"{next(int(line.split()[1]) for line in lines if line.startswith('btime')):08x}"


def space() -> int:
    """Return the inode of this process's pid namespace; 0 where the kernel shows none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None where it is gone, or dead and not yet waited for."""
    try:
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(handle, 4096)
        finally:
            os.close(handle)
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold spaces and brackets
    # A dead process stays listed until its parent waits for it. One whose first thread alone has ended lives on.
    if fields[_STATE] in b"XxZ" and int(fields[_THREADS]) <= 1:
        return None
    return int(fields[_START])


def alive(holder: Holder) -> bool | None:
    """Return whether a holder lives: False after another boot, None where its namespace is not ours."""
    if holder == me():
        return True
    if holder.boot != boot():
        return False
    if holder.space != space():
        return None
    return started(holder.pid) == holder.start
