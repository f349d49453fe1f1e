"""What a worker told that it holds: a small file that says which states lie in which tier.

Written anew, whole, with each change; read when a worker of that name starts again, which takes over what outlives a
process and tells that the rest is gone. Bytes in the worker's own folder that it does not name belong to nobody, and go.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from morphogen.kernels.kv.transport import Disk
from morphogen.schemas.kv import KvRef

DURABLE = ("disk", "blobs")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One state: what the shelf knows of it, and where it is."""

    state: str
    tier: str
    size: int = 0
    ref: KvRef | None = None  # None: it is there for a while only, and nobody else can open it
    session: str | None = None
    tokens: int = 0
    pinned: bool = False


class Inventory:
    """The file of one worker, which alone writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: list[Line] | None = None

    def read(self) -> list[Line]:
        """Return what an earlier worker of that name noted; nothing where there is no file that can be read."""
        try:
            return msgspec.msgpack.decode(self._path.read_bytes(), type=list[Line])
        except (OSError, msgspec.MsgspecError):
            return []

    def note(self, lines: list[Line]) -> None:
        """Write what is held, if that has changed."""
        if lines != self._written:
            part = self._path.with_suffix(".part")
            part.write_bytes(msgspec.msgpack.encode(lines))
            os.replace(part, self._path)
            self._written = lines


def sweep(disk: Disk, known: Iterable[KvRef]) -> int:
    """Remove what lies in a worker's own folder and is not known to it; return how many segments."""
    named = {Path(ref.place).parent.name for ref in known if ref.transport == disk.name}
    removed = 0
    for segment in disk.segments():
        if segment.ident not in named and segment.state == "ready":
            for lease, _ in segment.leases:
                disk.folder.release(lease)
            removed += 1
    return removed
