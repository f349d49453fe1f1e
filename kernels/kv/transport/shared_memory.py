"""Between processes of one machine: memory that both see, so that a state is written once and read where it lies.

The segments are files of a folder of ours in /dev/shm, and not the names of `multiprocessing.shared_memory`: its
resource tracker unlinks what a reader has opened when that reader ends, and nothing would remove what a killed writer
leaves. Here the leases beside the bytes say who holds them, and any process can reap.
"""

import os
from pathlib import Path

from ..leases import LeaseFolder
from .errors import TransportError
from .segments import Segments

SHM = Path("/dev/shm")  # noqa: S108  (the folder of ours in it is checked before it is used)


def default_folder() -> Path:
    """Return the folder of this user's segments."""
    return SHM / f"morphogen-kv-{os.geteuid()}"


class SharedMemory(Segments):
    """Segments in a memory file system; `folder` must be the same for all that hand states to each other."""

    def __init__(self, folder: str | Path | None = None, *, ttl: float = 30.0, spare: int = 256 << 20) -> None:
        if folder is None and not SHM.is_dir():
            raise TransportError(f"this machine has no {SHM}: give a folder of a memory file system, or use the disk")
        super().__init__("shared_memory", LeaseFolder(folder or default_folder()), ttl=ttl, spare=spare)
