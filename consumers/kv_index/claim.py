"""Who writes of a publisher into the log is one process at the whole broker: two would write everything twice.

Each that means to answers who else does, and asks before it begins. One that writes goes on; of several that begin at once
the one that began first does.
"""

import asyncio
import contextlib
import time
import uuid
from typing import TYPE_CHECKING

from morphogen.bus.errors import ServiceError
from morphogen.bus.requests import Responder, call, respond
from morphogen.schemas import token

from .errors import NotListening
from .waiting import patiently

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

_PATIENCE = 0.5  # seconds in which one that writes is heard before all others
_TAKEN, _FREE = b"taken", b"free"


class Claim:
    """One process's claim to write of one publisher of an engine."""

    def __init__(self, conn: "Connection", engine: str, worker: str) -> None:
        self._conn, self._engine, self._worker = conn, engine, worker
        self._subject = f"morphogen.kv_index.writes.{token(engine)}.{token(worker)}"
        self._mine = f"{time.time_ns():020}-{uuid.uuid4().hex}".encode()
        self._writes = self._lost = False
        self._responder: Responder | None = None

    async def take(self) -> None:
        """Have it from now on, whoever claims it. Raises NotListening where another process has it."""
        self._responder = await respond(self._conn, self._subject, self._answer)
        answer = await patiently(self._conn, self._ask, f"what is said of {self._engine}")
        if answer == _TAKEN or self._lost:
            raise NotListening(
                f"another process at this broker writes of worker {self._worker!r} of engine {self._engine!r} already: "
                f"end that one, or give this one another --worker or --engine"
            )
        self._writes = True

    async def close(self) -> None:
        """Give it up; harmless where it was never taken."""
        if self._responder is not None:
            await self._responder.close()

    async def _ask(self) -> bytes:
        while True:
            with contextlib.suppress(ServiceError):  # one that gave up broke its answer off
                return await call(self._conn, self._subject, self._mine, timeout=10 * _PATIENCE)
            await asyncio.sleep(_PATIENCE)

    async def _answer(self, other: bytes) -> bytes:
        if other != self._mine:
            if self._writes or self._mine < other:
                return _TAKEN
            self._lost = True
        await asyncio.sleep(_PATIENCE)  # one of many answers, and the first is the one that counts
        return _FREE
