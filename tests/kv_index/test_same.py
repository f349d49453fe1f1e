"""The index and the table say the same, over histories that nobody would write: moved, told anew, renamed, cut, forgotten."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples

from morphogen.consumers.kv_index import PrefixIndex, VllmFeed, root_of
from morphogen.consumers.kv_index.lineage import Lineage
from morphogen.schemas import Event
from morphogen.schemas.kv import (
    FILE,
    KvEvicted,
    KvExported,
    KvImported,
    KvReleased,
    block_hashes,
    pack_hashes,
)

from .conftest import Log, folded, rows
from .fleets import BLOCK, PIECE, REF, ROOTS
from .publishers import Dialect

LIMIT = 6  # blocks that a lineage holds
TIERS = ("device", "memory", "disk", "blobs")
DIALECT = Dialect()

STATES, WORKERS = st.sampled_from(["s1", "s2", "s3"]), st.sampled_from(["w1", "w2"])
TOLD = st.tuples(
    st.sampled_from(["exported", "imported"]), STATES, WORKERS, st.sampled_from([*TIERS, FILE]), st.sampled_from(ROOTS),
    st.lists(st.integers(1, 2), max_size=3).map(lambda one: [token for token in one for _ in range(BLOCK)]),
    st.sampled_from([BLOCK, BLOCK, BLOCK, 0, -4]),
)  # fmt: skip
GONE = st.tuples(st.just("released"), STATES, WORKERS, st.sampled_from([*TIERS, FILE]))
MOVED = st.tuples(st.just("evicted"), STATES, WORKERS, st.sampled_from(TIERS), st.sampled_from([*TIERS, None]))
NAMES = st.lists(st.integers(1, 9), min_size=1, max_size=4)
MEDIA = st.sampled_from(["GPU", "CPU", "cpu_pinned", "device", None])
FEEDS = st.sampled_from(["e1", "e2"])
STORED = st.tuples(
    st.just("stored"), FEEDS, NAMES, MEDIA, st.integers(0, 2), st.one_of(st.none(), st.integers(1, 9)), st.integers(0, 1),
    st.booleans(),
)  # fmt: skip
REMOVED = st.tuples(st.just("removed"), FEEDS, NAMES, MEDIA, st.integers(0, 1))
OTHER = st.tuples(st.sampled_from(["cleared", "bad", "missing", "restarted", "again"]), FEEDS, st.integers(0, 1))
OWN, FOREIGN = st.one_of(TOLD, GONE, MOVED), st.one_of(STORED, STORED, REMOVED, REMOVED, OTHER)


def own(kind: str, state: str, worker: str, tier: str, *more: Any) -> Event:
    if kind == "released":
        return KvReleased(state=state, worker=worker, tier=tier, reason="dropped")
    if kind == "evicted":
        return KvEvicted(state=state, worker=worker, from_tier=tier, to_tier=more[0], size=10, reason="budget")
    root, tokens, block = more
    common: dict[str, Any] = {
        "state": state, "worker": worker, "tokens": len(tokens), "size": 10, "tier": tier, "transport": "disk", "root": root,
        "block": block, "blocks": pack_hashes(block_hashes(tokens, root, BLOCK)),
    }  # fmt: skip
    return KvExported(ref=REF, **common) if kind == "exported" else KvImported(**common)


class Fleet:
    """Two publishers of another engine, whose listener may die and begin anew."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.feeds = {name: VllmFeed("fleet", name, "llama") for name in ("e1", "e2")}
        self.number = 0

    def do(self, kind: str, name: str, *more: Any) -> None:
        feed = self.feeds[name]
        for rank in (name, f"{name}/dp1"):
            feed._lineages.setdefault(rank, Lineage(LIMIT))
        self.number += 1
        told: list[Event] = []
        if kind == "stored":
            names, medium, text, parent, rank, by_hash = more
            tokens = [] if by_hash else [text * 10 + at for at in range(PIECE * len(names))]
            one = DIALECT.stored(names, tokens, PIECE, parent=parent, medium=medium)
            told = feed.message(self.number, DIALECT.payload(one, rank=rank))
        elif kind == "removed":
            names, medium, rank = more
            told = feed.message(self.number, DIALECT.payload(DIALECT.removed(names, medium=medium), rank=rank))
        elif kind == "cleared":
            told = feed.message(self.number, DIALECT.payload(DIALECT.cleared(), rank=more[0]))
        elif kind == "bad":
            told = feed.message(self.number, b"no message")
        elif kind == "missing":
            told = feed.missing(self.number, self.number, "lost", None)
        elif kind == "restarted":
            told = feed.restarted()
        else:
            self.feeds[name] = again = VllmFeed("fleet", name, "llama")
            for rank in (name, f"{name}/dp1"):
                again._lineages[rank] = Lineage(LIMIT)
            for event in self.events:
                again.take(event)
        self.events += told


def in_the_index(index: PrefixIndex) -> set[Any]:
    """Return what the index holds as (root, hash, engine, worker, tier)."""
    found = set()
    for key, mask in index._masks.items():
        root, _ = index._numbered[mask & (1 << 48) - 1].world
        for at, holder in enumerate(index.holders):
            if mask >> 48 >> at & 1:
                found.add((root, key.hex(), holder.engine, holder.worker, holder.tier))
    return found


