"""Where an end of a transfer is, and which transport fits two of them. Pure, but for `here`."""

import hashlib
import os
from pathlib import Path

import msgspec

from ..leases.holder import boot, me


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a process keeps KV states; plain data, sent to whoever is to hand one over. None: it has no such thing."""

    host: str  # one boot of one machine
    process: str
    memory: str | None = None  # the folder of its shared memory
    disk: str | None = None  # the folder of its files
    device: str | None = None  # the GPU's UUID that its pool lies on
    blobs: bool = False  # reaches the bus


def host() -> str:
    """Return what tells this boot of this machine from every other one."""
    return hashlib.sha256(f"{boot()}/{os.uname().nodename}".encode()).hexdigest()[:16]


def here(
    *,
    memory: Path | None = None,
    disk: Path | None = None,
    device: str | None = None,
    blobs: bool = False,
) -> Place:
    """Return the place of the calling process. Folders are told by device and inode, so that containers do not err."""
    who = me()
    return Place(
        host=host(),
        process=f"{who.boot}-{who.space}-{who.pid}-{who.start}",
        memory=_folder(memory),
        disk=_folder(disk),
        device=device,
        blobs=blobs,
    )


def choose(source: Place, target: Place) -> str | None:
    """Return the name of the cheapest transport between two ends, of schemas.kv.TRANSPORTS; None where there is none.

    Within one process nothing leaves it; a pool on the same GPU is read where it lies; then memory, files and blobs.
    """
    if source.host == target.host:
        if source.process == target.process:  # CUDA opens no handle in the process that made it
            return "same_process"
        if source.device is not None and source.device == target.device:
            return "ipc"
        if source.memory is not None and source.memory == target.memory:
            return "shared_memory"
        if source.disk is not None and source.disk == target.disk:
            return "disk"
    return "blobs" if source.blobs and target.blobs else None


def _folder(path: Path | None) -> str | None:
    if path is None:
        return None
    found = path.stat()
    return f"{found.st_dev}:{found.st_ino}:{os.path.realpath(path)}"
