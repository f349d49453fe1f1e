"""What the trainer's threads ask of the background thread: spools to publish, flushes to report, when to stop."""

import threading
from dataclasses import dataclass, field

from ..settings import Settings
from .bell import Ear
from .lane import Lane
from .spool import Spool


@dataclass(eq=False)
class Flush:
    """Somebody waits until these lanes are in the log up to these counters."""

    targets: list[tuple[Lane, int]]
    done: threading.Event = field(default_factory=threading.Event)

    def settle(self) -> None:
        """Tell the one who waits, if it is so far."""
        if all(lane.done >= n for lane, n in self.targets):
            self.done.set()


@dataclass(eq=False)
class Desk:
    """Hold the requests; the publisher writes them and rings, the dispatcher reads them.

    Lists are replaced or changed by one step at a time, so neither side needs a lock to read them.
    """

    settings: Settings
    adopt: bool
    ear: Ear | None  # None once nobody listens any more
    spools: list[Spool]
    flushes: list[Flush] = field(default_factory=list)
    stop_at: float | None = None  # time.monotonic() at which to end; before it, what children left is published
    forked: bool = False  # there may be children, whose spools want looking after
    quarantined: dict[str, int] = field(default_factory=dict)
    removed: list[Spool] = field(default_factory=list)

    @property
    def hurry(self) -> bool:
        """Tell whether somebody waits."""
        return bool(self.flushes) or self.stop_at is not None