FORGOTTEN = [
    ("exported", "s1", "w1", "memory", ROOTS[0], [1] * BLOCK, BLOCK),
    ("released", "s1", "w1", "memory"),
    ("evicted", "s1", "w2", "memory", "disk"),
]
SAID_OTHERWISE = [
    ("stored", "e1", [1], "CPU", 0, None, 0, False),
    ("removed", "e1", [1], "cpu_pinned", 0),
    ("stored", "e1", [2], "device", 0, None, 0, False),
    ("removed", "e1", [2], None, 0),
    ("stored", "e1", [3], "CPU", 0, None, 0, False),
    ("stored", "e1", [4], "cpu_pinned", 0, None, 0, False),
    ("removed", "e1", [3], "cpu_pinned", 0),
    ("again", "e1", 0),
    ("removed", "e1", [4], "CPU", 0),
]


@example(moves=FORGOTTEN, per_frame=1)
@example(moves=SAID_OTHERWISE, per_frame=3)
@examples(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=st.lists(st.one_of(OWN, FOREIGN), max_size=24), per_frame=st.integers(1, 3))
def test_over_any_history_the_index_and_the_table_hold_the_same(
    moves: list[Any], per_frame: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fleet, log, index = Fleet(), Log(per_frame=per_frame), PrefixIndex()
    for move in moves:
        if move[0] in ("exported", "imported", "released", "evicted"):
            fleet.events.append(own(*move))
        else:
            fleet.do(*move)
    log.write(*fleet.events)
    for event in fleet.events:
        index.take(event)
    store = folded(log, tmp_path_factory.mktemp("kv") / "store.duckdb", alone=True)
    try:
        said = rows(store, "SELECT DISTINCT root, hash, engine, worker, tier FROM kv_index WHERE hash IS NOT NULL")
    finally:
        store.close()

    assert in_the_index(index) == set(said)
    assert set(index.roots) == {known.world for known in index._numbered.values() if known.blocks}
    assert sum(known.blocks for known in index._numbered.values()) == len(index)


def told(feed: VllmFeed, number: int, *events: Any) -> list[Event]:
    return feed.message(number, DIALECT.payload(*events))


def test_a_block_with_two_names_is_held_until_the_last_of_them_goes() -> None:
    feed, index, tokens = VllmFeed("fleet", "w", "llama"), PrefixIndex(), list(range(4))
    both = [DIALECT.stored([1, 2], tokens, PIECE), DIALECT.stored([101, 102], tokens, PIECE)]
    for event in told(feed, 0, *both, DIALECT.removed([101, 102])):
        index.take(event)

    assert index.longest_prefix(tokens).blocks == 2
    for event in told(feed, 1, DIALECT.removed([1, 2])):
        index.take(event)
    assert len(index) == 0


def test_a_name_that_stands_for_another_block_has_let_go_of_the_one_before() -> None:
    feed, index = VllmFeed("fleet", "w", "llama"), PrefixIndex()
    events = told(feed, 0, DIALECT.stored([1], [1, 2], PIECE), DIALECT.stored([1], [1, 2], PIECE, medium="CPU"))
    for event in [*events, *told(feed, 1, DIALECT.stored([1], [3, 4], PIECE))]:
        index.take(event)

    assert index.longest_prefix([1, 2]).blocks == 0
    assert [held.holder.tier for held in index.longest_prefix([3, 4]).holders] == ["device"]
    assert len(feed._lineages["w"]) == len(index) == 1


def test_beyond_its_bound_a_worker_tells_of_blocks_without_a_chain_and_leaves_none_behind() -> None:
    feed, index, tokens = VllmFeed("fleet", "w", "llama"), PrefixIndex(), list(range(16))
    feed._lineages["w"] = Lineage(limit=4)
    names = list(range(1, 9))
    for event in told(feed, 0, DIALECT.stored(names, tokens, PIECE)):
        index.take(event)

    assert (len(index), index.unplaced, index.longest_prefix(tokens).blocks) == (4, 4, 4)
    for event in told(feed, 1, DIALECT.removed(names)):
        index.take(event)
    assert len(index) == 0


def test_media_beyond_the_bound_have_no_chain_so_that_none_can_make_the_index_wide() -> None:
    feed, index = VllmFeed("fleet", "w", "llama"), PrefixIndex()
    events = [DIALECT.stored([1], [1, 2], PIECE, medium=f"m{at}") for at in range(40)]
    for event in told(feed, 0, *events, *(DIALECT.removed([1], medium=f"n{at}") for at in range(40))):
        index.take(event)

    assert len(index.holders) == 16
    assert index.unplaced == 24


def test_a_state_that_was_moved_before_its_blocks_were_told_of_lies_there_once_they_are() -> None:
    index, tokens = PrefixIndex(), [1] * BLOCK
    index.take(own("evicted", "s1", "w1", "memory", "disk"))
    index.take(own("exported", "s1", "w2", "memory", ROOTS[0], tokens, BLOCK))

    assert {held.holder.worker for held in index.longest_prefix(tokens).holders} == {"w1", "w2"}


def test_worlds_of_which_nobody_holds_a_block_are_not_tried() -> None:
    feed, index = VllmFeed("fleet", "w", "llama"), PrefixIndex()
    for at in range(20):
        for event in told(feed, at, DIALECT.stored([at], [1, 2], PIECE, lora_name=f"l{at}")):
            index.take(event)
    assert len(index.roots) == 20
    for event in told(feed, 20, *(DIALECT.removed([at]) for at in range(19))):
        index.take(event)

    assert index.roots == ((root_of("llama", "l19"), PIECE),)
    assert index.longest_prefix([1, 2]).root == root_of("llama", "l19")
    for event in feed.restarted():
        index.take(event)
    assert (index.roots, index._numbered) == ((), {})
