"""How far each generation stands, and who waits for that: what the store knows without asking its file."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping

from ..projection import Projection
from .generation import Generation, Status


class Standing:
    """The generations of a store, with their positions. Any thread may ask; the one that commits tells of changes."""

    def __init__(self) -> None:
        self.head = 0
        """Last sequence known to be in the log; kept up to date by whoever follows it."""
        self.generations: list[Generation] = []
        self._derived: list[Projection] = []  # those that rows of others call for
        self._settling = 0  # commits whose positions have moved, or will, before it is known what their rows call for
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
        return min((one.seq for one in self.shown()), default=0)

    def shown(self) -> list[Generation]:
        """Return the live generations that people see and that go on, or whose successors do."""
        failed = {one.projection.name for one in self.generations if one.error is not None}
        return [
            one
            for one in self.generations
            if one.live
            and not one.hidden
            and one.error is None
            and not (one.outdated and one.projection.name in failed)
        ]

    def in_the_making(self) -> list[str]:
        """Return the projections that the log calls for and whose tables, or those of a newer text, are being made."""
        live = {one.projection.name for one in self.live}
        building = {one.projection.name for one in self.generations if not one.live and one.error is None}
        called_for = {one.name for one in self._derived}
        return sorted(called_for & building - live)

    def whole(self, seq: int) -> bool:
        """Tell whether every table that the log up to `seq` calls for is there and shows all of it."""
        # In this order: whoever moves positions says so before he does, and is done when all that follows is known.
        return self.position() >= seq and not self._settling and not self.in_the_making()

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

    async def reached(self, seq: int, timeout: float | None = None, *, whole: bool = False) -> bool:
        """Wait like `wait`, or until they are `whole` up to `seq`, without blocking the event loop."""

        def ready() -> bool:
            return self.whole(seq) if whole else self.position() >= seq

        if ready():
            return True
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(event.set)

        stop = self.listen(wake)
        try:
            async with asyncio.timeout(timeout):
                while not ready():
                    await event.wait()
                    event.clear()
        except TimeoutError:
            return ready()
        finally:
            stop()
        return True

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after every change of how they stand, from the thread that made it; return how to stop that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def give_up(self, reasons: Mapping[Generation, str]) -> None:
        """Go on without generations that cannot be made, for these reasons."""
        for one, reason in reasons.items():
            one.error = reason
        self._tell()

    @contextlib.contextmanager
    def _settles(self) -> Iterator[None]:
        """Let nothing count as whole while positions move and what they call for is taken up; then tell of it."""
        with self._changed:
            self._settling += 1
        try:
            yield
        finally:
            with self._changed:
                self._settling -= 1
            self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
        for callback in list(self._listeners):
            callback()
