"""How far each generation stands, and who waits for that: what the store knows without asking its file."""

import asyncio
import threading
from collections.abc import Callable

from .generation import Generation, Status


class Standing:
    """The generations of a store, with their positions. Any thread may ask; the one that commits tells of changes."""

    def __init__(self) -> None:
        self.head = 0
        """Last sequence known to be in the log; kept up to date by whoever follows it."""
        self.generations: list[Generation] = []
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []

    @property
    def live(self) -> list[Generation]:
        """Generations that answer queries and go on with the log."""
        return [one for one in self.generations if one.live and not one.outdated]

    @property
    def behind(self) -> list[Generation]:
        """Generations that must first be brought up to the live position: new, rebuilt, or stopped by an error."""
        front = self.front()
        return [
            one
            for one in self.generations
            if not one.outdated and one.error is None and (not one.live or one.seq < front)
        ]

    def front(self) -> int:
        """Return the position of the live projections that go on with the log."""
        return max((one.seq for one in self.live if one.error is None), default=0)

    def position(self) -> int:
        """Return the last sequence that every table shows.

        A new projection has no table before it is built, and one whose code failed is left out, in its older version
        too; `status` tells both.
        """
        failed = {one.projection.name for one in self.generations if one.error is not None}
        going = (
            one.seq
            for one in self.generations
            if one.live and one.error is None and not (one.outdated and one.projection.name in failed)
        )
        return min(going, default=0)

    def status(self) -> list[Status]:
        """Return how each generation stands."""
        return [
            Status(one.projection.name, one.projection.version, one.number, one.seq, one.live, one.error)
            for one in self.generations
        ]

    def wait(self, seq: int, timeout: float | None = None) -> bool:
        """Block until the position reaches `seq`; return whether it did within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.position() >= seq, timeout)

    async def reached(self, seq: int, timeout: float | None = None) -> bool:
        """Wait like `wait`, without blocking the event loop."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(event.set)

        stop = self.listen(wake)
        try:
            async with asyncio.timeout(timeout):
                while self.position() < seq:
                    await event.wait()
                    event.clear()
        except TimeoutError:
            return self.position() >= seq
        finally:
            stop()
        return True

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after every change of a position, from the thread that made it; return how to stop that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
        for callback in list(self._listeners):
            callback()
