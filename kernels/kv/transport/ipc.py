"""Between processes on one GPU: the bytes stay where they are, and the other process opens them by a handle.

What travels is a small record in a leased folder of shared memory. The device's memory belongs to the process that
allocated it, so a reader depends on that process as it does on no other transport: it must not touch the memory once
the owner's lease has ended. `DeviceMapped.use` asks before and after each use, and what was read across the end is
refused. The owner, for its part, frees memory only when no reader's lease is left on it.
"""

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from morphogen.schemas.kv import KvRef

from ..leases import Lease, LeaseEnded, LeaseFolder, Reaped, me, read_token
from .contract import Meta, Released
from .device_memory import Allocation, Attached, DeviceMemory
from .ending import EndsByAbort, EndsByClose
from .errors import BadRef, NoDevice, TransportError
from .segments import FileMapped, Segments
from .shared_memory import default_folder

if TYPE_CHECKING:
    import torch

_OWNER = 256  # bytes of a lease's token, at most


class Record(msgspec.Struct, frozen=True):
    """What the owner writes down for whoever opens its memory."""

    device: str
    handle: bytes
    size: int
    owner: str  # its lease: nothing may be used once that has ended
    what: msgspec.Raw = msgspec.Raw()  # what lies there, in the owner's own words


class DeviceReservation(EndsByAbort):
    """Device memory that is being filled; see `Reservation`."""

    def __init__(self, ipc: "Ipc", memory: Allocation) -> None:
        self._ipc, self._memory = ipc, memory
        self._open = True
        self._forgotten = weakref.finalize(self, memory.free)

    @property
    def size(self) -> int:
        """The bytes reserved."""
        return self._memory.size

    @property
    def buffer(self) -> memoryview:
        """The room, where the host can address it. Raises TransportError on a GPU: write through `tensor()`."""
        return _on_host(self._memory.tensor(), readonly=False)

    def tensor(self) -> "torch.Tensor":
        """Return the room as a tensor (size,) of uint8 on its device."""
        return self._memory.tensor()

    def commit(self, meta: Meta = Meta(), /) -> KvRef:  # noqa: B008  (frozen)
        """Publish what was written, once it has reached the device's memory."""
        if not self._open:
            raise ValueError("this reservation was committed or aborted before")
        used = meta.used(self.size)
        ref = self._ipc.publish(self._memory, meta, size=used)
        self._open = False
        self._forgotten.detach()
        return ref

    def abort(self) -> None:
        """Give the memory back."""
        if self._open:
            self._open = False
            self._forgotten()


class DeviceMapped(EndsByClose):
    """Another process's device memory, opened here; see `Mapped`."""

    def __init__(
        self, ipc: "Ipc", ref: KvRef, record: FileMapped, told: Record, owner: Lease, memory: Attached
    ) -> None:
        self._ipc, self._ref, self._record, self._owner = ipc, ref, record, owner
        self._memory: Attached | None = memory
        self.what = told.what  # msgpack
        # Not of this object: a tensor may outlive it, and must not lose the memory beneath it.
        self._forgotten = weakref.finalize(memory.anchor, _let_go, memory.detach, record)

    @property
    def ref(self) -> KvRef:
        """What was opened."""
        return self._ref

    @property
    def buffer(self) -> memoryview:
        """The bytes, where the host can address them. Raises TransportError on a GPU: read through `use`."""
        return _on_host(self.tensor(), readonly=True)

    def tensor(self) -> "torch.Tensor":
        """Return the bytes as a tensor (size,) of uint8 on their device, no copy. Raises LeaseEnded; see `use`."""
        self.check()
        assert self._memory is not None, "checked just before"
        return self._memory.tensor()[self._ref.offset : self._ref.offset + self._ref.size]

    @contextlib.contextmanager
    def use(self) -> "Iterator[torch.Tensor]":
        """Lend the bytes for one use. Raises LeaseEnded before it, or at its end: then throw away what it gave."""
        yield self.tensor()
        self._ipc.memory.synchronize()
        self.check()

    def check(self) -> None:
        """Raise LeaseEnded where the owner's lease, or this reader's, has ended."""
        if self._memory is None:
            raise LeaseEnded(f"ipc {self._ref.place} was closed")
        self._record.check()
        self._ipc.records.folder.must_hold(self._owner)

    def close(self) -> None:
        """Close the handle, then end this reader's lease: in this order, since the owner frees after the last one."""
        if self._memory is not None:
            self._memory = None
            self._forgotten()


