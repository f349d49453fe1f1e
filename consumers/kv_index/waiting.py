"""What is at work until it is interrupted waits for its broker, and finds out whether the log is still the same."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from morphogen.bus.errors import Disconnected, NoBroker, NoResponders, RequestTimeout
from morphogen.bus.streams import LOG, ensure_streams, stream_info

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

_PATIENCE = 10.0  # seconds between looks at a connection that is down
_PAUSE = 0.2

_Found = TypeVar("_Found")

_log = logging.getLogger("morphogen.kv")


async def patiently(conn: "Connection", work: Callable[[], Awaitable[_Found]], who: str) -> _Found:
    """Return what `work` returns, done again until the broker was there for it, however long; `who` is said to wait.

    Raises Disconnected where the connection was closed.
    """
    waits = False
    while True:
        try:
            return await work()
        except (NoBroker, NoResponders, RequestTimeout, Disconnected) as error:
            if not waits:
                _log.warning("%s waits for the broker: %s", who, error)
            waits = True
        with contextlib.suppress(NoBroker):
            await conn.wait_connected(_PATIENCE)  # Disconnected where the connection was closed
        await asyncio.sleep(_PAUSE)


async def log_there(conn: "Connection") -> str:
    """Return the epoch of the log that the broker has now, made where it has none."""
    await ensure_streams(conn)
    return (await stream_info(conn, LOG)).epoch
