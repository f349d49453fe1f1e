"""Which process serves a request, told so that another one can know that it is gone."""

import os
import platform
from functools import cache
from pathlib import Path


def this_process() -> str:
    """Return host, pid and start of this process: `node/4711/8123456`."""
    return _named(os.getpid())


def has_ended(name: str) -> bool:
    """Tell whether a process of this host has ended; False where it runs, is of another host, or cannot be known."""
    parts = name.rsplit("/", 2)
    if len(parts) != 3 or parts[0] != platform.node() or not parts[1].isdigit():
        return False
    return Path("/proc/self/stat").exists() and _started(int(parts[1])) != parts[2]


@cache
def _named(pid: int) -> str:
    return f"{platform.node()}/{pid}/{_started(pid) or '0'}"


def _started(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot, with the boot's own id; None where it is not running."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return None
    after = stat.rpartition(")")[2].split()
    if after[0] == "Z":
        return None  # a zombie serves nobody
    return f"{boot}-{after[19]}"