class Ipc:
    """Device memory handed to other processes on the same device.

    A release by the owner revokes: readers are refused from then on, and the memory is freed when the last of them has
    let go, by `reap`, which each `reserve` and `release` calls.
    """

    name = "ipc"

    def __init__(self, memory: DeviceMemory, folder: str | Path | None = None, *, ttl: float = 30.0) -> None:
        self.memory = memory
        chosen = folder or default_folder().with_name(default_folder().name + "-ipc")
        self.records = Segments("ipc", LeaseFolder(chosen), ttl=ttl)
        self._lock = threading.Lock()
        self._given: dict[str, Callable[[], object]] = {}
        self._refs: dict[str, KvRef] = {}

    def reserve(self, size: int, /) -> DeviceReservation:
        """Take device memory."""
        if size < 1:
            raise ValueError(f"{size} bytes cannot be reserved: give at least 1")
        self.reap()
        return DeviceReservation(self, self.memory.allocate(size))

    def open(self, ref: KvRef, /) -> DeviceMapped:
        """Open a handle, under a lease of this process. Raises LeaseEnded where the owner's has ended."""
        record = self.records.open(_whole(ref))
        try:
            told = self._read(record, ref)
            owner = read_token(ref.place, told.owner)
            if owner is None:
                raise BadRef(f"ipc {ref.place} names no owner")
            if owner.holder == me():
                raise TransportError(f"ipc {ref.place} is this process's own: CUDA opens no handle where it was made")
            self.records.folder.must_hold(owner)
            memory = self.memory.attach(told.handle, told.size)
            try:
                self.records.folder.must_hold(owner)  # it may have died while the handle was being opened
            except BaseException:
                memory.detach()
                raise
        except BaseException:
            record.close()
            raise
        return DeviceMapped(self, ref, record, told, owner, memory)

    def release(self, ref: KvRef, /) -> Released:
        """End the lease of a ref; the owner's memory is freed with the last one."""
        told = self.records.release(_whole(ref))
        self.reap()
        return told

    def offer(self, ref: KvRef, /, *, ttl: float) -> KvRef:
        """Return another ref to the same memory, good for `ttl` seconds, or until its owner goes."""
        given = self.records.offer(_whole(ref), ttl=ttl)
        return msgspec.structs.replace(ref, lease=given.lease, expires=given.expires)

    def renew(self, ref: KvRef, /, *, ttl: float | None = None) -> KvRef:
        """Prolong the lease of a ref."""
        return msgspec.structs.replace(ref, expires=self.records.renew(_whole(ref), ttl=ttl).expires)

    def reap(self, now: int | None = None) -> Reaped:
        """Remove the records that nobody holds any more, and free what was ours of it."""
        found = self.records.reap(now)
        with self._lock:
            # The owner's own lease may be gone, since this process was stopped: the readers' are what counts.
            over = [place for place in self._given if not self.records.folder.bytes_of(place).exists()]
            gone = [self._given.pop(place) for place in over]
            for place in over:
                del self._refs[place]
        for freed in gone:
            freed()
        return found

    def close(self, timeout: float = 10.0) -> bool:
        """Revoke all that was given, and wait until its readers have let go; return whether all memory was freed.

        What a reader still holds then stays until this process ends: memory is not freed under a reader.
        """
        deadline = time.monotonic() + timeout
        for ref in list(self._refs.values()):
            self.records.release(_whole(ref))
        self.reap()
        while self._given and time.monotonic() < deadline:
            time.sleep(0.01)
            self.reap()
        self.records.close()
        return not self._given

    def publish(
        self,
        memory: Allocation,
        meta: Meta = Meta(),  # noqa: B008  (frozen)
        *,
        size: int | None = None,
        what: object = None,
        freed: Callable[[], object] | None = None,
    ) -> KvRef:
        """Give memory away for reading, once all that was written has reached it; return a ref.

        `what` goes into the record, for the reader to know what lies where. `freed` is called when nobody holds the ref
        any more; without it, the memory is freed then.
        """
        self.memory.synchronize()
        told = msgspec.Raw(msgspec.msgpack.encode(what))
        record = Record(self.memory.device, memory.handle, memory.size, "", told)
        with self.records.reserve(len(msgspec.msgpack.encode(record)) + _OWNER) as room:
            data = msgspec.msgpack.encode(msgspec.structs.replace(record, owner=room.lease.token))
            room.buffer[: len(data)] = data
            ref = room.commit(
                Meta(checksum=meta.checksum, size=len(data), details=meta.details | {"record": len(data)})
            )
        with self._lock:
            self._given[ref.place] = memory.free if freed is None else freed
            self._refs[ref.place] = ref
        return msgspec.structs.replace(ref, size=memory.size if size is None else size)

    def _read(self, record: FileMapped, ref: KvRef) -> Record:
        try:
            told = msgspec.msgpack.decode(record.buffer, type=Record)
        except msgspec.DecodeError as error:
            raise BadRef(f"ipc {ref.place} is no record of device memory: {error}") from error
        if told.device != self.memory.device:
            raise NoDevice(f"ipc {ref.place} lies on {told.device}, this process works on {self.memory.device}")
        if ref.size < 1 or ref.offset < 0 or ref.offset + ref.size > told.size:
            raise BadRef(f"ipc {ref.place} holds {told.size} bytes, not {ref.size} from {ref.offset}")
        return told


def _whole(ref: KvRef) -> KvRef:
    length = ref.details.get("record")
    if not isinstance(length, int):
        raise BadRef(f"ipc {ref.place} says nothing of its record")
    return msgspec.structs.replace(ref, offset=0, size=length)


def _let_go(detach: Callable[[], object], record: FileMapped) -> None:
    detach()
    record.close()


def _on_host(tensor: "torch.Tensor", *, readonly: bool) -> memoryview:
    if tensor.device.type != "cpu":
        raise TransportError(f"bytes on {tensor.device} have no buffer of the host's: use the tensor")
    view = memoryview(tensor.numpy())  # type: ignore[arg-type]  # known as a buffer from Python 3.12 on
    return view.toreadonly() if readonly else view
