"""Read a segment that a dead process left: every intact record, and where the damage is between them.

The end of what was committed is no damage: a record whose first byte was never written never existed.
"""

import struct
import zlib
from dataclasses import dataclass

from morphogen.schemas.frames import HEAD

from .cut import Cut

_MARK = 0xCE
_N = b"\x87\xa1n\xcf"
_UINT64 = struct.Struct(">Q")
_SMALLEST = HEAD.size + 50  # bytes that any record takes; bounds how far a counter can have run over damage


@dataclass(frozen=True, slots=True)
class Damage:
    """Say that bytes `start` to `end` hold no record that can be trusted; `count` are missing (at least)."""

    start: int
    end: int
    count: int


class Walk:
    """Go through the records of `data`, whose counters rise from above `after`."""

    def __init__(self, data: bytes, after: int) -> None:
        self.data = data
        self.n = after
        self.position = 0

    def step(self, budget: int, done: int) -> Cut | Damage | None:
        """Return the next records above `done` in one run of at most `budget` bytes (or one larger), or the damage
        that comes first; None at the end.
        """  # fmt: skip
        while (found := self._record(self.position)) is not None and found[0] <= done:
            self.n, self.position = found
        start, first, count = self.position, 0, 0
        while found is not None:
            n, end = found
            if count and (n != self.n + 1 or end - start > budget):
                break
            first = first or n
            count += 1
            self.n, self.position = n, end
            found = self._record(end)
        if count:
            return Cut(first, self.n, count, self.data, start, self.position)
        return self._damage()

    def _record(self, position: int) -> tuple[int, int] | None:
        """Return the counter and the end of the intact record at `position`, None where there is none."""
        data = self.data
        start = position + HEAD.size
        if start + len(_N) + 8 > len(data) or data[position] != _MARK:
            return None
        mark, length, mark_crc, crc = HEAD.unpack_from(data, position)
        end = start + length
        if mark != _MARK or mark_crc != _MARK or end > len(data) or not data.startswith(_N, start):
            return None
        if zlib.crc32(memoryview(data)[start:end]) != crc:
            return None
        n = int(_UINT64.unpack_from(data, start + len(_N))[0])
        return (n, end) if n > self.n else None

    def _damage(self) -> Damage | None:
        """Return what lies before the next intact record, and go there; None where only unused room is left."""
        start = self.position
        following = self._next_record(start)
        if following is not None:
            self.position = following
            record = self._record(following)
            assert record is not None
            return Damage(start, following, max(record[0] - self.n - 1, 1))
        head = self.data[start : start + HEAD.size]
        self.position = len(self.data)
        if not head or head[0] == 0 or (head[0] != _MARK and not any(head[1:])):
            return None
        return Damage(start, start + len(self.data[start:].rstrip(b"\0")), 1)

    def _next_record(self, position: int) -> int | None:
        head = self.data[position : position + HEAD.size]
        if len(head) == HEAD.size:
            after = position + HEAD.size + int(HEAD.unpack(head)[1])
            next_one = self._record(after)
            if next_one is not None and next_one[0] == self.n + 2:
                return after  # the head still says where the next one begins
        fallback = None
        found = self.data.find(_N, position + 1)
        while found >= 0:
            start = found - HEAD.size
            record = self._record(start) if start > position else None
            if record is not None and record[0] <= self.n + 2 + (start - position) // _SMALLEST:
                # A record may lie inside the body of a damaged one; a true one is followed by more, or by nothing.
                n, end = record
                following = self._record(end)
                if following is not None and following[0] > n:
                    return start
                if following is None and not any(self.data[end : end + HEAD.size]):
                    return start
                fallback = start if fallback is None else fallback
            found = self.data.find(_N, found + 1)
        return fallback
