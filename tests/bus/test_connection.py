"""A connection fails fast when nobody answers, and afterwards comes back from whatever happens to the broker."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus import watch
from morphogen.bus.broker import Endpoint
from morphogen.bus.broker import lifecycle as brokers
from morphogen.bus.broker.process import find_binary, free_port
from morphogen.bus.broker.state import process_born
from morphogen.bus.connection import Connection, connect
from morphogen.bus.errors import (
    BrokerFailed,
    Disconnected,
    JetStreamApiError,
    MessageTooLarge,
    NoBroker,
    NoResponders,
    PublishTimeout,
    RequestTimeout,
)
from morphogen.bus.nats_py import Pieces
from morphogen.bus.settings import Settings

STREAM = {"name": "T", "subjects": ["t.>"], "storage": "file", "allow_direct": True}


def with_connection(settings: Settings, story: Callable[[Connection], Awaitable[None]]) -> None:
    """Connect, run a story, and close whatever happens."""

    async def run() -> None:
        conn = await connect(settings, name="test")
        try:
            await story(conn)
        finally:
            await conn.close()

    asyncio.run(run())


async def lost(conn: Connection) -> None:
    """Wait until the connection has noticed that its broker is gone."""
    while conn.connected:
        await asyncio.sleep(0.001)


def kill(conn: Connection, how: int = signal.SIGKILL) -> None:
    assert conn.endpoint.pid is not None
    os.kill(conn.endpoint.pid, how)


def test_it_starts_the_broker_and_speaks_jetstream(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        assert conn.connected
        assert conn.generation == 1
        assert (await conn.js("INFO"))["streams"] == 0
        await conn.js("STREAM.CREATE.T", STREAM)

        first = await conn.publish_ack("t.a", b"one", {"Nats-Msg-Id": "1"})
        assert (first.seq, first.duplicate, first.stream) == (1, False, "T")
        again = await conn.publish_ack("t.a", b"one", {"Nats-Msg-Id": "1"})
        assert (again.seq, again.duplicate) == (1, True)

        before = time.time_ns()
        await conn.publish_ack("t.a", b"two")
        message = await conn.last_message("T", "t.a")
        assert message is not None
        assert (message.seq, message.subject, message.data) == (2, "t.a", b"two")
        assert before - 10**9 < message.stored_ns < before + 10**10
        assert await conn.last_message("T", "t.b") is None

    with_connection(settings, story)


def test_refusals_come_as_errors_with_their_code(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        with pytest.raises(JetStreamApiError) as missing:
            await conn.js("STREAM.INFO.T")
        assert (missing.value.code, missing.value.err_code) == (404, 10059)

        await conn.js("STREAM.CREATE.T", STREAM)
        await conn.publish_ack("t.a", b"")
        with pytest.raises(JetStreamApiError) as fenced:
            await conn.publish_ack("t.a", b"", {"Nats-Expected-Last-Subject-Sequence": "7"})
        assert fenced.value.err_code == 10071
        with pytest.raises(MessageTooLarge):
            await conn.publish_ack("t.a", bytes(9 << 20))
        with pytest.raises(NoResponders):
            await conn.publish_ack("nobody.here", b"")
        with pytest.raises(NoResponders):
            await conn.last_message("NOWHERE", "t.a")

    with_connection(settings, story)


def test_requests_and_replies_carry_headers_and_end_at_their_deadline(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        async def answer(msg: object) -> None:
            await msg.respond(msg.data.upper() + msg.headers["h"].encode())  # type: ignore[attr-defined]

        await conn.nc.subscribe("loud", cb=answer)
        await conn.nc.subscribe("deaf")
        assert (await conn.request("loud", b"abc", headers={"h": "!"})).data == b"ABC!"
        with pytest.raises(RequestTimeout):
            await conn.request("deaf", timeout=0.05)
        with pytest.raises(PublishTimeout):
            await conn.publish_ack("deaf", b"", timeout=0.05)

    with_connection(settings, story)


def test_a_payload_in_pieces_arrives_as_one_with_headers_and_without(settings: Settings) -> None:
    records = os.urandom(3 << 20)
    pieces = Pieces(b"head ", memoryview(records)[1:-1], b"")

    async def story(conn: Connection) -> None:
        async def answer(msg: object) -> None:
            whole = msg.data == b"head " + records[1:-1]  # type: ignore[attr-defined]
            await msg.respond(repr((whole, msg.headers)).encode())  # type: ignore[attr-defined]

        await conn.nc.subscribe("judge", cb=answer)
        assert len(pieces) == 5 + len(records) - 2
        for headers in (None, {}, {"Nats-Msg-Id": "a: b", "other": "1"}):
            assert (await conn.request("judge", pieces, headers=headers)).data == repr((True, headers or None)).encode()
        with pytest.raises(Disconnected, match=r"[Hh]eader"):
            await conn.request("judge", pieces, headers={"a": "b\r\nc: d"})
        with pytest.raises(MessageTooLarge, match="larger than the broker takes"):
            await conn.request("judge", Pieces(*[records] * 3))
        assert (await conn.request("judge", pieces)).data == b"(True, None)"

    with_connection(settings, story)


def test_nobody_at_the_address_fails_at_once_in_one_line_without_the_password(
    settings: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    away = Settings(home=settings.home, urls=("nats://127.0.0.1:1", "nats://me:hush@127.0.0.1:2"))
    start = time.monotonic()
    with pytest.raises(NoBroker, match=r"127\.0\.0\.1:1: connection refused") as caught:
        asyncio.run(connect(away, name="test"))
    assert time.monotonic() - start < 5  # and not the half minute of the deadline
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_an_address_that_accepts_and_says_nothing_fails_at_the_deadline(settings: Settings) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(5)
        away = Settings(home=settings.home, urls=(f"nats://127.0.0.1:{mute.getsockname()[1]}",))
        start = time.monotonic()
        with pytest.raises(NoBroker):
            asyncio.run(connect(away, name="test", deadline=0.3))
        assert time.monotonic() - start < 3


def test_the_next_address_is_tried_and_a_wrong_token_is_told(settings: Settings, broker: Endpoint) -> None:
    urls = ("nats://127.0.0.1:1", *broker.urls)
    with_connection(Settings(home=settings.home, urls=urls, token=broker.token), _ask)
    with pytest.raises(NoBroker, match=r"(?i)authorization"):
        asyncio.run(connect(Settings(home=settings.home, urls=urls, token="wrong"), name="test"))


async def _ask(conn: Connection) -> None:
    assert not conn.endpoint.embedded
    await conn.js("INFO")


def test_without_leave_to_start_a_broker_it_starts_none(settings: Settings) -> None:
    with pytest.raises(NoBroker, match="morphogen up"):
        asyncio.run(connect(settings, name="test", start_broker=False))


def test_it_comes_back_after_a_kill_and_tells_its_subscribers(
    settings: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def story(conn: Connection) -> None:
        heard: list[bytes] = []

        async def listen() -> None:
            async def hear(msg: object) -> None:
                heard.append(msg.data)  # type: ignore[attr-defined]

            await conn.nc.subscribe("news", cb=hear)

        async def broken() -> None:
            raise ValueError("not today")

        await listen()
        conn.on_reconnect += [broken, listen]
        for generation in (2, 3):
            kill(conn)
            await lost(conn)
            with pytest.raises(Disconnected):
                await conn.request("anybody")
            await conn.wait_connected(5)
            assert conn.generation == generation
            await asyncio.sleep(0.05)
            await conn.nc.publish("news", b"%d" % generation)
            await conn.request("$JS.API.INFO")
            await asyncio.sleep(0.01)
        assert heard == [b"2", b"3"]

    with caplog.at_level(logging.WARNING):
        with_connection(settings, story)
    assert caplog.text.count("lost the broker") == 2
    assert "Traceback" not in caplog.text + capfd.readouterr().err


def test_a_request_under_way_learns_of_the_loss_at_once(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        await conn.nc.subscribe("deaf")
        waiting = asyncio.create_task(conn.request("deaf", timeout=30))
        await asyncio.sleep(0.05)
        kill(conn)
        with pytest.raises(Disconnected):
            await asyncio.wait_for(waiting, 2)

    with_connection(settings, story)


def test_it_follows_a_broker_that_had_to_move_to_another_port(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        before = conn.endpoint
        await conn.js("STREAM.CREATE.T", STREAM)
        await conn.publish_ack("t.a", b"kept")
        port = int(before.urls[0].rpartition(":")[2])
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # While the broker is down on purpose nobody restarts it, so the port can be taken.
            await asyncio.to_thread(brokers.down, settings)
            thief.bind(("127.0.0.1", port))
            thief.listen(1)
            await asyncio.to_thread(brokers.ensure, settings)
            await conn.wait_connected(5)
        assert conn.endpoint.urls != before.urls
        assert conn.endpoint.token == before.token
        message = await conn.last_message("T", "t.a")
        assert message is not None
        assert message.data == b"kept"

    with_connection(settings, story)


def test_it_does_not_undo_a_down_and_returns_after_an_up(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        assert await asyncio.to_thread(brokers.down, settings)
        await lost(conn)
        with pytest.raises(NoBroker, match="morphogen down"):
            await conn.wait_connected(0.4)
        assert not brokers.status(settings).running
        await asyncio.to_thread(brokers.ensure, settings)
        await conn.wait_connected(5)
        await conn.js("INFO")

    with_connection(settings, story)


def test_a_broker_that_hangs_is_left_and_found_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCH_EVERY", 0.1)
    monkeypatch.setattr(watch, "ECHO_TIMEOUT", 0.1)

    async def story(conn: Connection) -> None:
        kill(conn, signal.SIGSTOP)
        await asyncio.wait_for(lost(conn), 3)
        kill(conn, signal.SIGCONT)
        await conn.wait_connected(15)
        await conn.js("INFO")
        assert conn.generation == 2

    with_connection(settings, story)


def test_a_client_whose_read_loop_died_is_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCH_EVERY", 0.1)
    monkeypatch.setattr(watch, "ECHO_TIMEOUT", 0.1)

    async def story(conn: Connection) -> None:
        conn.nc._reading_task.cancel()  # nats-py ends so at an ack subject of version 2, and still says "connected"
        await asyncio.wait_for(lost(conn), 3)
        await conn.wait_connected(5)
        await conn.js("INFO")

    with_connection(settings, story)


def test_a_cluster_connection_notices_a_hang_too(
    settings: Settings, broker: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_EVERY", 0.1)
    monkeypatch.setattr(watch, "ECHO_TIMEOUT", 0.1)

    async def story(conn: Connection) -> None:
        await asyncio.sleep(0.3)
        assert conn.generation == 1
        conn.nc._reading_task.cancel()
        await asyncio.wait_for(lost(conn), 3)
        await conn.wait_connected(5)

    with_connection(Settings(home=settings.home, urls=broker.urls, token=broker.token), story)


def test_close_is_quick_even_when_the_broker_hangs(settings: Settings) -> None:
    async def story() -> float:
        conn = await connect(settings, name="test")
        await conn.nc.subscribe("deaf")
        waiting = asyncio.create_task(conn.request("deaf", timeout=30))
        await asyncio.sleep(0.02)
        kill(conn, signal.SIGSTOP)
        with contextlib.suppress(Exception):
            await conn.nc.publish("deaf", bytes(4 << 20))
        start = time.monotonic()
        await conn.close()
        took = time.monotonic() - start
        with pytest.raises(Disconnected):
            await waiting
        with pytest.raises(Disconnected):
            await conn.request("deaf")
        with pytest.raises(Disconnected):
            await conn.wait_connected(1)
        await conn.close()
        kill(conn, signal.SIGCONT)
        return took

    assert asyncio.run(story()) < 3


def test_closing_while_the_broker_is_away_wakes_who_waits(settings: Settings) -> None:
    async def story() -> None:
        conn = await connect(settings, name="test")
        await asyncio.to_thread(brokers.down, settings)
        await lost(conn)
        waiting = asyncio.create_task(conn.wait_connected(30))
        await asyncio.sleep(0.02)
        await conn.close()
        with pytest.raises(Disconnected):
            await asyncio.wait_for(waiting, 1)

    asyncio.run(story())


def test_a_missing_credentials_package_or_file_is_told_in_one_line(settings: Settings, tmp_path: Path) -> None:
    creds = tmp_path / "user.creds"
    creds.write_text("not credentials")
    away = Settings(home=settings.home, urls=("nats://127.0.0.1:1",), creds=creds)
    with pytest.raises(NoBroker) as caught:
        asyncio.run(connect(away, name="test"))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs a small disk of its own")
def test_a_broker_whose_disk_was_full_stores_again_once_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=100m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("may not mount a small disk")
    monkeypatch.setattr(watch, "WATCH_EVERY", 0.2)
    settings = Settings(home=disk / "home")
    ballast = disk / "ballast"

    async def story(conn: Connection) -> None:
        await conn.js("STREAM.CREATE.T", STREAM)
        await conn.publish_ack("t.a", b"before")
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises((PublishTimeout, JetStreamApiError)):
            await conn.publish_ack("t.a", os.urandom(2_000_000), timeout=0.5)
        ballast.unlink()

        end = time.monotonic() + 10
        while True:
            try:
                await conn.publish_ack("t.a", b"after", timeout=0.5)
                break
            except (PublishTimeout, Disconnected, JetStreamApiError):
                assert time.monotonic() < end
                await asyncio.sleep(0.05)
        first = await conn.js("STREAM.MSG.GET.T", {"seq": 1})
        assert first["message"]["subject"] == "t.a"

    try:
        with_connection(settings, story)
        # And a disk without any room is told at the start.
        brokers.down(settings)
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(BrokerFailed, match="No space left"):
            brokers.ensure(settings)
    finally:
        ballast.unlink(missing_ok=True)
        brokers.down(settings)
        os.system(f"umount {disk}")


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")  # nats-py's own
def test_a_broker_is_reached_at_a_web_address(settings: Settings, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    port, web = free_port(), free_port()
    (tmp_path / "web.conf").write_text(
        f'listen: 127.0.0.1:{port}\nwebsocket {{ listen: "127.0.0.1:{web}", no_tls: true }}\n'
    )
    server = subprocess.Popen([find_binary(), "-c", tmp_path / "web.conf"], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 30
        while not listens(web):
            assert time.monotonic() < end
            time.sleep(0.02)

        async def story(conn: Connection) -> None:
            async def answer(message: Any) -> None:
                await message.respond(message.data.upper())

            await conn.nc.subscribe("loud", cb=answer)
            assert (await conn.request("loud", b"abc")).data == b"ABC"

        with_connection(Settings(home=settings.home, urls=(f"ws://127.0.0.1:{web}",)), story)
    finally:
        server.kill()
        server.wait()


def test_who_listens_hears_everything_in_order_and_may_fail(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        heard: list[tuple[str, bytes, str | None]] = []

        async def hear(msg: Any) -> None:
            if msg.data == b"bad":
                raise ValueError("what a handler raises")
            heard.append((msg.subject, msg.data, (msg.headers or {}).get("h")))

        subscription = await conn.nc.listen("news.*", hear)
        await conn.nc.publish("news.a", b"one", headers={"h": "x"})
        await conn.nc.publish("news.a", b"bad")
        for number in range(200):
            await conn.nc.publish("news.b", str(number).encode())
        await conn.request("$JS.API.INFO")  # all that was sent before is here
        assert heard == [("news.a", b"one", "x"), *(("news.b", str(number).encode(), None) for number in range(200))]
        assert isinstance(conn._link.last_error, ValueError)

        await subscription.unsubscribe()
        await conn.nc.publish("news.a", b"late")
        await conn.request("$JS.API.INFO")
        assert len(heard) == 201
        assert conn.connected

    with_connection(settings, story)


def test_what_no_socket_takes_at_once_arrives_in_order(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        sizes: list[int] = []
        done = asyncio.Event()

        async def hear(msg: Any) -> None:
            assert msg.data == bytes([len(sizes) % 251]) * len(msg.data)
            sizes.append(len(msg.data))
            if len(sizes) == len(wanted):
                done.set()

        wanted = [(4 << 20) if number % 3 == 0 else number for number in range(30)]
        await conn.nc.listen("large", hear)
        for number, size in enumerate(wanted):
            await conn.nc.publish("large", bytes([number % 251]) * size)
        async with asyncio.timeout(30):
            await done.wait()
        assert sizes == wanted

    with_connection(settings, story)


def test_small_frames_of_one_turn_are_written_together_and_everything_in_order(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(conn: Connection) -> None:
        heard: list[bytes] = []
        writes: list[int] = []
        write = conn.nc._transport.writelines

        def counted(lines: list[bytes]) -> None:
            writes.append(len(lines))
            write(lines)

        async def hear(msg: Any) -> None:
            heard.append(bytes(msg.data))

        await conn.nc.listen("frames", hear)
        monkeypatch.setattr(conn.nc._transport, "writelines", counted)
        small = [Pieces(b"frame ", bytes([number])) for number in range(5)]
        await asyncio.gather(*(conn.nc.publish("frames", one) for one in small))
        await conn.request("$JS.API.INFO")
        assert writes[0] == 5
        assert heard == [b"frame " + bytes([number]) for number in range(5)]

        heard.clear()
        sent = [bytes([number]) * (1 + 40_000 * (number % 7)) for number in range(60)]
        for number, data in enumerate(sent):
            await conn.nc.publish("frames", data if number % 5 == 0 else Pieces(data[:1], data[1:]))
            if number % 11 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while len(heard) < len(sent):
                await asyncio.sleep(0.01)
        assert heard == sent

    with_connection(settings, story)


def test_a_frame_that_waits_for_the_end_of_the_turn_is_not_acknowledged_where_the_connection_ends_before(
    settings: Settings,
) -> None:
    async def story(conn: Connection) -> None:
        publishing = asyncio.ensure_future(conn.publish_ack("nobody.takes.it", Pieces(b"a", b"b"), timeout=5.0))
        await asyncio.sleep(0)
        await conn.close()
        with pytest.raises(Disconnected):
            await publishing

    with_connection(settings, story)


def test_a_tls_address_gives_nothing_away_in_the_clear(settings: Settings, broker: Endpoint) -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"headers":true}\r\n')
        heard.append(await reader.read(4096))
        writer.close()

    async def story() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            plain = broker.urls[0].replace("nats://", "tls://")
            for url in (f"tls://me:hunter2@127.0.0.1:{port}", plain):
                with pytest.raises(NoBroker, match="no TLS"):
                    await connect(Settings(home=settings.home, urls=(url,), token=broker.token), name="test")
            while not heard:
                await asyncio.sleep(0.005)

    asyncio.run(story())
    assert heard == [b""]


@pytest.mark.parametrize("also_plain", [False, True])
def test_a_tls_address_is_met_with_tls(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    also_plain: bool,
) -> None:
    key, cert, port = tmp_path / "key.pem", tmp_path / "cert.pem", free_port()
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    alternative = ["-addext", "subjectAltName=IP:127.0.0.1"]
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    subprocess.run(
        [*make.split(), *alternative, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    config = tmp_path / "server.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\ntls {{ cert_file: "{cert}", key_file: "{key}" }}\n'
        f'allow_non_tls: {str(also_plain).lower()}\njetstream {{ store_dir: "{tmp_path}" }}\n'
    )
    server = subprocess.Popen([find_binary(), "-c", config], stderr=subprocess.DEVNULL)
    try:
        with contextlib.closing(socket.socket()) as trial:
            while trial.connect_ex(("127.0.0.1", port)):
                time.sleep(0.01)

        async def story(conn: Connection) -> None:
            assert conn.nc._transport._io_writer.get_extra_info("ssl_object") is not None
            await conn.js("INFO")
            server.terminate()
            await lost(conn)

        with_connection(Settings(home=settings.home, urls=(f"tls://127.0.0.1:{port}",)), story)
        assert [record for record in caplog.records if record.name == "asyncio"] == []
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("what", ["folder", "lock"])
def test_a_broker_whose_files_are_gone_is_left_for_a_new_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(watch, "WATCH_EVERY", 0.1)

    async def story(conn: Connection) -> None:
        first = conn.endpoint.pid
        assert first is not None
        if what == "folder":
            shutil.rmtree(settings.broker_dir)
        else:
            (settings.broker_dir / "alive.lock").unlink()
        while conn.generation == 1:
            await asyncio.sleep(0.01)
        assert conn.endpoint.pid != first
        assert process_born(first) is None
        await conn.js("INFO")

    with_connection(settings, story)
