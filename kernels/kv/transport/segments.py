"""Bytes in files that are mapped into memory: what shared memory and disk have in common.

A segment is a file of a leased folder. All its blocks are allocated before anyone writes to it, since a write to a
mapped page that the file system cannot back ends the process (SIGBUS) instead of failing.
"""

import errno
import mmap
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from morphogen.schemas.kv import KvRef

from ..leases import Keeper, Lease, LeaseEnded, LeaseFolder, Reaped, Segment, me, read_token
from ..leases.folder import LONGEST
from .contract import Meta, Released
from .descriptors import at_hand
from .ending import EndsByAbort, EndsByClose
from .errors import BadRef, Gone, NoRoom, TransportError
from .headroom import headroom
from .idle import Idle, Reading
from .places import host

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)
_SLACK = 1 << 20  # bytes that a spare file may be larger than asked for, or a quarter of that


class Room:
    """A segment's file, mapped writable."""

    def __init__(self, lease: Lease, handle: int, size: int) -> None:
        self.lease, self.handle, self.size = lease, handle, size
        self._closed = weakref.finalize(self, os.close, handle)
        # Filled at once: a fault for each page takes longer than to copy it.
        self.view: memoryview | None = memoryview(
            mmap.mmap(handle, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0))
        )

    def unmap(self) -> bool:
        """Let go of the mapping; return False where someone still has a view of it, with which it ends."""
        if self.view is None:
            return True
        watch = weakref.ref(self.view.obj)
        # It is not closed: a tensor may refer to it without counting as a view, and would read where nothing is.
        self.view = None
        return watch() is None

    def close(self) -> None:
        """Let go of the file, too."""
        self.unmap()
        self._closed()


class FileReservation(EndsByAbort):
    """Room in a file; see `Reservation`."""

    def __init__(self, segments: "Segments", room: Room, size: int) -> None:
        self._segments, self._room, self._size = segments, room, size
        assert room.view is not None
        self._buffer: memoryview | None = room.view[:size]
        self._open = True
        self._forgotten = weakref.finalize(self, segments.abort, room)

    @property
    def size(self) -> int:
        """The bytes reserved."""
        return self._size

    @property
    def buffer(self) -> memoryview:
        """The room itself, writable."""
        if self._buffer is None:
            raise ValueError("this reservation was committed or aborted before")
        return self._buffer

    @property
    def lease(self) -> Lease:
        """The writer's lease."""
        return self._room.lease

    def commit(self, meta: Meta = Meta(), /) -> KvRef:  # noqa: B008  (frozen)
        """Publish what was written. Raises LeaseEnded where this process slept for so long that it was reaped."""
        if not self._open:
            raise ValueError("this reservation was committed or aborted before")
        used = meta.used(self._size)
        self._open, self._buffer = False, None
        self._forgotten.detach()
        return self._segments.commit(self._room, used, meta)

    def abort(self) -> None:
        """Give the room back."""
        if self._open:
            self._open, self._buffer = False, None
            self._forgotten.detach()
            self._segments.abort(self._room)


class FileMapped(EndsByClose):
    """Committed bytes of a file, mapped read-only; see `Mapped`. Belongs to the process that opened it."""

    def __init__(self, segments: "Segments", ref: KvRef, lease: Lease, reading: Reading) -> None:
        self._segments, self._ref, self._lease, self._reading = segments, ref, lease, reading
        self._buffer: memoryview | None = memoryview(reading.mapping)[ref.offset : ref.offset + ref.size]
        self._forgotten = weakref.finalize(self, segments.forsake, lease)

    @property
    def ref(self) -> KvRef:
        """What was opened."""
        return self._ref

    @property
    def buffer(self) -> memoryview:
        """The bytes, read-only."""
        if self._buffer is None:
            raise LeaseEnded(f"segment {self._lease.segment} was closed")
        return self._buffer

    def check(self) -> None:
        """Raise LeaseEnded where this reader was stopped for so long that its lease was reaped."""
        if self._buffer is None:
            raise LeaseEnded(f"segment {self._lease.segment} was closed")
        self._segments.folder.must_hold(self._lease)

    def close(self) -> None:
        """Let go of the bytes. What was made of the buffer stays readable; the file is then not written again."""
        if self._buffer is not None:
            self._buffer = None
            self._forgotten.detach()
            seen = sys.getrefcount(self._reading.mapping) > 2  # more than ours, and that of this very question
            if not seen:
                self._segments.idle.put(self._reading)
            del self._reading
            self._segments.end(self._lease, seen=seen)


