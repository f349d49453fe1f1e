"""Bodies that are alike byte for byte but for their numbers, read as one matrix.

A training loop says the same thing at every step: the same names, other numbers. Their bodies have one layout, so the
first is read as msgpack, the rest are compared with it byte by byte where no number stands, and the numbers
are columns of a matrix. That is an order of magnitude cheaper than making objects of each. Whatever is not
alike is for the caller to read one by one.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..fold.batch import Bodies

if TYPE_CHECKING:
    import numpy.typing as npt

    Matrix = npt.NDArray[np.uint8]

_SHORTEST = 8  # bodies in a stretch on average; below it is cheaper to read them one by one
_map_decoder = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_MAP_HEADS = {0xDE: 3, 0xDF: 5}
_EXT_HEADS = {0xC7: 3, 0xC8: 4, 0xC9: 6, 0xD4: 2, 0xD5: 2, 0xD6: 2, 0xD7: 2, 0xD8: 2}
_NUMBERS = {
    0xCB: ">f8", 0xCA: ">f4", 0xCC: "u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8",
    0xD0: "i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8",
}  # fmt: skip


class Slot(msgspec.Struct, frozen=True, gc=False):
    """Where numbers stand in a body: bytes `start` to `end`, as `dtype`."""

    start: int
    end: int
    dtype: str


def stretches(bodies: Bodies) -> list["Matrix"] | None:
    """Return bodies as matrices of bytes, one a stretch of equally long ones; None where they change too often."""
    lengths = bodies.ends - bodies.starts
    changes = np.flatnonzero(np.diff(lengths)) + 1
    if not len(lengths) or lengths.min() < 1 or (len(changes) and (len(changes) + 1) * _SHORTEST > len(lengths)):
        return None
    matrices = []
    for begin, end in pairwise([0, *changes.tolist(), len(lengths)]):
        width = int(lengths[begin])
        places = np.ndarray((len(bodies.data) - width + 1,), f"V{width}", bodies.data, strides=(1,))
        matrices.append(places[bodies.starts[begin:end]].view(np.uint8).reshape(end - begin, width))
    return matrices


def alike(matrix: "Matrix", slots: Iterable[Slot]) -> bool:
    """Tell whether all bodies equal the first wherever no slot is."""
    at = 0
    for slot in [*sorted(slots, key=lambda slot: slot.start), Slot(matrix.shape[1], matrix.shape[1], "")]:
        if at < slot.start and not (matrix[:, at : slot.start] == matrix[0, at : slot.start]).all():
            return False
        at = slot.end
    return True


def column(matrix: "Matrix", slot: Slot) -> "npt.NDArray[Any]":
    """Return the numbers in a slot, (bodies, numbers in the slot)."""
    return np.ascontiguousarray(matrix[:, slot.start : slot.end]).view(slot.dtype)


def fields(body: bytes, at: int = 0, end: int | None = None) -> dict[str, tuple[int, int]] | None:
    """Return where each value of a msgpack map stands; None if it is no map, or not in its shortest form."""
    part = body[at:end]
    try:
        items = _map_decoder.decode(part)
    except msgspec.MsgspecError:
        return None
    place = at + _MAP_HEADS.get(part[0], 1)
    places = {}
    for key, raw in items.items():
        size = len(key.encode())
        place += size + (1 if size < 32 else 2 if size < 256 else 3)
        places[key] = (place, place + len(raw))
        place += len(raw)
    return places if place == at + len(part) else None


def number_slot(body: bytes, start: int, end: int) -> Slot | int | None:
    """Return the slot of a number, or the number itself where it takes one byte only; None for anything else."""
    first = body[start]
    if end - start == 1 and (first < 0x80 or first >= 0xE0):
        return first if first < 0x80 else first - 256
    dtype = _NUMBERS.get(first)
    return None if dtype is None else Slot(start + 1, end, dtype)


def vector_slot(body: bytes, start: int, end: int, code: int, dtype: str) -> Slot | None:
    """Return the slot of an extension value of this code; None for anything else."""
    head = _EXT_HEADS.get(body[start])
    if head is None or body[start + head - 1] != code:
        return None
    return Slot(start + head, end, dtype)
