"""A worker's name is its own at the whole broker: whoever starts under one asks who else does, before and while it loads.

Each that means to have a name answers such questions. One that serves keeps it; of several that start at once the one
that began first does. Whoever decides is the one that is asked, so that both come to the same.
"""

import asyncio
import contextlib
import time
import uuid
from typing import TYPE_CHECKING

from morphogen.bus.errors import BusError
from morphogen.bus.requests import Responder, call, respond
from morphogen.schemas.kv import worker_subject

from .client import whereabouts
from .errors import ContinuityError
from .wire import CLAIM

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

_PATIENCE = 0.5  # seconds in which one that has the name is heard before all others
_TAKEN, _FREE = b"taken", b"free"


class Claim:
    """One worker's claim to a name. `open` it before the model is loaded, `settle` it before anything is answered."""

    def __init__(self, conn: "Connection", name: str) -> None:
        self._conn, self._name, self._subject = conn, name, worker_subject(name, CLAIM)
        self._mine = f"{time.time_ns():020}-{uuid.uuid4().hex}".encode()
        self._served = self._lost = False
        self._responder: Responder | None = None
        self._asking: asyncio.Task[bytes] | None = None

    async def open(self) -> None:
        """Begin to claim the name. Raises ContinuityError where a worker of that name serves."""
        if await whereabouts(self._conn, self._name, timeout=1.0) is not None:
            raise self._refused()
        self._responder = await respond(self._conn, self._subject, self._answer)
        self._asking = asyncio.create_task(self._ask())

    async def settle(self) -> None:
        """Have the name from now on, whoever claims it. Raises ContinuityError where another one has it."""
        assert self._asking is not None
        if await self._asking == _TAKEN or self._lost:
            raise self._refused()
        self._served = True

    async def close(self) -> None:
        """Give the name up; harmless where it was never claimed."""
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
            if self._served or self._mine < other:
                return _TAKEN
            self._lost = True
        await asyncio.sleep(_PATIENCE)  # one of many answers, and the first is the one that counts
        return _FREE

    def _refused(self) -> ContinuityError:
        return ContinuityError(f"a worker {self._name!r} answers at this broker already: give this one another --name")
