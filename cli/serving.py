"""What the verbs of `serve` share: work over a connection, until it ends or a signal ends it."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings


def serve_until_ended(settings: "Settings", work: "Callable[[Connection], Awaitable[None]]", name: str) -> None:
    """Run work over a connection called `name` until it ends, or SIGTERM or SIGINT ends it, in order."""
    from morphogen.bus.connection import connect
    from morphogen.bus.streams import ensure_streams

    async def main() -> None:
        conn = await connect(settings, name=name)
        try:
            await ensure_streams(conn)
            task = asyncio.ensure_future(work(conn))
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            await conn.close()

    asyncio.run(main())
