"""One worker: what it stores and puts aside, what it decides, and what a kill leaves of it."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.errors import ServiceError
from morphogen.consumers.kv import Sampling, session
from morphogen.kernels.kv import open_kv
from morphogen.schemas import MorphogenError
from morphogen.schemas.kv import (
    KvDecided,
    KvEvicted,
    KvExported,
    KvImported,
    KvReleased,
    SessionLoaded,
    SessionTurn,
)

from .serving import STARTS, Fleet

STORY = "Once upon a time there was a fox that ran over the hills and far away, to the sea and back again. " * 3
SAMPLED = Sampling(temperature=0.9, top_k=40, seed=11)

# Put before the command line of a worker: its model is a large one.
LOADS_SLOWLY = """
import time
from morphogen.bus import claims
from morphogen.consumers.kv.worker import KvWorker
claims._PATIENCE = 0.5
load = KvWorker._load
KvWorker._load = lambda worker: (time.sleep(1.5), load(worker))[1]
"""


def test_a_worker_says_what_a_session_on_a_llama_of_ones_own_says(pair: Fleet, llama: Any) -> None:
    own = session("own", llama(n_batch=128), every=None)
    own.say(STORY)
    expected = own.reply(30, temperature=0.9, top_k=40, seed=11)

    text, last = pair.reply("a", "same", STORY, max_tokens=30, sampling=SAMPLED)

    assert text == expected
    assert (last.finish, last.tokens) == ("length", len(own.tokens))


def test_states_are_written_to_every_tier_and_dropped_and_told(pair: Fleet, tmp_path: Path) -> None:
    pair.reply("a", "tiers", STORY, max_tokens=5)
    path = tmp_path / "state.kv"

    for tier in ("memory", "disk", "blobs"):
        pair.reply("a", "tiers", "More.", max_tokens=3)
        if tier == "blobs":
            error = pair.command("a", "kv.export", session="tiers", tier=tier)
            assert "does not fit into tier blobs of 0 bytes: raise its budget" in error
            continue
        stored = pair.command("a", "kv.export", session="tiers", tier=tier)
        exported = pair.wait_for(KvExported, state=stored["state"], tier=tier)
        assert exported.tokens == stored["tokens"]
        assert pair.info("a").used[tier] >= stored["size"]
        assert pair.command("a", "kv.drop", state=stored["state"]) == {"state": stored["state"]}
        pair.wait_for(KvReleased, state=stored["state"], tier=tier, reason="dropped")
    written = pair.command("a", "kv.export", session="tiers", path=str(path))
    state = open_kv(path)
    assert state.count == written["tokens"]
    state.verify()
    assert "stores no state 'x'" in pair.command("a", "kv.drop", state="x")
    assert "name a session, or a state" in pair.command("a", "kv.drop")
    assert "has no tier 'attic'" in pair.command("a", "kv.export", session="tiers", tier="attic")
    assert pair.command("a", "kv.drop", session="tiers") == {"session": "tiers"}
    assert "tiers" not in pair.sessions("a")
    assert "has no session 'tiers'" in pair.command("a", "kv.export", session="tiers")


def test_who_has_no_sequence_is_put_aside_and_goes_on_where_it_was(shm: Fleet) -> None:
    shm.start("a", "--decide", "restore", "--memory", "400KB", "--disk", "100MB")
    alone = [shm.reply("a", "one", text, max_tokens=20, sampling=SAMPLED)[0] for text in (STORY, "And then?")]
    names = ["s1", "s2", "s3", "s4", "s5"]  # of two sequences
    texts = [STORY, *(f"{name}: {STORY}" for name in names[1:])]

    first = [
        shm.reply("a", name, text, max_tokens=20, sampling=SAMPLED)[0] for name, text in zip(names, texts, strict=True)
    ]
    tiers = {one.session: one.tier for one in shm.info("a").sessions}
    then = [shm.reply("a", name, "And then?", max_tokens=20, sampling=SAMPLED)[0] for name in names]

    assert (first[0], then[0]) == tuple(alone)
    assert list(tiers.values()).count("device") == 2
    assert {"memory", "disk"} <= set(tiers.values())  # memory has room for two of them
    shm.wait_for(KvEvicted, from_tier="device", to_tier="memory", session="one")
    shm.wait_for(KvEvicted, from_tier="memory", to_tier="disk", reason="budget")
    assert shm.wait_for(KvDecided, session="s1").choice == "restore"
    assert shm.wait_for(KvImported, session="s1", tier="disk").transport == "disk"
    loaded = shm.wait_for(SessionLoaded, session="s1")
    assert loaded.recomputed <= 1
    shm.workers[0].end()
    assert shm.segments() == []

    options = ("--decide", "restore", "--memory", "400KB", "--disk", "100MB")
    shm.start("a", *options)
    again = [shm.reply("a", name, "Why?", max_tokens=20, sampling=SAMPLED)[0] for name in names]
    recomputed = [event.recomputed for event in shm.events(SessionLoaded)][-3:]
    assert len(set(again)) >= 4
    assert max(recomputed) <= 1  # those that were put aside lay on the disk


def test_a_worker_told_to_compute_computes_to_the_same_text_and_says_why(shm: Fleet) -> None:
    shm.start("a", "--decide", "recompute", "--parallel", "1")
    whole = [shm.reply("a", "whole", text, max_tokens=20, sampling=SAMPLED)[0] for text in (STORY, "And then?")]
    shm.reply("a", "s1", STORY, max_tokens=20, sampling=SAMPLED)
    shm.reply("a", "s2", "Other", max_tokens=2)

    then, _ = shm.reply("a", "s1", "And then?", max_tokens=20, sampling=SAMPLED)

    assert then == whole[1]
    decided = shm.wait_for(KvDecided, session="s1")
    assert (decided.choice, decided.reason) == ("recompute", "forced")
    assert decided.prefill_rate > 0
    assert decided.bandwidth > 0
    assert decided.restore_ns > 0
    loaded = shm.wait_for(SessionLoaded, session="s1")
    assert loaded.restored == 0


def test_a_worker_killed_in_the_middle_of_a_reply_carries_it_on_when_it_is_started_again(shm: Fleet) -> None:
    first = shm.start("a", "--every", "32")
    expected, _ = shm.reply("a", "whole", STORY, max_tokens=600, sampling=SAMPLED)

    def read() -> None:
        with contextlib.suppress(MorphogenError):  # it hears of nothing more, and gives up
            shm.reply("a", "s1", STORY, max_tokens=600, sampling=SAMPLED)

    threading.Thread(target=read, daemon=True).start()
    while not any(one.session == "s1" and one.tokens > 330 for one in shm.info("a").sessions):
        time.sleep(0.005)
    first.kill()

    shm.start("a", "--every", "32")
    text, last = shm.reply("a", "s1", resume=True)

    assert text == expected
    assert last.finish == "length"
    shm.wait_for(SessionTurn, session="s1", role="assistant")
    (loaded,) = [event for event in shm.events(SessionLoaded) if event.session == "s1"]
    assert (loaded.worker, loaded.pending) == ("a", True)
    assert loaded.restored > 290


def test_a_stream_says_what_is_wrong_in_a_line(pair: Fleet) -> None:
    for asked, told in (
        ({"text": None}, "worker a has no session 'none'"),
        ({"text": None, "resume": True}, "worker a has no session 'none'"),
        ({"text": "x" * 40_000}, "the context has room for"),
        ({"text": "Hello", "max_tokens": 0}, "ask for at least 1"),
    ):
        with pytest.raises(ServiceError) as caught:
            pair.reply("a", "none", asked.pop("text"), **asked)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_name_is_one_workers_and_a_file_that_is_no_model_is_told(shm: Fleet, tmp_path: Path) -> None:
    shm.start("a")
    with pytest.raises(AssertionError, match="a worker 'a' runs already: give this one another --name"):
        shm.start("a")
    (tmp_path / "no.gguf").write_bytes(b"not a model")
    shm.model = tmp_path / "no.gguf"
    with pytest.raises(AssertionError, match="cannot load"):
        shm.start("b")
    assert shm.workers[0].end() == 0


def test_of_two_that_start_at_once_under_one_name_on_two_machines_one_serves(shm: Fleet, tmp_path: Path) -> None:
    both = [shm.launch("a", home=tmp_path / home, program=LOADS_SLOWLY) for home in ("one", "two")]
    end = time.monotonic() + STARTS
    while not all("serves" in one.log.read_text() or one.status is not None for one in both):
        assert time.monotonic() < end
        time.sleep(0.02)

    (served,) = (one for one in both if one.status is None)
    (refused,) = (one for one in both if one is not served)

    assert refused.status == 1
    assert "a worker 'a' answers at this broker already: give this one another --name" in refused.log.read_text()
    assert shm.info("a").pid == served.pid


def test_turns_are_in_the_log_with_what_they_reused(pair: Fleet) -> None:
    pair.reply("a", "told", STORY, max_tokens=5)
    pair.reply("a", "told", "And?", max_tokens=5)

    pair.wait_for(SessionTurn, session="told", turn=4)
    turns = [turn for turn in pair.events(SessionTurn) if turn.session == "told"]
    assert [(turn.role, turn.turn) for turn in turns] == [("user", 1), ("assistant", 2), ("user", 3), ("assistant", 4)]
    assert turns[0].text == STORY
    assert turns[3].reused is not None
    assert turns[3].reused > 200
    assert turns[1].duration_ns is not None


def test_sessions_that_stand_at_the_same_words_share_one_stored_state(shm: Fleet) -> None:
    shm.start("a", "--decide", "restore")
    names = ["s1", "s2", "s3", "s4"]
    first = {shm.reply("a", name, STORY, max_tokens=20, sampling=SAMPLED)[0] for name in names}

    tiers = {one.session: one.tier for one in shm.info("a").sessions}
    then = {shm.reply("a", name, "And then?", max_tokens=20, sampling=SAMPLED)[0] for name in names}

    assert len(first) == len(then) == 1
    assert sorted(tiers.values(), key=str) == ["device", "device", "memory", "memory"]
    stored = [event for event in shm.events(KvExported) if event.session in {"s1", "s2"}]
    assert len({event.state for event in stored if event.tokens == stored[0].tokens}) == 1


def test_what_is_pinned_on_the_disk_is_there_after_a_kill_and_what_was_in_memory_is_not(shm: Fleet) -> None:
    first = shm.start("a", "--blobs", "10MB")
    shm.reply("a", "s1", STORY, max_tokens=5)
    pinned = shm.command("a", "kv.export", session="s1", tier="disk", pin=True)
    shm.reply("a", "s1", "More.", max_tokens=5)
    shm.command("a", "kv.export", session="s1", tier="memory")
    shm.reply("a", "s1", "More.", max_tokens=5)
    blob = shm.command("a", "kv.export", session="s1", tier="blobs")
    first.kill()
    assert shm.segments() == []

    shm.start("a", "--blobs", "10MB")
    used = shm.info("a").used

    assert (used["memory"], used["disk"], used["blobs"]) == (0, pinned["size"], blob["size"])
    assert shm.bus.blobs.exists(blob["place"])
    assert shm.command("a", "kv.drop", state=pinned["state"]) == {"state": pinned["state"]}
    assert shm.command("a", "kv.drop", state=blob["state"]) == {"state": blob["state"]}
    assert not shm.bus.blobs.exists(blob["place"])
    assert not Path(pinned["place"]).exists()
    assert shm.info("a").used == {"memory": 0, "disk": 0, "blobs": 0}


def test_a_cache_that_is_full_of_other_sessions_has_room_for_the_one_that_speaks(shm: Fleet) -> None:
    shm.start("a", "--decide", "restore", "--parallel", "6", "--ctx", "1024")  # three of these sessions fill it
    names = ["s1", "s2", "s3", "s4", "s5"]
    texts = [f"{name}: {STORY}" for name in names]
    first = [shm.reply("a", name, text, max_tokens=20)[0] for name, text in zip(names, texts, strict=True)]
    then = [shm.reply("a", name, "And then?", max_tokens=20)[0] for name in names]

    assert all(first)
    assert all(then)
    assert {one.tier for one in shm.info("a").sessions} == {"device", "memory"}
    with pytest.raises(ServiceError, match="the context has room for 1024"):
        shm.reply("a", "s6", STORY * 9)
    with pytest.raises(ServiceError, match="the context has room for 1024"):
        shm.say("a", "s7", STORY * 9)
    with pytest.raises(ServiceError, match="the context has room for 1024"):
        shm.say("a", "s1", STORY * 9)
    assert [one.session for one in shm.info("a").sessions] == names  # what began with what was refused is not left


def test_replies_that_outgrow_the_cache_together_wait_for_each_other(shm: Fleet) -> None:
    names = ["s1", "s2", "s3", "s4"]
    shm.start("a", "--decide", "restore", "--parallel", "4", "--ctx", "512")  # one of these replies takes most of it
    expected = [
        shm.reply("a", f"{name} alone", f"{name}: go on", max_tokens=300, sampling=SAMPLED)[0] for name in names
    ]
    for name in names:
        shm.command("a", "kv.drop", session=f"{name} alone")

    with ThreadPoolExecutor() as readers:
        said = readers.map(lambda name: shm.reply("a", name, f"{name}: go on", max_tokens=300, sampling=SAMPLED), names)
        found = list(said)

    assert [text for text, _ in found] == expected
    assert {last.finish for _, last in found} == {"length"}
    shm.wait_for(KvEvicted, from_tier="device", reason="demand")


def test_a_session_that_finds_every_sequence_at_work_is_not_begun(shm: Fleet) -> None:
    shm.start("a", "--parallel", "1")

    def read() -> None:
        with contextlib.suppress(MorphogenError):
            shm.reply("a", "s1", STORY, max_tokens=3000, sampling=SAMPLED)

    threading.Thread(target=read, daemon=True).start()
    while not any(one.running for one in shm.info("a").sessions):
        time.sleep(0.005)

    with pytest.raises(ServiceError, match="all 1 sequences of worker a are at work"):
        shm.say("a", "s2", "Hello")

    assert shm.sessions("a") == ["s1"]


def test_a_session_whose_state_is_gone_is_read_again_to_be_exported(shm: Fleet, tmp_path: Path) -> None:
    shm.start("a", "--parallel", "1", "--memory", "0", "--disk", "0")  # who is put aside keeps the journal alone
    tokens = shm.say("a", "s1", STORY)
    shm.say("a", "s2", STORY)
    assert [one.tier for one in shm.info("a").sessions] == [None, "device"]

    made = shm.command("a", "kv.export", session="s1", path=str(tmp_path / "s1.kv"))

    assert made["tokens"] == tokens
    assert open_kv(tmp_path / "s1.kv").count == tokens
