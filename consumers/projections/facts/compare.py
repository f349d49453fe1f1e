"""What would have been different: the recorded items, judged by the facts of two modules."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from morphogen.schemas.knowledge.cases import structure
from morphogen.schemas.knowledge.program import Program
from morphogen.schemas.knowledge.stream import Condition, Engine, NotExecutable, State, Verdicts, condition

from ..fold.batch import Batch
from .items import kinds_of
from .sources import once, source_of

SHOWN = 5


@dataclass(frozen=True)
class Place:
    """An item of which two modules say different things; a truth is None where it is unknown or there is no such fact."""

    seq: int
    idx: int
    part: int
    run: str
    old: bool | None
    new: bool | None
    old_values: dict[str, Any]
    new_values: dict[str, Any]


@dataclass
class FactDifference:
    """How one fact differs over the past. `status` is same, changed, added, removed or refused."""

    fact: str
    status: str
    old_items: int = 0
    new_items: int = 0
    old_holds: int = 0
    new_holds: int = 0
    changed_items: int = 0
    """Items that one of them judges to be true and the other does not."""
    old_changes: int = 0
    new_changes: int = 0
    """How often the fact became true or ceased to be."""
    reason: str | None = None
    first: list[Place] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Tell whether anything that was recorded would have been judged otherwise."""
        return bool(self.changed_items or self.old_changes != self.new_changes)


@dataclass
class Comparison:
    """What came out, fact by fact."""

    facts: list[FactDifference]
    items: int = 0

    @property
    def apart(self) -> bool:
        """Tell whether the two modules have facts and none in common."""
        return bool(self.facts) and all(one.status in ("added", "removed") for one in self.facts)

    @property
    def differs(self) -> bool:
        """Tell whether any fact differs."""
        return any(one.differs for one in self.facts)


@dataclass
class _Side:
    """One module: its conditions that can run, by fact, and the engines of those that are compared."""

    program: Program
    conditions: dict[str, Condition]
    refused: dict[str, str]
    engines: dict[str, Engine] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)


def compare(
    old: Program, new: Program, batches: Iterable[Batch], *, runs: Collection[str] | None = None, shown: int = SHOWN
) -> Comparison:
    """Judge the items in batches of the log by the facts of both modules."""
    comparing = Comparing(old, new, runs=runs, shown=shown)
    for batch in batches:
        comparing.feed(batch)
    return comparing.result


