"""Within one process: sequences of one context are copied by llama.cpp without moving a byte; other bytes stay on the heap.

`offer_sequence` names a sequence of a context, `copy_sequence` makes it another sequence of the same context: its cells
are then marked as belonging to both. Between two contexts of a process, bytes are written once and read where they lie.
"""

import secrets
import threading
import weakref
from typing import Protocol

import msgspec

from morphogen.schemas.kv import KvRef

from ..leases import LeaseEnded, me
from .contract import Meta, Released
from .ending import EndsByAbort, EndsByClose
from .errors import BadRef, NoRoom
from .headroom import headroom
from .places import host


class HasSequences(Protocol):
    """A context that can make one of its sequences the same as another one, such as a `RawContext`."""

    def copy(self, source: int, target: int) -> None:
        """Let `target` have what `source` has, by reference."""


class _Held:
    """Bytes on the heap, and the leases on them."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.leases: set[str] = set()


class HeapReservation(EndsByAbort):
    """Room on the heap; see `Reservation`."""

    def __init__(self, owner: "SameProcess", size: int) -> None:
        self._owner, self._size = owner, size
        room = headroom()
        if room is not None and size > room:
            raise NoRoom(f"no room for {size:,} bytes in this process, {room:,} may be taken: free some states")
        try:
            self._buffer = memoryview(bytearray(size))
        except (MemoryError, OverflowError) as error:
            raise NoRoom(f"no room for {size:,} bytes in this process: free some states") from error
        self._open = True

    @property
    def size(self) -> int:
        """The bytes reserved."""
        return self._size

    @property
    def buffer(self) -> memoryview:
        """The room itself, writable."""
        return self._buffer

    def commit(self, meta: Meta = Meta(), /) -> KvRef:  # noqa: B008  (frozen)
        """Publish what was written, within this process."""
        if not self._open:
            raise ValueError("this reservation was committed or aborted before")
        used = meta.used(self._size)
        self._open = False
        return self._owner.keep(self._buffer[:used].toreadonly(), meta)

    def abort(self) -> None:
        """Give the room back."""
        self._open = False


class HeapMapped(EndsByClose):
    """Committed bytes of the heap; see `Mapped`."""

    def __init__(self, owner: "SameProcess", ref: KvRef, data: memoryview, lease: str) -> None:
        self._owner, self._ref, self._lease = owner, ref, lease
        self._buffer = data[ref.offset : ref.offset + ref.size]
        self._forgotten = weakref.finalize(self, owner.end, ref.place, lease)
        self._open = True

    @property
    def ref(self) -> KvRef:
        """What was opened."""
        return self._ref

    @property
    def buffer(self) -> memoryview:
        """The bytes, read-only."""
        return self._buffer

    def check(self) -> None:
        """Raise LeaseEnded where this was closed: within a process nothing else can end it."""
        if not self._open:
            raise LeaseEnded(f"{self._ref.place} was closed")

    def close(self) -> None:
        """Let go of the bytes; arrays made of them keep them."""
        self._open = False
        self._forgotten()


class SameProcess:
    """What one process hands to itself. Leases count references; they end by release, or with the process."""

    name = "same_process"

    def __init__(self) -> None:
        who = me()
        self._mark = f"{who.pid}-{who.start}-{secrets.token_hex(4)}"
        self._lock = threading.RLock()  # a finalizer may run inside any of the methods
        self._held: dict[str, _Held] = {}
        self._sequences: dict[str, tuple[weakref.ref[HasSequences], int]] = {}

    def reserve(self, size: int, /) -> HeapReservation:
        """Make room for `size` bytes."""
        if size < 1:
            raise ValueError(f"{size} bytes cannot be reserved: give at least 1")
        return HeapReservation(self, size)

    def open(self, ref: KvRef, /) -> HeapMapped:
        """Open committed bytes."""
        with self._lock:
            held = self._find(ref)
            if ref.size < 1 or ref.offset < 0 or ref.offset + ref.size > held.data.nbytes:
                raise BadRef(f"{ref.place} holds {held.data.nbytes} bytes, not {ref.size} from {ref.offset}")
            lease = secrets.token_hex(8)
            held.leases.add(lease)
            return HeapMapped(self, ref, held.data, lease)

    def release(self, ref: KvRef, /) -> Released:
        """End the lease of a ref, to bytes or to a sequence (whose cells stay its context's)."""
        self._mine(ref)
        with self._lock:
            if self._sequences.pop(ref.place, None) is not None:
                return "freed"
        return self.end(ref.place, ref.lease or "")

    def offer(self, ref: KvRef, /, *, ttl: float) -> KvRef:
        """Return another ref to the same bytes; within a process it does not end by time."""
        with self._lock:
            lease = secrets.token_hex(8)
            self._find(ref).leases.add(lease)
            return msgspec.structs.replace(ref, lease=lease)

    def renew(self, ref: KvRef, /, *, ttl: float | None = None) -> KvRef:
        """Do nothing but check that the lease holds."""
        with self._lock:
            self._find(ref)
        return ref

    def close(self) -> None:
        """Do nothing: there is nothing to renew."""

    def offer_sequence(self, context: HasSequences, sequence: int, *, tokens: int) -> KvRef:
        """Return a ref to a sequence as it lies in its context: no bytes move, now or later."""
        place = f"{self._mark}/{secrets.token_hex(8)}"
        with self._lock:
            self._sequences[place] = (weakref.ref(context), sequence)
        return KvRef(
            transport=self.name, place=place, size=0, lease="sequence", host=host(), details={"tokens": tokens}
        )

    def copy_sequence(self, ref: KvRef, context: HasSequences, sequence: int) -> None:
        """Make an offered sequence another sequence of the same context. Raises BadRef for another context."""
        self._mine(ref)
        with self._lock:
            found = self._sequences.get(ref.place)
        if found is None:
            raise LeaseEnded(f"{ref.place} is offered no more")
        source, number = found
        if source() is not context:
            raise BadRef(f"{ref.place} is a sequence of another context: export its bytes instead")
        context.copy(number, sequence)

    def keep(self, data: memoryview, meta: Meta) -> KvRef:
        """Hold committed bytes: the second half of a reservation."""
        place, lease = f"{self._mark}/{secrets.token_hex(8)}", secrets.token_hex(8)
        held = _Held(data)
        held.leases.add(lease)
        with self._lock:
            self._held[place] = held
        return KvRef(
            transport=self.name,
            place=place,
            size=data.nbytes,
            checksum=meta.checksum,
            lease=lease,
            host=host(),
            details=dict(meta.details),
        )

    def end(self, place: str, lease: str) -> Released:
        """End one lease; the bytes go with the last."""
        with self._lock:
            held = self._held.get(place)
            if held is None or lease not in held.leases:
                return "already"
            held.leases.remove(lease)
            if held.leases:
                return "held"
            del self._held[place]
            return "freed"

    def _mine(self, ref: KvRef) -> None:
        if ref.transport != self.name or not ref.place.startswith(self._mark):
            raise BadRef(f"{ref.transport} {ref.place} was not made by this transport of this process")

    def _find(self, ref: KvRef) -> _Held:
        self._mine(ref)
        held = self._held.get(ref.place)
        if held is None or ref.lease not in held.leases:
            raise LeaseEnded(f"the lease on {ref.place} has ended: released")
        return held
