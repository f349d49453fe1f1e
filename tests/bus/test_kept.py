"""A connection keeps nothing of what is over: reads, blobs, requests and work queues may come by the million."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from nats.aio.subscription import Subscription

from morphogen.bus import blobs
from morphogen.bus.commands.workqueue import WorkQueue
from morphogen.bus.connection import Connection
from morphogen.bus.pull import Pull
from morphogen.bus.reader import read
from morphogen.bus.requests import call_stream, respond
from morphogen.bus.streams import LOG

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]


def kept(conn: Connection) -> tuple[int, int, int, int]:
    """Return the subscriptions and the tasks that live, and what the connection and its client list."""
    gc.collect()
    living = sum(type(one) is Subscription for one in gc.get_objects())
    return living, len(asyncio.all_tasks()), len(conn.nc._subs), len(conn.on_reconnect) + len(conn.nc.refusals)


async def read_all(conn: Connection) -> None:
    assert [message.data async for batch in read(conn) for message in batch] == [b"x"]


async def look_only(conn: Connection) -> None:
    reader = read(conn)
    await anext(reader)
    await reader.aclose()


async def get_blob(conn: Connection) -> None:
    assert await blobs.get_bytes(conn, await blobs.put_bytes(conn, b"whole")) == b"whole"


async def ask(conn: Connection) -> None:
    assert [chunk async for chunk in call_stream(conn, "t.count", b"")] == [b"1", b"2"]


async def ask_for_less(conn: Connection) -> None:
    stream = call_stream(conn, "t.count", b"")
    await anext(stream)
    await stream.aclose()


async def count(_payload: bytes) -> AsyncGenerator[bytes, None]:
    yield b"1"
    yield b"2"


@pytest.mark.parametrize("use", [read_all, look_only, get_blob, ask, ask_for_less])
def test_a_hundred_uses_leave_as_much_behind_as_a_few(
    on_bus: OnBus, use: Callable[[Connection], Awaitable[None]]
) -> None:
    async def story(conn: Connection) -> None:
        await conn.publish_ack("morphogen.log.r.metrics.0-0", b"x")
        responder = await respond(conn, "t.count", count)

        async def kept_after(times: int) -> tuple[int, int, int, int]:
            for _ in range(times):
                await use(conn)
            await asyncio.sleep(0.05)  # the other end of a request ends after its answer
            return kept(conn)

        assert await kept_after(3) == await kept_after(100)
        await responder.close()

    on_bus(story)


def test_a_closed_pull_keeps_no_messages(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        for _ in range(20):
            await conn.publish_ack("morphogen.log.r.metrics.0-0", bytes(1000))
        pull = Pull(conn, LOG)
        await pull.open()
        while not pull.ready:
            await asyncio.sleep(0.01)

        await pull.close()

        assert not pull.ready

    on_bus(story)


def test_a_work_queue_that_no_broker_answers_at_its_end_keeps_no_subscription(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(conn: Connection) -> None:
        async def never(*_: object) -> None:
            await asyncio.sleep(60)

        before = kept(conn)
        queue = WorkQueue(conn, "target", ack_wait=5)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(queue.next(1), 0.2)
        assert kept(conn) != before
        monkeypatch.setattr(conn.nc, "flush", never)

        await queue.close()

        del queue
        await asyncio.sleep(0.01)  # for the subscription's task
        assert kept(conn) == before

    on_bus(story)
