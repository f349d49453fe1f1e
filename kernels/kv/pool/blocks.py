"""Which blocks of a pool hold which tokens of which sequence: counts and tables, no bytes.

A block may belong to several sequences that began alike. It is written only where it belongs to one: whoever wants to
write into a shared one is given a copy to make first. Blocks of a sequence are kept side by side where there is room,
since a sequence in one piece can be read without gathering it.
"""

from collections.abc import Hashable, Sequence

import msgspec

from .errors import PoolError, PoolFull


class Table(msgspec.Struct):
    """The blocks of one sequence in order, and how many tokens they hold."""

    blocks: list[int]
    length: int = 0
    version: int = 0  # counts the changes of `blocks`


class Copy(msgspec.Struct, frozen=True):
    """A block whose content must be copied into another one before that is written."""

    source: int
    target: int


class Blocks:
    """Blocks 0 to `count` - 1 of `block` tokens each."""

    def __init__(self, count: int, block: int) -> None:
        if count < 1 or block < 1:
            raise ValueError(f"a pool of {count} blocks of {block} tokens holds nothing")
        self.count, self.block = count, block
        self._free = bytearray(b"\1" * count)
        self._left = count
        self._references = [0] * count
        self._tables: dict[Hashable, Table] = {}

    @property
    def free(self) -> int:
        """The number of blocks that nobody has."""
        return self._left

    @property
    def sequences(self) -> tuple[Hashable, ...]:
        """The names of all sequences."""
        return tuple(self._tables)

    def table(self, sequence: Hashable) -> Table:
        """Return the table of a sequence, which must not be changed. Raises PoolError where there is none."""
        try:
            return self._tables[sequence]
        except KeyError:
            raise PoolError(f"the pool has no sequence {sequence!r}") from None

    def references(self, block: int) -> int:
        """Return how many sequences have a block."""
        return self._references[block]

    def begin(self, sequence: Hashable, room: int = 0) -> Table:
        """Begin a sequence, with blocks for `room` tokens taken ahead. Raises PoolFull, PoolError for a name in use."""
        if sequence in self._tables:
            raise PoolError(f"the pool has a sequence {sequence!r} already: free it first, or choose another name")
        taken = self._take(self._needed(room), after=None)
        return self._tables.setdefault(sequence, Table(taken))

    def extend(self, sequence: Hashable, tokens: int) -> tuple[Copy, ...]:
        """Make a sequence longer, and all its new places writable by it alone; return what must be copied first.

        Raises PoolFull, and then nothing has changed.
        """
        if tokens < 0:
            raise ValueError(f"a sequence cannot grow by {tokens} tokens")
        table = self.table(sequence)
        length = table.length + tokens
        first = table.length // self.block  # the first block that is written into
        shared = [
            place
            for place in range(first, min(self._needed(length), len(table.blocks)))
            if tokens and self._references[table.blocks[place]] > 1
        ]
        missing = max(0, self._needed(length) - len(table.blocks))
        # In one piece with what stays, if it can be: a copy of the last block breaks it anyway.
        after = table.blocks[-1] if table.blocks and not shared else None
        taken = self._take(len(shared) + missing, after=after)
        copies = []
        for place, block in zip(shared, taken, strict=False):
            # Only the tokens before the new ones are worth copying.
            if place * self.block < table.length:
                copies.append(Copy(table.blocks[place], block))
            self._drop(table.blocks[place])
            table.blocks[place] = block
        table.blocks += taken[len(shared) :]
        table.length = length
        table.version += bool(taken)
        return tuple(copies)

    def crop(self, sequence: Hashable, length: int) -> None:
        """Forget the tokens of a sequence from `length` on, and the blocks that hold no others."""
        table = self.table(sequence)
        if not 0 <= length <= table.length:
            raise ValueError(f"{sequence!r} has {table.length} tokens: it cannot be cut to {length}")
        table.length = length
        keep = self._needed(length)
        if keep < len(table.blocks):
            for block in table.blocks[keep:]:
                self._drop(block)
            del table.blocks[keep:]
            table.version += 1

    def fork(self, sequence: Hashable, other: Hashable) -> Table:
        """Begin a sequence that has the tokens of another one, in the same blocks."""
        table = self.table(sequence)
        if other in self._tables:
            raise PoolError(f"the pool has a sequence {other!r} already: free it first, or choose another name")
        blocks = table.blocks[: self._needed(table.length)]
        for block in blocks:
            self._references[block] += 1
        return self._tables.setdefault(other, Table(list(blocks), table.length))

    def adopt(self, sequence: Hashable, blocks: Sequence[int], length: int) -> Table:
        """Begin a sequence over given blocks, which must be free. Raises PoolError where they are not."""
        if sequence in self._tables:
            raise PoolError(f"the pool has a sequence {sequence!r} already: free it first, or choose another name")
        known = all(type(block) is int and 0 <= block < self.count and self._free[block] for block in blocks)
        if not known or len(set(blocks)) < len(blocks) or not 0 <= length <= len(blocks) * self.block:
            raise PoolError(f"{len(blocks)} blocks for {length} tokens are not free in this pool of {self.count}")
        for block in blocks:
            self._free[block], self._references[block] = 0, 1
        self._left -= len(blocks)
        return self._tables.setdefault(sequence, Table(list(blocks), length))

    def drop(self, sequence: Hashable) -> None:
        """Forget a sequence; its blocks are free where no other one has them. Raises PoolError where there is none."""
        for block in self.table(sequence).blocks:
            self._drop(block)
        del self._tables[sequence]

    def rename(self, names: dict[Hashable, Hashable]) -> None:
        """Give sequences other names, all at once."""
        moved = {names.get(name, name): table for name, table in self._tables.items()}
        if len(moved) < len(self._tables):
            raise PoolError("two sequences cannot have one name")
        self._tables = moved

    def verify(self) -> None:
        """Raise AssertionError where a block is lost, or counted otherwise than it is held."""
        held = [0] * self.count
        for table in self._tables.values():
            assert len(set(table.blocks)) == len(table.blocks), "a sequence has a block twice"
            assert self._needed(table.length) <= len(table.blocks), "a token has no block"
            for block in table.blocks:
                held[block] += 1
        assert held == self._references, "a block is counted otherwise than it is held"
        assert [bool(flag) for flag in self._free] == [not count for count in held], "a block is lost, or free and held"
        assert self._left == sum(self._free), "the number of free blocks is wrong"

    def _needed(self, tokens: int) -> int:
        return -(-tokens // self.block)

    def _take(self, number: int, *, after: int | None) -> list[int]:
        if number > self._left:
            raise PoolFull(
                f"the pool has {self._left} of {self.count} blocks free, {number} are needed: free a sequence"
            )
        if not number:
            return []
        piece = b"\1" * number
        start = -1 if after is None else self._free.find(piece, after + 1, after + 1 + number)
        start = self._free.find(piece) if start < 0 else start
        if start >= 0:
            found = list(range(start, start + number))
        else:
            found = [block for block, free in enumerate(self._free) if free][:number]
        for block in found:
            self._free[block] = 0
            self._references[block] = 1
        self._left -= number
        return found

    def _drop(self, block: int) -> None:
        self._references[block] -= 1
        if not self._references[block]:
            self._free[block] = 1
            self._left += 1


def one_piece(blocks: list[int]) -> bool:
    """Return whether blocks lie side by side, in order."""
    return not blocks or blocks == list(range(blocks[0], blocks[0] + len(blocks)))
