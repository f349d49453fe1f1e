"""A request gets its answer, a stream of them, or one line that says why not, in bounded time."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from morphogen.bus import requests
from morphogen.bus.connection import Connection
from morphogen.bus.errors import Disconnected, MessageTooLarge, NoResponders, RequestTimeout, ServiceError
from morphogen.bus.requests import call, call_stream, respond

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]


async def double(payload: bytes) -> bytes:
    return payload * 2


async def broken(payload: bytes) -> bytes:
    raise ValueError("no such\ntable")


async def never(payload: bytes) -> bytes:
    await asyncio.sleep(60)
    return b""


def test_a_request_is_answered_and_the_handlers_error_comes_back_as_one_line(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        responders = [await respond(conn, "t.double", double), await respond(conn, "t.broken", broken)]

        assert await call(conn, "t.double", b"ab") == b"abab"
        assert [chunk async for chunk in call_stream(conn, "t.double", b"ab")] == [b"abab"]
        with pytest.raises(ServiceError, match="no such table") as caught:
            await call(conn, "t.broken")
        assert caught.value.kind == "ValueError"
        with pytest.raises(ServiceError, match="no such table"):
            await anext(call_stream(conn, "t.broken"))
        for responder in responders:
            await responder.close()
        assert conn.on_reconnect == []

    on_bus(story)


def test_nobody_there_is_told_at_once_and_silence_after_the_deadline(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        responder = await respond(conn, "t.never", never)
        began = time.monotonic()
        with pytest.raises(NoResponders, match=r"t\.nobody"):
            await call(conn, "t.nobody", timeout=20)
        with pytest.raises(NoResponders, match=r"t\.nobody"):
            await anext(call_stream(conn, "t.nobody", timeout=20))
        assert time.monotonic() - began < 5
        with pytest.raises(RequestTimeout, match=r"t\.never"):
            await call(conn, "t.never", timeout=0.1)
        with pytest.raises(RequestTimeout, match=r"t\.never"):
            await anext(call_stream(conn, "t.never", timeout=0.2))
        assert time.monotonic() - began < 10
        await responder.close()

    on_bus(story)


def test_a_stream_keeps_its_chunks_whole_whatever_their_size(on_bus: OnBus) -> None:
    sizes = [0, 1, 5, requests.PIECE, requests.PIECE + 1, 3_000_000, 7] + [100] * 100

    async def rows(payload: bytes) -> AsyncIterator[bytes]:
        for size in sizes:
            yield payload * size

    async def story(conn: Connection) -> None:
        responder = await respond(conn, "t.rows", rows)
        got = [chunk async for chunk in call_stream(conn, "t.rows", b"x")]
        assert [len(chunk) for chunk in got] == sizes
        assert await call(conn, "t.rows", b"") == b""
        with pytest.raises((ServiceError, MessageTooLarge), match="send it as a stream"):
            await call(conn, "t.rows", b"xxxxxxxxx", timeout=10)
        await responder.close()

    on_bus(story)


def test_an_error_in_the_middle_of_a_stream_follows_its_chunks(on_bus: OnBus) -> None:
    async def rows(payload: bytes) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        raise KeyError("three")

    async def story(conn: Connection) -> None:
        responder = await respond(conn, "t.rows", rows)
        reader = call_stream(conn, "t.rows")
        assert await anext(reader) == b"one"
        assert await anext(reader) == b"two"
        with pytest.raises(ServiceError, match="three") as caught:
            await anext(reader)
        assert caught.value.kind == "KeyError"
        await responder.close()

    on_bus(story)


def test_a_slow_reader_holds_the_handler_back(on_bus: OnBus) -> None:
    made = 0

    async def rows(payload: bytes) -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(500):
            made += 1
            yield b"row"

    async def story(conn: Connection) -> None:
        responder = await respond(conn, "t.rows", rows)
        reader = call_stream(conn, "t.rows")
        await anext(reader)
        await asyncio.sleep(0.3)
        assert made <= requests.WINDOW + 2
        assert 1 + len([chunk async for chunk in reader]) == 500
        await responder.close()

    on_bus(story)


def test_closing_a_stream_closes_the_handlers_generator(on_bus: OnBus) -> None:
    closed = asyncio.Event()

    async def rows(payload: bytes) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"row"
        finally:
            closed.set()

    async def story(conn: Connection) -> None:
        responder = await respond(conn, "t.rows", rows)
        async with contextlib.aclosing(call_stream(conn, "t.rows")) as reader:
            await anext(reader)
        await asyncio.wait_for(closed.wait(), 3)
        await responder.close()

    on_bus(story)


def test_a_caller_that_dies_is_given_up(on_bus: OnBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_DEAD_AFTER", 0.3)
    monkeypatch.setattr(requests, "_ALIVE_EVERY", 0.1)
    closed = asyncio.Event()

    async def rows(payload: bytes) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"row"
        finally:
            closed.set()

    async def story(conn: Connection) -> None:
        responder = await respond(conn, "t.rows", rows)
        inbox = conn.nc.new_inbox()
        await conn.nc.publish("t.rows", b"", reply=inbox, headers={"Morphogen-Control": f"{inbox}.control"})
        await asyncio.wait_for(closed.wait(), 3)
        await responder.close()

    on_bus(story)


def test_a_handler_at_work_is_not_silent(on_bus: OnBus) -> None:
    async def rows(payload: bytes) -> AsyncIterator[bytes]:
        await asyncio.sleep(0.6)
        yield b"first"
        await asyncio.sleep(0.6)
        yield b"second"

    async def story(conn: Connection) -> None:
        responder = await respond(conn, "t.rows", rows)
        assert [chunk async for chunk in call_stream(conn, "t.rows", idle_timeout=0.3)] == [b"first", b"second"]
        await responder.close()

    on_bus(story)


def test_of_a_queue_one_responder_gets_each_request(on_bus: OnBus) -> None:
    counts = [0, 0]

    async def story(conn: Connection) -> None:
        def counter(index: int) -> Callable[[bytes], Awaitable[bytes]]:
            async def handler(payload: bytes) -> bytes:
                counts[index] += 1
                return b""

            return handler

        responders = [await respond(conn, "t.shared", counter(index), queue="q") for index in (0, 1)]
        await asyncio.gather(*(call(conn, "t.shared") for _ in range(50)))
        assert sum(counts) == 50
        for responder in responders:
            await responder.close()

    on_bus(story)


def test_a_responder_outlives_the_broker_and_a_stream_ends_with_disconnected(on_bus: OnBus) -> None:
    async def rows(payload: bytes) -> AsyncIterator[bytes]:
        while True:
            yield b"row"
            await asyncio.sleep(0.01)

    async def story(conn: Connection) -> None:
        await respond(conn, "t.double", double)
        await respond(conn, "t.rows", rows)
        reader = call_stream(conn, "t.rows")
        await anext(reader)
        assert conn.endpoint.pid is not None
        os.kill(conn.endpoint.pid, signal.SIGKILL)
        with pytest.raises((Disconnected, RequestTimeout)):
            await asyncio.wait_for(asyncio.create_task(drain(reader)), 15)
        await conn.wait_connected(10)
        for _ in range(100):
            with contextlib.suppress(NoResponders, Disconnected):
                assert await call(conn, "t.double", b"x") == b"xx"
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the responder did not come back")

    on_bus(story)


async def drain(reader: AsyncIterator[bytes]) -> None:
    async for _ in reader:
        pass
