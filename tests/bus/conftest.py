"""Fixtures of the bus: stories told on a connection of their own, and brokers of somebody else's configuration."""

import asyncio
import resource
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from morphogen.bus.broker.process import find_binary, free_port
from morphogen.bus.connection import Connection, connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import ensure_streams


@pytest.fixture
def on_bus(settings: Settings) -> Callable[[Callable[[Connection], Awaitable[None]]], None]:
    """Run a story, an async function of a connection whose streams are there, to its end within half a minute."""

    def run(story: Callable[[Connection], Awaitable[None]]) -> None:
        async def main() -> None:
            conn = await connect(settings, name="test")
            try:
                await ensure_streams(conn)
                async with asyncio.timeout(30):
                    await story(conn)
            finally:
                await conn.close()

        asyncio.run(main())

    return run


@pytest.fixture
def server_of(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Start a nats-server with some lines of configuration, and return its port."""
    servers: list[subprocess.Popen[bytes]] = []

    def start(lines: str) -> int:
        port = free_port()
        config = tmp_path / f"{port}.conf"
        config.write_text(f'listen: "127.0.0.1:{port}"\n{lines}')
        servers.append(subprocess.Popen([find_binary(), "-c", config], stderr=subprocess.DEVNULL))
        end = time.monotonic() + 30
        while not _listens(port):
            assert time.monotonic() < end
            time.sleep(0.01)
        return port

    yield start
    for server in servers:
        server.kill()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def no_descriptors() -> Iterator[None]:
    """Let nothing more be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