class Comparing:
    """A comparison under way: give it the batches of the log in order."""

    def __init__(self, old: Program, new: Program, *, runs: Collection[str] | None = None, shown: int = SHOWN) -> None:
        self._sides = (_side(old), _side(new))
        self._runs = None if runs is None else frozenset(runs)
        self.missing = set(self._runs or ())
        """Runs that were asked for and that no event so far is of."""
        self._shown = shown
        names = list(dict.fromkeys([*self._sides[0].conditions, *self._sides[1].conditions]))
        names += [name for side in self._sides for name in side.refused if name not in names]
        self._found = {name: FactDifference(name, self._status(name)) for name in dict.fromkeys(names)}
        for side in self._sides:
            for name, reason in side.refused.items():
                self._found[name].reason = reason
            self._make_engines(side)
        self.result = Comparison(list(self._found.values()))

    def feed(self, batch: Batch) -> None:
        """Judge the items of one batch."""
        self.missing -= {batch.run.words[code] for code in set(batch.run.codes.tolist())} if self.missing else set()
        cases = list(dict.fromkeys([*self._sides[0].engines, *self._sides[1].engines]))
        for case in cases:
            verdicts = [self._judge(side, case, batch) for side in self._sides]
            sizes = [len(one.items) for one in verdicts if one is not None]
            self.result.items += max(sizes, default=0)
            for name, found in self._found.items():
                if found.status != "same":
                    self._note(found, name, case, verdicts)

    def _status(self, name: str) -> str:
        old, new = (side.conditions.get(name) for side in self._sides)
        if old is None and new is None:
            return "refused"
        if old is None or new is None:
            return "added" if old is None else "removed"
        shapes = [structure(side.program.cases[side.conditions[name].case]) for side in self._sides]
        return "same" if old == new and shapes[0] == shapes[1] else "changed"

    def _make_engines(self, side: _Side) -> None:
        by_case: dict[str, list[Condition]] = {}
        for name, one in side.conditions.items():
            if self._found[name].status != "same":
                by_case.setdefault(one.case, []).append(one)
        for case, conditions in by_case.items():
            side.engines[case] = Engine(conditions, kinds_of(side.program.cases[case]))
            side.states[case] = {}

    def _judge(self, side: _Side, case: str, batch: Batch) -> Verdicts | None:
        engine = side.engines.get(case)
        if engine is None:
            return None
        items = once(source_of(side.program.cases[case]), batch).items(batch)
        if self._runs is not None:
            table = np.array([*(word in self._runs for word in items.run.words), False], np.bool_)
            items = items.take(np.flatnonzero(table[items.run.codes]))
        return engine.feed(items, side.states[case])

    def _note(self, found: FactDifference, name: str, case: str, verdicts: list[Verdicts | None]) -> None:
        truths: list[Mapping[tuple[int, int, int], int]] = []
        numbers: list[int | None] = []
        for which, (side, verdict) in enumerate(zip(self._sides, verdicts, strict=True)):
            one = side.conditions.get(name)
            if one is None or one.case != case or verdict is None:
                truths.append({})
                numbers.append(None)
                continue
            number = [condition.name for condition in verdict.engine.conditions].index(name)
            numbers.append(number)
            flag = verdict.truth(number)
            holds, changes = int(flag.true.sum()), int((verdict.changes.fact == number).sum())
            firsts = int(((verdict.changes.fact == number) & verdict.changes.first & ~verdict.changes.holds).sum())
            if which == 0:
                found.old_items, found.old_holds = found.old_items + len(flag), found.old_holds + holds
                found.old_changes += changes - firsts
            else:
                found.new_items, found.new_holds = found.new_items + len(flag), found.new_holds + holds
                found.new_changes += changes - firsts
            truths.append(_by_place(verdict, number))
        for place in _differing(*truths):
            found.changed_items += 1
            if len(found.first) < self._shown:
                found.first.append(_place(place, truths, numbers, verdicts))


def _side(program: Program) -> _Side:
    conditions, refused = {}, {}
    own = {system.name for system in program.module.systems} or set(program.systems)
    for name, info in program.facts.items():
        if info.system in own:
            try:
                conditions[name] = condition(program, name)
            except NotExecutable as error:
                refused[name] = str(error)
    return _Side(program, conditions, refused)


def _by_place(verdict: Verdicts, number: int) -> dict[tuple[int, int, int], int]:
    """Return the row of each item that a fact holds for, by its place."""
    rows = np.flatnonzero(verdict.truth(number).true)
    items = verdict.items
    places = zip(items.seq[rows].tolist(), items.idx[rows].tolist(), items.part[rows].tolist(), strict=True)
    return dict(zip(places, rows.tolist(), strict=True))


def _differing(
    old: Mapping[tuple[int, int, int], int], new: Mapping[tuple[int, int, int], int]
) -> Iterator[tuple[int, int, int]]:
    yield from sorted(old.keys() ^ new.keys())


def _place(
    place: tuple[int, int, int],
    truths: list[Mapping[tuple[int, int, int], int]],
    numbers: list[int | None],
    verdicts: list[Verdicts | None],
) -> Place:
    said: list[bool | None] = []
    values: list[dict[str, Any]] = []
    run = ""
    for number, verdict in zip(numbers, verdicts, strict=True):
        row = None if verdict is None else _row(verdict, place)
        if number is None or verdict is None or row is None:
            said.append(None)
            values.append({})
            continue
        at = np.array([row], np.intp)
        run = str(verdict.items.run.plain(at)[0])
        said += verdict.truth(number).plain(at)
        values += verdict.evidence(number, at)
    return Place(*place, run, said[0], said[1], values[0], values[1])


def _row(verdict: Verdicts, place: tuple[int, int, int]) -> int | None:
    items = verdict.items
    found = np.flatnonzero((items.seq == place[0]) & (items.idx == place[1]) & (items.part == place[2]))
    return int(found[0]) if len(found) else None
