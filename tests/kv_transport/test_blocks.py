"""Tables of a paged pool: no block is lost, none has two owners that write, and a refusal changes nothing."""

import copy

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from morphogen.kernels.kv.pool import Blocks, PoolError, PoolFull
from morphogen.kernels.kv.pool.blocks import one_piece


def test_a_sequence_grows_in_one_piece_where_there_is_room() -> None:
    blocks = Blocks(8, 4)
    blocks.begin("a")
    for _ in range(5):
        blocks.extend("a", 3)
    assert blocks.table("a").blocks == [0, 1, 2, 3] and blocks.table("a").length == 15


def test_room_taken_ahead_keeps_two_growing_sequences_in_one_piece() -> None:
    blocks = Blocks(8, 4)
    for name in "ab":
        blocks.begin(name, room=16)
    for _ in range(16):
        for name in "ab":
            assert blocks.extend(name, 1) == ()
    assert all(one_piece(blocks.table(name).blocks) for name in "ab")
    assert blocks.free == 0


def test_only_the_block_that_is_written_is_copied_after_a_fork() -> None:
    blocks = Blocks(8, 4)
    blocks.begin("a")
    blocks.extend("a", 10)
    blocks.fork("a", "b")
    assert blocks.free == 5
    (copied,) = blocks.extend("b", 1)
    assert copied.source == 2 and blocks.table("b").blocks[:2] == blocks.table("a").blocks[:2]
    assert blocks.extend("a", 1) == ()  # it is alone with its last block now


def test_a_full_block_is_shared_for_good() -> None:
    blocks = Blocks(8, 4)
    blocks.begin("a")
    blocks.extend("a", 8)
    blocks.fork("a", "b")
    assert blocks.extend("b", 4) == () and blocks.free == 5


def test_a_pool_that_is_full_says_so_and_stays_as_it_was() -> None:
    blocks = Blocks(3, 4)
    blocks.begin("a")
    blocks.extend("a", 10)
    blocks.fork("a", "b")
    before = copy.deepcopy(blocks.table("b"))
    with pytest.raises(PoolFull, match="0 of 3 blocks free, 1 are needed"):
        blocks.extend("b", 1)
    assert blocks.table("b") == before
    with pytest.raises(PoolFull):
        blocks.begin("c", room=1)
    assert "c" not in blocks.sequences
    blocks.verify()


@pytest.mark.parametrize("wrong", [[0, 0], [8], [-1], [1], [True], ["0"], [0.0]])
def test_blocks_that_are_not_free_are_not_adopted(wrong: list[int]) -> None:
    blocks = Blocks(8, 4)
    blocks.begin("a")
    blocks.extend("a", 8)  # has 0 and 1
    blocks.drop("a")
    blocks.adopt("b", [1, 7], 8)
    with pytest.raises(PoolError):
        blocks.adopt("c", wrong, 1)
    with pytest.raises(PoolError):
        blocks.adopt("c", [0], 5)
    blocks.verify()


def test_names_are_refused_when_they_are_taken_or_unknown() -> None:
    blocks = Blocks(8, 4)
    blocks.begin("a")
    for act in (lambda: blocks.begin("a"), lambda: blocks.fork("a", "a"), lambda: blocks.adopt("a", [], 0)):
        with pytest.raises(PoolError, match="already"):
            act()
    for act2 in (lambda: blocks.extend("b", 1), lambda: blocks.drop("b"), lambda: blocks.fork("b", "c")):
        with pytest.raises(PoolError, match="no sequence"):
            act2()
    with pytest.raises(ValueError, match="cannot be cut"):
        blocks.crop("a", 1)
    with pytest.raises(ValueError, match="holds nothing"):
        Blocks(0, 4)


class Pool(RuleBasedStateMachine):
    """A pool beside a plain account of its content: a number for each token of each sequence, written where the pool says."""

    names = Bundle("names")

    @initialize(count=st.integers(1, 24), block=st.integers(1, 5))
    def begin_pool(self, count: int, block: int) -> None:
        self.blocks = Blocks(count, block)
        self.cells: dict[tuple[int, int], int] = {}  # (block, place) -> what was written
        self.content: dict[str, list[int]] = {}
        self.next = 0

    def _name(self) -> str:
        self.next += 1
        return f"s{self.next}"

    @rule(target=names, room=st.integers(0, 20))
    def begin(self, room: int) -> str:
        name = self._name()
        try:
            self.blocks.begin(name, room)
        except PoolFull:
            assert -(-room // self.blocks.block) > self.blocks.free
            return name
        self.content[name] = []
        return name

    @rule(name=names, tokens=st.integers(0, 12))
    def extend(self, name: str, tokens: int) -> None:
        if name not in self.content:
            return
        before = copy.deepcopy(self.blocks.table(name))
        free = self.blocks.free
        try:
            copies = self.blocks.extend(name, tokens)
        except PoolFull:
            assert self.blocks.table(name) == before and self.blocks.free == free
            return
        for one in copies:
            for place in range(self.blocks.block):
                if (one.source, place) in self.cells:
                    self.cells[one.target, place] = self.cells[one.source, place]
        table = self.blocks.table(name)
        for position in range(before.length, table.length):
            block, place = table.blocks[position // self.blocks.block], position % self.blocks.block
            assert self.blocks.references(block) == 1, "a shared block was written"
            self.next += 1
            self.cells[block, place] = self.next
            self.content[name].append(self.next)

    @rule(name=names, share=st.floats(0, 1))
    def crop(self, name: str, share: float) -> None:
        if name in self.content:
            length = int(len(self.content[name]) * share)
            self.blocks.crop(name, length)
            del self.content[name][length:]

    @rule(target=names, name=names)
    def fork(self, name: str) -> str:
        other = self._name()
        if name in self.content:
            free = self.blocks.free
            self.blocks.fork(name, other)
            assert self.blocks.free == free
            self.content[other] = list(self.content[name])
        return other

    @rule(name=consumes(names))
    def drop(self, name: str) -> None:
        if name in self.content:
            self.blocks.drop(name)
            del self.content[name]

    @invariant()
    def nothing_is_lost_or_doubly_owned(self) -> None:
        if hasattr(self, "blocks"):
            self.blocks.verify()

    @invariant()
    def every_sequence_reads_what_it_wrote(self) -> None:
        if hasattr(self, "blocks"):
            for name, expected in self.content.items():
                table = self.blocks.table(name)
                assert table.length == len(expected)
                size = self.blocks.block
                assert [self.cells[table.blocks[at // size], at % size] for at in range(table.length)] == expected

    def teardown(self) -> None:
        if hasattr(self, "blocks"):
            for name in list(self.content):
                self.blocks.drop(name)
            assert self.blocks.free == self.blocks.count


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
