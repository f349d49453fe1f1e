"""A session belongs to one worker, whatever was tried with it before and whoever is killed meanwhile; none is lost by a name."""

import asyncio
import contextlib
import os
import signal
from typing import Any

import pytest

from morphogen.bus.requests import call_stream, respond
from morphogen.consumers.kv import session
from morphogen.consumers.kv.wire import OFFER, STANDS, Offer, Stood, pack
from morphogen.schemas.kv import KvRejected, SessionTurn, worker_subject

from .serving import IMPATIENT, Fleet
from .test_handoff import DIES_GIVING_UP, RESTORE, STORY

# Put before the command line of a worker: it ends itself with the session half here.
DIES_LOADING = """
import os, signal
from morphogen.consumers.kv.speaker import ContextSpeaker
ContextSpeaker.load = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
"""
FREEZES_SETTLING = """
import os, signal
from morphogen.consumers.kv import client
ask = client.stands
async def stands(*given):
    answer = await ask(*given)
    os.kill(os.getpid(), signal.SIGSTOP)
    return answer
client.stands = stands
"""
DIES_FORGETTING = """
import os, shutil, signal
from morphogen.consumers.kv import house
def rmtree(path, **more):
    (path / house.NAME).unlink()
    os.kill(os.getpid(), signal.SIGKILL)
house.shutil = type("", (), {"rmtree": staticmethod(rmtree)})
"""


