"""All that the log says about tools and what they are made of, folded as it is read: families, versions, careers, spending.

Nothing is folded that has not been read from the log, so two processes that have read as far know the same.
"""

from typing import TYPE_CHECKING

from morphogen.consumers.executions import FAMILIES, At, Families, at_of, fetch, opened
from morphogen.schemas import CrystalMoved, Event, LlmQueried
from morphogen.schemas.event import Unknown

from .careers import Careers
from .drafting import Spending
from .registry import Registry

if TYPE_CHECKING:
    from morphogen.bus import Bus

CRYSTAL = CrystalMoved.family
RUN = ""
"""The run under which the crystallizer writes: none, as a tool belongs to no training run."""


class Past:
    """The folds, and how far they have read. `moves` counts the changes of state of each version."""

    def __init__(self) -> None:
        self.families = Families()
        self.registry = Registry()
        self.careers = Careers()
        self.spending = Spending()
        self.moves: dict[tuple[str, int], int] = {}
        self.position = 0
        """The sequence up to which the log was read."""
        self.clock_ns = 0
        """What the broker's clock showed when the log was read: the clock by which events are stored."""

    def seen(self, event: Event | Unknown, at: At) -> None:
        """Take one event, in the order of the log."""
        self.families.seen(event, at)
        if isinstance(event, Unknown):
            return
        self.registry.seen(event)
        self.careers.seen(event, at.stored_ns)
        self.spending.seen(event, at.stored_ns)
        if isinstance(event, CrystalMoved):
            key = (event.tool, event.number)
            self.moves[key] = self.moves.get(key, 0) + 1

    def catch_up(self, bus: "Bus") -> int:
        """Read what has come since; return how many events that was."""
        info = bus.stream_info()
        end, self.clock_ns = info.last_seq, info.now
        if end <= self.position:
            return 0
        count = 0
        for seen in bus.events(after=self.position, upto=end, family=(*FAMILIES, CRYSTAL)):
            if seen.frame.replay is None:
                self.seen(opened(bus, seen), at_of(seen))
                count += 1
        for seen in bus.events(after=self.position, upto=end, run=RUN, family=LlmQueried.family):
            if seen.frame.replay is None and isinstance(seen.event, Event):
                self.spending.seen(seen.event, seen.frame.stored)
                count += 1
        self.position = end
        if count:
            fetch(bus, self.families)
        return count
