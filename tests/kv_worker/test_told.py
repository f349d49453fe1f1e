"""What is told of as held is held: a state's row is closed when its session goes on and leaves, stops, or is killed."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from morphogen.consumers.projections.builtin.kv import Kv
from morphogen.schemas.kv import KvEvicted, KvExported, KvImported, KvReleased

from .serving import Fleet
from .test_handoff import RESTORE, STORY


def held(fleet: Fleet, *expected: tuple[str, str, str]) -> None:
    """See that this is what the tables say is held, by session, worker and tier, once all that was told is in the log."""
    end = time.monotonic() + 10
    while (found := _held(fleet)) != sorted(expected):
        assert time.monotonic() < end, found
        time.sleep(0.05)


def _held(fleet: Fleet) -> list[tuple[str, str, str]]:
    there: dict[tuple[str, str, str], bool] = {}
    sessions: dict[str, str] = {}
    for event in fleet.events(KvExported, KvImported, KvEvicted, KvReleased):
        for table, row in Kv().rows(cast("Any", SimpleNamespace(body=event))):
            if table == "_kv_moves":
                there[row[:3]] = row[3]
            if table == "_kv_made":
                sessions[row[0]] = row[2]
    return sorted((sessions[state], worker, tier) for (state, worker, tier), held in there.items() if held)


def test_what_a_session_began_from_is_held_until_it_leaves_however_far_it_went(shm: Fleet, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shm.start(name, *RESTORE, "--parallel", "1")
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.command("a", "kv.export", session="s1", path=str(tmp_path / "s1.kv"))
    held(shm)  # a file is the user's
    for source, target in (("a", "b"), ("b", "a"), ("a", "b")):
        shm.command(source, "kv.handoff", session="s1", to=target)
        held(shm, ("s1", target, "device"))
        shm.reply(target, "s1", "And then?", max_tokens=5)

    shm.say("b", "s2", STORY)  # takes the only sequence
    held(shm, ("s1", "b", "memory"))
    shm.reply("b", "s1", "And then?", max_tokens=5)
    held(shm, ("s1", "b", "device"), ("s2", "b", "memory"))
    shm.command("b", "kv.drop", session="s1")

    held(shm, ("s2", "b", "memory"))


def test_what_a_copy_goes_on_from_is_held_though_the_first_one_goes(shm: Fleet) -> None:
    for name in ("a", "b"):
        shm.start(name, *RESTORE)
    shm.reply("a", "s1", STORY, max_tokens=5)
    shm.command("a", "kv.handoff", session="s1", to="b")
    shm.command("b", "kv.handoff", session="s1", to="b", rename="s2")

    held(shm, ("s2", "b", "device"))
    assert shm.workers[1].end() == 0
    held(shm)


def test_what_a_killed_worker_had_is_told_as_gone_when_it_starts_again(shm: Fleet) -> None:
    shm.start("a", *RESTORE)
    killed = shm.start("b", *RESTORE, "--parallel", "2")
    for name in ("s1", "s2", "s3"):
        shm.reply("a", name, f"{name}: {STORY}", max_tokens=5)
        shm.command("a", "kv.handoff", session=name, to="b")
    pinned = shm.command("b", "kv.export", session="s3", tier="disk", pin=True)
    held(shm, ("s1", "b", "memory"), ("s2", "b", "device"), ("s3", "b", "device"), ("s3", "b", "disk"))
    killed.kill()

    shm.start("b", *RESTORE)

    held(shm, ("s3", "b", "disk"))
    shutil.rmtree(Path(pinned["place"]).parent)
    shm.workers[-1].kill()
    shm.start("b", *RESTORE)
    held(shm)
