"""A target's consumer goes from the broker with its last worker, and no command goes with it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from morphogen.bus.commands import workqueue
from morphogen.bus.commands.issue import Command, Worker, send
from morphogen.bus.connection import Connection
from morphogen.bus.errors import JetStreamApiError
from morphogen.bus.streams import COMMANDS

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]


async def consumer(conn: Connection) -> dict[str, Any] | None:
    try:
        return await conn.js(f"CONSUMER.INFO.{COMMANDS}.worker-job")
    except JetStreamApiError:
        return None


async def serving(conn: Connection, handler: Callable[[Command], object]) -> tuple[Worker, "asyncio.Task[None]"]:
    """Return a worker that asks for commands."""
    worker = Worker(conn, "job", {"do": handler}, backoff=(60.0,))
    task = asyncio.create_task(worker.run())
    await until(lambda: waits(conn))
    return worker, task


async def waits(conn: Connection) -> bool:
    held = await consumer(conn)
    return held is not None and held["num_waiting"] > 0


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def ended(worker: Worker, task: "asyncio.Task[None]") -> None:
    worker.stop()
    await asyncio.wait_for(task, 10)


def test_the_last_worker_of_a_target_takes_its_consumer_along(on_bus: OnBus) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        first = await serving(conn, lambda command: done.append(command.id))
        second = await serving(conn, lambda command: done.append(command.id))
        await send(conn, "job", "do", command_id="one")
        while not done:
            await asyncio.sleep(0.02)
        await ended(*first)
        assert await consumer(conn) is not None
        await send(conn, "job", "do", command_id="two")
        while len(done) < 2:
            await asyncio.sleep(0.02)
        await ended(*second)
        assert await consumer(conn) is None

    on_bus(story)
    assert done == ["one", "two"]


@pytest.mark.parametrize("step", range(1, 5))
def test_a_command_keeps_its_consumer_whenever_its_worker_joins_while_another_leaves(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    kept: list[bool] = []

    async def story(conn: Connection) -> None:
        leaver = workqueue.WorkQueue(conn, "job", ack_wait=30.0)
        await leaver._start()
        await leaver.close()
        left = asyncio.Event()

        async def work(_command: Command) -> None:
            await left.wait()
            held = await consumer(conn)
            kept.append(held is not None and held["num_ack_pending"] == 1)

        joining: list[asyncio.Task[None]] = []
        ask, steps = conn.js, 0

        async def js(api: str, payload: Any = None, timeout: float = 5.0) -> dict[str, Any]:
            nonlocal steps
            steps += 1
            if steps == step:  # somebody else comes before this step of the one that leaves
                with monkeypatch.context() as patch:
                    patch.setattr(conn, "js", ask)
                    worker = Worker(conn, "job", {"do": work})
                    joining.append(asyncio.create_task(worker.run()))
                    await until(lambda: waits(conn))
                    await send(conn, "job", "do")
                    await asyncio.sleep(0.2)
            return await ask(api, payload, timeout)

        with monkeypatch.context() as patch:
            patch.setattr(conn, "js", js)
            await leaver.leave()
        left.set()
        assert joining
        await until(lambda: asyncio.sleep(0, bool(kept)))
        joining[0].cancel()
        await asyncio.wait(joining)

    on_bus(story)
    assert kept == [True]


def test_a_worker_whose_consumer_is_taken_away_makes_it_anew(on_bus: OnBus) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        worker = await serving(conn, lambda command: done.append(command.id))
        await conn.js(f"CONSUMER.DELETE.{COMMANDS}.worker-job")
        await send(conn, "job", "do", command_id="one")
        while not done:
            await asyncio.sleep(0.02)
        await ended(*worker)

    on_bus(story)
    assert done == ["one"]


def test_a_consumer_with_commands_that_are_put_off_stays(on_bus: OnBus) -> None:
    def fail(command: Command) -> None:
        raise ValueError("not yet")

    async def story(conn: Connection) -> None:
        worker, task = await serving(conn, fail)
        await send(conn, "job", "do")
        await until(lambda: tried(conn))
        await ended(worker, task)
        held = await consumer(conn)
        assert held is not None
        assert held["num_ack_pending"] == 1

    async def tried(conn: Connection) -> bool:
        held = await consumer(conn)
        return held is not None and held["num_ack_pending"] == 1 and held["num_waiting"] == 1

    on_bus(story)


def test_a_consumer_without_a_worker_is_forgotten_and_its_commands_come_to_the_next(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        old = {"durable_name": "worker-job", "filter_subject": "morphogen.command.to-job.*", "ack_policy": "explicit"}
        old |= {"max_deliver": -1, "max_ack_pending": -1, "deliver_policy": "all", "replay_policy": "instant"}
        path = f"CONSUMER.CREATE.{COMMANDS}.worker-job.morphogen.command.to-job.*"
        await conn.js(path, {"stream_name": COMMANDS, "config": old, "action": ""})
        monkeypatch.setattr(workqueue, "_FORGOTTEN", 1)
        killed = workqueue.WorkQueue(conn, "job", ack_wait=30.0)
        await killed._start()
        held = await consumer(conn)
        assert held is not None
        assert held["config"]["inactive_threshold"] == 1_000_000_000, "one of an earlier version gets it too"
        await killed.close()
        await send(conn, "job", "do", command_id="one")
        await until(lambda: gone(conn))

        worker = await serving(conn, lambda command: done.append(command.id))
        while not done:
            await asyncio.sleep(0.02)
        await ended(*worker)

    async def gone(conn: Connection) -> bool:
        return await consumer(conn) is None

    on_bus(story)
    assert done == ["one"]
