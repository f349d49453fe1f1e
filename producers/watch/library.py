"""The compiled routine that reads a step's tensors (`_reading.c`), where it was built, and the structures it works on.

It is built with the package. Where there was no C compiler it is not there, and torch and NumPy do the reading.
"""

import ctypes
from functools import lru_cache
from types import ModuleType

VERSION = 2  # of the structures below, as in `_reading.c`; what was built from another is left alone
ODD, MOVED = -1, -2  # a gradient that torch has to prepare; a parameter that is not what the plan says

#: Kinds of elements, as in `_reading.c`.
FLOAT32, FLOAT64, BFLOAT16, FLOAT16 = range(4)


class UnitsStruct(ctypes.Structure):
    """The output units of a layer."""

    _fields_ = [(name, ctypes.c_int64) for name in ("layer", "count", "bias", "weight", "group", "blocks", "run")]


class LayerStruct(ctypes.Structure):
    """What was read of a layer so far in this step."""

    _fields_ = [
        *((name, ctypes.c_double) for name in ("gradient", "weight", "change")),
        *((name, ctypes.c_int64) for name in ("gradients", "bad", "dead", "units")),
        *((name, ctypes.c_double) for name in ("size", "mean", "spread")),
        *((name, ctypes.c_int64) for name in ("bad_outputs", "forward")),
    ]


class PlanStruct(ctypes.Structure):
    """What is read at each step, and where."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("layers", "parameters", "trained", "units")),
        *((name, ctypes.c_void_p) for name in ("sizes", "kinds", "owners", "weights", "copies", "unit", "layer")),
        *((name, ctypes.c_void_p) for name in ("gradients", "gradient_kinds")),
    ]


@lru_cache(maxsize=1)
def library() -> ModuleType | None:
    """Return the routine, None where it was not built for this machine or from this version's source."""
    try:
        from . import _reading
    except ImportError:
        return None
    return _reading if _reading.VERSION == VERSION else None
