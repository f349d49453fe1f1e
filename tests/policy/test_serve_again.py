"""A decision that was begun to be told is told to its end: by the same server, or by the next one; and once."""

import asyncio
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest

from morphogen.bus import Bus, Settings, streams
from morphogen.bus.errors import MessageTooLarge, NoBroker
from morphogen.consumers.policy import serve
from morphogen.schemas import CommandIssued, DecisionProposed, DecisionVerdict, Event, SlotGerminated

from .remote import Remote, Serving

Begin = Callable[..., Remote]
real_send = serve.send


def recorded(bus: Bus, kind: type[Event], run: str = "far") -> list[Any]:
    return [one.event for one in bus.events(run=run, family=kind.family) if isinstance(one.event, kind)]


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


async def hang(*_: object, **__: object) -> None:
    """Never come back: the process is killed meanwhile."""
    await asyncio.Event().wait()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server try again without a pause."""
    monkeypatch.setattr(serve, "_AGAIN", 0.05)


def test_a_decision_that_a_killed_server_has_not_sent_is_sent_by_the_next_as_it_was_proposed(
    remote: Begin, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = remote("far")
    run.epoch()
    run.epoch()
    with Bus.open(settings) as bus:
        monkeypatch.setattr(serve, "send", hang)
        killed = Serving(bus, "heuristic")
        until(lambda: recorded(bus, DecisionVerdict))
        killed.kill()
        monkeypatch.setattr(serve, "send", real_send)
        (proposed,) = recorded(bus, DecisionProposed)
        assert (proposed.action.op, recorded(bus, CommandIssued)) == ("germinate", [])

        Serving(bus, "none").wait(1)

        (command,) = recorded(bus, CommandIssued)
        assert (command.name, command.args["decision"]) == ("germinate", proposed.decision)
        assert {one.decision for one in recorded(bus, DecisionProposed)} == {proposed.decision}
        assert {one.policy for one in recorded(bus, DecisionProposed)} == {"heuristic"}


def test_a_command_that_a_killed_server_has_put_on_record_only_is_given_to_the_run_once(
    remote: Begin, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = remote("far")
    run.epoch()
    run.epoch()
    done: list[str] = []
    with Bus.open(settings) as bus, bus.serve("adapt.far", {"germinate": lambda command: done.append(command.id)}):
        copy = streams.put_copy
        monkeypatch.setattr(streams, "put_copy", hang)
        killed = Serving(bus, "heuristic")
        until(lambda: recorded(bus, CommandIssued))
        killed.kill()
        assert done == []
        monkeypatch.setattr(streams, "put_copy", copy)

        for _ in range(2):
            Serving(bus, "heuristic")
        until(lambda: done)
        time.sleep(0.5)
        assert done == [recorded(bus, CommandIssued)[0].command_id]
        assert len(recorded(bus, DecisionProposed)) == 1


def test_a_decision_that_the_broker_did_not_take_is_told_again(
    remote: Begin, settings: Settings, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    refusals = [NoBroker("no broker for 10 s"), NoBroker("no broker for 10 s")]

    async def reluctant(*args: Any, **options: Any) -> str:
        if refusals:
            raise refusals.pop()
        return await real_send(*args, **options)

    monkeypatch.setattr(serve, "send", reluctant)
    with Bus.open(settings) as bus:
        serving = Serving(bus, "heuristic")
        run = remote("far")
        run.epoch(plateau=False)
        serving.wait(1)
        assert refusals == []
        assert len(recorded(bus, CommandIssued)) == 1


@pytest.mark.parametrize("after", ["an epoch", "its expiry"])
def test_a_decision_is_told_until_it_is_of_no_use(
    remote: Begin, settings: Settings, monkeypatch: pytest.MonkeyPatch, at_once: None, after: str
) -> None:
    tries: list[str] = []
    away = [True]

    async def refusing(*args: Any, **options: Any) -> str:
        tries.append(options["command_id"])
        if away:
            raise NoBroker("no broker for 10 s")
        return await real_send(*args, **options)

    monkeypatch.setattr(serve, "send", refusing)
    if after == "its expiry":
        monkeypatch.setattr(serve, "_EXPIRES", 0.5)
    with Bus.open(settings) as bus:
        serving = Serving(bus, "heuristic")
        run = remote("far")
        run.epoch(plateau=False)
        until(lambda: len(tries) > 1)
        if after == "its expiry":
            time.sleep(1.0)
            away.clear()
            time.sleep(0.3)
            assert serving.served == []
            monkeypatch.setattr(serve, "_EXPIRES", 60.0)
        run.epoch(plateau=False)
        until(lambda: len(set(tries)) > 1)
        away.clear()
        serving.wait(1)
        assert [served.decided.observation.epoch for served in serving.served] == [1]


def test_what_can_never_be_told_is_tried_once(
    remote: Begin, settings: Settings, monkeypatch: pytest.MonkeyPatch, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[object] = []

    async def too_large(*_: object, **__: object) -> None:
        tries.append(1)
        raise MessageTooLarge("an observation of 600 KB")

    monkeypatch.setattr(serve, "emit", too_large)
    with Bus.open(settings) as bus:
        Serving(bus, "heuristic")
        run = remote("far")
        run.epoch()
        until(lambda: "could not be told" in caplog.text)
        time.sleep(0.3)
        assert len(tries) == 1


def test_a_restart_does_not_forget_that_a_command_is_out(remote: Begin, settings: Settings) -> None:
    run = remote("far")
    run.epoch()
    run.epoch()
    with Bus.open(settings) as bus:
        first = Serving(bus, "heuristic")
        first.wait(1)
        first.kill()
        decided = first.served[0].decided
        assert decided.action.op == "germinate"

        second = Serving(bus, "heuristic")
        run.epoch()
        time.sleep(0.5)
        assert second.served == [], "it has two epochs to show an effect"
        second.kill()
        run.run.event(
            SlotGerminated(slot="layers.0#0", seed="layers.0#0.1", blueprint="0", params=1, decision=decided.decision)
        )
        run.run.flush()
        third = Serving(bus, "heuristic")
        third.wait(1)
        assert third.served[0].decided.observation.epoch == 2


def test_what_comes_of_an_epoch_after_its_decision_makes_no_other_one_after_a_restart(
    remote: Begin, settings: Settings
) -> None:
    run = remote("far")
    run.epoch(plateau=False)
    with Bus.open(settings) as bus:
        first = Serving(bus, "heuristic")
        first.wait(1)
        first.kill()
        assert first.served[0].decided.action.op == "wait"
        run.run.event(SlotGerminated(slot="layers.0#0", seed="layers.0#0.1", blueprint="0", params=1))
        run.run.flush()

        second = Serving(bus, "heuristic")
        time.sleep(0.5)
        assert second.served == []
        run.epoch(plateau=False)
        second.wait(1)


def test_a_log_that_is_made_anew_is_served_as_well(remote: Begin, settings: Settings, at_once: None) -> None:
    old = remote("old")
    old.epoch()
    with Bus.open(settings) as bus:
        serving = Serving(bus, "heuristic")
        serving.wait(1)
        for name in streams.STREAMS:
            bus.run(bus.conn.js(f"STREAM.DELETE.{name}"))
        until(lambda: "MORPHOGEN_LOG" in (bus.run(bus.conn.js("STREAM.NAMES"))["streams"] or ()))
        run = remote("new")
        run.epoch(plateau=False)
        serving.wait(2)
        assert serving.served[-1].run == "new"


def test_a_run_of_which_the_log_has_only_the_last_epoch_is_served_from_the_archive_too(
    remote: Begin, settings: Settings, trimmed: Callable[[Bus], None]
) -> None:
    run = remote("far")
    run.epoch(plateau=False)
    with Bus.open(settings) as bus:
        trimmed(bus)
        serving = Serving(bus, "heuristic")
        serving.wait(1)
        run.epoch(plateau=False)
        serving.wait(2)
        assert [served.decided.observation.epoch for served in serving.served] == [0, 1]


def test_without_the_archive_of_a_trimmed_log_it_is_said_and_the_runs_that_begin_are_served(
    remote: Begin, settings: Settings, trimmed: Callable[[Bus], None], caplog: pytest.LogCaptureFixture
) -> None:
    remote("old").epoch(plateau=False)
    with Bus.open(settings) as bus:
        trimmed(bus)
        shutil.rmtree(settings.archive_dir)
        remote("between").epoch(plateau=False)
        serving = Serving(bus, "heuristic")
        remote("new").epoch(plateau=False)
        serving.wait(2)
        assert {served.run for served in serving.served} == {"between", "new"}
        assert "runs that began before are not decided for" in caplog.text


@pytest.mark.parametrize("standing", [True, False], ids=["standing", "beginning"])
def test_a_run_whose_beginning_lies_in_a_blob_is_decided_for(remote: Begin, settings: Settings, standing: bool) -> None:
    with Bus.open(settings) as bus:
        serving = None if standing else Serving(bus, "heuristic")
        remote("far", more="x" * 600_000).epoch(plateau=False)
        (serving or Serving(bus, "heuristic")).wait(1)
