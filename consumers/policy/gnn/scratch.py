"""Arrays that are used again from one decision to the next.

What is larger than 128 KiB goes back to the system as soon as it is let go, and having it anew, page by page, costs more
than the arithmetic in it.
"""

import math
import threading
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .encode import Floats

_KEPT = 1 << 20  # elements of one array; of larger ones none is kept


class Scratch(threading.local):
    """One array under each name for each thread. What is in it is nobody's once the name is asked for again."""

    def __init__(self) -> None:
        self._arrays: dict[str, Floats] = {}

    def array(self, name: str, *shape: int) -> "Floats":
        """Return a float32 array of this shape, with anything in it."""
        size = math.prod(shape)
        if size > _KEPT:
            return np.empty(shape, np.float32)
        known = self._arrays.get(name)
        if known is None or known.size < size:
            known = self._arrays[name] = np.empty(size, np.float32)
        return known[:size].reshape(shape)


SCRATCH = Scratch()
