"""What the broker forbids, or cannot do, is told at once and in its words, and not as an answer that never came."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from morphogen.bus.connection import Connection, connect
from morphogen.bus.errors import NoResponders, NotAllowed, RequestTimeout, lasting
from morphogen.bus.requests import call, call_stream, respond
from morphogen.bus.settings import Settings
from morphogen.bus.streams import ensure_streams
from morphogen.cli.app import run

ServerOf = Callable[[str], int]

LIMITED = """
authorization {
  users: [
    {user: some, password: x, permissions: {publish: {deny: ["Secret.>", "control.no"]}, subscribe: {deny: ["news", "news.>"]}}}
    {user: deaf, password: x, permissions: {subscribe: {deny: "_INBOX.>"}}}
  ]
}
"""


def as_user(settings: Settings, user: str, port: int, story: Callable[[Connection], Awaitable[None]]) -> None:
    async def main() -> None:
        who = f"{user}@" if user else ""
        conn = await connect(Settings(home=settings.home, urls=(f"nats://{who}127.0.0.1:{port}",)), name="test")
        try:
            start = time.monotonic()
            await story(conn)
            assert time.monotonic() - start < 5
        finally:
            await conn.close()

    asyncio.run(main())


def test_a_subject_that_we_may_not_use_fails_at_once_with_the_brokers_words(
    settings: Settings, server_of: ServerOf, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(conn: Connection) -> None:
        for asking in (
            conn.request("Secret.a", timeout=30),
            conn.publish_ack("Secret.b", b"", timeout=30),
            call(conn, "Secret.c", timeout=30),
            anext(call_stream(conn, "Secret.d", timeout=30)),
        ):
            with pytest.raises(NotAllowed, match=r"(?i)permissions violation for publish to .secret\.[a-d]") as caught:
                await asking
            assert "\n" not in str(caught.value)
        await conn.nc.subscribe("deaf")
        with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
            await conn.request("deaf", timeout=0.05)
        assert conn.nc.refusals == set()

    as_user(settings, "some:x", server_of(LIMITED), story)
    assert caplog.text == ""


def test_what_nobody_waits_for_is_told_once(
    settings: Settings, server_of: ServerOf, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(conn: Connection) -> None:
        async def never(_: bytes) -> AsyncIterator[bytes]:
            yield b""

        for _ in range(3):
            await respond(conn, "news", never)
            await conn.nc.publish("control.no", b"")
        await ping(conn)

    with caplog.at_level(logging.WARNING):
        as_user(settings, "some:x", server_of(LIMITED), story)
    assert caplog.text.count("subscription to") == 1
    assert caplog.text.count('publish to "control.no"') == 1


def test_a_queue_that_we_may_not_join_is_no_subject_of_that_name(
    settings: Settings, server_of: ServerOf, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(conn: Connection) -> None:
        async def never(_: bytes) -> AsyncIterator[bytes]:
            yield b""

        await conn.nc.subscribe("group")
        asking = asyncio.create_task(conn.request("group", timeout=0.5))
        await asyncio.sleep(0)
        for subject in ("news", "news.more"):
            await respond(conn, subject, never, "group")
        with pytest.raises(RequestTimeout):
            await asking

    as_user(settings, "some:x", server_of(LIMITED), story)
    assert caplog.text.count('subscription to "news" using queue "group"') == 1
    assert caplog.text.count('subscription to "news.more" using queue "group"') == 1


def test_a_user_who_may_hear_no_answers_is_told_so(settings: Settings, server_of: ServerOf) -> None:
    async def story(conn: Connection) -> None:
        for _ in range(2):
            with pytest.raises(NotAllowed, match=r"(?i)subscription to"):
                await conn.request("anybody", timeout=30)

    as_user(settings, "deaf:x", server_of(LIMITED), story)


def test_a_broker_without_jetstream_is_told_as_that(settings: Settings, server_of: ServerOf) -> None:
    async def story(conn: Connection) -> None:
        with pytest.raises(NoResponders, match=r"nats://127\.0\.0\.1:\d+ has no JetStream: add a jetstream { } block"):
            await ensure_streams(conn)

    as_user(settings, "", server_of(""), story)


def test_up_says_so_where_a_broker_has_no_jetstream_for_the_streams(
    server_of: ServerOf, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--url", f"nats://127.0.0.1:{server_of('')}", "up"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "has no JetStream: add a jetstream { } block" in said.err


async def ping(conn: Connection) -> None:
    assert conn._link is not None
    await conn._link.echo(5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.89748, "4.9 s"), (5.0, "5 s"), (0.05, "0.05 s"), (3600, "3600 s"), (0.0123456, "0.012 s")]
)
def test_a_time_is_told_in_few_digits(seconds: float, text: str) -> None:
    assert lasting(seconds) == text