def test_a_session_that_was_refused_for_its_name_is_not_given_up_for_the_one_that_has_it(shm: Fleet) -> None:
    first = shm.start("a", *RESTORE)
    shm.start("b", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.reply("b", "s1", "Another tale.", max_tokens=5)
    assert "there is a session 's1' here already" in shm.command("a", "kv.handoff", session="s1", to="b")
    first.kill()

    shm.start("a", *RESTORE)

    assert shm.say("a", "s1", "And then?") > 200  # all of it is there still


def test_a_session_is_given_up_though_the_one_that_took_it_was_started_again_meanwhile(shm: Fleet) -> None:
    dying = shm.start("a", *RESTORE, program=DIES_GIVING_UP)
    taker = shm.start("b", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.bus.send("kv.a", "kv.handoff", {"session": "s1", "to": "b", "rename": "s2"}, max_deliveries=1)
    assert dying.wait() == -9
    taker.kill()

    shm.start("b", *RESTORE)
    shm.start("a", *RESTORE)

    with pytest.raises(Exception, match="session 's1' went to worker b as 's2': ask there"):
        shm.say("a", "s1", "And then?")
    assert shm.say("b", "s2", "And then?") > 200


@pytest.mark.parametrize("what", ["given on", "dropped"])
def test_a_session_is_given_up_though_it_is_not_with_the_one_that_took_it_any_more(shm: Fleet, what: str) -> None:
    dying = shm.start("a", *RESTORE, program=DIES_GIVING_UP)
    taker = shm.start("b", *RESTORE)
    shm.start("c", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.bus.send("kv.a", "kv.handoff", {"session": "s1", "to": "b"}, max_deliveries=1)
    assert dying.wait() == -9
    if what == "given on":
        assert shm.command("b", "kv.handoff", session="s1", to="c")["restored"] > 200
    else:
        assert shm.command("b", "kv.drop", session="s1") == {"session": "s1"}
    taker.kill()
    shm.start("b", *RESTORE)

    shm.start("a", *RESTORE)

    with pytest.raises(Exception, match="session 's1' went to worker b: ask there"):
        shm.say("a", "s1", "And then?")
    assert shm.sessions("a") == []
    if what == "given on":
        assert shm.say("c", "s1", "And then?") > 200
        assert shm.command("c", "kv.handoff", session="s1", to="a")["restored"] > 200  # it may come back


def test_a_worker_killed_with_a_session_half_taken_has_none_of_it_and_takes_it_the_next_time(shm: Fleet) -> None:
    shm.start("a", *RESTORE, program=IMPATIENT)
    dying = shm.start("b", *RESTORE, program=DIES_LOADING)
    shm.reply("a", "s1", STORY, max_tokens=5)
    assert "stays at a" in shm.command("a", "kv.handoff", session="s1", to="b")
    assert dying.wait() == -9

    shm.start("b", *RESTORE)

    with pytest.raises(Exception, match="worker b has no session 's1'"):
        shm.reply("b", "s1", max_tokens=5)
    assert shm.command("a", "kv.handoff", session="s1", to="b")["restored"] > 200
    assert shm.say("b", "s1", "And then?") > 200


def test_a_worker_killed_while_it_forgets_a_session_can_have_it_back(shm: Fleet) -> None:
    dying = shm.start("a", *RESTORE, program=DIES_FORGETTING)
    shm.start("b", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.bus.send("kv.a", "kv.handoff", {"session": "s1", "to": "b"}, max_deliveries=1)
    assert dying.wait() == -9

    shm.start("a", *RESTORE)

    assert shm.command("b", "kv.handoff", session="s1", to="a")["restored"] > 200
    assert shm.say("a", "s1", "And then?") > 200


@pytest.mark.parametrize("how", ["copied there", "copied here and given there"])
def test_a_session_that_was_refused_once_is_not_given_up_for_its_copy(shm: Fleet, how: str) -> None:
    first = shm.start("a", *RESTORE)
    shm.start("b", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.reply("b", "s1", "Another tale.", max_tokens=5)
    assert "there is a session 's1' here already" in shm.command("a", "kv.handoff", session="s1", to="b")
    if how == "copied there":
        shm.command("a", "kv.handoff", session="s1", to="b", rename="s2", keep=True)
    else:
        shm.command("a", "kv.handoff", session="s1", to="a", rename="s2", keep=True)
        shm.command("a", "kv.handoff", session="s2", to="b")
    assert shm.command("b", "kv.drop", session="s2") == {"session": "s2"}
    first.kill()

    shm.start("a", *RESTORE)

    assert shm.say("a", "s1", "And then?") > 200


@pytest.mark.parametrize("read", [True, False])
def test_a_worker_that_was_frozen_does_not_take_up_what_was_called_off(shm: Fleet, read: bool) -> None:
    shm.start("a", program=IMPATIENT)
    frozen = shm.start("b", "--decide", "recompute")
    shm.reply("a", "warm", "A word.", max_tokens=3)
    assert shm.command("a", "kv.handoff", session="warm", to="b")["to"] == "b"  # who b is, is known now
    shm.say("a", "s1", STORY, compute=read)
    os.kill(frozen.pid, signal.SIGSTOP)

    assert "stays at a: expired" in shm.command("a", "kv.handoff", session="s1", to="b")
    shm.say("a", "s1", "And then?")
    os.kill(frozen.pid, signal.SIGCONT)
    shm.wait_for(KvRejected, worker="b", session="s1")

    assert shm.sessions("b") == ["warm"]
    assert shm.command("a", "kv.handoff", session="s1", to="b")["to"] == "b"


@pytest.mark.parametrize("then", ["goes on", "dies"])
def test_a_session_whose_taker_fell_silent_is_nobodys_before_that_one_answers(shm: Fleet, then: str) -> None:
    shm.start("a", *RESTORE, program=IMPATIENT)
    taker = shm.start("b", *RESTORE, program=FREEZES_SETTLING)
    shm.reply("a", "s1", STORY, max_tokens=5)

    assert "session 's1' may be at worker b" in shm.command("a", "kv.handoff", session="s1", to="b")
    with pytest.raises(Exception, match="session 's1' may be at worker b, to which it was on its way"):
        shm.say("a", "s1", "And then?")
    if then == "goes on":
        os.kill(taker.pid, signal.SIGCONT)
        with pytest.raises(Exception, match="session 's1' went to worker b: ask there"):
            shm.say("a", "s1", "And then?")
        assert shm.say("b", "s1", "And then?") > 200
    else:
        taker.kill()
        shm.start("b", *RESTORE)
        assert shm.say("a", "s1", "And then?") > 200
        assert shm.sessions("b") == []


def test_a_giver_started_again_waits_for_the_one_that_may_have_the_session(shm: Fleet) -> None:
    dying = shm.start("a", *RESTORE, program=DIES_GIVING_UP)
    taker = shm.start("b", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.bus.send("kv.a", "kv.handoff", {"session": "s1", "to": "b"}, max_deliveries=1)
    assert dying.wait() == -9
    taker.kill()

    shm.start("a", *RESTORE)
    for _ in range(2):
        with pytest.raises(Exception, match="session 's1' may be at worker b"):
            shm.say("a", "s1", "And then?")
    shm.start("b", *RESTORE)

    with pytest.raises(Exception, match="session 's1' went to worker b: ask there"):
        shm.say("a", "s1", "And then?")
    assert shm.say("b", "s1", "And then?") > 200


def test_a_session_that_was_given_away_is_not_begun_again_by_its_name_and_is_followed_over_two_hops(
    shm: Fleet,
) -> None:
    for name in ("a", "b", "c"):
        shm.start(name, *RESTORE)
    said, _ = shm.reply("a", "s1", STORY, max_tokens=5)
    shm.command("a", "kv.handoff", session="s1", to="b")
    shm.command("b", "kv.handoff", session="s1", to="c", rename="s2")

    for worker, there in (("a", "b"), ("b", "c as 's2'")):
        with pytest.raises(Exception, match=f"session 's1' went to worker {there}: ask there"):
            shm.say(worker, "s1", "And then?")
        with pytest.raises(Exception, match=f"session 's1' went to worker {there}: ask there"):
            shm.reply(worker, "s1", "And then?", max_tokens=5)
        assert shm.sessions(worker) == []
    assert shm.reply("a", "s1", resume=True)[0] == said
    assert shm.command("c", "kv.handoff", session="s2", to="a", rename="s1")["session"] == "s1"
    assert shm.say("a", "s1", "And then?") > 200  # it may come back


def test_the_name_of_a_session_that_was_given_away_is_free_once_it_is_dropped(shm: Fleet) -> None:
    for name in ("a", "b"):
        shm.start(name, *RESTORE)
    shm.say("a", "s1", STORY)
    shm.command("a", "kv.handoff", session="s1", to="b")

    assert shm.command("a", "kv.drop", session="s1") == {"session": "s1"}

    assert shm.say("a", "s1", "Another tale.") < 100
    assert shm.say("b", "s1", "And then?") > 200  # that one is where it went
    assert shm.command("a", "kv.drop", session="s1") == {"session": "s1"}
    assert "worker a has no session 's1'" in shm.command("a", "kv.drop", session="s1")


def test_a_reply_goes_on_at_the_one_that_took_it_though_the_giver_stopped_listening(shm: Fleet, llama: Any) -> None:
    shm.start("b", *RESTORE)
    own = session("s1", llama(n_batch=128), events=False)
    own.say(STORY)
    own.begin(20)
    conn, root = shm.bus.conn, shm.info("b").fingerprint.digest
    offer = Offer(
        handoff="h", attempt="h1", source="gives", session="s1", state="x", ref=None, tokens=0, root=root,
        journal=own.journal.whole(),
    )  # fmt: skip

    async def give() -> None:
        asked, hung_up = asyncio.Event(), asyncio.Event()

        async def stands(_: bytes) -> bytes:
            asked.set()
            await hung_up.wait()
            await asyncio.sleep(0.3)  # b hears first that nobody listens any more
            return pack(Stood(stands=True))

        responder = await respond(conn, worker_subject("gives", STANDS), stands)
        async with contextlib.aclosing(call_stream(conn, worker_subject("b", OFFER), pack(offer))) as answers:
            await anext(answers)
            await asked.wait()
        hung_up.set()
        await asyncio.sleep(0.5)
        await responder.close()

    shm.bus.run(give(), timeout=30)

    ended = shm.wait_for(SessionTurn, session="s1", role="assistant")  # nobody has asked for it
    assert (ended.worker, ended.text) == ("b", "".join(own.resume()))
