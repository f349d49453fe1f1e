"""Of several addresses the first that answers is taken, however slow or dead the others are, and as whom the address says."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from morphogen.bus import connection as connections
from morphogen.bus.broker import Endpoint
from morphogen.bus.connection import Connection, connect
from morphogen.bus.errors import NoBroker
from morphogen.bus.settings import Settings

ServerOf = Callable[[str], int]


class Slow:
    """A way to a broker on which each byte, and the opening too, takes `delay` seconds longer in each direction."""

    def __init__(self, port: int, delay: float) -> None:
        self._port = port
        self._delay = delay
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """End all connections; new ones are taken."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self._delay)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                loop.call_later(self._delay, _write, writer, data)
        loop.call_later(self._delay, writer.close)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


def told(settings: Settings, broker: Endpoint, *ports: int) -> Settings:
    return Settings(home=settings.home, urls=tuple(f"nats://127.0.0.1:{port}" for port in ports), token=broker.token)


def port_of(broker: Endpoint) -> int:
    return int(broker.urls[0].rpartition(":")[2])


def test_a_lost_broker_behind_slow_addresses_is_found_again(
    settings: Settings, broker: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_FIRST_PATIENCE", 0.1)  # less than it takes: the next rounds give more
    monkeypatch.setattr(connections, "_LONGEST_PATIENCE", 0.8)  # enough for each, and too little for all in turn

    async def main() -> None:
        ways = [Slow(port_of(broker), 0.06) for _ in range(4)]
        ports = [await way.open() for way in ways]
        conn = await connect(told(settings, broker, *ports), name="test")
        try:
            for way in ways:
                way.cut()
            while conn.connected:
                await asyncio.sleep(0.005)
            await conn.wait_connected(10)
            await conn.js("INFO")
        finally:
            await conn.close()
            for way in ways:
                way.close()

    asyncio.run(main())


def test_an_address_that_says_nothing_holds_up_none_behind_it(settings: Settings, broker: Endpoint) -> None:
    async def main(mute: int) -> None:
        start = time.monotonic()
        conn = await connect(told(settings, broker, mute, mute, port_of(broker)), name="test")
        took = time.monotonic() - start
        assert conn._link is not None
        assert conn._link.url.endswith(f":{port_of(broker)}")
        await conn.close()
        assert took < 3
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(5)
        asyncio.run(main(mute.getsockname()[1]))


USERS = """
accounts {
  A { users: [{user: bob, password: "p/?#,@%:"}, {user: me, password: mine}] }
}
"""


def as_user(settings: Settings, url: str, story: Callable[[Connection], Awaitable[None]], token: str = "") -> None:
    async def main() -> None:
        env = {"MORPHOGEN_URL": url, "MORPHOGEN_HOME": str(settings.home), "MORPHOGEN_TOKEN": token}
        conn = await connect(Settings.from_environ(env), name="test")
        try:
            await story(conn)
        finally:
            await conn.close()

    asyncio.run(main())


async def ping(conn: Connection) -> None:
    assert conn._link is not None
    await conn._link.echo(5)


def test_a_password_in_an_address_may_hold_any_character_as_a_percent_code(
    settings: Settings, server_of: ServerOf
) -> None:
    port = server_of(USERS)
    as_user(settings, f"nats://b%6fb:p%2F%3F%23%2C%40%25%3A@127.0.0.1:{port}", ping)
    with pytest.raises(NoBroker, match=r"(?i)authorization") as caught:
        as_user(settings, f"nats://bob:p@127.0.0.1:{port},nats://bob:q@127.0.0.1:{port}", ping)
    assert "bob" not in str(caught.value)


def test_a_user_in_an_address_wins_over_the_token(settings: Settings, server_of: ServerOf) -> None:
    as_user(settings, f"nats://me:mine@127.0.0.1:{server_of(USERS)}", ping, token="another's")
    port = server_of('authorization { token: "s/cret" }')
    as_user(settings, f"nats://s%2Fcret@127.0.0.1:{port}", ping, token="another's")
