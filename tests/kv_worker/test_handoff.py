"""Sessions go between workers that are processes of their own, over a real broker; whoever is killed, nothing leaks."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.bus import Bus
from morphogen.bus.requests import respond
from morphogen.consumers.kv import Sampling
from morphogen.consumers.kv.wire import INFO, OFFER, Answer, pack
from morphogen.kernels.kv.transport import SharedMemory
from morphogen.schemas.kv import (
    KvAccepted,
    KvDecided,
    KvExported,
    KvImported,
    KvOffered,
    KvRejected,
    KvReleased,
    SessionLoaded,
    SessionTurn,
    unpack_hashes,
    worker_subject,
)

from .serving import IMPATIENT, Fleet

STORY = "Once upon a time there was a fox that ran over the hills and far away, to the sea and back again. " * 3
SAMPLED = Sampling(temperature=0.9, top_k=40, seed=11)
RESTORE = ("--decide", "restore")

# Put before the command line of a worker: it ends itself in the middle of a handoff.
DIES_IMPORTING = """
import os, signal
from morphogen.consumers.kv.house import House
House.adopt = lambda *given, **more: os.kill(os.getpid(), signal.SIGKILL)
"""
DIES_OFFERING = """
import os, signal
from morphogen.consumers.kv import giving
async def deliver(*given): os.kill(os.getpid(), signal.SIGKILL)
giving._deliver = deliver
"""
DIES_GIVING_UP = """
import os, signal
from morphogen.consumers.kv.house import House
House.forget = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
"""
REAPS_OFTEN = """
from morphogen.consumers.kv import worker
worker._REAP_EVERY = 0.2
"""
SLOW_TO_ADOPT = """
import time
from morphogen.consumers.kv.house import House
adopt = House.adopt
House.adopt = lambda *given, **more: (time.sleep(0.5), adopt(*given, **more))[1]
"""
FULL_AT_FIRST = """
from morphogen.consumers.kv.{module} import {kind}
from morphogen.consumers.kv.errors import NoRoomLeft
whole, tried = {kind}.{method}, []
def once(*given, **more):
    tried.append(given)
    if len(tried) == 1:
        raise NoRoomLeft("no room just now")
    return whole(*given, **more)
{kind}.{method} = once
"""


def test_a_session_goes_to_another_process_and_on_as_if_it_had_stayed(pair: Fleet) -> None:
    expected, _ = pair.reply("a", "one-stays", STORY, max_tokens=40, sampling=SAMPLED)
    expected_next, _ = pair.reply("a", "one-stays", "And then?", max_tokens=40, sampling=SAMPLED)
    first, _ = pair.reply("a", "one-goes", STORY, max_tokens=40, sampling=SAMPLED)

    given = pair.command("a", "kv.handoff", session="one-goes", to="b")
    then, last = pair.reply("b", "one-goes", "And then?", max_tokens=40, sampling=SAMPLED)

    assert (first, then) == (expected, expected_next)
    assert last.finish == "length"
    assert given["transport"] == "shared_memory"
    assert given["restored"] > 200
    assert given["recomputed"] <= 1
    assert "one-goes" not in pair.sessions("a")
    assert "one-goes" in pair.sessions("b")
    pair.wait_for(SessionTurn, session="one-goes", worker="b", role="assistant")
    exported, offered = pair.wait_for(KvExported, session="one-goes"), pair.wait_for(KvOffered, session="one-goes")
    accepted, imported = pair.wait_for(KvAccepted, session="one-goes"), pair.wait_for(KvImported, session="one-goes")
    assert exported.state == offered.state == accepted.state == imported.state
    assert offered.handoff == accepted.handoff == imported.handoff
    assert imported.transport == "shared_memory"
    assert len(unpack_hashes(imported.blocks)) == imported.tokens // 64
    assert exported.fingerprint is not None
    assert exported.fingerprint.digest == imported.root
    pair.wait_for(KvReleased, worker="a", tier="device", reason="handed_off", session="one-goes")
    assert pair.segments() == []
    chain = causes(pair.bus, imported)
    assert [name for name in chain if name.startswith("kv.")] == ["kv.imported", "kv.offered", "kv.exported"]
    assert chain[-1] == "command.issued"


def causes(bus: Bus, event: Any) -> list[str]:
    """Return the types of the events that led to one, from it backwards."""
    seen = list(bus.events())
    by_id = {one.id: one for one in seen}
    one = next(one for one in seen if one.event == event)
    found = [one.record.type]
    while one.record.cause is not None:
        one = by_id[one.record.cause]
        found.append(one.record.type)
    return found


def test_a_reply_goes_on_at_the_other_worker_and_its_reader_follows(pair: Fleet) -> None:
    expected, _ = pair.reply("a", "two-stays", STORY, max_tokens=500, sampling=SAMPLED)
    said: list[Any] = []
    reader = threading.Thread(
        target=lambda: said.append(pair.reply("a", "two-goes", STORY, max_tokens=500, sampling=SAMPLED))
    )
    reader.start()
    while not any(one.session == "two-goes" and one.running for one in pair.info("a").sessions):
        time.sleep(0.005)

    given = pair.command("a", "kv.handoff", session="two-goes", to="b")
    reader.join(60)

    text, last = said[0]
    assert text == expected
    assert last.finish == "length"
    assert given["first_token_ns"] is not None
    assert given["first_token_ns"] < 2e9
    imported = pair.wait_for(KvImported, worker="b", session="two-goes")
    assert imported.first_token_ns == given["first_token_ns"]
    ended = pair.wait_for(SessionTurn, session="two-goes", role="assistant")
    assert ended.worker == "b"
    (loaded,) = [event for event in pair.events(SessionLoaded) if event.session == "two-goes"]
    assert (loaded.worker, loaded.restored) == ("b", given["restored"])
    again, _ = pair.reply("b", "two-goes", resume=True, since=10)
    assert again == expected[10:]


def test_a_worker_killed_while_it_imports_leaves_the_session_with_the_other_and_no_segment(shm: Fleet) -> None:
    shm.start("a", *RESTORE, program=IMPATIENT)
    dying = shm.start("b", *RESTORE, program=DIES_IMPORTING)
    before, _ = shm.reply("a", "s1", STORY, max_tokens=20)

    error = shm.command("a", "kv.handoff", session="s1", to="b")

    assert dying.wait() == -9
    assert isinstance(error, str)
    assert "session 's1' stays at a: expired: worker b gave no answer to the offer" in error
    assert "\n" not in error
    rejected = shm.wait_for(KvRejected, worker="a", source="b")
    assert rejected.reason.startswith("expired")
    assert shm.segments() == []
    assert shm.sessions("a") == ["s1"]
    then, _ = shm.reply("a", "s1", "And then?", max_tokens=20)
    assert before and then
    shm.start("b", *RESTORE)
    assert shm.command("a", "kv.handoff", session="s1", to="b")["restored"] > 200
    assert shm.segments() == []


def test_a_worker_killed_before_its_offer_leaves_no_segment_and_has_its_session_again(shm: Fleet) -> None:
    dying = shm.start("a", *RESTORE, program=DIES_OFFERING)
    shm.start("b", *RESTORE, program=REAPS_OFTEN)
    text, _ = shm.reply("a", "s1", STORY, max_tokens=20)
    shm.bus.send("kv.a", "kv.handoff", {"session": "s1", "to": "b", "ttl": 1.0}, max_deliveries=1)
    assert dying.wait() == -9

    shared = SharedMemory(shm.memory)
    end = time.monotonic() + 20  # worker b reaps, once the offer's own second is over
    while any(segment.state == "ready" for segment in shared.segments()) and time.monotonic() < end:
        time.sleep(0.05)
    holders = [lease.holder for segment in shared.segments() for lease, _ in segment.leases]
    living = {holder.pid for holder in holders if not isinstance(holder, str)}
    assert living == {shm.workers[1].pid}
    shared.close()
    assert shm.sessions("b") == []
    shm.start("a", *RESTORE)
    again, _ = shm.reply("a", "s1", "And then?", max_tokens=20)
    assert text and again
    shm.wait_for(KvOffered, worker="a")  # what it had told is not lost with it


def test_a_session_of_an_earlier_process_is_handed_over_with_what_that_one_had_saved(shm: Fleet) -> None:
    first = shm.start("a", *RESTORE)
    shm.start("b", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=20)
    shm.reply("a", "s2", STORY + "!", max_tokens=20)
    assert first.end() == 0
    shm.start("a", *RESTORE)

    given = shm.command("a", "kv.handoff", session="s1", to="b")
    twin = shm.command("a", "kv.handoff", session="s2", to="a", rename="s3", keep=True)

    assert min(given["restored"], twin["restored"]) > 200
    assert max(given["recomputed"], twin["recomputed"]) <= 1


def test_a_reply_that_is_over_is_told_again_after_a_restart_and_a_handoff(shm: Fleet) -> None:
    first = shm.start("a", *RESTORE)
    shm.start("b", *RESTORE)
    said, last = shm.reply("a", "s1", STORY, max_tokens=20)
    first.kill()
    shm.start("a", *RESTORE)

    again, end = shm.reply("a", "s1", resume=True)
    shm.command("a", "kv.handoff", session="s1", to="b")
    shm.say("b", "s1", "And then?")
    there, _ = shm.reply("b", "s1", resume=True, since=3)

    assert (again, there) == (said, said[3:])
    assert end.tokens == last.tokens
    assert shm.reply("b", "s1", max_tokens=5)[0]
    shm.say("a", "s2", STORY)
    with pytest.raises(Exception, match="session 's2' has no reply to carry on"):
        shm.reply("a", "s2", resume=True)


def test_a_worker_killed_after_the_other_one_took_over_does_not_have_the_session_twice(shm: Fleet) -> None:
    dying = shm.start("a", *RESTORE, program=DIES_GIVING_UP)
    shm.start("b", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=20)
    shm.bus.send("kv.a", "kv.handoff", {"session": "s1", "to": "b"}, max_deliveries=1)
    assert dying.wait() == -9
    shm.wait_for(KvImported, worker="b")

    shm.start("a", *RESTORE)
    with pytest.raises(Exception, match="session 's1' went to worker b: ask there"):
        shm.reply("a", "s1", "And then?", max_tokens=5)
    assert shm.reply("b", "s1", "And then?", max_tokens=5)[0]


def test_what_cannot_be_handed_over_is_refused_in_a_line_and_stays(
    pair: Fleet, other_model: Path, tmp_path: Path
) -> None:
    model, pair.model = pair.model, other_model
    pair.start("other", *RESTORE)
    pair.model = model
    pair.reply("a", "five", STORY, max_tokens=5)
    pair.reply("b", "five", STORY, max_tokens=5)

    nobody = pair.command("a", "kv.handoff", session="five", to="nobody")
    wrong = pair.command("a", "kv.handoff", session="five", to="other")
    taken = pair.command("a", "kv.handoff", session="five", to="b")
    missing = pair.command("a", "kv.handoff", session="nine", to="b")
    itself = pair.command("a", "kv.handoff", session="five", to="a")
    nonsense = pair.command("a", "kv.handoff", session=5, to="b")

    assert "there is no worker 'nobody' at this broker" in nobody
    assert "runs another model or other settings: weights is" in wrong
    assert "there is a session 'five' here already" in taken
    assert "worker a has no session 'nine'" in missing
    assert "name its copy (rename)" in itself
    assert "Expected `str`, got `int`" in nonsense
    rejected = pair.wait_for(KvRejected, source="other")
    assert "weights" in rejected.reason
    assert "five" in pair.sessions("a")
    assert pair.segments() == []
    assert pair.command("a", "kv.handoff", session="five", to="b", rename="five-a")["session"] == "five-a"
    assert {"five", "five-a"} <= set(pair.sessions("b"))


def test_without_a_shared_host_a_session_goes_as_a_blob(pair: Fleet, tmp_path: Path) -> None:
    memory, pair.memory = pair.memory, tmp_path / "elsewhere"
    pair.start("far", *RESTORE)
    pair.memory = memory
    expected, _ = pair.reply("a", "three-stays", STORY, max_tokens=30, sampling=SAMPLED)
    pair.say("a", "three-goes", STORY)

    given = pair.command("a", "kv.handoff", session="three-goes", to="far")
    text, _ = pair.reply("far", "three-goes", max_tokens=30, sampling=SAMPLED)

    assert given["transport"] == "blobs"
    assert text == expected
    offered = pair.wait_for(KvOffered, transport="blobs")
    assert not pair.bus.blobs.exists(offered.ref.place)  # taken away once it was there
    assert pair.wait_for(KvDecided, worker="far").tier == "blobs"


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_session_goes_to_a_host_whose_clock_is_wrong(pair: Fleet, tmp_path: Path, step_s: int) -> None:
    name = f"skewed{step_s}"
    memory, pair.memory = pair.memory, tmp_path / "elsewhere"
    pair.start(
        name, *RESTORE, program=f"import time; ns = time.time_ns; time.time_ns = lambda: ns() + {step_s} * 10**9"
    )
    pair.memory = memory
    reader = threading.Thread(target=lambda: pair.reply("a", name, STORY, max_tokens=500))
    reader.start()
    while not any(one.session == name and one.running for one in pair.info("a").sessions):
        time.sleep(0.005)

    given = pair.command("a", "kv.handoff", session=name, to=name)
    reader.join(60)

    assert given["transport"] == "blobs"
    assert 0 < given["first_token_ns"] < 10e9
    imported = pair.wait_for(KvImported, worker=name)
    assert (imported.session, imported.first_token_ns) == (name, given["first_token_ns"])


def test_a_session_goes_by_the_disk_of_one_data_folder_where_that_is_asked_for(pair: Fleet, tmp_path: Path) -> None:
    pair.reply("a", "by-disk", STORY * 3, max_tokens=5)
    stranger = pair.launch("stranger", *RESTORE, home=tmp_path)
    pair.wait_until_it_serves(stranger)

    error = pair.command("a", "kv.handoff", session="by-disk", to="stranger", transport="disk")
    given = pair.command("a", "kv.handoff", session="by-disk", to="b", transport="disk")

    assert "worker stranger rejected it: transport disk does not lead here" in error
    assert given["transport"] == "disk"
    assert given["restored"] > 600
    assert not list((pair.home / "kv" / "a" / "states").glob("*/bytes"))


def test_a_copy_within_a_worker_moves_no_byte_and_both_go_on(pair: Fleet) -> None:
    pair.reply("a", "four", STORY, max_tokens=20, sampling=SAMPLED)

    given = pair.command("a", "kv.handoff", session="four", to="a", rename="four-twin", keep=True)

    assert (given["transport"], given["size"], given["recomputed"]) == ("same_process", 0, 1)
    one, _ = pair.reply("a", "four", "And then?", max_tokens=20, sampling=SAMPLED)
    other, _ = pair.reply("a", "four-twin", "And then?", max_tokens=20, sampling=SAMPLED)
    assert one == other
    loaded = [event for event in pair.events(SessionLoaded) if event.session == "four-twin"]
    assert loaded == []


def test_a_worker_that_tries_states_in_a_process_of_its_own_takes_them_as_well(pair: Fleet) -> None:
    pair.start("careful", *RESTORE, "--isolate")
    expected, _ = pair.reply("a", "six-stays", STORY, max_tokens=20, sampling=SAMPLED)
    pair.say("a", "six", STORY)

    given = pair.command("a", "kv.handoff", session="six", to="careful")

    assert given["restored"] > 200
    assert pair.reply("careful", "six", max_tokens=20, sampling=SAMPLED)[0] == expected


def test_a_reply_goes_on_where_it_was_when_its_handoff_fails(pair: Fleet) -> None:
    expected, _ = pair.reply("a", "seven-stays", STORY, max_tokens=400, sampling=SAMPLED)
    said: list[Any] = []
    reader = threading.Thread(
        target=lambda: said.append(pair.reply("a", "seven", STORY, max_tokens=400, sampling=SAMPLED))
    )
    reader.start()
    while not any(one.session == "seven" and one.running for one in pair.info("a").sessions):
        time.sleep(0.005)

    error = pair.command("a", "kv.handoff", session="seven", to="nobody")
    reader.join(60)

    assert "there is no worker 'nobody'" in error
    assert said[0][0] == expected


def test_a_command_that_is_delivered_twice_is_done_once(pair: Fleet) -> None:
    pair.reply("a", "eight", STORY, max_tokens=5)
    for _ in range(2):
        pair.bus.send("kv.a", "kv.handoff", {"session": "eight", "to": "b"}, command_id="twice", max_deliveries=1)

    pair.wait_for(KvImported, session="eight", handoff="twice")
    pair.wait_for(KvReleased, session="eight", worker="a")
    assert len([event for event in pair.events(KvImported) if event.handoff == "twice"]) == 1
    assert "eight" in pair.sessions("b")


@pytest.mark.parametrize("how", ["recomputed", "no room for the first token"])
def test_a_reply_that_is_not_restored_at_once_is_not_told_twice(shm: Fleet, how: str) -> None:
    full = FULL_AT_FIRST.format(module="continuity", kind="Session", method="step")
    shm.start("a", *RESTORE)
    shm.start(
        "b",
        "--decide",
        "recompute" if how == "recomputed" else "restore",
        program="" if how == "recomputed" else full,
    )
    expected, _ = shm.reply("a", "stays", STORY, max_tokens=500, sampling=SAMPLED)
    said: list[Any] = []
    reader = threading.Thread(
        target=lambda: said.append(shm.reply("a", "goes", STORY, max_tokens=500, sampling=SAMPLED))
    )
    reader.start()
    while not any(one.session == "goes" and one.tokens > 320 for one in shm.info("a").sessions):
        time.sleep(0.005)

    shm.command("a", "kv.handoff", session="goes", to="b")
    reader.join(60)

    again, _ = shm.reply("b", "goes", resume=True)
    assert (said[0][0], again) == (expected, expected)


def test_a_handoff_that_was_refused_for_now_is_tried_again(shm: Fleet) -> None:
    shm.start("a", *RESTORE)
    shm.start("b", *RESTORE, program=FULL_AT_FIRST.format(module="house", kind="House", method="adopt"))
    shm.reply("a", "s1", STORY, max_tokens=5)

    shm.bus.send("kv.a", "kv.handoff", {"session": "s1", "to": "b"}, command_id="again", max_deliveries=4)

    assert shm.wait_for(KvImported, seconds=30, handoff="again").session == "s1"
    assert "no room just now" in shm.wait_for(KvRejected, handoff="again").reason
    assert shm.sessions("b") == ["s1"]


@pytest.mark.parametrize("read", [True, False])
def test_a_session_that_the_other_context_has_no_room_for_stays(shm: Fleet, read: bool) -> None:
    shm.start("a", *RESTORE)
    shm.start("small", "--decide", "recompute", "--ctx", "256", "--parallel", "1")
    tokens = shm.say("a", "s1", STORY * 2, compute=read)

    error = shm.command("a", "kv.handoff", session="s1", to="small")

    assert f"session 's1' has {tokens} tokens, and worker small has room for 256" in error
    assert (shm.sessions("a"), shm.sessions("small")) == (["s1"], [])


def test_a_session_that_fills_its_context_goes_to_another_one_of_that_size(shm: Fleet) -> None:
    for name in ("a", "b"):
        shm.start(name, *RESTORE, "--ctx", "256", "--parallel", "1")
    said, last = shm.reply("a", "s1", "Go on.", max_tokens=500)

    given = shm.command("a", "kv.handoff", session="s1", to="b")

    assert (last.tokens, last.finish) == (256, "length")
    assert given["restored"] >= 255
    assert shm.reply("b", "s1", resume=True)[0] == said


def test_who_asks_for_a_reply_that_is_just_arriving_reads_all_of_it(shm: Fleet) -> None:
    shm.start("a", *RESTORE)
    shm.start("b", *RESTORE, program=SLOW_TO_ADOPT)
    expected, _ = shm.reply("a", "stays", STORY, max_tokens=500, sampling=SAMPLED)
    with ThreadPoolExecutor() as readers:
        first = readers.submit(shm.reply, "a", "goes", STORY, max_tokens=500, sampling=SAMPLED)
        while not any(one.session == "goes" and one.tokens > 320 for one in shm.info("a").sessions):
            time.sleep(0.005)
        handoff = readers.submit(shm.command, "a", "kv.handoff", session="goes", to="b")
        shm.wait_for(KvAccepted, worker="b")
        second = shm.reply("b", "goes", resume=True)

        assert handoff.result()["restored"] > 200
        assert (first.result()[0], second[0]) == (expected, expected)


def test_a_session_is_given_up_by_its_own_workers_word_alone(pair: Fleet) -> None:
    conn = pair.bus.conn
    info = msgspec.structs.replace(pair.info("a"), worker="hasty")

    async def who(_: bytes) -> bytes:
        return pack(info)

    async def took(_: bytes) -> bytes:  # and never asked whether the offer stands
        return pack(Answer(what="imported"))

    responders = [
        pair.bus.run(respond(conn, worker_subject("hasty", request), handler))
        for request, handler in ((INFO, who), (OFFER, took))
    ]
    pair.reply("a", "nine", STORY, max_tokens=5)

    assert "session 'nine' stays at a" in pair.command("a", "kv.handoff", session="nine", to="hasty")
    assert pair.say("a", "nine", "And then?") > 200
    for responder in responders:
        pair.bus.run(responder.close())
