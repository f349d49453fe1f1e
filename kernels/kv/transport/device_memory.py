"""Memory of a device that another process may open by a handle: the interface, and its twin on the host.

`HostMemory` behaves as CUDA's does: it belongs to its process, dies with it, has no name that could be left behind, and
is opened through a handle that means nothing once its owner is gone. So all that stands on the interface runs, and is
tested, without a GPU.
"""

import fcntl
import mmap
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..leases import me, started
from .errors import Gone, MissingExtra, NoRoom, TransportError
from .headroom import headroom

if TYPE_CHECKING:
    import torch

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_HANDLE = re.compile(rb"(\d{1,10})-(\d{1,20})-(\d{1,10})-(\d{1,20})")
_NAME = "morphogen-kv"


class Allocation(Protocol):
    """Memory of a device that this process owns."""

    @property
    def size(self) -> int:
        """Its bytes."""

    @property
    def handle(self) -> bytes:
        """What another process opens it by."""

    def tensor(self) -> "torch.Tensor":
        """Return the bytes as a tensor (size,) of uint8 that shares them. Must not be used once `free` was called."""

    def free(self) -> None:
        """Give the memory back; harmless when done twice."""


class Attached(Protocol):
    """Memory of another process, opened here."""

    def tensor(self) -> "torch.Tensor":
        """Return the bytes as a tensor (size,) of uint8 that shares them. Must not be written, nor used after `detach`."""

    @property
    def detach(self) -> Callable[[], object]:
        """Called, it closes the handle, if nothing else does; harmless when done twice. Refers to no part of this."""

    @property
    def anchor(self) -> object:
        """What lives as long as this, or any tensor of it."""


class DeviceMemory(Protocol):
    """One device's memory."""

    @property
    def device(self) -> str:
        """What the device is known by on this machine, to whatever process."""

    def allocate(self, size: int, /) -> Allocation:
        """Take memory of which a handle can be given away. Raises NoRoom."""

    def attach(self, handle: bytes, size: int, /) -> Attached:
        """Open another process's memory. Raises Gone where its owner is gone, TransportError where it cannot be opened."""

    def synchronize(self) -> None:
        """Wait until all that was written on the device is there for others to see."""


class HostMemory:
    """Anonymous memory of the host, sealed in its size; a handle names its owner and the owner's descriptor."""

    device = "host"

    def allocate(self, size: int, /) -> "HostAllocation":
        """Take memory, all of it backed."""
        return HostAllocation(size)

    def attach(self, handle: bytes, size: int, /) -> "HostAttached":
        """Open another process's memory."""
        return HostAttached(handle, size)

    def synchronize(self) -> None:
        """Do nothing: the host's memory is coherent."""


class HostAllocation:
    """Anonymous memory that this process owns."""

    def __init__(self, size: int) -> None:
        self.size = size
        room = headroom()
        if room is not None and size > room:
            raise NoRoom(f"no room for {size:,} bytes, {room:,} may be taken: give a smaller pool")
        handle = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(handle, 0, size)
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
            self._map = mmap.mmap(handle, size)
        except (OSError, OverflowError, ValueError) as error:
            os.close(handle)
            raise NoRoom(f"no room for {size:,} bytes of the host's memory: give a smaller pool") from error
        who = me()
        self.handle = f"{who.pid}-{who.start}-{handle}-{os.fstat(handle).st_ino}".encode()
        self._file: int | None = handle

    def tensor(self) -> "torch.Tensor":
        """Return the bytes as a tensor."""
        return _tensor(self._map)

    def free(self) -> None:
        """Give the memory back; tensors made of it keep their bytes."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            del self._map  # not closed: a tensor refers to it without counting as a view


class HostAttached:
    """Another process's memory, mapped so that a write stays here."""

    def __init__(self, handle: bytes, size: int) -> None:
        found = _HANDLE.fullmatch(handle)
        if found is None:
            raise TransportError(f"{handle[:40]!r} is no handle of host memory")
        pid, start, number, inode = (int(text) for text in found.groups())
        gone = Gone(f"the process {pid} that owned this memory is gone")
        path = Path(f"/proc/{pid}/fd/{number}")
        if started(pid) != start:
            raise gone
        try:
            # Without following the link to anything but an anonymous file: a handle may be anyone's text.
            if not os.readlink(path).startswith(f"/memfd:{_NAME}"):
                raise gone
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            raise gone from None
        except PermissionError as error:
            raise TransportError(f"the memory of process {pid} is another user's, or closed to this one") from error
        try:
            stat = os.fstat(file)
            if started(pid) != start or stat.st_ino != inode:
                raise gone
            if fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS != _SEALS or size != stat.st_size:
                raise TransportError(f"the memory of process {pid} has {stat.st_size} bytes, not {size}")
            prot = mmap.PROT_READ | mmap.PROT_WRITE
            self.anchor = mmap.mmap(file, size, flags=mmap.MAP_PRIVATE, prot=prot)
        finally:
            os.close(file)

        self.detach = _nothing

    def tensor(self) -> "torch.Tensor":
        """Return the bytes as a tensor."""
        return _tensor(self.anchor)


def _nothing() -> None:
    """Do nothing: a mapping ends with what was made of it."""


def _tensor(mapping: mmap.mmap) -> "torch.Tensor":
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("a tensor of device memory needs torch: pip install 'morphogen[hf]'") from error
    return torch.frombuffer(mapping, dtype=torch.uint8)
