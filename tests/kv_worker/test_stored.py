"""What is stored of a session stays while it can be of use, and goes with the session."""

import pytest

from morphogen.schemas.kv import KvReleased

from .serving import Fleet
from .test_handoff import STORY

# Put before the command line of a worker: it ends itself as it gives back the bytes of a state that was stored before.
DIES_REPLACING = """
import os, signal
from morphogen.consumers.kv.store import Store
put = Store.put
def replace(store, exported):
    disk = store.transports["disk"]
    release = disk.release
    if store.get(exported.state):
        disk.release = lambda ref: (release(ref), os.kill(os.getpid(), signal.SIGKILL))
    put(store, exported)
Store.put = replace
"""


@pytest.mark.parametrize("how", ["dropped", "given away"])
def test_what_was_stored_of_a_session_goes_with_it_but_for_pins_and_what_another_one_needs(
    shm: Fleet, how: str
) -> None:
    shm.start("a")
    shm.start("b")
    shm.reply("a", "s1", STORY, max_tokens=5)
    pinned = shm.command("a", "kv.export", session="s1", tier="disk", pin=True)["state"]
    for _ in range(2):
        shm.say("a", "s1", "More.")
        shm.command("a", "kv.export", session="s1", tier="disk")
    assert shm.info("a").used["disk"] > 0

    if how == "dropped":
        shm.command("a", "kv.drop", session="s1")
    else:
        shm.command("a", "kv.handoff", session="s1", to="b")

    left = shm.info("a").used
    assert shm.command("a", "kv.drop", state=pinned) == {"state": pinned}
    size = shm.wait_for(KvReleased, state=pinned, tier="disk").size
    assert left == {"memory": 0, "disk": size, "blobs": 0}


def test_what_is_stored_stays_as_it_was_where_it_cannot_be_stored_anew(shm: Fleet) -> None:
    shm.start("a")
    shm.reply("a", "s1", STORY, max_tokens=5)
    stored = shm.command("a", "kv.export", session="s1", tier="disk", pin=True)
    used = shm.info("a").used

    no_room = shm.command("a", "kv.export", session="s1", tier="blobs")
    volatile = shm.command("a", "kv.export", session="s1", tier="memory")

    assert "does not fit into tier blobs" in no_room
    assert f"state {stored['state']} is stored in tier disk already" in volatile
    assert shm.info("a").used == used
    assert shm.command("a", "kv.export", session="s1", tier="disk")["place"] != stored["place"]
    assert shm.info("a").used == used
    shm.command("a", "kv.drop", session="s1")
    assert shm.info("a").used == used  # pinned still


def test_a_worker_killed_while_it_replaces_what_is_pinned_has_it_when_it_is_started_again(shm: Fleet) -> None:
    dying = shm.start("a", program=DIES_REPLACING)
    shm.reply("a", "s1", STORY, max_tokens=5)
    pinned = shm.command("a", "kv.export", session="s1", tier="disk", pin=True)
    shm.bus.send("kv.a", "kv.export", {"session": "s1", "tier": "disk"}, max_deliveries=1)
    assert dying.wait() == -9

    shm.start("a")

    assert shm.info("a").used["disk"] == pinned["size"]
    assert shm.command("a", "kv.drop", session="s1") == {"session": "s1"}
    assert shm.command("a", "kv.drop", state=pinned["state"]) == {"state": pinned["state"]}
