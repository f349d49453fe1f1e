"""Who may take how much disk: the limit of a spool, and what goes when there is no room left.

Only unsent segments of high-rate lanes are ever given up, the oldest first, and never without a line in the
program's log and a loss that the producer records: where the spool is at its limit, which is there to be kept, or where
neither disk nor memory takes more. When the disk is full, a lane lives on in memory: a kill then loses what is there,
which is said loudly, but nothing else does, and the training step neither waits nor fails.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .bell import Bell
from .segment import Segment, is_disk_full, round_up

if TYPE_CHECKING:
    from .lane import Lane

MEMORY_LIMIT = 64 << 20
_MEMORY_SEGMENT = 1 << 20
_SMALL_SEGMENT = 256 << 10

_log = logging.getLogger("morphogen.bus")


@dataclass(frozen=True, slots=True)
class Loss:
    """Say what was given up: `count` records of `family` from `first` to `last`, and why."""

    family: str
    first: int
    last: int
    count: int
    bytes: int
    reason: str


class Room:
    """Hand out segments to the lanes of one writer within `limit` bytes, under the one `lock` of their slow paths."""

    def __init__(self, limit: int, name: str = "spool") -> None:
        self.name = name
        self.limit = limit
        self.lock = threading.RLock()
        self.bell = Bell()
        self.lanes: list[Lane] = []
        self.disk_bytes = 0
        self.memory_bytes = 0
        self.on_loss: Callable[[Loss], None] | None = None
        self.revive: Callable[[], None] | None = None  # set in a forked child, run by its first append
        self._serial = 0
        self._over_limit = False
        self._in_memory = False

    def obtain(self, lane: "Lane", needed: int) -> Segment | None:
        """Return a new segment for `lane` with room for `needed` bytes; None where even memory has run out."""
        with self.lock:
            size = round_up(max(lane.next_size(), needed))
            while self.disk_bytes + size > self.limit and self._drop_oldest("the spool is full", on_disk=True):
                pass
            self._note_limit(self.disk_bytes + size > self.limit)
            segment = self._find(lane, size, needed)
            if segment is not None:
                self._serial += 1
                segment.serial = self._serial
            return segment

    def spare(self, lane: "Lane") -> Segment | None:
        """Return a segment for later, where that costs nobody anything. Called without the lock."""
        with self.lock:
            size = round_up(lane.next_size())
            if self.disk_bytes + size > self.limit:
                return None
            try:
                path = lane.next_path()
            except OSError:
                return None
        try:
            segment = Segment.on_disk(path, size)
        except (OSError, MemoryError):
            return None
        with self.lock:
            self.disk_bytes += segment.size
            self._serial += 1
            segment.serial = self._serial
        return segment

    def give_back(self, segment: Segment) -> None:
        """Delete a segment that is done with."""
        with self.lock:
            if segment.path is not None:
                self.disk_bytes -= segment.size
            else:
                self.memory_bytes -= segment.size
        segment.discard()

    def forget(self) -> None:
        """Start over in a forked child: whatever was held belongs to the parent."""
        self.lock = threading.RLock()
        self.bell = Bell()
        self.disk_bytes = self.memory_bytes = 0
        self._over_limit = self._in_memory = False

    def _find(self, lane: "Lane", size: int, needed: int) -> Segment | None:
        """Return a segment on disk, else in memory, else where the oldest unsent ones made room."""
        while True:
            placed = self._on_disk(lane, size, needed)
            if isinstance(placed, Segment):
                return placed
            self._note_memory(placed)
            segment = self._in_memory_for(needed)
            full = isinstance(placed, OSError) and is_disk_full(placed)
            if segment is not None or not self._drop_oldest(
                "disk and memory are full", on_disk=None if full else False
            ):
                return segment

    def _on_disk(self, lane: "Lane", size: int, needed: int) -> Segment | OSError | MemoryError:
        failure: OSError | MemoryError
        small = round_up(max(needed, _SMALL_SEGMENT))
        for wanted in sorted({size, min(size, small)}, reverse=True):
            try:
                segment = Segment.on_disk(lane.next_path(), wanted)
            except (OSError, MemoryError) as error:
                failure = error
            else:
                self.disk_bytes += segment.size
                self._note_memory(None)
                return segment
        return failure

    def _in_memory_for(self, needed: int) -> Segment | None:
        size = round_up(max(needed, _MEMORY_SEGMENT))
        if self.memory_bytes + size > MEMORY_LIMIT:
            return None
        try:
            segment = Segment.in_memory(size)
        except (OSError, MemoryError, ValueError):
            return None
        self.memory_bytes += segment.size
        return segment

    def _drop_oldest(self, reason: str, *, on_disk: bool | None) -> bool:
        """Give up the oldest unsent segment of a high-rate lane, wherever it is with None; False where there is none."""
        held = [
            (segment.serial, lane, segment)
            for lane in self.lanes
            if lane.high_rate
            for segment in lane.droppable()
            if on_disk is None or (segment.path is not None) == on_disk
        ]
        if not held:
            return False
        _, lane, segment = min(held, key=lambda each: each[0])
        loss = lane.drop(segment, reason)
        if loss is not None:
            self.lose(loss)
        return True

    def lose(self, loss: Loss) -> None:
        """Say that records are gone, here and to whoever keeps the books."""
        _log.warning(
            "%s: dropped %d unsent %s events (%d to %d, %d bytes): %s",
            self.name, loss.count, loss.family, loss.first, loss.last, loss.bytes, loss.reason,
        )  # fmt: skip
        if self.on_loss is not None:
            self.on_loss(loss)

    def refuse(self, family: str, reason: str) -> None:
        """Say, once a lane, that its events are refused from here on."""
        _log.warning("%s: %s events are refused: %s", self.name, family, reason)

    def _note_limit(self, over: bool) -> None:
        if over and not self._over_limit:
            _log.warning(
                "%s: %d MiB unsent exceed the limit of %d MiB, and none of it may be dropped; check the broker",
                self.name, self.disk_bytes >> 20, self.limit >> 20,
            )  # fmt: skip
        self._over_limit = over

    def _note_memory(self, failure: "OSError | MemoryError | None") -> None:
        if failure is not None and not self._in_memory:
            _log.warning(
                "%s: cannot write to disk (%s); events are kept in memory and a kill would lose them, until it can",
                self.name, getattr(failure, "strerror", None) or failure,
            )  # fmt: skip
        elif failure is None and self._in_memory and not self.memory_bytes:
            _log.warning("%s: writes to disk again, and holds nothing in memory", self.name)
        self._in_memory = failure is not None or (self._in_memory and self.memory_bytes > 0)
