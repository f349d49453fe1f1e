"""Pages of a mapped file, made writable before somebody writes: off the interpreter's lock, with what they hold untouched."""

import ctypes
import mmap
from collections.abc import Callable
from functools import cache

_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since Linux 5.14


def populate(room: mmap.mmap, start: int, size: int) -> bool:
    """Have `size` bytes from `start`, a page's begin, at hand for writing; False where the system cannot do that."""
    advise = _madvise()
    if advise is None:
        return False
    first = ctypes.c_char.from_buffer(room)  # holds the mapping, too
    return advise(ctypes.addressof(first) + start, size, _POPULATE_WRITE) == 0


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """Return the system's call itself: `mmap.madvise` would hold the interpreter's lock for as long as it takes."""
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    call.restype = ctypes.c_int
    return call
