"""How long whoever reads the log waits for a broker that is away, or silent."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from .errors import Disconnected, JetStreamApiError, NoBroker, NoResponders, RequestTimeout

if TYPE_CHECKING:
    from .connection import Connection

_PATIENCE = 60.0  # seconds after which a reader that only wants the present end gives up
_PAUSE = 0.05  # seconds

_Found = TypeVar("_Found")


async def patiently(conn: "Connection", ask: Callable[[], Awaitable[_Found]], *, follow: bool) -> _Found:
    """Return what `ask` returns, asked again until the broker was there for it: for a minute, for ever with `follow`.

    Raises Disconnected where the connection was closed, what the broker refuses, and after a minute what kept it away.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return await ask()
        except (Disconnected, NoBroker, NoResponders, RequestTimeout, JetStreamApiError) as error:
            if isinstance(error, JetStreamApiError) and 400 <= error.code < 500:
                raise
            if not follow and time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE)
        try:
            await conn.wait_connected(_PATIENCE)
        except NoBroker:
            if not follow:
                raise
