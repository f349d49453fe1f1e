"""Our chain over an engine's blocks: the same whichever worker tells of them, and however they are told of."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv_index import VllmFeed, root_of
from morphogen.consumers.kv_index.chains import as_int32, split, walk
from morphogen.consumers.kv_index.feed import fold
from morphogen.consumers.kv_index.lineage import LARGEST, Lineage
from morphogen.schemas import Event
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, KvGap, block_hashes, unpack_hashes

from .fleets import HISTORIES, name_of
from .publishers import Dialect

TOKENS = list(range(20, 44))


def feed_with(*events: Any, name: str = "w", dialect: Dialect | None = None) -> tuple[VllmFeed, list[Event]]:
    dialect = dialect or Dialect()
    feed = VllmFeed("fleet", name, "llama")
    told: list[Event] = []
    for number, event in enumerate(events):
        told += feed.message(number, dialect.payload(event))
    return feed, told


@given(st.lists(st.integers(0, 2**31 - 1), max_size=60), st.integers(1, 9), st.integers(0, 4))
def test_a_chain_told_of_in_parts_is_the_chain_of_the_whole(tokens: list[int], size: int, cut: int) -> None:
    dialect = Dialect()
    blocks = len(tokens) // size
    cut = min(cut, blocks)
    names = [name_of(tuple(tokens[: size * (at + 1)])) for at in range(blocks)]
    parts = [
        dialect.stored(names[start:stop], tokens[size * start : size * stop], size, parent=names[start - 1] if start else None)
        for start, stop in ((0, cut), (cut, blocks)) if start < stop
    ]  # fmt: skip

    _, told = feed_with(*parts)

    keys = [key for event in told if isinstance(event, KvBlocksStored) for key in unpack_hashes(event.hashes)]
    depths = [depth for event in told if isinstance(event, KvBlocksStored) for depth in event.details["depths"]]
    assert keys == block_hashes(tokens, root_of("llama"), size)
    assert [key.hex() for key in walk(as_int32(tokens), root_of("llama"), size)] == keys
    assert depths == list(range(1, blocks + 1))


def test_two_workers_that_hash_differently_have_the_same_chain() -> None:
    dialect = Dialect()
    _, one = feed_with(dialect.stored([1, 2, 3], TOKENS, 8), name="w1")
    _, other = feed_with(dialect.stored([b"a" * 32, b"b" * 32, b"c" * 32], TOKENS, 8), name="w2")

    assert isinstance(one[0], KvBlocksStored)
    assert isinstance(other[0], KvBlocksStored)
    assert one[0].hashes == other[0].hashes != b""
    assert one[0].root == other[0].root


def test_adapters_and_salts_are_worlds_of_their_own() -> None:
    dialect = Dialect()
    _, (plain,) = feed_with(dialect.stored([1], TOKENS, 24))
    _, (tuned,) = feed_with(dialect.stored([1], TOKENS, 24, lora_name="tuned", extra_keys=[["tuned"]]))
    _, salted = feed_with(
        dialect.stored([1], TOKENS, 24, extra_keys=[["salt"]]), dialect.stored([2], TOKENS, 24, parent=1)
    )
    assert isinstance(plain, KvBlocksStored)
    assert isinstance(tuned, KvBlocksStored)

    hashes = {plain.hashes, tuned.hashes, *(event.hashes for event in salted if isinstance(event, KvBlocksStored))}

    assert len(hashes) == 4
    assert unpack_hashes(tuned.hashes) == block_hashes(TOKENS, root_of("llama", "tuned"), 24)


def test_blocks_given_to_another_medium_by_hash_alone_are_known_also_after_the_first_let_go() -> None:
    dialect = Dialect()
    _, told = feed_with(
        dialect.stored([1, 2, 3], TOKENS, 8),
        dialect.removed([3]),
        dialect.stored([2, 3], [], 8, medium="CPU"),
        dialect.removed([2]),
        dialect.removed([2], medium="CPU"),
    )

    first, gone, offloaded, second_gone, last_gone = told
    assert isinstance(first, KvBlocksStored)
    assert isinstance(offloaded, KvBlocksStored)
    assert offloaded.hashes == first.hashes[16:]
    assert offloaded.details["depths"] == [2, 3]
    for event, at in ((gone, 2), (second_gone, 1), (last_gone, 1)):
        assert isinstance(event, KvBlocksRemoved)
        assert event.hashes == first.hashes[16 * at : 16 * at + 16]


def test_blocks_whose_beginning_was_never_heard_of_have_no_chain_and_known_ones_beside_them_do() -> None:
    dialect = Dialect()
    _, told = feed_with(
        dialect.stored([9], TOKENS[:8], 8, parent=77),
        dialect.stored([1], TOKENS[:8], 8),
        dialect.stored([1, 55, 1], [], 8, medium="CPU"),
    )

    orphan, *rest = told
    assert isinstance(orphan, KvBlocksStored)
    assert (orphan.hashes, orphan.root) == (b"", None)
    assert [(len(e.block_hashes), len(split(e.hashes))) for e in rest if isinstance(e, KvBlocksStored)] == [
        (1, 1), (1, 1), (1, 0), (1, 1),
    ]  # fmt: skip


def test_a_long_chain_is_told_in_events_that_fit_the_log() -> None:
    dialect = Dialect()
    tokens = np.arange(200_000) % 50_000
    names = [bytes([at % 256, at // 256]) * 16 for at in range(12_500)]
    feed, told = feed_with(dialect.stored(names, tokens.tolist(), 16), dialect.removed(names))

    stored = [event for event in told if isinstance(event, KvBlocksStored)]
    removed = [event for event in told if isinstance(event, KvBlocksRemoved)]
    assert max(len(event.encode()) for event in told) < 1.5 * LARGEST
    assert b"".join(event.hashes for event in stored) == b"".join(event.hashes for event in removed)
    assert sum(len(event.block_hashes) for event in stored) == 12_500
    assert len(feed._lineages["w"]) == 0
    assert stored[1].parent == stored[0].block_hashes[-1]


@given(HISTORIES, st.data())
def test_a_feed_that_read_the_log_stands_where_the_one_before_it_stood(moves: list[Any], data: st.DataObject) -> None:
    from . import fleets

    events, _ = fleets.history(moves)
    past = [event for event in events if getattr(event, "worker", None) == "e1"]
    live, again = VllmFeed("fleet", "e1", "llama"), VllmFeed("fleet", "e1", "llama")
    fold(live, past)
    fold(again, [type(event)(**{n: getattr(event, n) for n in event.__struct_fields__}) for event in past])
    dialect = Dialect()
    text = fleets.TEXTS[data.draw(st.integers(0, 3))]
    start = data.draw(st.integers(0, 10))
    parent = None if start == 0 else name_of(tuple(text[: 2 * start]))
    more = dialect.payload(
        dialect.stored([name_of(tuple(text[: 2 * start + 2]))], text[2 * start : 2 * start + 2], 2, parent=parent)
    )

    assert live.last == again.last
    assert [e.encode() for e in live.message(99, more)] == [e.encode() for e in again.message(99, more)]


def test_a_restart_clears_every_rank_and_the_numbers_begin_anew() -> None:
    dialect = Dialect()
    feed = VllmFeed("fleet", "w")
    feed.message(0, dialect.payload(dialect.stored([1], TOKENS, 24)))
    feed.message(1, dialect.payload(dialect.stored([1], TOKENS, 24), rank=1))

    told = feed.restarted()

    assert [(type(one), one.worker) for one in told if isinstance(one, KvBlocksCleared)] == [
        (KvBlocksCleared, "w"),
        (KvBlocksCleared, "w/dp1"),
    ]
    assert feed.last == -1
    later = VllmFeed("fleet", "w")
    fold(later, [KvGap(engine="fleet", dialect="vllm", worker="w", first=0, last=6, reason="lost"), *told])
    assert later.last == -1


def test_a_worker_has_a_bound_beyond_which_blocks_have_no_chain() -> None:
    lineage = Lineage(limit=3)
    event = KvBlocksStored(engine="e", dialect="vllm", worker="w", block_hashes=[str(n) for n in range(5)],
                           tokens=np.arange(5, dtype=np.int32), block_size=1)  # fmt: skip

    list(lineage.stored(event))

    assert len(lineage) == 3


def test_a_message_that_cannot_be_read_is_a_gap_of_its_number() -> None:
    feed = VllmFeed("fleet", "w")

    (gap,) = feed.message(7, b"\xff\xfe")

    assert isinstance(gap, KvGap)
    assert (gap.first, gap.last, gap.received) == (7, 7, 7)
    assert "not understood" in gap.reason
    assert (feed.counts.bad, feed.last) == (1, 7)


def test_a_message_that_cannot_be_read_is_a_gap_of_every_rank() -> None:
    dialect, feed = Dialect(), VllmFeed("fleet", "w")
    for number in (0, 1):
        feed.message(number, dialect.payload(dialect.stored([1], TOKENS, 24), rank=number))

    gaps = feed.message(2, b"\xff\xfe")

    assert [(gap.worker, gap.first, gap.last) for gap in gaps if isinstance(gap, KvGap)] == [
        ("w", 2, 2),
        ("w/dp1", 2, 2),
    ]


def test_ranks_are_told_from_workers_whose_names_only_begin_alike() -> None:
    feed = VllmFeed("fleet", "w")
    for number, worker in enumerate(("w/dp1", "w/dpx", "w/dp1/dp2", "w/dp", "w2")):
        feed.take(KvBlocksRemoved(engine="fleet", dialect="vllm", worker=worker, block_hashes=[], event_id=number))

    assert (feed.last, feed._workers()) == (0, ["w/dp1"])


def test_an_event_that_gives_two_blocks_one_hash_is_not_understood() -> None:
    feed, (gap,) = feed_with(Dialect().stored([1, 1], TOKENS[:2], 1))

    assert isinstance(gap, KvGap)
    assert "two blocks one hash" in gap.reason
    assert len(feed._lineages["w"]) == 0


def test_what_a_message_says_before_its_fault_is_in_the_log_as_in_the_listener() -> None:
    dialect = Dialect()
    feed, past = feed_with(dialect.stored([1, 2], TOKENS[:2], 1))
    told = feed.message(1, dialect.payload(dialect.cleared(), dialect.stored([3, 3], TOKENS[:2], 1), dialect.cleared()))
    again = VllmFeed("fleet", "w", "llama")
    fold(again, [*past, *told])

    assert [type(event) for event in told] == [KvBlocksCleared, KvGap]
    assert (feed.last, feed.digest) == (again.last, again.digest) == (1, None)
    assert len(feed._lineages["w"]) == len(again._lineages["w"]) == 0
    assert (feed.counts.bad, feed.counts.events) == (1, 2)


@given(depths=st.one_of(st.none(), st.integers(), st.lists(st.one_of(st.integers(), st.text(max_size=2)), max_size=3)),
       hashes=st.binary(max_size=50), names=st.lists(st.text(max_size=3), max_size=3), number=st.integers(-(2**63), 2**64 - 1))  # fmt: skip
def test_whatever_the_log_holds_a_listener_begins(depths: Any, hashes: bytes, names: list[str], number: int) -> None:
    feed = VllmFeed("fleet", "w")
    feed.take(KvBlocksStored(engine="fleet", dialect="vllm", worker="w", block_hashes=names, hashes=hashes, root="r",
                             event_id=number, details={"depths": depths, "digest": depths}))  # fmt: skip
    feed.take(KvBlocksRemoved(engine="fleet", dialect="vllm", worker="w", block_hashes=names))

    assert len(feed._lineages["w"]) == 0
