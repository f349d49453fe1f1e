"""The index says who holds the longest prefix: as the slow way does, over any history."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv_index import BadQuestion, Holder, Match, PrefixIndex, root_of
from morphogen.schemas import Event
from morphogen.schemas.kv import (
    BLOCK,
    KvBlocksCleared,
    KvBlocksRemoved,
    KvBlocksStored,
    KvEvicted,
    KvExported,
    KvGap,
    KvImported,
    KvRef,
    KvReleased,
    block_hashes,
    pack_hashes,
)

from . import fleets

ROOT = "c" * 64
REF = KvRef(transport="disk", place="p", size=1)


def exported(state: str, tokens: list[int], worker: str = "w", tier: str = "memory", root: str = ROOT) -> KvExported:
    return KvExported(
        state=state, worker=worker, tokens=len(tokens), size=1, tier=tier, transport="disk", ref=REF, root=root,
        blocks=pack_hashes(block_hashes(tokens, root)),
    )  # fmt: skip


def foreign(tokens: list[int], worker: str, *, engine: str = "e", medium: str | None = "GPU") -> KvBlocksStored:
    root = root_of("llama")
    hashes = block_hashes(tokens, root, 16)
    return KvBlocksStored(
        engine=engine, dialect="vllm", worker=worker, block_hashes=[f"x{one}" for one in hashes], block_size=16, medium=medium,
        hashes=pack_hashes(hashes), root=root,
    )  # fmt: skip


@given(fleets.HISTORIES, st.lists(fleets.PROMPTS, min_size=1, max_size=4))
def test_the_index_finds_what_the_slow_way_finds(moves: list[Any], drawn: list[Any]) -> None:
    events, truth = fleets.history(moves)
    index = PrefixIndex()
    for event in events:
        index.take(event)

    for one in drawn:
        tokens = fleets.prompt(one)
        best = 0
        for root in (*fleets.ROOTS, root_of(fleets.MODEL)):
            match = index.longest_prefix(tokens, root=root)
            told = {
                (held.holder.engine, held.holder.worker, held.holder.tier): held.blocks
                for held in (*match.holders, *match.shorter)
            }
            depths = truth.depths(tokens, root)
            assert told == depths
            assert match.blocks == max(depths.values(), default=0)
            assert {held.blocks for held in match.holders} <= {match.blocks}
            for held in (*match.holders, *match.shorter):
                for state in held.states:
                    of, text = truth.states[state]
                    assert of == root
                    assert list(text[: held.tokens]) == tokens[: held.tokens]
                assert held.holder.engine is not None or held.states
            best = max(best, match.tokens)
        assert index.longest_prefix(tokens).tokens == best


@given(fleets.HISTORIES)
def test_what_is_let_go_of_leaves_nothing_behind(moves: list[Any]) -> None:
    events, truth = fleets.history(moves)
    index = PrefixIndex()
    for event in events:
        index.take(event)
    for state, places in truth.places.items():
        for worker, tier in places:
            index.take(KvReleased(state=state, worker=worker, tier=tier, reason="closed"))
    for worker in ("e1", "e2"):
        index.take(KvBlocksCleared(engine="fleet", dialect="vllm", worker=worker))

    assert len(index) == 0
    assert not index._states
    assert not index._in_states


def test_the_holders_of_all_of_it_come_first_and_those_of_less_behind_the_longest_first() -> None:
    index, text = PrefixIndex(), list(range(4 * BLOCK))
    index.take(exported("whole", text, "slow", "disk"))
    index.take(exported("copy", text, "fast", "memory"))
    index.take(exported("half", text[: 2 * BLOCK], "half", "device"))
    index.take(exported("three", text[: 3 * BLOCK], "three", "disk"))

    match = index.longest_prefix([*text, 1, 2, 3])

    assert (match.blocks, match.tokens, match.block, match.root) == (4, 4 * BLOCK, BLOCK, ROOT)
    assert [(held.holder.worker, held.states) for held in match.holders] == [("fast", ("copy",)), ("slow", ("whole",))]
    assert [(held.holder.worker, held.blocks, held.states) for held in match.shorter] == [
        ("three", 3, ("three",)),
        ("half", 2, ("half",)),
    ]


def test_a_hole_in_the_middle_ends_a_holders_prefix_there() -> None:
    index, text = PrefixIndex(), list(range(64))
    first, last = foreign(text[:32], "w1"), foreign(text, "w2")
    index.take(first)
    index.take(last)
    index.take(
        KvBlocksRemoved(
            engine="e", dialect="vllm", worker="w2", block_hashes=["x"], medium="GPU", hashes=last.hashes[16:32]
        )
    )

    match = index.longest_prefix(text)

    assert [(held.holder.worker, held.blocks) for held in (*match.holders, *match.shorter)] == [("w1", 2), ("w2", 1)]


def test_tokens_may_be_a_list_an_array_or_bytes() -> None:
    index, text = PrefixIndex(), list(range(3 * BLOCK))
    index.take(exported("s", text))
    array = np.array(text, np.int32)

    found = [
        index.longest_prefix(one)
        for one in (text, array, array.astype(np.int64), array.tobytes(), tuple(text))  # type: ignore[arg-type]
    ]

    assert {match.blocks for match in found} == {3}


def test_memory_is_read_as_its_format_says() -> None:
    index, text = PrefixIndex(), list(range(3 * BLOCK))
    index.take(exported("s", text))

    for kind in ("<i4", "<i8", "<u8", "<i2"):
        view = memoryview(np.array(text, kind))
        assert index.longest_prefix(view).blocks == 3  # type: ignore[arg-type]
    assert index.longest_prefix(memoryview(np.array(text, "<i4").tobytes())).blocks == 3  # type: ignore[arg-type]
    assert index.longest_prefix(memoryview(np.arange(3, dtype="<i4"))) == Match()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tokens",
    [
        [2**31], ["a"], [1.5], b"abc", np.zeros((2, 2), np.int32), np.zeros(3, np.float32), [None], {1, 2}, {1: 2}, "ab", 5, None,
        [5, True], (False,), memoryview(np.zeros(3)), memoryview(np.zeros((2, 2), np.int32)), np.zeros(3, bool),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_token_is_refused_in_one_line(tokens: Any) -> None:
    index = PrefixIndex()
    index.take(exported("s", list(range(BLOCK))))

    with pytest.raises(BadQuestion) as refused:
        index.longest_prefix(tokens)

    assert "\n" not in str(refused.value)


def test_nothing_held_is_no_match_and_a_prompt_below_one_block_is_none() -> None:
    index = PrefixIndex()
    assert index.longest_prefix([1, 2, 3]) == Match()
    index.take(exported("s", list(range(BLOCK))))

    assert index.longest_prefix(list(range(BLOCK - 1))) == Match()
    assert index.longest_prefix([]) == Match()


@pytest.mark.parametrize(
    "asked",
    [
        {"block": 0}, {"block": -1}, {"block": 2**31}, {"block": 2**70}, {"block": "64"}, {"block": 1.5}, {"block": True},
        {"root": 5}, {"root": "\ud800"}, {"root": b"a"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_root_or_a_block_size_that_is_none_is_refused_in_one_line(asked: dict[str, Any]) -> None:
    index = PrefixIndex()
    index.take(exported("s", list(range(BLOCK))))

    with pytest.raises(BadQuestion) as refused:
        index.longest_prefix([1], **asked)

    assert "\n" not in str(refused.value)


NUMBERS = st.one_of(st.integers(-3, 70), st.integers(-(2**63), 2**64 - 1))
TEXT = st.one_of(
    st.sampled_from(["s", "w", "memory", "device", "file", "xxh3:model:a", "", "\ud800"]), st.text(max_size=3)
)
CHAINS = st.one_of(
    st.binary(max_size=40), st.lists(st.sampled_from([b"a" * 16, b"b" * 16, b"c" * 16]), max_size=4).map(b"".join)
)
OWN = {"state": TEXT, "worker": TEXT, "tokens": NUMBERS, "size": NUMBERS, "tier": TEXT, "transport": TEXT, "root": TEXT,
       "block": NUMBERS, "blocks": CHAINS}  # fmt: skip
ENGINE = {"engine": TEXT, "dialect": TEXT, "worker": TEXT}
NAMED = {"block_hashes": st.lists(TEXT, max_size=3), "medium": st.one_of(st.none(), TEXT), "hashes": CHAINS, **ENGINE}
HOSTILE = st.one_of(
    st.builds(KvExported, ref=st.just(REF), **OWN),
    st.builds(KvImported, **OWN),
    st.builds(KvReleased, state=TEXT, worker=TEXT, tier=TEXT, reason=TEXT),
    st.builds(KvEvicted, state=TEXT, worker=TEXT, from_tier=TEXT, to_tier=st.one_of(st.none(), TEXT), size=NUMBERS, reason=TEXT),
    st.builds(KvBlocksStored, block_size=st.one_of(st.none(), NUMBERS), root=st.one_of(st.none(), TEXT), **NAMED),
    st.builds(KvBlocksRemoved, **NAMED),
    st.builds(KvBlocksCleared, **ENGINE),
    st.builds(KvGap, first=NUMBERS, last=NUMBERS, reason=TEXT, **ENGINE),
)  # fmt: skip


@given(st.lists(HOSTILE, max_size=20))
def test_whatever_the_log_holds_lookups_go_on(events: list[Event]) -> None:
    index, text = PrefixIndex(), list(range(2 * BLOCK))
    for event in events:
        index.take(event)
    index.take(exported("good", text, "good", "memory"))

    match = index.longest_prefix(text)
    assert "good" in [held.holder.worker for held in match.holders]
    assert sum(known.blocks for known in index._numbered.values()) == len(index)


def test_a_chain_that_names_a_block_twice_is_let_go_of_as_any_other() -> None:
    index = PrefixIndex()
    index.take(KvExported(state="s", worker="w", tokens=1, size=1, tier="disk", transport="disk", ref=REF, root=ROOT,
                          blocks=b"a" * 16 + b"a" * 16 + b"b" * 20))  # fmt: skip
    assert len(index) == 2
    index.take(KvReleased(state="s", worker="w", tier="disk", reason="closed"))

    assert (len(index), index._in_states) == (0, {})


@pytest.mark.parametrize("size", [-64, 0, 2**31])
def test_blocks_of_a_size_that_none_has_are_unplaced(size: int) -> None:
    index, text = PrefixIndex(), list(range(2 * BLOCK))
    chain = pack_hashes(block_hashes(text, ROOT))
    index.take(KvExported(state="bad", worker="w", tokens=1, size=1, tier="disk", transport="disk", ref=REF, root="b" * 64,
                          block=size, blocks=chain))  # fmt: skip
    index.take(KvBlocksStored(engine="e", dialect="vllm", worker="w", block_hashes=["1", "2"], block_size=size, hashes=chain,
                              root="m"))  # fmt: skip

    assert (len(index), index.roots, index.unplaced) == (0, (), 4)
    index.take(exported("s", text))
    assert index.longest_prefix(text).blocks == 2


def test_a_state_that_moves_down_the_tiers_is_where_it_is_now() -> None:
    index, text = PrefixIndex(), list(range(2 * BLOCK))
    index.take(exported("s", text, "w", "memory"))
    index.take(KvEvicted(state="s", worker="w", from_tier="memory", to_tier="disk", size=1, reason="budget"))
    index.take(KvImported(state="s", worker="v", tokens=len(text), size=1, tier="disk", transport="disk", root=ROOT,
                          blocks=pack_hashes(block_hashes(text, ROOT))))  # fmt: skip

    assert [held.holder for held in index.longest_prefix(text).holders] == [
        Holder(worker="v", tier="device"),
        Holder(worker="w", tier="disk"),
    ]
    index.take(KvEvicted(state="s", worker="w", from_tier="disk", to_tier=None, size=1, reason="budget"))
    index.take(KvReleased(state="s", worker="v", tier="device", reason="closed"))
    assert index.longest_prefix(text) == Match()
    assert len(index) == 0


def test_a_state_of_one_name_that_was_made_anew_is_the_new_one_wherever_it_lies() -> None:
    index, old, new = PrefixIndex(), [1] * BLOCK, [2] * 3 * BLOCK
    index.take(exported("s", old, "w", "memory"))
    index.take(exported("s", new, "w", "memory"))

    assert index.longest_prefix(old) == Match()
    assert index.longest_prefix(new).blocks == 3


def test_sessions_that_share_a_beginning_keep_it_when_one_of_them_ends() -> None:
    index, common = PrefixIndex(), [7] * BLOCK
    for at in range(40):
        index.take(exported(f"s{at}", [*common, *([at] * BLOCK)]))

    match = index.longest_prefix(common)
    assert len(match.holders[0].states) == 16, "some of them are named, not all"
    for at in range(39):
        index.take(KvReleased(state=f"s{at}", worker="w", tier="memory", reason="closed"))

    assert index.longest_prefix([*common, *([39] * BLOCK)]).holders[0].states == ("s39",)
    assert index.longest_prefix([*common, *([38] * BLOCK)]).tokens == BLOCK
    assert len(index) == 2


def test_an_engine_whose_events_were_lost_is_doubtful_until_it_begins_anew() -> None:
    index, text = PrefixIndex(), list(range(32))
    index.take(foreign(text, "w1"))
    index.take(KvGap(engine="e", dialect="vllm", worker="w1", first=3, last=4, reason="lost"))

    assert [held.doubtful for held in index.longest_prefix(text).holders] == [True]
    index.take(KvBlocksCleared(engine="e", dialect="vllm", worker="w1"))
    index.take(foreign(text, "w1"))
    assert [held.doubtful for held in index.longest_prefix(text).holders] == [False]


def test_blocks_without_a_chain_are_counted_and_match_nothing() -> None:
    index = PrefixIndex()
    index.take(KvBlocksStored(engine="e", dialect="vllm", worker="w", block_hashes=["1", "2"], block_size=16))

    assert (index.unplaced, len(index)) == (2, 0)


def test_a_model_may_be_named_so_that_another_ones_longer_match_is_not_taken() -> None:
    index, text = PrefixIndex(), list(range(4 * BLOCK))
    index.take(exported("long", text, root="a" * 64))
    index.take(exported("short", text[:BLOCK], root="b" * 64))

    assert index.longest_prefix(text).root == "a" * 64
    assert index.longest_prefix(text, root="b" * 64).blocks == 1
    assert index.longest_prefix(text, root="nobody's") == Match()
    assert index.longest_prefix(text, block=16) == Match()
