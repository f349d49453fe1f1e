"""A listener in the background of a bus, and what its engine says."""

import asyncio
import threading
from typing import Any

from morphogen.bus import Bus, Settings
from morphogen.bus.errors import StreamMissing
from morphogen.consumers.kv_index import Endpoint, Listener
from morphogen.schemas import Event

from .publishers import Dialect, until

DIALECT = Dialect()
SIZE = 4


def stored(at: int, *, parent: int | None = None) -> bytes:
    """Return a message that stores one block, the `at`-th of a chain that begins at 0."""
    tokens = list(range(SIZE * at, SIZE * at + SIZE))
    return DIALECT.payload(DIALECT.stored([1000 + at], tokens, SIZE, parent=1000 + at - 1 if at else parent))


class Listening:
    """A listener in the background of a bus."""

    def __init__(self, bus: Bus, settings: Settings, *endpoints: Endpoint, **options: Any) -> None:
        self.bus = bus
        self.lines: list[str] = []
        self.listener = Listener(bus.conn, settings, "fleet", endpoints, told=self.lines.append, **options)
        self._over = threading.Event()
        self.future = bus.start(self._run())
        bus.run(asyncio.wait_for(self.listener.ready.wait(), 20))

    async def _run(self) -> None:
        try:
            await self.listener.run()
        finally:
            self._over.set()

    def stop(self) -> None:
        """End it, and return once it has."""
        self.future.cancel()
        assert self._over.wait(20)

    def events(self, *kinds: type[Event]) -> list[Any]:
        """Return what the log has of the engine; nothing where there is no log yet."""
        try:
            seen = list(self.bus.events(run="kv.fleet", family="kv"))
        except StreamMissing:
            return []
        return [one.event for one in seen if not kinds or isinstance(one.event, kinds)]

    def wait_for(self, count: int, *kinds: type[Event]) -> list[Any]:
        until(lambda: len(self.events(*kinds)) >= count)
        return self.events(*kinds)
