"""Conditions on the items of one case, for batch after batch of them: what is true of each, and what changed.

    engine = Engine(conditions, kinds)
    verdicts = engine.feed(items, state)     # state is brought up to date
    verdicts.changes                         # where a fact became true or false
    verdicts.holds("System.fact")            # one truth value an item

Items that were not measured are passed over: they ground nothing. The state is one value a run and can be stored; how
the items were cut into batches never shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .columns import Flag, Ints, Mask, Places, Text, Values
from .partition import Book, Partition, partition
from .plan import Column, Condition, Frame, Kind, Node, Over, readings, text, walk
from .quantiles import SHARES
from .running import Running, SoFar
from .running import nothing as nothing_so_far
from .scan import Stretches
from .vector import column_of
from .windows import Past, Windows
from .windows import nothing as no_past

_NEVER = -(1 << 63)


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """Items of one case in log order: where they stand, whose they are, when they were, and their fields.

    `part` counts the items that one event brings; `time` is the event's, in unix nanoseconds.
    """

    seq: Ints
    idx: Ints
    part: Ints
    run: Text
    time: Ints
    fields: Mapping[str, Values]
    measured: Mask | None = None

    def __len__(self) -> int:
        return len(self.seq)

    def take(self, at: Any) -> "Items":
        """Return some of the items."""
        fields = {name: value.take(at) for name, value in self.fields.items()}
        measured = None if self.measured is None else self.measured[at]
        return Items(self.seq[at], self.idx[at], self.part[at], self.run.take(at), self.time[at], fields, measured)


@dataclass(slots=True)
class RunState:
    """What the engine remembers of one run: its clock, the keys that it has seen, and what windows still reach.

    Everything in it is replaced, never changed, so that a copy made with `replace` stands for good.
    """

    clock: int = _NEVER
    books: dict[tuple[str, ...], Book] = field(default_factory=dict)
    past: tuple[Past | SoFar | None, ...] = ()
    truth: dict[str, Any] = field(default_factory=dict)


State = dict[str, RunState]
"""States by run."""


class Change(NamedTuple):
    """Where facts changed: arrays of one length, in the order of the log.

    `fact` counts the engine's conditions, `item` the measured items of the batch; `holds` is what is true from there on,
    `first` whether the fact was never judged before for this run and key.
    """

    fact: Ints
    item: Places
    holds: Mask
    first: Mask


@dataclass(slots=True)
class _Group:
    """Aggregates over one frame, with the arguments that they go over."""

    frame: Frame
    args: dict[Node, int] = field(default_factory=dict)
    nodes: dict[Over, int | None] = field(default_factory=dict)

    @property
    def windowed(self) -> bool:
        return self.frame.last is not None or self.frame.duration_ns is not None

    @property
    def wanted(self) -> list[tuple[Over, int | None]]:
        return list(self.nodes.items())


class Engine:
    """All conditions on one case. It holds no state: that is given to `feed`."""

    def __init__(self, conditions: Sequence[Condition], kinds: Mapping[str, Kind]) -> None:
        self.conditions = list(conditions)
        self.kinds = dict(kinds)
        self._groups = _groups(self.conditions)
        keys = dict.fromkeys(one.key for one in self.conditions)
        self._keys = list(keys)
        self._partitions = list(dict.fromkeys([*keys, *(group.frame.per for group in self._groups)]))
        self._of_key = {key: [i for i, one in enumerate(self.conditions) if one.key == key] for key in self._keys}

    def feed(self, items: Items, state: State) -> "Verdicts":
        """Judge items, which follow all that were fed before; return what is true and bring the state up to date."""
        if items.measured is not None and not items.measured.all():
            items = items.take(np.flatnonzero(items.measured))
        if not len(items):
            return Verdicts(self, items, {}, {}, _no_change())
        runs, names = _runs(items.run)
        states = [_copied(state.get(name)) for name in names]
        clock = _clocks(items.time, runs, states)
        parts = {
            per: partition(
                runs, [items.fields[name] for name in per], [one.books.setdefault(per, {}) for one in states]
            )
            for per in self._partitions
        }
        known: dict[Node, Any] = {Column(name, self.kinds[name]): value for name, value in items.fields.items()}
        pasts: list[list[Past | SoFar | None]] = [list(one.past) or [None] * len(self._groups) for one in states]
        for number, group in enumerate(self._groups):
            self._aggregate(number, group, parts[group.frame.per], runs, clock, known, pasts, states)
        holds = {number: column_of(one.body, known, len(items)) for number, one in enumerate(self.conditions)}
        changes = self._changes(holds, parts, states)
        for name, one, past in zip(names, states, pasts, strict=True):
            one.past = tuple(past)
            state[name] = one
        return Verdicts(self, items, known, holds, changes)

    def _aggregate(
        self, number: int, group: _Group, part: Partition, runs: Ints, clock: Ints,
        known: dict[Node, Any], pasts: "list[list[Any]]", states: Sequence[RunState],
    ) -> None:  # fmt: skip
        args = [column_of(arg, known, len(runs)) for arg in group.args]
        if group.windowed:
            empty = no_past(args)
            windows = Windows(group.frame, part, runs, clock, args, [past[number] or empty for past in pasts])
            known.update(windows.results(group.wanted))
            kept: Sequence[Any] = windows.kept(np.array([one.clock for one in states], np.int64))
        else:
            quantiles = [any(node.name in SHARES and at == i for node, at in group.wanted) for i in range(len(args))]
            nothing = nothing_so_far(args, quantiles)
            running = Running(part, args, [past[number] or nothing for past in pasts])
            known.update(running.results(group.wanted))
            kept = running.kept()
        for past, one in zip(pasts, kept, strict=True):
            past[number] = one

    def _changes(
        self, holds: Mapping[int, Values], parts: Mapping[tuple[str, ...], Partition], states: Sequence[RunState]
    ) -> Change:
        """Compare each fact with what it was at the item before of the same run and key."""
        facts, places, now, first = [], [], [], []
        for key in self._keys:
            part = parts[key]
            order = part.order()
            group = part.group if order is None else part.group[order]
            starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
            lasts = np.concatenate([starts[1:], [len(group)]]) - 1
            owners = group[starts]
            truths = self._truths(key, part, states)
            for number in self._of_key[key]:
                flag = holds[number]
                assert isinstance(flag, Flag)
                here = (flag.true if order is None else flag.true[order]).astype(np.int8)
                before = np.empty(len(here), np.int8)
                before[1:] = here[:-1]
                truth = truths[number]
                before[starts] = truth[owners]
                changed = np.flatnonzero(here != before)
                if len(changed):
                    facts.append(np.full(len(changed), number, np.int64))
                    places.append(changed if order is None else order[changed])
                    now.append(here[changed] == 1)
                    first.append(before[changed] == -1)
                    truth = truth.copy()
                    truth[owners] = here[lasts]
                    truths[number] = truth
            self._keep_truths(key, part, states, truths)
        if not facts:
            return _no_change()
        fact, place = np.concatenate(facts), np.concatenate(places)
        ordered = np.lexsort((fact, place))
        return Change(fact[ordered], place[ordered], np.concatenate(now)[ordered], np.concatenate(first)[ordered])

    def _truths(self, key: tuple[str, ...], part: Partition, states: Sequence[RunState]) -> dict[int, Any]:
        """Return what each fact was for each group: 1 true, 0 not true, -1 never judged."""
        out = {}
        bases = part.base.tolist()
        for number in self._of_key[key]:
            name = self.conditions[number].name
            truth = np.full(part.total, -1, np.int8)
            for one, base in zip(states, bases, strict=False):
                held = one.truth.get(name)
                if held is not None:
                    truth[base : base + len(held)] = held
            out[number] = truth
        return out

    def _keep_truths(
        self, key: tuple[str, ...], part: Partition, states: Sequence[RunState], truths: Mapping[int, Any]
    ) -> None:
        bases = part.base.tolist()
        for number, truth in truths.items():
            name = self.conditions[number].name
            for one, a, b in zip(states, bases[:-1], bases[1:], strict=True):
                one.truth[name] = truth[a:b] if len(states) == 1 else truth[a:b].copy()


@dataclass(slots=True, eq=False)
class Verdicts:
    """What one batch came to. `items` are those that were measured, and all places count in them."""

    engine: Engine
    items: Items
    known: dict[Node, Any]
    flags: Mapping[int, Values]
    changes: Change

    def truth(self, number: int) -> Flag:
        """Return what a condition, by its number, is for each item: true, false, or unknown."""
        found = self.flags.get(number)
        return found if isinstance(found, Flag) else Flag(np.empty(0, np.bool_), np.empty(0, np.bool_))

    def holds(self, name: str) -> Mask:
        """Return where the fact of this full name is true."""
        names = [one.name for one in self.engine.conditions]
        return self.truth(names.index(name)).true

    def evidence(self, number: int, at: Places) -> list[dict[str, Any]]:
        """Return, for some items, the values that a condition was judged by: fields and aggregates by how they are written."""
        nodes = readings(self.engine.conditions[number].body)
        columns = [(text(node), column_of(node, self.known, len(self.items)).plain(at)) for node in nodes]
        return [{name: values[row] for name, values in columns} for row in range(len(at))]

    def keys(self, number: int, at: Places) -> list[dict[str, Any]]:
        """Return, for some items, the values of the fields that tell the subjects of a condition apart."""
        names = self.engine.conditions[number].key
        columns = [(name, self.items.fields[name].plain(at)) for name in names]
        return [{name: values[row] for name, values in columns} for row in range(len(at))]


def _groups(conditions: Sequence[Condition]) -> list[_Group]:
    groups: dict[Frame, _Group] = {}
    for condition in conditions:
        for node in walk(condition.body):
            if not isinstance(node, Over):
                continue
            group = groups.setdefault(node.frame, _Group(node.frame))
            number = None if node.arg is None else group.args.setdefault(node.arg, len(group.args))
            group.nodes.setdefault(node, number)
    return list(groups.values())


def _runs(run: Text) -> tuple[Ints, list[str]]:
    """Return the run of each item as a code from 0, and the runs that there are."""
    if len(run.words) == 1:
        return np.zeros(len(run), np.int64), list(run.words)
    used, codes = np.unique(run.codes, return_inverse=True)
    return codes.astype(np.int64), [run.words[code] if code >= 0 else "" for code in used.tolist()]


def _copied(state: RunState | None) -> RunState:
    if state is None:
        return RunState()
    books = {per: dict(book) for per, book in state.books.items()}
    return RunState(state.clock, books, state.past, dict(state.truth))


def _clocks(time: Ints, runs: Ints, states: Sequence[RunState]) -> Ints:
    """Return each item's clock, the largest time of its run so far, and note it in the states."""
    if len(states) == 1:
        clock = np.maximum.accumulate(time)
        np.maximum(clock, states[0].clock, out=clock)
        states[0].clock = int(clock[-1])
        return clock
    order = np.argsort(runs, kind="stable")
    sorted_runs, sorted_time = runs[order], time[order].copy()
    starts = np.flatnonzero(np.concatenate([[True], sorted_runs[1:] != sorted_runs[:-1]]))
    carried = np.array([one.clock for one in states], np.int64)[sorted_runs[starts]]
    sorted_time[starts] = np.maximum(sorted_time[starts], carried)
    forward = Stretches(starts, len(order)).forward(sorted_time, np.maximum, _NEVER)  # type: ignore[arg-type]
    clock = np.empty_like(time)
    clock[order] = forward
    for run, row in zip(sorted_runs[starts].tolist(), (np.append(starts[1:], len(order)) - 1).tolist(), strict=True):
        states[run].clock = int(forward[row])
    return clock


def _no_change() -> Change:
    none = np.empty(0, np.int64)
    return Change(none, none, np.empty(0, np.bool_), np.empty(0, np.bool_))
