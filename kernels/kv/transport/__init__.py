"""Transports: ways of moving the bytes of a KV state, all behind one interface, and which one fits two ends.

`reserve` gives room to write into, `commit` a `KvRef`, `open` a read-only view of the same bytes, `release` ends a
lease. Knows bytes and leases; knows nothing of models, formats or the bus. Blobs over the bus, which speak the same
interface, live with the consumers.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .contract import Leased, Mapped, Meta, Released, Reservation, Transport
    from .cuda import CudaMemory
    from .device_memory import DeviceMemory, HostMemory
    from .disk import Disk
    from .errors import BadRef, Gone, MissingExtra, NoDevice, NoRoom, TransportError
    from .ipc import Ipc
    from .places import Place, choose, here
    from .same_process import SameProcess
    from .shared_memory import SharedMemory

_HOMES = {
    # The interface
    "Transport": "contract", "Leased": "contract", "Reservation": "contract", "Mapped": "contract",
    "Meta": "contract", "Released": "contract",
    # Its kinds
    "SameProcess": "same_process", "SharedMemory": "shared_memory", "Disk": "disk", "Ipc": "ipc",
    "DeviceMemory": "device_memory", "HostMemory": "device_memory", "CudaMemory": "cuda",
    # Which one
    "Place": "places", "choose": "places", "here": "places",
    # What is refused
    "TransportError": "errors", "NoRoom": "errors", "Gone": "errors", "BadRef": "errors", "NoDevice": "errors",
    "MissingExtra": "errors",
}  # fmt: skip

__all__ = [
    "BadRef",
    "CudaMemory",
    "DeviceMemory",
    "Disk",
    "Gone",
    "HostMemory",
    "Ipc",
    "Leased",
    "Mapped",
    "Meta",
    "MissingExtra",
    "NoDevice",
    "NoRoom",
    "Place",
    "Released",
    "Reservation",
    "SameProcess",
    "SharedMemory",
    "Transport",
    "TransportError",
    "choose",
    "here",
]

__getattr__ = lazily(__name__, _HOMES)
