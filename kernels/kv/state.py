"""A KV state in memory: the bytes of the format, and what their header says."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.schemas.kv import Fingerprint, KvRef

from .format import Header, Start, read_start, unpack, verify_payload


class KvState:
    """One state over a buffer that someone else may own; start and header are verified, the payload by `verify`."""

    def __init__(self, buffer: memoryview, start: Start, header: Header, where: str = "these bytes") -> None:
        self.buffer = buffer[: start.size]
        self.start = start
        self.header = header
        self.where = where
        self.held: Callable[[], None] = _own
        """Raises LeaseEnded where the bytes may have changed since they were opened; asked once they were used."""

    @classmethod
    def read(cls, data: Any, where: str = "these bytes") -> "KvState":
        """Return the state that begins a buffer. Raises KvRefused where it holds none that is whole."""
        buffer = flat(data).toreadonly()
        start, header = read_start(buffer, where)
        return cls(buffer, start, header, where)

    def verify(self) -> memoryview:
        """Return the payload once its checksum was seen to fit. Raises KvRefused."""
        return verify_payload(self.buffer, self.start, self.where)

    def release(self) -> None:
        """Let go of the buffer: a mapping can then end, and its segment be written again. The header stays."""
        self.buffer.release()

    @property
    def size(self) -> int:
        """The bytes of the whole state, header and all."""
        return self.start.size

    @property
    def payload_size(self) -> int:
        """The bytes of the engine's own state of the sequence."""
        return self.start.payload_size

    @property
    def count(self) -> int:
        """The number of tokens."""
        return self.header.count

    @cached_property
    def tokens(self) -> "np.ndarray[Any, np.dtype[np.int32]]":
        """The token ids, read-only."""
        return unpack(self.header.tokens, "<i4")

    @property
    def logits(self) -> "np.ndarray[Any, np.dtype[np.float32]] | None":
        """The logits of the next token, read-only; None where the exporter had none."""
        return unpack(self.header.logits, "<f4") if self.header.logits else None

    @property
    def fingerprint(self) -> Fingerprint:
        """What must be equal in the context that takes it."""
        return self.header.fingerprint

    @property
    def checksum(self) -> str:
        """The checksum as a KvRef carries it: of the header, which holds the payload's."""
        return self.start.reference

    def ref(self, transport: str, place: str, *, offset: int = 0, **more: Any) -> KvRef:
        """Return a reference to these bytes at a place."""
        return KvRef(transport=transport, place=place, size=self.size, offset=offset, checksum=self.checksum, **more)

    def save(self, path: "str | Path") -> KvRef:
        """Write the state to a file, whole or not at all; return where it is."""
        from .files import write_kv

        return write_kv(path, self)


def _own() -> None:
    """Do nothing: bytes of one's own stay what they are."""


def flat(data: Any) -> memoryview:
    """Return anything that has bytes as a one-dimensional view of them. Raises TypeError where it cannot."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise TypeError(f"the bytes of this {type(data).__name__} do not lie in one piece")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
