"""Executions in a real log: recorded by processes that live and that are killed, read back whole, rebuilt equal."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import morphogen
from morphogen.bus import Bus
from morphogen.bus import broker as brokers
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.consumers.executions import catch_up, follow, read_families
from morphogen.kernels.sandbox import Capabilities
from morphogen.producers.executions import close, execution, feedback, flush
from morphogen.replay.verify import verify
from morphogen.schemas.goals import signature

KILLED = """
import os, signal
from morphogen.producers.executions import execution
ex = execution("Sum {column}", {"column": "price"}).begin()
print(ex.id, flush=True)
ex.step("files.read_text", {"path": "a"}, "1\\n2\\n", effect="read")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The settings of a broker that the tests of this module share."""
    settings = Settings.from_environ({"MORPHOGEN_HOME": str(tmp_path_factory.mktemp("shared"))})
    brokers.ensure(settings)
    yield settings
    close()
    brokers.down(settings)


@pytest.fixture(scope="module")
def bus(place: Settings) -> Iterator[Bus]:
    with Bus.open(place, name="test") as found:
        yield found


def test_alone_and_inside_a_run_it_comes_back_as_it_was_with_its_large_values(
    place: Settings, bus: Bus, tools: Capabilities
) -> None:
    goal = "Read {path} for the log"
    with execution(goal, {"path": "large.txt"}, capabilities=tools, settings=place) as alone:
        text = alone.call("files.read_text", path="large.txt")
        alone.asked(prompt="how long?", reply="40000", backend="script", model="none")
        alone.finish({"text": text}, judged_by="assertion")
    with morphogen.record("carrier", settings=place) as run:
        with execution(goal, {"path": "shop.csv"}, capabilities=tools, run=run) as carried:
            carried.call("files.read_text", path="shop.csv")
            carried.finish("huge", judged_by="judge")
        with execution(goal, {"path": "huge"}, run=run) as huge:
            huge.step("made.elsewhere", {"text": "y" * 600_000}, "a result of a step too large for the log")
    assert flush(10)

    families = read_families(bus)

    family = families.family(signature(goal))
    assert family is not None
    assert (family.uses, family.successes, family.judged) == (3, 3, 2)
    one, two, three = (families.trace(each.id) for each in (alone, carried, huge))
    assert one is not None
    assert two is not None
    assert three is not None
    assert (one.whole, one.steps[0].result, one.output) == (True, text, {"text": text})
    assert (one.at.run, two.at.run, one.steps[1].priced_by, one.cost_microusd) == ("", "carrier", "script", 0)
    assert (three.whole, len(three.steps[0].args["text"])) == (True, 600_000)
    feedback(alone.id, "failure", note="too long", settings=place)
    assert flush(10)
    assert catch_up(bus, families) == 1
    assert families.outcome(alone.id) == "failure"
    assert catch_up(bus, families) == 0


def test_a_killed_execution_has_begun_and_never_ended_and_none_of_its_steps_is_lost(place: Settings, bus: Bus) -> None:
    families = read_families(bus)
    environment = {**os.environ, "MORPHOGEN_HOME": str(place.home), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    name = killed.stdout.strip()

    arrived = threading.Event()

    def listen() -> None:
        for _ in follow(bus, families):
            trace = families.trace(name)
            if trace is not None and trace.steps:
                arrived.set()
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    close()
    with execution("Start anew", settings=place):  # who starts sends what the dead have left
        pass
    assert arrived.wait(30)
    listener.join(10)

    trace = families.trace(name)
    assert trace is not None
    assert (trace.outcome, [step.result for step in trace.steps]) == (None, ["1\n2\n"])
    family = families.family(signature("Sum {column}"))
    assert family is not None
    assert (family.uses, family.unfinished) == (0, 1)


def test_what_is_recorded_while_there_is_no_broker_comes_into_the_log_when_there_is_one(
    settings: Settings, tools: Capabilities
) -> None:
    nowhere = Settings.from_environ(url="nats://127.0.0.1:1")
    with execution("Read {path} offline", {"path": "large.txt"}, capabilities=tools, settings=nowhere) as ex:
        text = ex.call("files.read_text", path="large.txt")
        ex.finish(len(text), judged_by="assertion")
    assert not close(0.2)
    with execution("Start anew", settings=settings):  # with a broker now
        pass
    assert flush(20)

    try:
        with Bus.open(settings, name="test") as bus:
            families = read_families(bus)
            for _ in follow(bus, families) if families.outcome(ex.id) is None else ():
                if families.outcome(ex.id) is not None:
                    break
    finally:
        close()
    trace = families.trace(ex.id)
    assert trace is not None
    assert (trace.whole, trace.steps[0].result, trace.output) == (True, text, 40_000)


def test_what_the_tables_say_is_rebuilt_from_the_log_to_the_bit(place: Settings, bus: Bus, workspace: Path) -> None:
    for at in range(5):
        with execution("Count lines of {path}", {"path": f"{at}"}, settings=place) as ex:
            ex.step("files.read_text", {"path": f"{at}"}, "a\n" * at, effect="read")
            ex.finish(at, judged_by="assertion", cost_microusd=1000)
    assert flush(10)
    rows = morphogen.query(
        "SELECT template, uses, priority, net_value_microusd FROM crystallization_candidates", wait=True, settings=place
    ).rows()
    assert [tuple(row)[:2] for row in rows] == [("count lines of {path}", 5)]
    assert tuple(rows[0])[2:] == pytest.approx((25 + 0.03 + 20, 5 * 30 * 1000))

    async def check() -> list[str]:
        conn = await connect(place, name="test")
        try:
            report = await verify(conn, place)
        finally:
            await conn.close()
        assert {"_execution_starts", "_execution_steps", "_execution_ends"} <= {one.table for one in report.tables}
        return [] if report.ok else list(report.lines())

    assert asyncio.run(check()) == []


def test_a_trimmed_log_is_read_and_followed_with_what_the_archive_has_of_it(
    settings: Settings, trimmed: Callable[[Bus], None]
) -> None:
    brokers.ensure(settings)

    def told(count: int) -> list[str]:
        made = []
        for number in range(count):
            with execution("Count {number}", {"number": number}, settings=settings) as ex:
                ex.finish(number, judged_by="assertion")
            made.append(ex.id)
        assert flush(10)
        return made

    try:
        with Bus.open(settings, name="test") as bus:
            old = told(3)
            trimmed(bus)
            behind, seen = read_families(bus), []
            assert [behind.outcome(one) for one in old] == ["success"] * 3
            middle = told(2)
            trimmed(bus)  # behind what was read
            new = told(1)
            for one in follow(bus, behind):
                seen.append(one.place)
                if behind.outcome(new[0]) is not None:
                    break
            assert seen == sorted(set(seen))
            assert len(seen) == 2 * 3  # begun and ended, each once
            assert [behind.outcome(one) for one in (*middle, *new)] == ["success"] * 3
            family = read_families(bus).family(signature("Count {number}"))
            assert family is not None
            assert family.uses == 6
    finally:
        close()
