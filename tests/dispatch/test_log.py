"""Dispatch over the real log: what a killed process leaves, and what a reader makes of it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus import Bus, Seen, Settings
from morphogen.bus.broker import Endpoint
from morphogen.bus.errors import NoBroker
from morphogen.consumers import executions
from morphogen.consumers.dispatch import DispatchConfig, Dispatcher, DispatchState, Result, open_diary, read_state
from morphogen.consumers.dispatch.process import has_ended, this_process
from morphogen.consumers.dispatch.state import catch_up
from morphogen.consumers.executions import Families, read_families
from morphogen.kernels.sandbox import Capabilities, Workspace
from morphogen.schemas.goals import signature

KILLED = """
import sys, time
from pathlib import Path
from morphogen.bus import Settings
from morphogen.consumers.dispatch import Dispatcher, DispatchState, open_diary
from morphogen.kernels.sandbox import Capabilities, Workspace

class Slow:
    cap_microusd = None
    def run(self, request, budget):
        request.capabilities.functions["files.write_text"].function(path="done.txt", text="half")
        print("acting", flush=True)
        time.sleep(60)

with open_diary(Settings.from_environ()) as diary:
    caps = Capabilities(files=Workspace(Path(sys.argv[1]), write=True))
    serves = Dispatcher(capabilities=caps, state=DispatchState(), write=diary.tell, learner=Slow())
    serves.do("Take your time over work.txt", {"path": "work.txt"}, request="killed")
"""


class Copier:
    """A loop that records nothing of its own."""

    cap_microusd = None

    def run(self, request: Any, budget: int | None) -> Result:
        return Result(ok=True, output=request.params["n"], cost_microusd=7, duration_ns=5)


def test_a_killed_request_is_known_as_unfinished_and_what_was_served_is_counted_alike_by_a_reader(
    broker: Endpoint, settings: Settings, folder: Path
) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "acting\n"
    with Bus.open(settings) as bus:
        process.kill()
        process.wait()
        process.stdout.close()
        with open_diary(settings) as diary:  # what the killed process left in its spool is published by the next start
            assert diary.flush(20)
            state = read_state(bus)
            for _ in range(100):
                if state.open:
                    break
                time.sleep(0.1)
                catch_up(bus, state)
            assert [one.request for one in state.unfinished] == ["killed"]
            assert (folder / "done.txt").read_text() == "half"
            caps = Capabilities(files=Workspace(folder, write=True))
            serves = Dispatcher(
                capabilities=caps, state=state, write=diary.tell, learner=Copier(), config=DispatchConfig(matches=0),
                refresh=lambda: catch_up(bus, state),
            )  # fmt: skip
            for n in range(3):
                assert serves.do(f"Give {n} back", {"n": n}).output == n
            assert diary.flush(20)
            catch_up(bus, state)
            read = read_state(bus)
        family = signature("Give 1 back", {"n": 1})
        for each in (state, read):
            assert each.outcomes.tally(family, family, "learner").trials == 3
            assert (each.outcomes.finished, list(each.open)) == (3, ["killed"])
        assert state.position == read.position


def test_a_process_is_known_by_its_start_too() -> None:
    name = this_process()
    assert not has_ended(name)
    host, pid, _ = name.rsplit("/", 2)
    assert has_ended(f"{host}/{pid}/another-start")
    assert not has_ended(f"elsewhere/{pid}/another-start")
    for strange in ("", "a/b", f"{host}/x/1", "//"):
        assert not has_ended(strange)


def test_dispatch_knows_after_a_trim_what_it_knew_before(
    broker: Endpoint, settings: Settings, folder: Path, trimmed: Callable[[Bus], None]
) -> None:
    with Bus.open(settings) as bus, open_diary(settings) as diary:
        caps = Capabilities(files=Workspace(folder, write=True))
        config = DispatchConfig(matches=0)
        for turn in range(2):
            state = read_state(bus)
            serves = Dispatcher(
                capabilities=caps, state=state, write=diary.tell, learner=Copier(), config=config,
            )  # fmt: skip
            for n in range(3):
                assert serves.do(f"Give {n} back", {"n": n}).ok
            assert diary.flush(20)
            before = read_state(bus)
            family = signature("Give 1 back", {"n": 1})
            assert before.outcomes.tally(family, family, "learner").trials == 3 * (turn + 1)
            trimmed(bus)
            after = read_state(bus)
            assert after.outcomes.tally(family, family, "learner").trials == 3 * (turn + 1)
            assert (after.outcomes.finished, after.position) == (before.outcomes.finished, before.position)
            assert catch_up(bus, before) == 0


def test_a_catching_up_that_broke_off_amid_a_frame_is_gone_on_with_and_nothing_is_lost(
    broker: Endpoint, settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bus.open(settings) as bus, open_diary(settings) as diary:
        caps = Capabilities(files=Workspace(folder, write=True))
        serves = Dispatcher(
            capabilities=caps,
            state=DispatchState(),
            write=diary.tell,
            learner=Copier(),
            config=DispatchConfig(matches=0),
        )
        for n in range(5):
            assert serves.do(f"Give {n} back", {"n": n}).ok
        assert diary.flush(20)
        whole, reached = bus.past, [(0, 0)]

        def failing(**what: Any) -> Iterator[Seen]:
            for seen in whole(**what):
                if seen.place > reached[-1]:
                    reached.append(seen.place)
                    raise NoBroker("it went away before the body of this one was here")
                yield seen

        monkeypatch.setattr(bus, "past", failing)
        families, state = Families(), DispatchState()
        for fold in (lambda: executions.catch_up(bus, families), lambda: catch_up(bus, state)):
            reached[:] = [(0, 0)]
            for _ in range(500):
                try:
                    fold()
                    break
                except NoBroker:
                    continue
        monkeypatch.undo()
        assert any(idx for _, idx in reached), "some frame has several events"
        family = signature("Give 1 back", {"n": 1})
        assert state.outcomes.tally(family, family, "learner").trials == 5
        assert (state.outcomes.finished, state.position) == (5, read_state(bus).position)
        assert families.position == read_families(bus).position
