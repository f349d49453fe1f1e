"""A GPU's memory, opened by another process on the same GPU without a copy: CUDA IPC, through CuPy.

The memory is taken with a plain `cudaMalloc`: what torch's caching allocator returns lies somewhere inside a larger
allocation, of which alone CUDA gives a handle, and is handed out again while a reader still has it open.
"""

import weakref
from typing import TYPE_CHECKING, Any

from .errors import Gone, MissingExtra, NoDevice, NoRoom, TransportError

if TYPE_CHECKING:
    import torch

HANDLE = 64  # bytes of a cudaIpcMemHandle_t


class CudaMemory:
    """The memory of one GPU of this machine. Raises MissingExtra and NoDevice where there is none to be had."""

    def __init__(self, ordinal: int = 0) -> None:
        cupy = _cupy()
        self.runtime = cupy.cuda.runtime
        self.ordinal = ordinal
        self.guard = cupy.cuda.Device
        try:
            count = self.runtime.getDeviceCount()
        except self.runtime.CUDARuntimeError as error:
            raise NoDevice(f"CUDA finds no GPU here: {error}") from error
        if not 0 <= ordinal < count:
            raise NoDevice(f"there is no GPU {ordinal}: CUDA sees {count}")
        # The bus id is the same for all processes, whatever CUDA_VISIBLE_DEVICES makes of the numbers.
        self.device = f"cuda/{self.runtime.deviceGetPCIBusId(ordinal)}"

    def allocate(self, size: int, /) -> "CudaAllocation":
        """Take memory with cudaMalloc."""
        with self.guard(self.ordinal):
            try:
                pointer = self.runtime.malloc(size)
            except self.runtime.CUDARuntimeError as error:
                raise NoRoom(f"no room for {size:,} bytes on {self.device}: {error}") from error
            try:
                handle = bytes(self.runtime.ipcGetMemHandle(pointer))
            except self.runtime.CUDARuntimeError as error:
                self.runtime.free(pointer)
                raise TransportError(f"{self.device} gives no IPC handles here: {error}") from error
        return CudaAllocation(self, pointer, size, handle)

    def attach(self, handle: bytes, size: int, /) -> "CudaAttached":
        """Open a handle with cudaIpcOpenMemHandle."""
        if len(handle) != HANDLE:
            raise TransportError(f"{len(handle)} bytes are no CUDA IPC handle, which has {HANDLE}")
        with self.guard(self.ordinal):
            try:
                pointer = self.runtime.ipcOpenMemHandle(handle, self.runtime.cudaIpcMemLazyEnablePeerAccess)
            except self.runtime.CUDARuntimeError as error:
                raise Gone(f"the memory cannot be opened on {self.device}: its owner is gone, or {error}") from error
        return CudaAttached(self, pointer, size)

    def synchronize(self) -> None:
        """Wait for all work on the device."""
        with self.guard(self.ordinal):
            self.runtime.deviceSynchronize()


class CudaAllocation:
    """Memory of a GPU that this process owns."""

    def __init__(self, memory: CudaMemory, pointer: int, size: int, handle: bytes) -> None:
        self.size, self.handle = size, handle
        self._memory, self._pointer = memory, pointer

    def tensor(self) -> "torch.Tensor":
        """Return the bytes as a tensor on the GPU."""
        if not self._pointer:
            raise Gone(f"this memory of {self._memory.device} was freed")
        return _tensor(self, self._memory.ordinal, self._pointer, self.size)

    def free(self) -> None:
        """Give the memory back, once all work on it is done."""
        pointer, self._pointer = self._pointer, 0
        if pointer:
            with self._memory.guard(self._memory.ordinal):
                self._memory.runtime.deviceSynchronize()
                self._memory.runtime.free(pointer)


class CudaAttached:
    """Another process's memory of a GPU, opened here."""

    def __init__(self, memory: CudaMemory, pointer: int, size: int) -> None:
        self._memory, self._pointer, self._size = memory, pointer, size
        # A tensor of these bytes refers to this object, so that the handle is not closed before the last of them.
        self.detach = weakref.finalize(self, _detach, memory, pointer)

    @property
    def anchor(self) -> object:
        """This object itself."""
        return self

    def tensor(self) -> "torch.Tensor":
        """Return the bytes as a tensor on the GPU."""
        if not self.detach.alive:
            raise Gone(f"this memory of {self._memory.device} was detached")
        return _tensor(self, self._memory.ordinal, self._pointer, self._size)


def _detach(memory: CudaMemory, pointer: int) -> None:
    with memory.guard(memory.ordinal):
        memory.runtime.deviceSynchronize()
        memory.runtime.ipcCloseMemHandle(pointer)


class _Bytes:
    """Bytes at an address of a GPU, as other libraries take them; keeps their owner alive."""

    def __init__(self, owner: object, pointer: int, size: int) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (pointer, False),
            "strides": None,
            "version": 2,
        }


def _tensor(owner: object, ordinal: int, pointer: int, size: int) -> "torch.Tensor":
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("a tensor of GPU memory needs torch: pip install 'morphogen[hf]'") from error
    return torch.as_tensor(_Bytes(owner, pointer, size), device=f"cuda:{ordinal}")


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise MissingExtra("CUDA IPC needs CuPy: pip install 'morphogen[gpu]'") from error
    return cupy
