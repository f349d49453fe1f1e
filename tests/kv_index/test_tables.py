"""What SQL says of KV caches: the same as the index, live as rebuilt."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from morphogen.consumers.kv_index import PrefixIndex, VllmFeed, root_of
from morphogen.consumers.projections import Store
from morphogen.schemas import Event
from morphogen.schemas.kv import (
    BLOCK,
    Fingerprint,
    KvAccepted,
    KvBlocksCleared,
    KvBlocksStored,
    KvDecided,
    KvEvicted,
    KvExported,
    KvGap,
    KvImported,
    KvOffered,
    KvRef,
    KvRejected,
    KvReleased,
    SessionLoaded,
    SessionSaved,
    SessionTurn,
    block_hashes,
    pack_hashes,
)

from . import fleets
from .conftest import Log, folded, rows
from .publishers import Dialect

StoreOf = Callable[[Log], Store]
ROOT = "d" * 64
REF = KvRef(transport="shared_memory", place="seg-1", size=640, checksum="xxh3-128:ab", host="here")
PRINT = Fingerprint(
    engine="llama.cpp", build="1", state_version=2, weights="w" * 64, arch="llama", vocab="v" * 64, type_k="f16", type_v="f16",
    layers=2, heads_kv=2, head_dim=32,
)  # fmt: skip


def exported(state: str, tokens: list[int], **more: Any) -> KvExported:
    values: dict[str, Any] = {
        "worker": "a", "tokens": len(tokens), "size": 640, "tier": "memory", "transport": "shared_memory", "ref": REF,
        "root": ROOT, "session": "chat", "fingerprint": PRINT, "model": "tiny",
        "blocks": pack_hashes(block_hashes(tokens, ROOT)), **more,
    }  # fmt: skip
    return KvExported(state=state, **values)


def imported(state: str, tokens: list[int], **more: Any) -> KvImported:
    values: dict[str, Any] = {
        "worker": "b", "tokens": len(tokens), "size": 640, "tier": "memory", "transport": "shared_memory", "root": ROOT,
        "source": "a", "session": "chat", "blocks": pack_hashes(block_hashes(tokens, ROOT)), "duration_ns": 5, **more,
    }  # fmt: skip
    return KvImported(state=state, **values)


@examples(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=fleets.HISTORIES, per_frame=st.integers(1, 3))
def test_the_table_and_the_index_say_the_same(
    moves: list[Any], per_frame: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events, truth = fleets.history(moves)
    log, index = Log(per_frame=per_frame), PrefixIndex()
    log.write(*events)
    for event in events:
        index.take(event)
    store = folded(log, tmp_path_factory.mktemp("kv") / "store.duckdb", alone=True)
    try:
        said = rows(store, "SELECT DISTINCT root, hash, engine, worker, tier FROM kv_index WHERE hash IS NOT NULL")
        depths = rows(
            store, "SELECT root, block, engine, worker, tier, depth, hash FROM kv_index WHERE hash IS NOT NULL"
        )
    finally:
        store.close()

    held: dict[tuple[str, tuple[str | None, str, str]], set[str]] = {}
    for root, name, engine, worker, tier in said:
        held.setdefault((root, (engine, worker, tier)), set()).add(name)
    for root in (*fleets.ROOTS, root_of(fleets.MODEL)):
        size = fleets.BLOCK if root in fleets.ROOTS else fleets.PIECE
        for place, prefixes in truth._prefixes(root).items():
            wanted = {block_hashes(prefix, root, size)[-1] for prefix in prefixes}
            assert held.pop((root, place), set()) == wanted
    assert not held
    assert {name for _, name, *_ in said} == {key.hex() for key in index._masks}
    for root, block, _, _, _, depth, name in depths:
        assert any(block_hashes(text, root, block)[depth - 1 : depth] == [name] for text in fleets.TEXTS)


@examples(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves=fleets.HISTORIES, cut=st.integers(1, 40))
def test_tables_made_as_it_happened_are_those_made_again(
    moves: list[Any], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events, _ = fleets.history(moves)
    folder = tmp_path_factory.mktemp("kv")
    live, again = Log(chunk=1), Log(chunk=cut)
    for log in (live, again):
        log.write(*events)
    with (
        folded(live, folder / "live.duckdb", alone=True) as one,
        folded(again, folder / "again.duckdb", alone=True) as other,
    ):
        for name in {*one.tables(), *one.views()}:
            if name.startswith(("kv_", "_kv_")):
                assert one.content_hash(name) == other.content_hash(name), name


def test_a_handoff_is_one_row_from_offer_to_first_token(log: Log, store_of: StoreOf) -> None:
    text = list(range(3 * BLOCK))
    common = {"state": "s1", "handoff": "h1", "session": "chat"}
    log.write(
        exported("s1", text, duration_ns=9),
        KvOffered(worker="a", to="b", tokens=192, size=640, transport="shared_memory", ref=REF, root=ROOT, expires=7, **common),
        KvAccepted(worker="b", source="a", transport="shared_memory", **common),
        imported("s1", text, handoff="h1", first_token_ns=40),
        KvReleased(state="s1", worker="a", tier="memory", reason="handed_off", session="chat"),
        KvOffered(state="s2", handoff="h2", worker="a", to="c", tokens=5, size=6, transport="blobs", ref=REF, root=ROOT),
        KvRejected(state="s2", handoff="h2", worker="c", source="a", reason="fingerprint", field="type_k", expected="f16",
                   actual="q8_0"),
    )  # fmt: skip
    store = store_of(log)

    assert rows(
        store,
        "SELECT handoff, state, session, source, target, status, reason, transport, tokens, transfer_ns, first_token_ns "
        "FROM kv_handoffs ORDER BY 1",
    ) == [
        ("h1", "s1", "chat", "a", "b", "done", None, "shared_memory", 192, 5, 40),
        ("h2", "s2", None, "a", "c", "rejected", "fingerprint", "blobs", 5, None, None),
    ]
    assert rows(store, "SELECT expected, actual FROM kv_transfers WHERE what = 'rejected'") == [("f16", "q8_0")]
    states = rows(
        store,
        "SELECT state, worker, tier, held, session, model, tokens, size, blocks, hits, reason FROM kv_states ORDER BY 2",
    )
    assert states == [
        ("s1", "a", "memory", False, "chat", None, 192, 640, 3, 1, "handed_off"),
        ("s1", "b", "device", True, "chat", None, 192, 640, 3, 1, None),
    ]
    assert rows(store, "SELECT worker, tier, depth, tokens, state FROM kv_index ORDER BY depth") == [
        ("b", "device", at, at * BLOCK, "s1") for at in (1, 2, 3)
    ]


def test_a_handoff_whose_receiver_found_it_faster_to_compute_is_done_as_well(log: Log, store_of: StoreOf) -> None:
    common = {"state": "s1", "handoff": "h1", "transport": "blobs"}
    log.write(
        SessionLoaded(session="chat", revision=0, turns=1, tokens=3, restored=3, recomputed=0, worker="b"),
        KvOffered(worker="a", to="b", tokens=9, size=6, ref=REF, root=ROOT, session="talk", **common),
        KvAccepted(worker="b", source="a", session="chat", **common),
        SessionLoaded(session="chat", revision=1, turns=1, tokens=9, restored=0, recomputed=9, worker="b"),
        KvOffered(
            state="s2", handoff="h2", worker="a", to="b", tokens=5, size=6, transport="blobs", ref=REF, root=ROOT
        ),
        KvAccepted(state="s2", handoff="h2", worker="b", source="a", transport="blobs", session="other"),
    )

    assert rows(
        store_of(log), "SELECT handoff, session, status, restored, recomputed FROM kv_handoffs ORDER BY handoff"
    ) == [("h1", "talk", "done", 0, 9), ("h2", "other", "accepted", None, None)]


def test_a_state_that_is_moved_down_lies_where_its_last_reference_says(log: Log, store_of: StoreOf) -> None:
    where = KvRef(transport="disk", place="/kv/s1", size=640)
    log.write(
        exported("s1", list(range(BLOCK)), pinned=True),
        KvEvicted(state="s1", worker="a", from_tier="memory", to_tier="disk", size=640, reason="budget", ref=where),
    )
    store = store_of(log)

    assert rows(store, "SELECT tier, held, transport, place, what, reason, pinned FROM kv_states ORDER BY tier") == [
        ("disk", True, "disk", "/kv/s1", "evicted", "budget", True),
        ("memory", False, "shared_memory", "seg-1", "evicted", "budget", True),
    ]
    assert rows(store, "SELECT fingerprint.type_k::VARCHAR FROM kv_states WHERE held") == [("f16",)]
    assert rows(store, "SELECT engine, worker, tier, blocks, states, longest FROM kv_holders") == [
        (None, "a", "disk", 1, 1, BLOCK)
    ]


def test_decisions_carry_the_numbers_that_they_were_made_by(log: Log, store_of: StoreOf) -> None:
    log.write(
        KvDecided(worker="a", choice="recompute", tokens=10, size=100, tier="disk", restore_ns=9, recompute_ns=4, bandwidth=1e9,
                  overhead_ns=3, prefill_rate=2e3, state="s", session="chat")
    )  # fmt: skip

    assert rows(
        store_of(log), "SELECT choice, reason, tokens, restore_ns > recompute_ns, prefill_rate FROM kv_decisions"
    ) == [("recompute", "faster", 10, True, 2000.0)]


def test_sessions_say_what_they_restored(log: Log, store_of: StoreOf) -> None:
    log.write(
        SessionTurn(session="chat", turn=1, role="user", tokens=5, text="hello"),
        SessionTurn(session="chat", turn=2, role="assistant", tokens=9, worker="a", finish="stop"),
        SessionSaved(session="chat", revision=3, turns=2, tokens=14, journal=REF, state="s1", worker="a", pending=True),
        SessionLoaded(
            session="chat", revision=3, turns=2, tokens=14, restored=12, recomputed=2, worker="b", pending=True
        ),
    )

    assert rows(
        store_of(log),
        "SELECT session, turns_told, turns, tokens, worker, state, revision, pending, loads, restored, recomputed FROM kv_sessions",
    ) == [("chat", 2, 2, 14, "b", "s1", 3, True, 1, 12, 2)]


_TELLS: dict[str, Callable[[int, int, int], Event]] = {
    "turn": lambda turns, total, revision: SessionTurn(
        session="chat", turn=turns, role="user", tokens=5, total=total, revision=revision
    ),
    "older turn": lambda turns, total, revision: SessionTurn(session="chat", turn=turns, role="user", tokens=5),
    "saved": lambda turns, total, revision: SessionSaved(
        session="chat", revision=revision, turns=turns, tokens=total, journal=REF
    ),
    "loaded": lambda turns, total, revision: SessionLoaded(
        session="chat", revision=revision, turns=turns, tokens=total, restored=0, recomputed=total
    ),
}


@examples(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    told=st.lists(st.tuples(st.sampled_from(sorted(_TELLS)), *[st.integers(0, 2**31)] * 3), min_size=1),
    per_frame=st.integers(1, 3),
)
def test_a_session_is_as_the_newest_of_its_events_says(
    told: list[tuple[str, int, int, int]], per_frame: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = Log(per_frame=per_frame)
    log.write(*(_TELLS[what](*numbers) for what, *numbers in told))
    store = folded(log, tmp_path_factory.mktemp("kv") / "store.duckdb", alone=True)
    try:
        said = rows(store, "SELECT turns, tokens, revision FROM kv_sessions")
    finally:
        store.close()

    whole = [(None, None), *((total, revision) for what, _, total, revision in told if what != "older turn")]
    assert said == [(told[-1][1], *whole[-1])]


def test_what_a_killed_process_had_told_arrives_late_and_is_no_news(log: Log, store_of: StoreOf) -> None:
    log.write(SessionTurn(session="chat", turn=1, role="user", tokens=5, total=5, revision=2), run="killed")
    log.write(
        SessionLoaded(
            session="chat", revision=9, turns=1, tokens=12, restored=11, recomputed=1, worker="b", pending=True
        )
    )
    log.messages = [replace(one, seq=at) for at, one in enumerate(reversed(log.messages), 1)]

    assert rows(store_of(log), "SELECT turns, tokens, revision, worker, pending FROM kv_sessions") == [
        (1, 12, 9, "b", True)
    ]


def test_other_engines_are_seen_beside_our_own_under_the_same_hashes(log: Log, store_of: StoreOf) -> None:
    dialect, tokens = Dialect(), list(range(64))
    events: list[Event] = []
    for name in ("w1", "w2"):
        feed = VllmFeed("fleet", name, "llama")
        events += feed.message(0, dialect.payload(dialect.stored([hash(name), 7, 8, 9], tokens, 16)))
    events += VllmFeed("fleet", "w2", "llama").restarted()
    log.write(*events, KvGap(engine="fleet", dialect="vllm", worker="w1", first=1, last=2, reason="lost", received=3))
    log.write(
        KvBlocksStored(engine="fleet", dialect="vllm", worker="w1", block_hashes=["55"], block_size=16, event_id=2**63)
    )
    store = store_of(log)

    (first, *_) = block_hashes(tokens, root_of("llama"), 16)
    assert rows(store, "SELECT worker, tier, depth, tokens, model, name FROM kv_index WHERE hash = $1", [first]) == [
        ("w1", "device", 1, 16, "llama", str(hash("w1") % 2**64))
    ]
    assert rows(store, "SELECT count(*), count(hash), max(event_id) FROM kv_blocks WHERE worker = 'w1'") == [
        (5, 4, 2**63 - 1)
    ]
    assert rows(store, "SELECT worker, first, last, reason, received FROM kv_gaps") == [("w1", 1, 2, "lost", 3)]
    assert rows(store, "SELECT count(*) FROM kv_index WHERE worker = 'w2'") == [(0,)]


def test_blocks_stored_again_after_a_clear_are_there_again(log: Log, store_of: StoreOf) -> None:
    dialect, feed = Dialect(), VllmFeed("fleet", "w", "llama")
    stored = dialect.payload(dialect.stored([1], list(range(16)), 16))
    log.per_frame = 5
    log.write(
        *feed.message(0, stored),
        KvBlocksCleared(engine="fleet", dialect="vllm", worker="w", event_id=1),
        *feed.message(2, stored),
    )

    assert rows(store_of(log), "SELECT worker, depth FROM kv_index") == [("w", 1)]


def test_the_views_answer_over_an_empty_log(store_of: StoreOf, tmp_path: Path) -> None:
    store = store_of(Log())

    for view in (
        "kv_states",
        "kv_index",
        "kv_handoffs",
        "kv_sessions",
        "kv_holders",
        "kv_decisions",
        "kv_transfers",
        "kv_gaps",
    ):
        assert rows(store, f"SELECT * FROM {view}") == []
