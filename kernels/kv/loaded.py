"""What the files of a context were when it loaded them, where nobody looked at that moment: by its clock and its mappings.

llama.cpp knows when it began to load. A file that changed later, or a link on the way to it, may be another one than what
is at work, and its hash would then say of one model's cache that it is another's.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import llama
from .errors import KvError
from .weights import Stamp, parts, stamp, unknown

_MAPS = Path("/proc/self/maps")
_MAPPED = (1, 3)  # LLAMA_LOAD_MODE_MMAP, LLAMA_LOAD_MODE_MMAP_MLOCK


def plain(path: "str | Path") -> Path:
    """Return the file behind a path and its links; a model in several files keeps its name, which tells of the others."""
    named = Path(path).absolute()
    real = Path(os.path.realpath(named))
    return real if len(parts(named)) == 1 and real.exists() else named  # what has no name is known by its descriptor


def stamp_loaded(ctx: Any, path: Path, *, mapped: bool = False) -> Stamp:
    """Return what a file of a context was when it was loaded, by what it is now; empty where it cannot be seen.

    `path` is absolute, links and all; `mapped` says that llama.cpp maps the file into memory. Raises KvError where the
    file, or what a link of its path leads to, may have changed since, and where it changed at a time that has not come yet.
    """
    found = stamp(path)
    if not found:
        return found
    files = parts(path)
    try:
        changed = max(_changed(file) for file in files)
        same = changed <= _began(ctx) and not (mapped and not _in_memory(files))
    except OSError as error:  # gone since it was looked at
        raise unknown(path) from error
    if changed > time.time_ns():
        raise KvError(
            f"the weights {path} were changed at a time that has not come yet by the clock here, so whether they are what was "
            "loaded cannot be told: set the clock right, or copy the file to a disk of this machine, and load it again"
        )
    if not same:
        raise unknown(path)
    return found


def stamp_after(path: Path, before: Stamp) -> Stamp:
    """Return what a file is that was loaded just now. Raises KvError where it is not as it was `before` that."""
    if stamp(path) != before:
        raise unknown(path)
    return before


def maps_its_file(llm: Any) -> bool:
    """Return whether a `Llama` surely has its file mapped: layers on a GPU may leave nothing of it in memory."""
    params = getattr(llm, "model_params", None)
    return getattr(params, "load_mode", None) in _MAPPED and getattr(params, "n_gpu_layers", 1) == 0


def _began(ctx: Any) -> int:
    """Return when llama.cpp began to load the model of a context, in unix nanoseconds."""
    began = llama.library().llama_perf_context(ctx).t_start_ms  # of CLOCK_MONOTONIC; `reset_timings` makes it later
    ago = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - int(began * 1e6)
    return time.time_ns() - ago


def _changed(path: Path) -> int:
    """Return when a file, its owner or permissions, or a link on the way to it, was changed last."""
    links = () if path.is_relative_to("/proc") else _links(path)  # whose links are made as they are looked at
    return max(os.stat(path).st_ctime_ns, *(os.lstat(link).st_ctime_ns for link in links), 0)


def _links(path: Path) -> Iterator[Path]:
    for part in (path, *path.parents):
        if part.is_symlink():
            yield part
            yield from _links(part.parent / os.readlink(part))


def _in_memory(files: list[Path]) -> bool:
    """Return whether one of some files is mapped, by whichever context; True where that cannot be seen.

    By name, not by device and inode: on some file systems (overlayfs, btrfs) those of a mapping are not those of `stat`.
    """
    try:
        lines = _MAPS.read_bytes().splitlines()
    except OSError:
        return True
    mapped = {line.split(maxsplit=5)[-1] for line in lines}
    return any(os.fsencode(os.path.realpath(file)).replace(b"\n", b"\\012") in mapped for file in files)
