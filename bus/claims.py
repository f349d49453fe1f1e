"""Being the only one of a kind at a broker: a name of which one process works, and others are refused.

    claim = Claim(conn, "morphogen.kv.one.claim")
    await claim.open()
    if not await claim.settle(): ...  # another one has it

Each that means to have it answers who else does, and asks before it begins. One that has it keeps it; of several that
begin at once the one that began first does. Whoever decides is the one that is asked, so that both come to the same.
It is asked for once: two that the network kept apart do not find out later.
"""

import asyncio
import contextlib
import time
import uuid
from typing import TYPE_CHECKING

from .errors import BusError
from .requests import Responder, call, respond

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Claim"]

_PATIENCE = 0.5  # seconds in which one that has it is heard before all others
_TAKEN, _FREE = b"taken", b"free"


class Claim:
    """One process's claim to what a subject stands for. `settle` it before anything is done that only one may do."""

    def __init__(self, conn: "Connection", subject: str) -> None:
        self._conn, self._subject = conn, subject
        self._mine = f"{time.time_ns():020}-{uuid.uuid4().hex}".encode()
        self._has = self._lost = False
        self._responder: Responder | None = None
        self._asking: asyncio.Task[bytes] | None = None

    async def open(self) -> None:
        """Begin to claim it; half a second later it can be settled without waiting."""
        self._responder = await respond(self._conn, self._subject, self._answer)
        self._asking = asyncio.create_task(self._ask())

    async def settle(self) -> bool:
        """Have it from now on, whoever claims it, and return True; return False where another one has it.

        A broker that is away is waited for.
        """
        assert self._asking is not None
        self._has = await self._asking == _FREE and not self._lost
        return self._has

    async def close(self) -> None:
        """Give it up; harmless where it was never claimed."""
        if self._asking is not None:
            self._asking.cancel()
        if self._responder is not None:
            await self._responder.close()

    async def _ask(self) -> bytes:
        while True:  # until the broker is there, and nobody who gives up breaks an answer off
            with contextlib.suppress(BusError):
                return await call(self._conn, self._subject, self._mine, timeout=10 * _PATIENCE)
            await asyncio.sleep(_PATIENCE)

    async def _answer(self, other: bytes) -> bytes:
        if other != self._mine:
            if self._has or self._mine < other:
                return _TAKEN
            self._lost = True
        await asyncio.sleep(_PATIENCE)  # one of many answers, and the first is the one that counts
        return _FREE
