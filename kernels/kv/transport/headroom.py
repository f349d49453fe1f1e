"""How much memory may be taken without the kernel having to end a process for it.

A memory file system, and anonymous memory the more so, promises pages until none are left; then the kernel does not
refuse: it kills, and not always the one who asked. So what is asked for is compared with what there is beforehand.
"""

from pathlib import Path

_SHARE = 16  # one part in so many of the machine's memory is left to others


def headroom(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes that may be taken at once; None where the kernel does not tell."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        free = found["MemAvailable"] - found["MemTotal"] // _SHARE
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return max(0, min([free, *_groups(proc, cgroups)]))


def _groups(proc: Path, cgroups: Path) -> list[int]:
    """Return what is left in the control groups of this process, in both layouts, and in those above them."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used = cgroups, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, used = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder != top and top not in folder.parents:
                break
            try:  # "max" means no limit
                left.append(int((folder / limit).read_text()) - int((folder / used).read_text()))
            except (OSError, ValueError):
                continue
    return left
