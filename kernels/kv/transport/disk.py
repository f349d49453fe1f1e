"""Files, mapped: for states that are to outlive their process, the machine's memory or its boot."""

from pathlib import Path

from ..leases import LeaseFolder
from .segments import Segments


class Disk(Segments):
    """Segments in a folder of a disk of this machine. What is committed is synced, and stays until it is released.

    Its lease is of no process and ends by no time. A file that is being written when its writer dies is reaped. The
    folder must not be shared with another machine: whether a process of that one lives cannot be seen from here.
    """

    def __init__(self, folder: str | Path, *, ttl: float = 30.0) -> None:
        super().__init__("disk", LeaseFolder(folder, durable=True), ttl=ttl)
