"""A fixture of the bus: stories told on a connection of their own."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

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
