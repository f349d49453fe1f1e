"""What the publisher takes from a lane at a time: a run of whole records, still lying in its segment."""

import mmap
from dataclasses import dataclass

from morphogen.schemas.frames import HEAD


@dataclass(frozen=True, slots=True)
class Cut:
    """Hold `count` records, `first` to `last`, as bytes `start` to `end` of a segment's `room`."""

    first: int
    last: int
    count: int
    room: "mmap.mmap | bytearray | bytes"
    start: int
    end: int

    @property
    def size(self) -> int:
        """Return the bytes of the records."""
        return self.end - self.start

    def fits(self, budget: int) -> bool:
        """Tell whether it may stay as it is where a frame may have `budget` bytes: a single record cannot be less."""
        return self.size <= budget or self.count == 1

    @property
    def records(self) -> memoryview:
        """Return the records where they lie."""
        return memoryview(self.room)[self.start : self.end]

    def payload(self) -> bytes:
        """Return the event map of the only record of a cut of one."""
        return bytes(self.room[self.start + HEAD.size : self.end])
