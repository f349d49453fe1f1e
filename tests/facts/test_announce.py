"""Facts are said on the bus once, whoever says them and however often he is killed."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.connection import Connection
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.facts.announce import CHUNK, Announcer, Said, frames
from morphogen.consumers.projections.sql.query import SqlClient, query
from morphogen.schemas import FactBecameTrue, Record, RuleFired, decode_frame, encode_frame

from .modules import loaded, perf

# Imports once and forks a projector, as `morphogen projector` is one, for each line it reads.
NURSERY = """
import os, sys
from morphogen.cli import projector, verbs
from morphogen.cli.app import run
from morphogen.consumers.projections import discover
from morphogen.consumers.projections.sql import service
import morphogen.consumers.projections.facts.announce
discover()
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os._exit(run(["projector"]))
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


class Projectors:
    """Starts projectors one after the other, and kills them."""

    def __init__(self, home: Path) -> None:
        self._nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"MORPHOGEN_HOME": str(home)},
        )  # fmt: skip
        self._running: int | None = None

    def start(self) -> None:
        assert self._nursery.stdin is not None
        self._nursery.stdin.write("one\n")
        self._nursery.stdin.flush()
        self._running = int(self._said())

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._running is not None:
            os.kill(self._running, number)
            assert self._said() == "gone"
            self._running = None

    def end(self) -> None:
        self.kill(signal.SIGTERM)
        self._nursery.communicate(timeout=15)

    def _said(self) -> str:
        assert self._nursery.stdout is not None
        return self._nursery.stdout.readline().strip()


@pytest.fixture
def settings(settings: Settings) -> Iterator[Settings]:
    """Settings whose SQL client is closed before the broker is stopped."""
    yield settings
    SqlClient.shared(settings).close()


@pytest.fixture
def projectors(settings: Settings) -> Iterator[Projectors]:
    """Projectors, which announce, as processes of their own; the last is ended with the test."""
    made = Projectors(settings.home)
    yield made
    made.end()


def said_of(bus: Bus, family: str) -> list[Any]:
    return [(seen.frame.run, seen.event) for seen in bus.events(family=family)]


def until(ready: Callable[[], bool], patience: float = 40.0) -> None:
    end = time.monotonic() + patience
    while not ready():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def test_a_projector_that_is_killed_again_and_again_announces_every_change_once(
    settings: Settings, projectors: Projectors
) -> None:
    with Bus.open(settings) as bus:
        bus.emit(loaded(), msg_id="load")
        for i in range(12):
            if i in (0, 4, 8):
                projectors.start()
            bus.emit(perf(9.0 if i % 2 else 12.0), run="r", msg_id=f"item {i}")
            if i in (3, 7):
                time.sleep(0.9)
                projectors.kill()
        until(lambda: len(said_of(bus, "fact")) >= 11 + 11)  # two facts; the first item makes neither true
        time.sleep(1.0)

        facts = [(event.fact, event.type, *event.place) for _, event in said_of(bus, "fact") if event.fact == "is_slow"]
        assert len(facts) == len(set(facts)) == 11
        fired = [event for _, event in said_of(bus, "rule") if isinstance(event, RuleFired)]
        assert sorted(event.place[0] for event in fired) == sorted(
            place for _, kind, place, *_ in facts if kind.endswith("true")
        )
        assert all(event.actions["apply"] == ["fuse loops"] for event in fired)
        assert len([event for _, event in said_of(bus, "rule") if event.type == "rule.advice"]) == 1
        ids = [seen.id for family in ("fact", "rule", "hint") for seen in bus.events(family=family)]
        assert len(ids) == len(set(ids))


def test_a_projector_that_is_killed_while_it_builds_a_modules_tables_ends_with_the_same_tables(
    settings: Settings, projectors: Projectors
) -> None:
    with Bus.open(settings) as bus:
        for number in range(60):
            items = [perf(float(5 + (number * 7 + i * 3) % 11)) for i in range(40)]
            bodies = [(item.type, item.encode()) for item in items]
            records = [
                Record(number * 40 + i + 1, kind, 1, None, 1 + number, msgspec.Raw(body))
                for i, (kind, body) in enumerate(bodies)
            ]
            data = encode_frame(records, run="r", attempt=1, rank=0, writer="c" * 16, family="trace")
            bus.run(_publish(bus.conn, "morphogen.log.r.trace.1-0", data, f"frame {number}"))
        query("SELECT 1", wait=True, settings=settings)  # the store is there before the module is
        bus.emit(loaded(), msg_id="load")
        for pause in (0.3, 0.6, 1.0):
            projectors.start()
            time.sleep(pause)
            projectors.kill()

        rows = query(
            "SELECT (SELECT count(*) FROM trace_mat_mul_performance), (SELECT count(*) FROM fact_mat_mul_is_slow WHERE holds), "
            "(SELECT count(*) FROM facts WHERE fact = 'is_slow'), (SELECT count(DISTINCT (seq, idx)) FROM facts WHERE fact = 'is_slow')",
            wait=True, timeout=60, settings=settings,
        ).rows()  # fmt: skip

        values = [float(5 + (number * 7 + i * 3) % 11) for number in range(60) for i in range(40)]
        slow = [value < 10.0 for value in values]
        changes = 1 + sum(one != other for one, other in itertools.pairwise(slow))
        assert rows == [(2400, sum(slow), changes, changes)]


