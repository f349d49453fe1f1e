"""A reader yields every message of a stream once, in order, whatever happens to the broker meanwhile."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from morphogen.bus import pull as pulls
from morphogen.bus.connection import Connection, connect
from morphogen.bus.emit import emit, event_id
from morphogen.bus.errors import Disconnected, StreamMissing, StreamReplaced
from morphogen.bus.reader import Message, read
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, ensure_streams, stream_info, trim
from morphogen.schemas import LogLine, decode_frame

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]


async def fill(conn: Connection, count: int, size: int = 100, run: str = "r", family: str = "metrics") -> None:
    """Store `count` messages, some at a time."""
    for start in range(0, count, 200):
        await asyncio.gather(
            *(
                conn.publish_ack(f"morphogen.log.{run}.{family}.0-0", f"{number:06d}".encode().ljust(size, b"."))
                for number in range(start, min(start + 200, count))
            )
        )


async def collect(conn: Connection, **options: Any) -> list[Message]:
    return [message async for batch in read(conn, **options) for message in batch]


async def consumers(conn: Connection) -> int:
    return int((await conn.js(f"STREAM.INFO.{LOG}"))["state"]["consumer_count"])


def test_an_empty_stream_and_a_filter_that_matches_nothing_end_at_once(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        assert await collect(conn) == []
        await fill(conn, 10)

        assert await collect(conn, run="other") == []
        assert await collect(conn, family=["health", "log"]) == []
        assert await collect(conn, after=10) == []
        assert await collect(conn, after=99) == []
        assert await collect(conn, since_ns=time.time_ns() + 10**12) == []

    on_bus(story)


def test_messages_come_once_in_order_and_only_those_asked_for(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        await fill(conn, 300)
        await fill(conn, 200, run="=2A", family="health")
        await fill(conn, 100, family="log")

        everything = await collect(conn)
        part = await collect(conn, after=250, upto=260)
        star = await collect(conn, run="*")
        several = await collect(conn, run="r", family=("log", "health"))
        late = await collect(conn, since_ns=everything[400].stored)

        assert [message.seq for message in everything] == list(range(1, 601))
        assert [message.seq for message in part] == list(range(251, 261))
        assert [message.seq for message in star] == list(range(301, 501))
        assert [message.seq for message in several] == list(range(501, 601))
        assert late[0].seq <= 401
        assert [message.seq for message in late] == list(range(late[0].seq, 601))
        assert len(await collect(conn, family="metrics", upto=10**9)) == 300

    on_bus(story)


def test_a_finite_read_ends_at_the_end_as_of_its_start(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        await fill(conn, 50)
        reader = read(conn)
        first = await anext(reader)
        await fill(conn, 50)

        rest = [message async for batch in reader for message in batch]

        assert len(first) + len(rest) == 50

    on_bus(story)


def test_a_live_tail_sees_a_message_soon_and_ends_where_it_should(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        await fill(conn, 5)
        seen: list[Message] = []

        async def tail() -> None:
            async for batch in read(conn, follow=True, upto=25):
                seen.extend(batch)

        task = asyncio.create_task(tail())
        for number in range(20):
            line = LogLine(level="info", message=str(number), logger="test", fields={})
            await emit(conn, line, label="0-0", msg_id=f"line-{number}")
            await asyncio.sleep(0.002)
        await task

        assert [message.seq for message in seen] == list(range(1, 26))
        frame = decode_frame(seen[-1].data, seen[-1].seq, seen[-1].stored)
        assert frame.event_id(0) == event_id("line-19", "log")

    on_bus(story)


def test_a_tail_with_a_filter_ends_at_its_position_though_nothing_matches(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls, "_HEARTBEAT", 0.2)

    async def story(conn: Connection) -> None:
        await fill(conn, 10)
        await fill(conn, 10, family="health")
        found = await asyncio.wait_for(collect(conn, family="metrics", upto=20, follow=True), 10)
        assert [message.seq for message in found] == list(range(1, 11))

    on_bus(story)


def test_a_trimmed_start_is_no_gap(on_bus: OnBus, caplog: pytest.LogCaptureFixture) -> None:
    async def story(conn: Connection) -> None:
        await fill(conn, 100)
        await trim(conn, 61)

        assert [message.seq for message in await collect(conn)] == list(range(61, 101))
        assert [message.seq for message in await collect(conn, after=20, family="metrics")] == list(range(61, 101))
        await trim(conn, 101)
        assert await collect(conn) == []

    on_bus(story)
    assert "damaged" not in caplog.text


def test_large_messages_never_exceed_the_buffer_and_all_arrive(on_bus: OnBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "WINDOW", 4 << 20)
    monkeypatch.setattr(pulls, "BUFFER", 8 << 20)
    count, size = 60, 400_000

    async def story(conn: Connection) -> None:
        for number in range(count):
            await conn.publish_ack("morphogen.log.r.health.0-0", number.to_bytes(4) + bytes(size))
        total, largest = 0, 0
        async for batch in read(conn):
            total += len(batch)
            largest = max(largest, sum(len(message.data) for message in batch))
            await asyncio.sleep(0.01)

        assert total == count
        assert largest <= 8 << 20

    on_bus(story)


def test_requests_end_by_count_and_by_bytes_without_a_restart(on_bus: OnBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "_BATCH", 64)
    monkeypatch.setattr(pulls, "_SMALLEST", 20_000)
    monkeypatch.setattr(pulls, "WINDOW", 60_000)
    monkeypatch.setattr(pulls, "BUFFER", 120_000)
    stops: list[str] = []
    stop = pulls.Pull.stop

    def counted(self: pulls.Pull, reason: str) -> None:
        stops.append(reason)
        stop(self, reason)

    monkeypatch.setattr(pulls.Pull, "stop", counted)

    async def story(conn: Connection) -> None:
        await fill(conn, 1000)
        await fill(conn, 200, size=5000)
        await fill(conn, 500, size=10)

        assert [message.seq for message in await collect(conn)] == list(range(1, 1701))

    on_bus(story)
    assert stops == []


def test_closing_a_reader_takes_its_consumer_off_the_broker(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        await fill(conn, 10)
        reader = read(conn, follow=True)
        await anext(reader)
        assert await consumers(conn) == 1
        await reader.aclose()
        assert await consumers(conn) == 0
        assert conn.on_reconnect == []

        async def tail() -> None:
            async for _ in read(conn, follow=True):
                pass

        task = asyncio.create_task(tail())
        await asyncio.sleep(0.2)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await consumers(conn) == 0

    on_bus(story)


def test_a_consumer_that_vanishes_is_made_anew(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        await fill(conn, 10)
        reader = read(conn, follow=True)
        seen = list(await anext(reader))
        while len(seen) < 10:
            seen += await anext(reader)
        for name in (await conn.js(f"CONSUMER.NAMES.{LOG}"))["consumers"]:
            await conn.js(f"CONSUMER.DELETE.{LOG}.{name}")
        await fill(conn, 10)
        while len(seen) < 20:
            seen += await anext(reader)
        await reader.aclose()

        assert [message.seq for message in seen] == list(range(1, 21))

    on_bus(story)


def test_a_lost_delivery_is_noticed_by_count(on_bus: OnBus, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[int] = []
    receive = pulls.Pull._receive

    async def lossy(self: pulls.Pull, message: Any) -> None:
        if message.reply.startswith("$JS.ACK.") and b"000042" in message.data and not dropped:
            dropped.append(1)
            return
        await receive(self, message)

    monkeypatch.setattr(pulls.Pull, "_receive", lossy)

    async def story(conn: Connection) -> None:
        await fill(conn, 100)
        assert [message.seq for message in await collect(conn, family="metrics")] == list(range(1, 101))

    on_bus(story)
    assert dropped


def test_a_killed_broker_costs_a_tail_nothing(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        await fill(conn, 500)
        seen: list[int] = []

        async def tail() -> None:
            async for batch in read(conn, follow=True, upto=1000):
                seen.extend(message.seq for message in batch)

        task = asyncio.create_task(tail())
        while len(seen) < 500:
            await asyncio.sleep(0.01)
        pid = conn.endpoint.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while conn.connected and conn.endpoint.pid == pid:
            await asyncio.sleep(0.01)
        await conn.wait_connected(10)
        await fill(conn, 500)
        await task

        assert seen == list(range(1, 1001))

    on_bus(story)


def test_a_killed_broker_costs_a_catch_up_nothing(on_bus: OnBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "_BATCH", 50)

    async def story(conn: Connection) -> None:
        await fill(conn, 2000)
        seen: list[int] = []
        killed = False
        async for batch in read(conn, run="r"):
            seen.extend(message.seq for message in batch)
            if not killed and len(seen) >= 300:
                killed = True
                assert conn.endpoint.pid is not None
                os.kill(conn.endpoint.pid, signal.SIGKILL)
            await asyncio.sleep(0)

        assert killed
        assert seen == list(range(1, 2001))

    on_bus(story)


def test_a_stream_that_is_missing_or_was_replaced_is_told(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        with pytest.raises(StreamMissing, match="NOT_THERE"):
            await collect(conn, stream="NOT_THERE")
        await fill(conn, 5)
        reader = read(conn, follow=True)
        await anext(reader)
        epoch = (await stream_info(conn, LOG)).epoch
        await conn.js(f"STREAM.DELETE.{LOG}")
        await ensure_streams(conn)
        assert (await stream_info(conn, LOG)).epoch != epoch
        with pytest.raises(StreamReplaced, match="replaced"):
            await anext(reader)

    on_bus(story)


def test_closing_the_connection_ends_a_tail_with_one_line(settings: Settings) -> None:
    async def story() -> None:
        conn = await connect(settings, name="test")
        await ensure_streams(conn)

        async def tail() -> None:
            async for _ in read(conn, follow=True):
                pass

        task = asyncio.create_task(tail())
        await asyncio.sleep(0.1)
        await conn.close()
        with pytest.raises(Disconnected):
            await asyncio.wait_for(task, 15)

    asyncio.run(story())
