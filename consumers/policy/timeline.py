"""The events of one run in the order in which they were recorded.

The log keeps the order within a family, not between families: they travel in frames of their own. A run's program
records one event after the other, so that the families merge by the time of their next events.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from morphogen.schemas import Event


class Told(NamedTuple):
    """An event with what the log says of it: family, number within the family, time in nanoseconds, step, id."""

    family: str
    n: int
    time: int
    step: int | None
    event: Event
    id: str = ""


def timeline(told: Iterable[Told]) -> Iterator[Told]:
    """Yield the events of one writer in their order, whatever order they come in.

    A wall clock that was set back in the middle of a run does not reorder a family.
    """
    families: dict[str, list[Told]] = {}
    for one in told:
        families.setdefault(one.family, []).append(one)
    return (one for _, one in heapq.merge(*(_timed(families[name]) for name in sorted(families)), key=lambda at: at[0]))


def _timed(family: list[Told]) -> Iterator[tuple[int, Told]]:
    latest = 0
    for one in sorted(family, key=lambda told: (told.n, told.time)):
        latest = max(latest, one.time)
        yield latest, one
