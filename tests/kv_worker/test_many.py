"""A worker has more sessions than it may open files, and notices when what it has is taken away."""

import os
import resource
import shutil

import pytest

from .serving import Fleet, Served
from .test_handoff import STORY

# Put before the command line of a worker: it may open few files.
FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
"""


def descriptors(worker: Served) -> int:
    return len(os.listdir(f"/proc/{worker.pid}/fd"))


def test_a_worker_has_more_sessions_than_it_may_open_files(shm: Fleet) -> None:
    worker = shm.start("a", "--decide", "restore", program=FEW_FILES)
    before = descriptors(worker)
    first = [shm.reply("a", f"s{number}", f"{number}: Hello.", max_tokens=2)[1].tokens or 0 for number in range(200)]

    assert descriptors(worker) < before + 60
    assert [one.tier for one in shm.info("a").sessions].count("memory") == 198  # of two sequences
    then = [shm.say("a", f"s{number}", "And then?") for number in range(20)]
    text, _ = shm.reply("a", "s7", max_tokens=5)

    assert descriptors(worker) < before + 60
    assert all(now > earlier for now, earlier in zip(then, first, strict=False))
    assert shm.reply("a", "s7", resume=True)[0] == text
    assert worker.end() == 0
    shm.start("a")
    assert shm.reply("a", "s7", resume=True)[0] == text


def test_a_session_whose_journal_is_taken_away_is_refused_until_it_is_dropped(shm: Fleet) -> None:
    shm.start("a")
    shm.reply("a", "open", STORY, max_tokens=5)
    shm.say("a", "waits", STORY)
    shm.say("a", "spoilt", STORY)
    shm.workers[0].end()
    sessions = shm.home / "kv" / "a" / "sessions"
    worker = shm.start("a")
    shm.say("a", "open", "And then?")

    shutil.rmtree(sessions / "open")
    shutil.rmtree(sessions / "waits")
    with (sessions / "spoilt" / "journal").open("r+b") as journal:
        journal.write(b"something else")

    told = {
        "open": "the journal of session open was deleted, replaced or changed in .*: put it back",
        "waits": "session 'waits' was deleted from .* while worker a runs: put it back, or drop it",
        "spoilt": "is not the journal of a session, or of another version",
    }
    for name, refused in told.items():
        for _ in range(2):
            with pytest.raises(Exception, match=refused):
                shm.say("a", name, "Hello?")
        with pytest.raises(Exception, match=refused):
            shm.reply("a", name, "Hello?")
    shm.say("a", "another", STORY)  # who has nothing to do with that goes on
    for name in told:
        assert shm.command("a", "kv.drop", session=name) == {"session": name}
        assert shm.say("a", name, "Hello.", compute=False) < 40
    assert worker.end() == 0


def test_a_worker_whose_folder_is_taken_away_says_so_and_ends_in_order(shm: Fleet) -> None:
    worker = shm.start("a")
    shm.say("a", "s1", STORY)
    folder, away = shm.home / "kv" / "a", shm.home / "away"
    folder.rename(away)

    with pytest.raises(Exception, match="the journal of session s1 was deleted, replaced or changed in"):
        shm.say("a", "s1", "And then?")
    with pytest.raises(Exception, match="with the sessions of worker a was deleted or replaced while it runs"):
        shm.say("a", "s2", "Hello.")
    assert not folder.exists()
    away.rename(folder)
    assert shm.say("a", "s1", "And then?") > 200
    shutil.rmtree(folder)
    assert worker.end() == 0


@pytest.mark.parametrize("room", [0, 20], ids=["nothing", "its-first-bytes"])
def test_a_session_that_a_full_disk_refuses_leaves_nothing_behind(shm: Fleet, room: int) -> None:
    worker = shm.start("a")
    shm.say("a", "here", STORY)
    before = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        for name in ("here", "new"):
            with pytest.raises(Exception, match=r"the journal in .*: File too large"):
                shm.say("a", name, "And then?")
    finally:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, before)

    assert os.listdir(shm.home / "kv" / "a" / "sessions") == ["here"]
    assert "worker a has no session 'new'" in shm.command("a", "kv.drop", session="new")
    assert shm.say("a", "here", "And then?") > 200
