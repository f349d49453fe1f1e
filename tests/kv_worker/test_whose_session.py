"""A session belongs to one worker, whatever was tried with it before and whoever is killed meanwhile; none is lost by a name."""

import pytest

from .serving import Fleet
from .test_handoff import DIES_GIVING_UP, RESTORE, STORY

# Put before the command line of a worker: it ends itself with the session half here.
DIES_LOADING = """
import os, signal
from morphogen.consumers.kv.speaker import ContextSpeaker
ContextSpeaker.load = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
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
    assert dying.process.wait(20) == -9
    taker.kill()

    shm.start("b", *RESTORE)
    shm.start("a", *RESTORE)

    with pytest.raises(Exception, match="session 's1' went to worker b: ask there"):
        shm.say("a", "s1", "And then?")
    assert shm.say("b", "s2", "And then?") > 200


@pytest.mark.parametrize("what", ["given on", "dropped"])
def test_a_session_is_given_up_though_it_is_not_with_the_one_that_took_it_any_more(shm: Fleet, what: str) -> None:
    dying = shm.start("a", *RESTORE, program=DIES_GIVING_UP)
    taker = shm.start("b", *RESTORE)
    shm.start("c", *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.bus.send("kv.a", "kv.handoff", {"session": "s1", "to": "b"}, max_deliveries=1)
    assert dying.process.wait(20) == -9
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
    shm.start("a", *RESTORE)
    dying = shm.start("b", *RESTORE, program=DIES_LOADING)
    shm.reply("a", "s1", STORY, max_tokens=5)
    assert "stays at a" in shm.command("a", "kv.handoff", session="s1", to="b")
    assert dying.process.wait(10) == -9

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
    assert dying.process.wait(20) == -9

    shm.start("a", *RESTORE)

    assert shm.command("b", "kv.handoff", session="s1", to="a")["restored"] > 200
    assert shm.say("a", "s1", "And then?") > 200
