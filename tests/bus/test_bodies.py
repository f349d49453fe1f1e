"""Bodies that lie in blobs: brought back where they belong, told where they are gone, never passed over in between."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.bus import Bus, Settings, bodies, patience
from morphogen.bus.blobs import get_bytes, put_bytes
from morphogen.bus.bodies import reference, restored, whole
from morphogen.bus.connection import Connection
from morphogen.bus.errors import Disconnected, NoResponders, RequestTimeout
from morphogen.bus.past import past
from morphogen.bus.reader import Message
from morphogen.cli.shown import shown
from morphogen.schemas import LogLine, Record, Unknown, decode_frame, encode, encode_frame, verify_frame

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]
GONE = "ab" * 32
SUBJECT = "morphogen.log.r.log.1-0"


def referring(*shas: str, replay: str | None = None) -> bytes:
    """Return a frame of lines: one that travels as it is, and one for each blob that has its body."""
    raws = [LogLine(message="small").encode(), *(encode({"$blob": sha, "size": 1_000_000}) for sha in shas)]
    records = [Record(n, "log.line", 1, n, 5, msgspec.Raw(raw), "why") for n, raw in enumerate(raws, start=1)]
    return encode_frame(records, run="r", attempt=1, rank=0, writer="ab" * 8, family="log", replay=replay)


async def kept(conn: Connection, text: str) -> str:
    """Store the body of a line as a blob."""
    return await put_bytes(conn, LogLine(message=text).encode())


def said(message: Message) -> list[Any]:
    return [msgspec.msgpack.decode(record.body).get("message") for record in decode_frame(message.data).records]


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**63),
    st.dictionaries(st.text(), st.integers(0, 9), max_size=3),
)
def test_a_reference_is_known_from_any_other_body(digest: bytes, size: int, other: dict[str, int]) -> None:
    assert reference(msgspec.Raw(encode({"$blob": digest.hex(), "size": size}))) == digest.hex()
    assert reference(encode(other)) is None
    assert reference(encode({"$blob": "short", "size": size})) is None
    assert reference(encode({"$blob": "no hexadecimal digits" + "x" * 43, "size": size})) is None


def test_bodies_come_back_into_their_frames_and_what_is_gone_is_told(
    on_bus: OnBus, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(conn: Connection) -> None:
        large, broken = await kept(conn, "large"), await put_bytes(conn, b"\x81")
        message = Message(7, 8, SUBJECT, referring(large, GONE, broken, replay="again"))

        brought = await restored(conn, message)

        assert said(brought) == ["small", "large", None, None]
        assert (brought[:3], brought.size) == (message[:3], len(message.data))
        verify_frame(brought.data)
        old, new = decode_frame(message.data), decode_frame(brought.data)
        assert (new.replay, new.first, new.last) == ("again", 1, 4)
        assert [(r.n, r.step, r.time, r.cause) for r in new.records] == [
            (r.n, r.step, r.time, r.cause) for r in old.records
        ]
        lines = [record.getMessage() for record in caplog.records if "has no body" in record.getMessage()]
        assert len(lines) == 2
        assert lines[0].startswith("event abababababababab.log.3 (log.line of run r, message 7) has no body")
        assert await restored(conn, Message(1, 1, SUBJECT, b"\xc1noise")) == Message(1, 1, SUBJECT, b"\xc1noise")

    with caplog.at_level(logging.WARNING):
        on_bus(story)


@pytest.mark.parametrize("trouble", [RequestTimeout, Disconnected, NoResponders])
def test_a_broker_that_is_silent_for_a_moment_costs_no_body(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch, trouble: type[Exception]
) -> None:
    silent = 2

    async def moody(conn: Connection, sha256: str) -> bytes:
        nonlocal silent
        silent -= 1
        if silent >= 0:
            raise trouble("silence")
        return await get_bytes(conn, sha256)

    async def story(conn: Connection) -> None:
        nonlocal silent
        await conn.publish_ack(SUBJECT, referring(await kept(conn, "large")))
        monkeypatch.setattr(bodies, "get_bytes", moody)
        read = [message async for some in whole(conn, past(conn, conn.settings)) for message in some]
        assert [said(message) for message in read] == [["small", "large"]]

        monkeypatch.setattr(patience, "_PATIENCE", 0.2)
        silent = 1_000_000
        with pytest.raises(trouble):
            await anext(whole(conn, past(conn, conn.settings)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):  # who follows waits for ever, and can be cancelled
                await anext(whole(conn, past(conn, conn.settings, follow=True), follow=True))

    on_bus(story)


def test_lists_are_cut_where_their_bodies_are_large_and_nothing_else_changes(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(conn: Connection) -> None:
        large = await kept(conn, "x" * 1000)
        monkeypatch.setattr(bodies, "_PORTION", 2500)
        messages = [Message(n, n, SUBJECT, referring(large) if n % 2 else referring()) for n in range(1, 11)]

        async def batches() -> AsyncGenerator[list[Message], None]:
            yield messages
            yield [Message(11, 11, SUBJECT, referring())]

        read = [some async for some in whole(conn, batches())]
        assert [[message.seq for message in some] for some in read] == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11]]
        assert [message.size for some in read[:2] for message in some] == [len(message.data) for message in messages]
        alone = [some async for some in whole(None, batches())]
        assert alone[0] is messages

    on_bus(story)


def test_events_have_their_bodies_for_people_and_programs(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with Bus.open(settings) as bus:
        large = bus.run(kept(bus.conn, "large"))
        bus.run(bus.conn.publish_ack(SUBJECT, referring(large, GONE)))
        seen = list(bus.events(family="log"))
        assert [one.event for one in bus.past(family="log")][:2] == [one.event for one in seen][:2]

    assert [one.event.message for one in seen if isinstance(one.event, LogLine)] == ["small", "large"]
    assert isinstance(seen[2].event, Unknown)
    assert reference(seen[1].frame.records[1].body) == large  # the frame does not grow
    assert '{"message":"large"' in shown(seen[1])
    assert '"message":"large"' in shown(seen[1], as_json=True)
    assert "log.line (in a blob that is gone) {" in shown(seen[2])
    assert sum("has no body" in record.getMessage() for record in caplog.records) == 2
