"""A lane: the records of one family of one writer, on disk before `append` returns.

`append` runs in the training step, so it is written for speed: a record is written once, into mapped memory. A kill
at any point leaves either the whole record or nothing of it (`records`).
Everything that may take time (a new segment, a full disk) is off that path, in `Room`.
"""

import struct
import sys
from collections import deque
from pathlib import Path

from morphogen.schemas.names import token

from .cut import Cut
from .kind import Kind
from .mark import Mark
from .numbers import encoded
from .records import LARGEST, room_for
from .room import Loss, Room
from .segment import Segment

HIGH_RATE_SEGMENT = 16 << 20
SEGMENT = 1 << 20
_FIRST_SEGMENT = 1 << 20
_GROWTH = 4
_WARM = 16 << 10  # bytes that are asked for at least; what is not written then is written to disk once as zeros
_ODD = (TypeError, OverflowError, struct.error, MemoryError)  # a step or time that is no integer of 64 bits


class Lane:
    """Append records of one family; let the publisher cut frames from them and acknowledge.

    `done` is the counter up to which all are in the log or were dropped.
    """

    __slots__ = (
        "_closed", "_cut", "_grown", "_ordinal", "_room", "_sealed", "_seen", "_segment", "_skips", "_spare",
        "acked", "done", "dropped", "family", "folder", "high_rate", "lost", "mark", "refused", "segment_size",
    )  # fmt: skip

    def __init__(
        self, folder: Path | None, family: str, room: Room, *, high_rate: bool, segment_size: int | None = None
    ) -> None:
        self.family = family
        self.high_rate = high_rate
        self.segment_size = segment_size or (HIGH_RATE_SEGMENT if high_rate else SEGMENT)
        self._room = room
        self._closed = False
        self._segment = Segment.full(1)
        self._sealed: deque[Segment] = deque()
        self.start(folder)
        room.lanes.append(self)

    def start(self, spool: Path | None) -> None:
        """Begin with nothing in a folder below `spool`; a forked child does so a second time."""
        self.folder = None if spool is None else spool / token(self.family)
        self.done = self.acked = self.dropped = self.refused = self.lost = 0
        self.mark = Mark(None)
        for segment in (*self._sealed, self._segment):
            segment.release()
        self._segment = Segment.full(1)
        self._sealed = deque()
        self._spare: Segment | None = None
        self._seen = (self._segment, 0)
        self._cut: tuple[Cut, Segment] | None = None
        self._skips: list[Loss] = []
        self._ordinal = 0
        self._grown = _FIRST_SEGMENT

    def append(self, kind: Kind, step: int | None, time_ns: int, cause: str | None, body: bytes) -> int:
        """Write one event and return its counter; once this returns, a kill of the process does not lose it.

        `body` is msgpack. Never blocks and never raises: returns 0 where the event had to be refused (the lane is
        closed, or disk and memory are both full), which is counted in `refused` and said once.

        Threads and signal handlers need no lock here.
        """
        try:
            n = self._segment.records.append(kind.middle, step, time_ns, body) if cause is None else 0  # type: ignore[arg-type]
        except _ODD:
            n = 0
        return self._rung(n or self._put(kind.rest(step, time_ns, cause) + body))

    def append_numbers(self, kind: Kind, step: object, time_ns: int, before: bytes, values: object) -> int:
        """Write one event whose body is `before` and a dict of names and plain numbers, as `append` does.

        Returns -1, and has written nothing, where `values` hold anything but text and floats and ints of 64 bits,
        or nothing at all, or where `step` is no such int.
        """
        try:
            n = self._segment.records.append_numbers(kind.middle, step, time_ns, before, values)  # type: ignore[arg-type]
        except _ODD:
            return -1
        if n > 0:  # nearly always: one call less
            if self._room.bell.attention:
                self._room.bell.attend()
            return n
        numbers = encoded(values) if n == 0 else None  # there was no room to look at all of them
        return -1 if numbers is None else self._rung(self._put(kind.rest(step, time_ns, None) + before + numbers))

    def _rung(self, n: int) -> int:
        if n and self._room.bell.attention:
            self._room.bell.attend()
        return n

    def _put(self, rest: bytes) -> int:
        """Write an event, after having made room for it; 0 where none can be made."""
        try:
            while not (n := self._segment.records.put(rest)):
                if not self._roll(room_for(rest)):
                    return 0
        except MemoryError:
            self._refuse("memory is full")
            return 0
        return n

    @property
    def n(self) -> int:
        """The counter of the newest record."""
        return self._segment.last

    @property
    def pending(self) -> bool:
        """Tell whether something waits to be published or acknowledged."""
        return self.n > self.done

    @property
    def pending_bytes(self) -> int:
        """Return about how many bytes wait."""
        with self._room.lock:
            segment = self._segment
            known = self.done - segment.first
            skipped = segment.records.end_of(known) if 0 <= known < segment.records.count else 0
            return sum(each.end for each in self._sealed) + segment.end - skipped

    def cut(self, budget: int) -> Cut | None:
        """Return the next records of at most `budget` bytes (or one larger), the same until they are acknowledged.

        A smaller budget cuts them anew: another broker takes less.
        """
        with self._room.lock:
            if self._cut is not None:
                if self._cut[0].last > self.done and self._cut[0].fits(budget):
                    return self._cut[0]
                self._cut = None
            wanted = self.done + 1
            for segment in (*self._sealed, self._segment):
                if segment.last >= wanted and segment.records.count:
                    cut = _cut(segment, max(wanted - segment.first, 0), budget)
                    self._cut = (cut, segment)
                    return cut
            return None

    def ack(self, last: int) -> None:
        """Note that the log has all records up to `last`; segments that hold nothing else are deleted."""
        with self._room.lock:
            if last > self.done:
                cut = self._cut[0] if self._cut is not None else None
                self.acked += cut.count if cut is not None and cut.last == last else last - self.done
                self._advance(last)
            if self._cut is not None and self._cut[0].first <= self.done:
                self._cut = None  # whole, or in part: the rest is cut anew
            if self._sealed and self._sealed[0].last <= self.done:
                self.mark.write()  # before what it stands for is gone
            while self._sealed and self._sealed[0].last <= self.done:
                self._room.give_back(self._sealed.popleft())

    def _advance(self, last: int) -> None:
        self.done = last
        while self._skips and self._skips[0].first <= self.done + 1:
            self.done = max(self.done, self._skips.pop(0).last)
        self.mark.set(self.done)

    def next_size(self) -> int:
        """Return the room of a new segment: small at first, so that a short run costs little, then larger."""
        size = min(self._grown, self.segment_size)
        self._grown = min(self._grown * _GROWTH, self.segment_size)
        return size

    def droppable(self) -> list[Segment]:
        """Return the full segments of which nothing is on its way to the log."""
        flying = self._cut[1] if self._cut is not None else None
        return [segment for segment in list(self._sealed) if segment is not flying]

    def drop(self, segment: Segment, reason: str) -> Loss | None:
        """Give up what is unsent in a segment and delete it; None where all of it was in the log already."""
        with self._room.lock:
            try:
                self._sealed.remove(segment)
            except ValueError:  # a signal handler that logs was faster
                return None
            first = max(segment.first, self.done + 1)
            skipped = segment.records.end_of(first - segment.first - 1) if first > segment.first else 0
            loss = None
            if first <= segment.last:
                count = segment.last - first + 1
                loss = Loss(self.family, first, segment.last, count, segment.end - skipped, reason)
                self.dropped += count
                self._skips.append(loss)
                self._skips.sort(key=lambda skip: skip.first)
                if self._skips[0].first <= self.done + 1:
                    self._advance(self.done)
            self._room.give_back(segment)
            return loss

    def next_path(self) -> Path:
        """Return the path of a new segment, in a folder that exists. Raises OSError."""
        if self.folder is None:
            raise FileNotFoundError(2, "the spool has no folder")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ordinal = ordinal = self._ordinal + 1
        return self.folder / f"{ordinal:08d}.seg"

    def prepare(self) -> None:
        """Have the next segment ready before it is needed; the background thread calls this when `wants_spare`."""
        spare = self._room.spare(self) if self.wants_spare else None
        if spare is None:
            return
        if not self._segment.synced:  # filled in less than the time between two syncs: else it is written twice to disk
            spare.warm(spare.size)
        with self._room.lock:
            ordinal = int(spare.path.stem) if spare.path is not None else 0
            if self._spare is None and not self._closed and ordinal == self._ordinal:
                self._spare = spare
                return
        self._room.give_back(spare)

    def ahead(self) -> tuple[Segment, int] | None:
        """Return the segment in use, and up to where its pages should be at hand; None where they are already.

        What was written since the last call is expected again: asked for is four times as much, so as not to ask often.
        """
        segment = self._segment
        last, at = self._seen
        end = segment.end
        self._seen = segment, end
        written = end - at if segment is last else end
        if not written or segment.warmed >= min(end + written, segment.size):
            return None
        return segment, end + max(4 * written, _WARM)

    @property
    def wants_spare(self) -> bool:
        """Tell whether the segment in use is more than half full and no other is ready."""
        segment = self._segment
        return self._spare is None and segment.path is not None and segment.end * 2 > segment.size

    def unsynced(self) -> list[Segment]:
        """Return the segments with bytes that the disk may not have."""
        with self._room.lock:
            return [s for s in (*self._sealed, self._segment) if s.fd >= 0 and s.end > s.synced]

    def close(self) -> None:
        """Refuse further events, and let go of the files and their memory; what is unsent stays on disk."""
        with self._room.lock:
            self._closed = True
            segment = self._segment
            segment.records.seal()
            held, self._sealed = [*self._sealed, segment], deque()
            self._segment = Segment.full(segment.last + 1)
            self._seen, self._cut = (self._segment, 0), None
            self.mark.write()  # before what it stands for is gone
            self.mark.close()
            for segment in held:
                if segment.last <= self.done:
                    self._room.give_back(segment)
                    continue
                if segment.path is None:
                    self.lost += segment.last - max(segment.first - 1, self.done)
                segment.release()
            if self._spare is not None:
                self._room.give_back(self._spare)
                self._spare = None

    def _roll(self, needed: int) -> bool:
        """Make room for `needed` bytes; False where the event has to be refused."""
        try:
            return self._next_segment(needed)
        except Exception as error:  # noqa: BLE001  (a fault of ours must not end the training)
            return self._refuse(f"{type(error).__name__}: {error}")

    def _next_segment(self, needed: int) -> bool:
        revive = self._room.revive
        if revive is not None:
            revive()
        with self._room.lock:
            segment = self._segment
            records = segment.records
            if records.end + needed <= records.size:
                return True  # another thread was here first
            if self._closed:
                return self._refuse("it is closed")
            limit = min(self._room.limit, LARGEST)
            if needed > limit:
                return self._refuse(f"an event of {needed} bytes exceeds the spool's limit of {limit}")
            records.seal()  # its last counter is known from here on
            # A signal handler that logs may run between any two lines here, and leave a segment of its own in place.
            if records.count and segment not in self._sealed: self._sealed.append(segment)  # noqa: E701  # fmt: skip
            full, replaced = Segment.full(segment.last + 1), False
            if self._segment is segment: self._segment = full; replaced = True  # noqa: E701, E702  # fmt: skip
            if not replaced:
                return True
            if segment.size and not records.count:
                self._room.give_back(segment)
            fresh = self._take_spare(needed) or self._room.obtain(self, needed)
            if fresh is None:
                return self._segment is not full or self._refuse("disk and memory are full")
            if full.first == 1:
                self.mark = Mark(None if fresh.path is None else fresh.path.with_name("acked"))
            fresh.records.first = full.first
            used = False
            if self._segment is full: self._segment = fresh; used = True  # noqa: E701, E702  # fmt: skip
            if not used:
                self._room.give_back(fresh)
            return True

    def _take_spare(self, needed: int) -> Segment | None:
        spare, self._spare = self._spare, None
        if spare is not None and spare.size < needed:
            self._room.give_back(spare)
            return None
        return spare

    def _refuse(self, reason: str) -> bool:
        self.refused += 1
        if self.refused == 1:
            self._room.refuse(self.family, reason)
        return False


def _cut(segment: Segment, index: int, budget: int) -> Cut:
    records = segment.records
    stop = records.within(index, budget)
    start = records.end_of(index - 1) if index else 0
    first = segment.first + index
    return Cut(first, segment.first + stop - 1, stop - index, segment.map, start, records.end_of(stop - 1))


class _LockedLane(Lane):
    """The same for an interpreter without a global lock, where a line can be interrupted anywhere."""

    __slots__ = ()

    def append(self, kind: Kind, step: int | None, time_ns: int, cause: str | None, body: bytes) -> int:
        with self._room.lock:
            return super().append(kind, step, time_ns, cause, body)

    def append_numbers(self, kind: Kind, step: object, time_ns: int, before: bytes, values: object) -> int:
        with self._room.lock:
            return super().append_numbers(kind, step, time_ns, before, values)


if not getattr(sys, "_is_gil_enabled", lambda: True)():  # free-threaded CPython
    Lane = _LockedLane  # type: ignore[misc]