class Segments:
    """Leased files of one folder, as a transport.

    `ttl`: seconds after which what a stopped process holds is free to go; a living one renews it by itself. `spare`:
    bytes of freed files that this process keeps mapped for what it writes next, which saves the kernel's work of
    finding, clearing and mapping pages: most of what a first write costs. Only the last files are kept open (`at_hand`).
    """

    def __init__(self, name: str, folder: LeaseFolder, *, ttl: float, spare: int = 0) -> None:
        if not 0 < ttl <= LONGEST:
            raise ValueError(f"a time to live of {ttl:g} s: give more than 0, up to {LONGEST:g}")
        self.name, self.folder, self.ttl, self.spare = name, folder, ttl, spare
        lost = weakref.WeakMethod(self._lost)  # what was committed is renewed though this object was forgotten
        self.keeper = Keeper(folder, ttl, lost=lambda lease, reason: _call(lost(), lease))
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._written: dict[str, Room] = {}  # committed here, still mapped: may become spare
        self._spares: list[Room] = []
        self._swept = False
        self.idle = Idle(0 if folder.durable else spare)
        weakref.finalize(self, _discard, folder, self.keeper, self._spares)

    def reserve(self, size: int, /) -> FileReservation:
        """Make room for `size` bytes, in a spare file where one fits."""
        if size < 1:
            raise ValueError(f"{size} bytes cannot be reserved: give at least 1")
        room = self._spare_for(size) or self._fresh(size)
        return FileReservation(self, room, size)

    def prepare(self, *sizes: int) -> None:
        """Make files of these sizes spare now, so that a later `reserve` finds its pages ready."""
        rooms = [self._fresh(size) for size in sizes]
        with self._lock:
            self._spares.extend(rooms)

    def open(self, ref: KvRef, /) -> FileMapped:
        """Map committed bytes, under a lease of their own."""
        mine = self._granted(ref, self.ttl)
        try:
            reading = _map(self.folder.bytes_of(mine.segment), ref, self.idle)
        except BaseException:
            self.folder.release(mine)
            raise
        self.keeper.keep(mine)
        return FileMapped(self, ref, mine, reading)

    def release(self, ref: KvRef, /) -> Released:
        """End the lease of a ref; the file goes, or becomes spare, with the last one."""
        lease = self._lease(ref)
        self.keeper.forget(lease)
        room = self._take_written(lease.segment)
        if room is not None and self._recycled(room, lease):
            return "freed"
        if room is not None:
            room.close()
        found = self.folder.release(lease)
        self.idle.purge()
        return found

    def offer(self, ref: KvRef, /, *, ttl: float) -> KvRef:
        """Return another ref to the same bytes, good for `ttl` seconds whoever lives."""
        given = self._granted(ref, ttl, offer=True)
        return msgspec.structs.replace(ref, lease=given.token, expires=time.time_ns() + int(ttl * 1e9))

    def renew(self, ref: KvRef, /, *, ttl: float | None = None) -> KvRef:
        """Prolong the lease of a ref."""
        until = self.folder.renew(self._lease(ref), self.ttl if ttl is None else ttl)
        return ref if ref.expires is None else msgspec.structs.replace(ref, expires=until)

    def holds(self, ref: KvRef, /) -> bool:
        """Return whether the lease of a ref still holds."""
        return self.folder.holds(self._lease(ref))

    def reap(self, now: int | None = None) -> Reaped:
        """Remove what nobody holds any more, whoever wrote it."""
        found = self.folder.reap(now)
        self.idle.purge()
        return found

    def segments(self) -> tuple[Segment, ...]:
        """Return all segments of the folder, of all processes."""
        return self.folder.segments()

    def close(self) -> None:
        """Give spare files back and stop renewing. What else is held stays until it is released or its time is up."""
        self._own()
        with self._lock:
            spares = _emptied(self._spares)
            written, self._written = list(self._written.values()), {}
        self._discard(spares)
        for room in written:
            room.close()
        self.idle.clear()
        self.keeper.close()

    def commit(self, room: Room, used: int, meta: Meta) -> KvRef:
        """Publish a room's bytes: the second half of a reservation."""
        kept = self.spare > 0 and not self.folder.durable
        if not kept and room.unmap() and used < room.size:
            os.ftruncate(room.handle, used)  # nobody else has it mapped yet
        if self.folder.durable:
            os.fsync(room.handle)
        try:
            lease = self.folder.commit(room.lease)
        except BaseException:
            self._discard([room])
            raise
        if lease != room.lease:
            self.keeper.forget(room.lease)
        if kept:
            self._own()
            with self._lock:
                self._written[lease.segment] = room
                crowded = [self._written.pop(segment) for segment in list(self._written)[: -at_hand()]]
            for older in crowded:
                older.close()  # its bytes stay; its file will not be spare
        else:
            room.close()
        return KvRef(
            transport=self.name,
            place=self._place(lease.segment),
            size=used,
            checksum=meta.checksum,
            lease=lease.token,
            host=None if self.folder.durable else host(),
            details=dict(meta.details),
        )

    def abort(self, room: Room) -> None:
        """Give a room back that was not committed."""
        self._discard([room])

    def forsake(self, lease: Lease) -> None:
        """End the lease of a mapping that nobody refers to any more, though arrays made of it may live."""
        self.end(lease, seen=True)

    def end(self, lease: Lease, *, seen: bool) -> None:
        """End a reader's lease; `seen` where it still looks at the bytes."""
        self.keeper.forget(lease)
        if lease.holder == me():  # else a forked child lets go of what is its parent's
            self.folder.release(lease, seen=seen)

    def _granted(self, ref: KvRef, ttl: float, *, offer: bool = False) -> Lease:
        try:
            return self.folder.grant(self._lease(ref), ttl, offer=offer)
        except OSError as error:
            raise TransportError(f"no lease can be had on {ref.transport} {ref.place}: {error.strerror}") from error

    def _place(self, segment: str) -> str:
        return str(self.folder.bytes_of(segment)) if self.folder.durable else segment

    def _lease(self, ref: KvRef) -> Lease:
        if ref.transport != self.name:
            raise BadRef(f"a ref of transport {ref.transport!r} was given to {self.name}")
        if ref.host is not None and ref.host != host():
            raise BadRef(f"{self.name} {ref.place} lies on another machine, or was there before this one started anew")
        path = Path(ref.place)
        segment = path.parent.name if path.is_absolute() else ref.place
        lease = read_token(segment, ref.lease or "")
        if lease is None or ref.place != self._place(segment):
            raise BadRef(f"{self.name} cannot have made the ref {ref.place!r} with lease {ref.lease!r}")
        return lease

    def _fresh(self, size: int) -> Room:
        if not self._swept:  # once: what the dead have left need not wait until the memory is full
            self._swept = True
            self.folder.reap()
        try:
            return self._allocate(size)
        except (OSError, OverflowError) as error:
            if isinstance(error, OverflowError) or error.errno not in _FULL or not self._made_room():
                raise self._refused(size, error) from error
        try:
            return self._allocate(size)
        except OSError as error:
            raise self._refused(size, error) from error

    def _made_room(self) -> bool:
        self._own()
        with self._lock:
            spares = _emptied(self._spares)
        self._discard(spares)
        self.idle.purge()
        return bool(spares) or self.reap().size > 0

    def _refused(self, size: int, error: Exception) -> Exception:
        if isinstance(error, OSError) and error.errno not in _FULL:
            return TransportError(f"no segment can be made in {self.folder.path}: {error.strerror}")
        found, memory = os.statvfs(self.folder.path), None if self.folder.durable else headroom()
        free = found.f_bavail * found.f_frsize
        free = free if memory is None else min(free, memory)
        return NoRoom(
            f"no room for {size:,} bytes in {self.folder.path}, where {free:,} are free: release or evict some states"
        )

    def _allocate(self, size: int) -> Room:
        most = None if self.folder.durable else headroom()  # the disk says by itself that it is full
        if most is not None and size > most:
            raise OSError(errno.ENOMEM, f"{most:,} bytes of memory may be taken")
        lease, handle = self.folder.create(self.ttl)
        try:
            os.posix_fallocate(handle, 0, size)
        except BaseException:
            os.close(handle)
            self.folder.release(lease)
            raise
        try:
            room = Room(lease, handle, size)  # which closes the file from now on
        except BaseException:
            self.folder.release(lease)
            raise
        self.keeper.keep(lease)
        return room

    def _spare_for(self, size: int) -> Room | None:
        self._own()
        with self._lock:
            fitting = [room for room in self._spares if size <= room.size <= size + max(size // 4, _SLACK)]
            if not fitting:
                return None
            room = min(fitting, key=lambda room: room.size)
            self._spares.remove(room)
        try:
            self.folder.renew(room.lease, self.ttl)
        except LeaseEnded:  # reaped while this process was stopped
            room.close()
            return None
        return room

    def _take_written(self, segment: str) -> Room | None:
        self._own()
        with self._lock:
            return self._written.pop(segment, None)

    def _recycled(self, room: Room, lease: Lease) -> bool:
        with self._lock:
            held = sum(spare.size for spare in self._spares)
        if held + room.size > self.spare:
            return False
        fresh = self.folder.recycle(lease, self.ttl)
        if fresh is None:
            return False
        room.lease = fresh
        self.keeper.keep(fresh)
        with self._lock:
            self._spares.append(room)
            crowded = self._spares[: -at_hand()]
            del self._spares[: len(crowded)]
        self._discard(crowded)
        return True

    def _discard(self, rooms: Iterable[Room]) -> None:
        _discard(self.folder, self.keeper, list(rooms))

    def _lost(self, lease: Lease) -> None:
        # A spare file that was reaped must not be written again; one that another process has freed is of no use.
        with self._lock:
            gone = [room for room in (*self._spares, *self._written.values()) if room.lease == lease]
            self._spares[:] = [room for room in self._spares if room.lease != lease]
            self._written.pop(lease.segment, None)
        for room in gone:
            room.close()

    def _own(self) -> None:
        if self._pid != os.getpid():  # a forked child shares the mappings, and owns none of them
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._written.clear()
            self._spares.clear()
            self.idle.clear()


def _call(act: Callable[[Lease], None] | None, lease: Lease) -> None:
    if act is not None:
        act(lease)


def _emptied(rooms: list[Room]) -> list[Room]:
    taken = list(rooms)
    rooms.clear()  # the same list, which the finalizer has
    return taken


def _discard(folder: LeaseFolder, keeper: Keeper, rooms: list[Room]) -> None:
    for room in rooms:
        keeper.forget(room.lease)
        if room.lease.holder == me():  # else a forked child lets go of what is its parent's
            folder.release(room.lease)
        room.close()


def _map(path: Path, ref: KvRef, idle: Idle) -> Reading:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Gone(f"{ref.transport} {ref.place} is gone") from None
    except OSError as error:
        raise TransportError(f"{ref.transport} {ref.place} is no file that can be read: {error.strerror}") from error
    try:
        held = os.fstat(handle).st_size
        # Reading a mapping beyond the end of its file would end the process.
        if ref.size < 1 or ref.offset < 0 or ref.offset + ref.size > held:
            raise BadRef(f"{ref.transport} {ref.place} holds {held} bytes, not {ref.size} from {ref.offset}")
        known = idle.take(handle)
        if known is not None:
            return known
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        reading = Reading(handle, mmap.mmap(handle, held, flags=flags, prot=mmap.PROT_READ))
        handle = -1
        return reading
    except OSError as error:
        raise TransportError(f"{ref.transport} {ref.place} cannot be mapped: {error.strerror}") from error
    finally:
        if handle >= 0:
            os.close(handle)
