"""Runs that grew, read from archive and log: all that was told of them, ready to be gone over again."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from morphogen.bus.bodies import whole
from morphogen.bus.past import past
from morphogen.bus.settings import Settings
from morphogen.consumers.policy.timeline import Told
from morphogen.consumers.projections.fold.batch import Batch, Lane
from morphogen.schemas import Action, AdaptationStarted, DecisionProposed, Event, SlotGerminated, Unknown

from ..errors import BacktestFailed
from ..span import Progress, silent

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.reader import Message

FAMILIES = ("adaptation", "decision", "health", "slot")


class Key(NamedTuple):
    """Whose story it is: each attempt of a run is one of its own, and so is each rank."""

    run: str
    attempt: int
    rank: int

    def __str__(self) -> str:
        return self.run + (f"/{self.attempt}" if self.attempt > 1 else "") + (f" rank {self.rank}" if self.rank else "")


@dataclass(frozen=True)
class Recorded:
    """One attempt of a run in which something could grow."""

    key: Key
    told: tuple[Told, ...]
    started: AdaptationStarted


async def recorded_runs(
    conn: "Connection | None",
    settings: Settings,
    patterns: Sequence[str] = (),
    *,
    missed: Callable[[str], None] = lambda pattern: None,
    progress: Progress = silent,
) -> AsyncGenerator[Recorded, None]:
    """Yield the runs whose names match one of the patterns (all, without any), in the order in which they began.

    A pattern with commas that matches no run as it is stands for its parts. Every run is read for itself, so that one
    fits into memory at a time. `missed` gets each pattern that matches none. Raises BacktestFailed where none does,
    LogGap, and what else the bus raises.
    """
    found: dict[str, None] = {}
    async for batch in _batches(conn, settings, None, ("adaptation",)):
        for entry in batch.entries(("adaptation.started",)):
            found[entry.run] = None
    runs = list(found)
    matches = {one: _chosen(runs, one) for one in _split(runs, patterns)}
    wanted = [run for run in runs if not patterns or any(run in names for names in matches.values())]
    if not wanted:
        raise BacktestFailed(_none(found, patterns))
    for pattern, names in matches.items():
        if not names:
            missed(pattern)
    for number, run in enumerate(wanted):
        progress(number, len(wanted), "runs")
        for one in await _read(conn, settings, run):
            yield one
    progress(len(wanted), len(wanted), "runs")


def recorded_of(told: Iterable[tuple[Key, Told]]) -> list[Recorded]:
    """Sort what was told by whose story it is; those in which nothing could grow are left out.

    A policy that decides from elsewhere belongs to no attempt (it writes 0): what it says is of the attempt that had
    begun last.
    """
    stories: dict[Key, list[Told]] = {}
    for key, one in told:
        stories.setdefault(key, []).append(one)
    begun = {key: first for key, parts in stories.items() if key.attempt and (first := _begun(parts)) is not None}
    for key in [key for key in stories if not key.attempt]:
        for one in stories.pop(key):
            owners = [(first.time <= one.time, first.time, own) for own, first in begun.items() if own.run == key.run]
            if owners:
                stories[max(owners)[2]].append(one)
    return [
        Recorded(key, tuple(stories[key]), first.event)
        for key, first in sorted(begun.items())
        if isinstance(first.event, AdaptationStarted)
    ]


def _begun(parts: Iterable[Told]) -> Told | None:
    return next((one for one in parts if isinstance(one.event, AdaptationStarted)), None)


def blueprints_of(recorded: Recorded) -> dict[str, str]:
    """Return the menu's name of each seed's blueprint; the address where no decision names one."""
    actions: dict[str, Action] = {}
    seeds: dict[str, str] = {}
    for told in recorded.told:
        if isinstance(told.event, DecisionProposed):
            actions[told.event.decision] = told.event.action
    for told in recorded.told:
        if isinstance(told.event, SlotGerminated):
            action = actions.get(told.event.decision or "")
            seeds[told.event.seed] = (action.blueprint if action else None) or told.event.blueprint
    return seeds


async def _read(conn: "Connection | None", settings: Settings, run: str) -> list[Recorded]:
    told: list[tuple[Key, Told]] = []
    async for batch in _batches(conn, settings, run, FAMILIES):
        told += told_of(batch)
    return recorded_of(told)


def told_of(batch: Batch) -> Iterable[tuple[Key, Told]]:
    """Yield the events of a batch that are of a known class, with whose they are."""
    for entry in batch.entries(("*",)):
        lane, _, n = entry.id.rpartition(".")
        if isinstance(entry.body, Event) and not isinstance(entry.body, Unknown):
            told = Told(lane, int(n), entry.time, entry.step, entry.body, entry.id)
            yield Key(entry.run, entry.attempt, entry.rank), told


async def _batches(
    conn: "Connection | None", settings: Settings, run: str | None, families: tuple[str, ...]
) -> AsyncGenerator[Batch, None]:
    lanes: dict[Lane, int] = {}

    def decoded(messages: "list[Message]") -> Batch:
        return Batch.read(messages, lanes=lanes)

    messages = whole(conn, past(conn, settings, run=run, family=families))
    try:
        async for some in messages:
            yield await asyncio.to_thread(decoded, some)
    finally:
        await messages.aclose()


def _chosen(found: list[str], pattern: str) -> set[str]:
    return {run for run in found if run == pattern or fnmatchcase(run, pattern)}


def _split(found: list[str], patterns: Sequence[str]) -> list[str]:
    """Return the patterns, each with commas that no run is named by as its parts."""
    parts = [[one] if _chosen(found, one) else one.split(",") for one in patterns]
    return [part for some in parts for part in some if part]


def _none(found: Iterable[str], patterns: Sequence[str]) -> str:
    known = list(found)
    if not known:
        return "no run in the log could grow: record one with `morphogen.grow(...)`"
    shown = ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")
    return f"no run that could grow is named {' or '.join(map(repr, patterns))}: there are {shown}"