def test_two_announcers_at_once_say_everything_once_and_both_hear_it(settings: Settings) -> None:
    with Bus.open(settings) as bus:
        bus.emit(perf(9.0), run="before", msg_id="before")
        bus.emit(loaded(), msg_id="load")
        for i in range(5):
            bus.emit(perf(9.0 if i % 2 else 12.0), run="r", msg_id=f"item {i}")
        query("SELECT 1", wait=True, settings=settings)
        heard: list[list[Said]] = [[], []]
        conn = bus.conn

        async def ask(sql: str) -> list[tuple[Any, ...]]:
            return await asyncio.to_thread(lambda: query(sql, settings=settings).rows())

        async def publish(subject: str, data: bytes, msg_id: str) -> Any:
            return await asyncio.to_thread(lambda: bus.run(_publish(conn, subject, data, msg_id)))

        async def main() -> None:
            both = [Announcer(ask, publish) for _ in heard]
            for one, into in zip(both, heard, strict=True):
                one.heard = into.append
            await asyncio.gather(*(one.step() for one in both))

        asyncio.run(main())

        facts = [(event.fact, *event.place) for _, event in said_of(bus, "fact")]
        assert len(facts) == len(set(facts)) == len([one for one in heard[0] if one.event.family == "fact"])
        assert [one.event for one in heard[0] if one.event.type != "rule.advice"] == [
            one.event for one in heard[1] if one.event.type != "rule.advice"
        ]
        advice = [event for _, event in said_of(bus, "rule") if event.type == "rule.advice"]
        assert [one.conditions for one in advice] == [["it feels slow"]]
        assert "before" not in {run for run, _ in said_of(bus, "fact")}  # what was before the module concerns nobody


async def _publish(conn: Connection, subject: str, data: bytes, msg_id: str) -> Any:
    from morphogen.bus.emit import publish_once

    return await publish_once(conn, subject, data, msg_id=msg_id)


def test_items_of_a_replay_are_projected_and_not_announced(settings: Settings) -> None:
    with Bus.open(settings) as bus:
        bus.emit(loaded(), msg_id="load")
        bus.emit(perf(9.0), run="r", msg_id="item")
        frame = next(iter(bus.read(family="trace")))[0]
        seen = decode_frame(frame.data)
        again = encode_frame(
            seen.records, run="again", attempt=1, rank=0, writer="b" * 16, family="trace", replay="old"
        )
        bus.run(_publish(bus.conn, "morphogen.log.again.trace.1-0", again, "replayed"))
        rows = query(
            "SELECT run, holds FROM facts WHERE fact = 'is_slow' ORDER BY run", wait=True, settings=settings
        ).rows()
        assert rows == [("again", True), ("r", True)]

        conn = bus.conn

        async def main() -> None:
            async def ask(sql: str) -> list[tuple[Any, ...]]:
                return await asyncio.to_thread(lambda: query(sql, settings=settings).rows())

            async def publish(subject: str, data: bytes, msg_id: str) -> Any:
                return await asyncio.to_thread(lambda: bus.run(_publish(conn, subject, data, msg_id)))

            await Announcer(ask, publish).step()

        asyncio.run(main())
        assert {run for run, _ in said_of(bus, "fact")} == {"r"}


def test_a_message_with_thousands_of_changes_is_cut_into_the_same_frames_by_everybody() -> None:
    def said(n: int) -> Said:
        event = FactBecameTrue(fact=f"f{n}", system="S", place=[7, n, 0])
        return Said(event, "run", 7, None, 1, None, "S", "ab")

    every = frames(map(said, range(3 * CHUNK + 5)), {})
    rest = frames(map(said, range(3 * CHUNK + 5)), {("S", "ab", "run", 7, "fact"): 2 * CHUNK})

    assert len(every) == 4
    assert every[2:] == rest
    assert len({one.msg_id for one in every}) == 4
    assert sum(len(decode_frame(one.data).records) for one in every) == 3 * CHUNK + 5
