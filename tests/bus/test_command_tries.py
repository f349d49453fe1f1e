"""A command is tried as often as it may be, whatever the broker delivers, and one try at a time."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from morphogen.bus.commands import dead
from morphogen.bus.commands.issue import Command, Worker, outcome_label, send
from morphogen.bus.commands.outcomes import Outcomes
from morphogen.bus.connection import Connection
from morphogen.bus.emit import emit
from morphogen.bus.errors import BusError
from morphogen.bus.streams import COMMANDS, LOG, ensure_streams, stream_info, trim
from morphogen.schemas import CommandAccepted, Event

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]


async def until_done(conn: Connection, worker: Worker) -> None:
    """Serve until the work queue is empty."""
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(10):
            while (await stream_info(conn, COMMANDS)).messages:
                await asyncio.sleep(0.02)
    finally:
        worker.stop()
        await task


def test_a_command_that_always_fails_is_given_up_also_where_the_log_is_trimmed_between_its_tries(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    async def story(conn: Connection) -> None:
        look = Worker._judge

        async def judge_later(self: Worker, delivery: Any) -> None:
            await trim(conn, (await stream_info(conn, LOG)).last_seq + 1)
            await look(self, delivery)

        def fail(command: Command) -> None:
            tried.append(command.delivery)
            raise ValueError("no")

        monkeypatch.setattr(Worker, "_judge", judge_later)
        await send(conn, "job", "do", max_deliveries=3)
        await until_done(conn, Worker(conn, "job", {"do": fail}, backoff=(0.01,)))
        assert tried == [1, 2, 3]
        assert [letter.body.deliveries for letter in await dead.letters(conn)] == [3]

    on_bus(story)


def test_a_command_that_comes_again_while_the_broker_is_asked_for_its_time_is_done_once(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    now = Worker._now

    async def story(conn: Connection) -> None:
        async def slow(self: Worker) -> int:
            await asyncio.sleep(0.5)
            return await now(self)

        async def work(command: Command) -> None:
            done.append(command.delivery)
            await asyncio.sleep(0.5)

        monkeypatch.setattr(Worker, "_now", slow)
        await send(conn, "job", "do", expires_in=60)
        await until_done(conn, Worker(conn, "job", {"do": work}, concurrency=2, ack_wait=0.3))
        assert done == [1]

    on_bus(story)


def test_what_a_broker_lost_with_its_power_is_not_remembered(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        outcomes = Outcomes(conn, outcome_label("job"))

        async def take(key: str, worker: str) -> None:
            event = CommandAccepted(command_id=key, worker=worker, delivery=1)
            await emit(conn, event, label=outcome_label("job"), msg_id=f"{key}-{worker}")

        await take("lost", "w")
        await take("other", "w")
        assert (await outcomes.look("lost", 0)).tries == 1
        await conn.js(f"STREAM.DELETE.{LOG}")
        await ensure_streams(conn)
        assert conn.endpoint.pid is not None
        os.kill(conn.endpoint.pid, signal.SIGKILL)
        while conn.generation == 1:
            await asyncio.sleep(0.02)
        await take("fresh", "w2")

        assert (await outcomes.look("lost", 0)).tries == 0
        assert (await outcomes.look("fresh", 0)).tries == 1

    on_bus(story)


def test_only_a_try_of_our_own_is_taken_back_where_no_handler_saw_it(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    say = Worker._say

    async def story(conn: Connection) -> None:
        key = await send(conn, "job", "do")

        async def taken_by_another(self: Worker, order: Any, event: Event, msg_id: str) -> None:
            monkeypatch.setattr(Worker, "_say", say)
            other = CommandAccepted(command_id=key, worker="other", delivery=1)
            await emit(conn, other, label=outcome_label("job"), msg_id="other")
            raise BusError("nobody knows whether it was stored")

        monkeypatch.setattr(Worker, "_say", taken_by_another)
        await until_done(conn, Worker(conn, "job", {"do": lambda command: done.append(command.delivery)}, ack_wait=0.3))
        assert done == [2]

    on_bus(story)
