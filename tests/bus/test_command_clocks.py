"""Whose clock is wrong changes nothing for a command: neither its tries, nor its wait, nor whether it is done."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.bus.commands import dead, workqueue
from morphogen.bus.commands.issue import Command, Worker, send
from morphogen.bus.commands.outcomes import Held, lease
from morphogen.bus.connection import Connection
from morphogen.bus.errors import BusError
from morphogen.bus.streams import COMMANDS, stream_info
from morphogen.schemas import CommandAccepted

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]

HOUR = 3600.0

DOOMED = """
import asyncio, os, sys, time

skew, real = int(float(sys.argv[1]) * 1e9), time.time_ns
time.time_ns = lambda: real() + skew

from morphogen.bus.commands import serve
from morphogen.bus.commands.outcomes import Outcomes
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings

look = Outcomes.look

async def slow(self, *args):
    await asyncio.sleep(0.3)
    return await look(self, *args)

Outcomes.look = slow

async def main():
    conn = await connect(Settings.from_environ(), name="doomed")
    await serve(conn, "job", {"do": lambda command: os._exit(9)}, name="doomed", ack_wait=1.0)

asyncio.run(main())
"""


def skew(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have this process's clock say another time."""
    real = time.time_ns
    patch.setattr(time, "time_ns", lambda: real() + int(seconds * 1e9))


async def is_empty(conn: Connection) -> bool:
    """Say whether the work queue is there, and empty."""
    try:
        return (await stream_info(conn, COMMANDS)).messages == 0
    except BusError:
        return False


async def work(conn: Connection, handler: Callable[[Command], Any], *, name: str = "w") -> None:
    """Serve until the queue is empty."""
    worker = Worker(conn, "job", {"do": handler}, name=name, ack_wait=1.0)
    task = asyncio.create_task(worker.run())
    try:
        async with asyncio.timeout(8):
            while not await is_empty(conn):
                await asyncio.sleep(0.02)
    finally:
        worker.stop()
        await task


@pytest.mark.parametrize("ahead", [0.0, 0.3, HOUR, -HOUR])
def test_a_dead_workers_clock_neither_costs_a_try_nor_holds_its_command(on_bus: OnBus, ahead: float) -> None:
    done: list[tuple[str, int]] = []

    async def story(conn: Connection) -> None:
        key = await send(conn, "job", "do", max_deliveries=2)
        doomed = [sys.executable, "-c", DOOMED, str(ahead)]
        ended = await asyncio.to_thread(subprocess.run, doomed, timeout=20, check=False)
        assert ended.returncode == 9
        await work(conn, lambda command: done.append((command.id, command.delivery)))
        assert done == [(key, 2)]
        assert await dead.letters(conn) == []

    on_bus(story)


def test_a_worker_whose_clock_is_behind_does_not_do_again_what_the_queue_has_forgotten(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    async def story(conn: Connection) -> None:
        await send(conn, "job", "do")
        finished = asyncio.Event()

        async def lost(self: workqueue.Delivery) -> None:
            finished.set()

        with monkeypatch.context() as patch:
            patch.setattr(workqueue.Delivery, "done", lost)
            first = Worker(conn, "job", {"do": lambda _: ran.append("first")}, name="first", ack_wait=1.0)
            task = asyncio.create_task(first.run())
            await finished.wait()
            first.stop()
            await task
        await conn.js(f"CONSUMER.DELETE.{COMMANDS}.worker-job")
        skew(monkeypatch, -HOUR)
        await work(conn, lambda _: ran.append("second"), name="second")
        assert ran == ["first"]

    on_bus(story)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_a_living_worker_whose_clock_is_wrong_keeps_what_the_queue_has_forgotten(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    ran: list[str] = []

    async def story(conn: Connection) -> None:
        begun = asyncio.Event()

        async def slow(_: Command) -> None:
            ran.append("first")
            begun.set()
            await asyncio.sleep(0.5)

        await send(conn, "job", "do")
        first = Worker(conn, "job", {"do": slow}, name="first", ack_wait=1.0)
        with monkeypatch.context() as patch:
            skew(patch, ahead)
            task = asyncio.create_task(first.run())
            await begun.wait()
        first.stop()
        await conn.js(f"CONSUMER.DELETE.{COMMANDS}.worker-job")
        await work(conn, lambda _: ran.append("second"), name="second")
        await task
        assert ran == ["first"]

    on_bus(story)


@pytest.mark.parametrize(("ahead", "expires_in", "is_done"), [(-HOUR, 60.0, True), (HOUR, 0.05, False)])
def test_a_command_lasts_as_long_as_its_issuer_said_whatever_time_it_is_there(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch, ahead: float, expires_in: float, is_done: bool
) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        with monkeypatch.context() as patch:
            skew(patch, ahead)
            key = await send(conn, "job", "do", expires_in=expires_in)
        await asyncio.sleep(0.1)
        await work(conn, lambda command: done.append(command.id))
        assert done == ([key] if is_done else [])
        assert ["expired" in letter.body.reason for letter in await dead.letters(conn)] == ([] if is_done else [True])

    on_bus(story)


def test_a_try_that_no_handler_saw_is_not_counted(on_bus: OnBus, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    say = Worker._say

    async def story(conn: Connection) -> None:
        async def killing(self: Worker, order: Any, event: Any, msg_id: str) -> None:
            await say(self, order, event, msg_id)
            if isinstance(event, CommandAccepted) and conn.generation == 1:
                assert conn.endpoint.pid is not None
                os.kill(conn.endpoint.pid, signal.SIGKILL)
                while conn.generation == 1:
                    await asyncio.sleep(0.02)

        monkeypatch.setattr(Worker, "_say", killing)
        await send(conn, "job", "do", max_deliveries=1)
        await work(conn, lambda command: done.append(command.delivery))
        assert done == [1]
        assert await dead.letters(conn) == []

    on_bus(story)


@given(stored=st.integers(0, 2**62), off=st.integers(-(2**40), 2**40), ack_wait=st.floats(0.1, 1000.0, allow_nan=False))
def test_a_lease_is_over_after_two_waits_at_most(stored: int, off: int, ack_wait: float) -> None:
    held, now = Held("w", 1, stored), stored + off

    waits = [lease(held, now, ack_wait)]
    while waits[-1] > 0:
        now += int(waits[-1] * 1e9) + 1000
        waits.append(lease(held, now, ack_wait))

    assert all(0 <= wait <= ack_wait for wait in waits)
    assert sum(waits) <= 2 * ack_wait
    if abs(off / 1e9) >= ack_wait:
        assert waits == [0.0]
