"""The records of one segment, written one behind the other into its room.

A record's first byte is written last: a kill at any point leaves the whole of it or nothing. Threads and signal
handlers need no lock: whoever comes second finds that the place is taken and builds its record again.

`Records` is compiled (`_records.c`) where there was a C compiler when the package was built, for then an event costs
a training step with cold caches a fraction; `PlainRecords` writes the same bytes and is there always.
"""

import struct
from array import array
from bisect import bisect_right
from mmap import mmap
from typing import TYPE_CHECKING
from zlib import crc32

from morphogen.schemas.frames import HEAD

from .numbers import encoded

VERSION = 1  # of the class, as in `_records.c`; what was built from another is left alone
LARGEST = 2**32 - 1  # bytes of a record
COMMITTED = 0xCE  # the first byte of a record, written last

_COUNTER = struct.Struct(">4sQ")
_N = b"\x87\xa1n\xcf"  # a map of seven, whose first key is n
_STAMPS = struct.Struct(">q6sQ12s")
_TIME = b"\xa4time\xcf"
_NO_CAUSE = b"\xa5cause\xc0\xa4body"
_head = HEAD.pack
_HEAD_SIZE = HEAD.size


def room_for(rest: bytes) -> int:
    """Return the bytes of a record whose event has `rest` behind its counter."""
    return _HEAD_SIZE + _COUNTER.size + len(rest)


class PlainRecords:
    """Append records to `room`: `first`, `first + 1`, ..., which end at `end` of its `size` bytes.

    What appends returns the record's counter, 0 where there is no room for it. Two appends and a `seal` exclude each
    other because the interpreter switches threads, runs signal handlers and calls tracers only between lines, loops
    and calls, and each of them takes effect in one line.
    """

    __slots__ = ("_add", "_ends", "_room", "end", "first", "size")

    def __init__(self, room: mmap | bytearray | memoryview) -> None:
        self.first = 0
        self.end = 0
        self.size = len(room)
        self._room = room
        self._ends = array("Q")
        self._add = self._ends.append

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self._ends)

    def append(self, middle: bytes, step: int, time_ns: int, body: bytes) -> int:
        """Write an event of the kind whose constant bytes are `middle`; `body` is msgpack.

        Raises TypeError, OverflowError or struct.error for a step or time that is no integer of 64 bits.
        """
        return self.put(middle + _STAMPS.pack(step, _TIME, time_ns, _NO_CAUSE) + body)

    def append_numbers(self, middle: bytes, step: int, time_ns: int, before: bytes, values: object) -> int:
        """Write an event whose body is `before` and a dict of names and plain numbers.

        Returns -1 where it holds anything but text and floats and ints of 64 bits, or nothing; where there is no room,
        it may not have looked. Raises as `append` does.
        """
        numbers = encoded(values)
        return -1 if numbers is None else self.append(middle, step, time_ns, before + numbers)

    def put(self, rest: bytes) -> int:
        """Write an event that is `rest` but for its counter, which is its first key."""
        while True:
            count = len(self._ends)
            start = self.end
            n = self.first + count
            event = _COUNTER.pack(_N, n) + rest
            end = start + _HEAD_SIZE + len(event)
            if end > self.size:
                return 0
            record = _head(0, len(event), COMMITTED, crc32(event)) + event
            room, place, add = self._room, slice(start, end), self._add
            if len(self._ends) == count and end <= self.size:
                room[place] = record; room[start] = COMMITTED; self.end = end; add(end)  # noqa: E702  # fmt: skip
                return n

    def seal(self) -> None:
        """Have no room from here on."""
        self.size = self.end

    def end_of(self, index: int) -> int:
        """Return where record `first + index` ends. Raises IndexError."""
        if index < 0:
            raise IndexError(f"no record {index}")
        return self._ends[index]

    def within(self, index: int, budget: int) -> int:
        """Return the index behind the records from `index` on that fit in `budget` bytes, of which there is one at least."""
        start = self._ends[index - 1] if index else 0
        return max(bisect_right(self._ends, start + budget, index), index + 1)


if TYPE_CHECKING:
    Records = PlainRecords
else:
    Records = PlainRecords
    try:
        from . import _records

        if _records.VERSION == VERSION:
            Records = _records.Records
    except ImportError:
        pass
