"""All that archive and log say about tools and what they are made of, folded as it is read: families, versions, careers, spending.

Nothing is folded that has not been read from them, so two processes that have read as far know the same.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from morphogen.consumers.executions import FAMILIES, At, Families, at_of, fetch
from morphogen.schemas import CrystalMoved, Event, LlmQueried
from morphogen.schemas.event import Unknown

from .careers import Careers
from .drafting import Spending
from .registry import Registry

if TYPE_CHECKING:
    from morphogen.bus import Bus, Seen

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
        """The sequence up to which archive and log were read."""
        # The place of the last event that was taken, by the families that were asked for.
        self._taken: dict[str | tuple[str, ...], tuple[int, int]] = {}
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
        """Read what has come since; return how many events that was. One that broke off is gone on with by the next.

        Raises LogGap where the log was trimmed and its archive is not on this machine, and what reading raises.
        """
        info = bus.stream_info()
        end, self.clock_ns = info.last_seq, info.now
        if end <= self.position:
            return 0
        count = 0
        for seen in self._fresh(bus, end, family=(*FAMILIES, CRYSTAL)):
            self.seen(seen.event, at_of(seen))
            count += 1
        for seen in self._fresh(bus, end, run=RUN, family=LlmQueried.family):
            if isinstance(seen.event, Event):
                self.spending.seen(seen.event, seen.frame.stored)
                count += 1
        self.position = end
        if count:
            fetch(bus, self.families)
        return count

    def _fresh(
        self, bus: "Bus", end: int, *, run: str | None = None, family: str | tuple[str, ...]
    ) -> "Iterator[Seen]":
        """Yield what was not yet taken up to a sequence. It counts as taken once the next one is asked for."""
        taken = self._taken.get(family, (0, -1))
        for seen in bus.past(after=max(self.position, taken[0] - 1), upto=end, run=run, family=family):
            if seen.frame.replay is None and seen.place > taken:
                yield seen
                self._taken[family] = seen.place
