"""Which facts became true or false at which item, and which rules and hints that brought about, for one system.

The stream judges every measured item as the log is folded; what it must remember is kept by run, in the same transaction
as the rows. Each fact is a view as well, compiled to SQL from the same condition.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from morphogen.schemas.knowledge.cases import structure
from morphogen.schemas.knowledge.program import CaseInfo
from morphogen.schemas.knowledge.stream import Condition, Engine, RunState, Verdicts
from morphogen.schemas.knowledge.stream.stored import from_bytes, to_bytes

from ..fold.arrays import strings
from ..fold.batch import Batch
from ..fold.rows import Columns
from ..parts import Parts
from ..projection import FRONT, Projection, Rows
from .items import kinds_of
from .judged import judged_of
from .modules import Judge, Module, truth_of
from .naming import own_name, system_word
from .sources import Source, once, source_of
from .views import views_of

CHANGES = "fact VARCHAR, part INTEGER, holds BOOLEAN, first BOOLEAN, key JSON, evidence JSON, event VARCHAR"
FIRED = "kind VARCHAR, name VARCHAR, part INTEGER, key JSON, evidence JSON, event VARCHAR"
_HOT = 256  # runs whose state is held ready beside its bytes


class _Change(NamedTuple):
    """A change, or a rule that fired; `at` is the place of the event in the batch."""

    seq: int
    idx: int
    part: int
    number: int
    name: str
    at: int
    holds: bool
    first: bool
    key: dict[str, Any]
    evidence: dict[str, Any]
    run: str
    kind: str = "fact"


class _Watched:
    """A case, what is asked of its items, and the engine that judges them: facts first, then rules and hints."""

    def __init__(self, info: CaseInfo, facts: list[Condition], judges: list[Judge]) -> None:
        self.info = info
        self.source: Source = source_of(info)
        self.facts = facts
        self.judges = judges
        asked = [
            Condition(f"{one.kind}:{one.name}", info.name, one.together.body, one.together.key)
            for one in judges
            if one.together is not None
        ]
        self.engine = Engine([*facts, *asked], kinds_of(info))


def changes_table(system: str) -> str:
    """Return the table of a system's changes of facts."""
    return f"_fact_changes_{system_word(system)}"


def fired_table(system: str) -> str:
    """Return the table of a system's rules and hints that fired."""
    return f"_rules_fired_{system_word(system)}"


class FactChanges(Projection):
    """Changes of one system's facts. Make one with `facts_projection`."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self._watched = watched_cases(module)
        self._across = [one for one in module.judges if one.together is None]
        self._hot: OrderedDict[str, tuple[bytes, dict[str, RunState], dict[str, Any]]] = OrderedDict()
        self._judged = judged_of(module.system, module.facts, module.program.cases)
        self.views = views_of(module)

    def depends(self) -> tuple[str, ...]:
        """Return what the facts and rules say; comments and names of files are no reason to build anew."""
        asked = [repr(one) for watched in self._watched for one in watched.engine.conditions]
        shapes = [structure(watched.info) for watched in self._watched]
        return (*asked, *shapes, *(repr((one.name, one.when)) for one in self._across))

    def initial(self) -> Any:
        """Return what is known before the first item: nothing of any run."""
        return Parts()

    def advance(self, state: Any, batch: Batch) -> tuple[Any, Rows]:
        """Judge the items of a batch; return what is remembered, and the changes."""
        found: list[_Change] = []
        runs: dict[str, tuple[dict[str, RunState], dict[str, Any]]] = {}
        stored: dict[str, Columns] = {}
        before: dict[str, dict[str, tuple[int, bool]]] = {}
        for watched in self._watched:
            read = once(watched.source, batch)
            if not len(read.at):
                continue
            items = read.items(batch)
            for name in {items.run.words[code] for code in np.unique(items.run.codes).tolist()}:
                if name not in runs:
                    runs[name] = self._recall(state, name)
                    if self._across:
                        before[name] = _truths(self._watched, runs[name][0])
            states = {name: cases[watched.info.name] for name, (cases, _) in runs.items() if watched.info.name in cases}
            verdicts = watched.engine.feed(items, states)
            for name, one in states.items():
                runs[name][0][watched.info.name] = one
            judged = self._judged.get(watched.info.name)
            if judged is not None:
                stored[judged.table] = judged.rows(batch, read, verdicts)
            measured = read.at if items.measured is None else read.at[np.flatnonzero(items.measured)]
            found += _changes_of(watched, verdicts, measured)
        if not runs:
            return None, {}
        found.sort(key=lambda one: one[:4])
        fired = [one for one in found if one.kind != "fact" and one.holds]
        facts = [one for one in found if one.kind == "fact"]
        for judge in self._across:
            fired += _across(judge, self.module, facts, before, runs)
        fired.sort(key=lambda one: one[:4])
        written = {}
        for name, (cases, more) in runs.items():
            data = written[name] = to_bytes(cases, more=more)
            self._hot[name] = (data, cases, more)
            self._hot.move_to_end(name)
        while len(self._hot) > _HOT:
            self._hot.popitem(last=False)
        return state.changed(written, written), {**self._rows(batch, facts, fired), **stored}

    def _recall(self, state: Parts, run: str) -> tuple[dict[str, RunState], dict[str, Any]]:
        data = state.parts.get(run)
        if data is None:
            return {}, {}
        hot = self._hot.get(run)
        if hot is not None and hot[0] is data:
            return dict(hot[1]), dict(hot[2])
        cases, found = from_bytes(data)
        return cases, dict(found.get("more", {}))

    def _rows(self, batch: Batch, facts: list[_Change], fired: list[_Change]) -> Rows:
        rows: dict[str, Columns] = {}
        if facts:
            own = {
                "fact": strings([own_name(one.name) for one in facts]),
                "part": np.array([one.part for one in facts], np.int32),
                "holds": np.array([one.holds for one in facts], np.bool_),
                "first": np.array([one.first for one in facts], np.bool_),
            }
            rows[changes_table(self.module.system)] = _columns(batch, facts, own)
        if fired:
            own = {
                "kind": strings([one.kind for one in fired]),
                "name": strings([own_name(one.name) for one in fired]),
                "part": np.array([one.part for one in fired], np.int32),
            }
            rows[fired_table(self.module.system)] = _columns(batch, fired, own)
        return rows


def watched_cases(module: Module) -> list[_Watched]:
    """Return the cases whose items a module's facts and rules look at."""
    every: dict[str, CaseInfo] = {}
    names = [one.case for one in module.facts.values()]
    names += [one.together.case for one in module.judges if one.together is not None]
    # Facts of used modules are followed here where a rule over several cases asks them.
    foreign = _foreign(module)
    for name in (*names, *(one.case for one in foreign)):
        every.setdefault(name, module.program.cases[name])
    return [
        _Watched(
            info,
            [one for one in (*module.facts.values(), *foreign) if one.case == name],
            [one for one in module.judges if one.together is not None and one.together.case == name],
        )
        for name, info in every.items()
    ]


def _foreign(module: Module) -> list[Condition]:
    from morphogen.schemas.knowledge.stream import condition

    asked = {name for judge in module.judges if judge.together is None for name in judge.facts}
    return [condition(module.program, name) for name in sorted(asked - module.facts.keys())]


@cache
def _class_of(name: str, types: tuple[str, ...], shapes: tuple[tuple[str, str], ...]) -> type[FactChanges]:
    class Made(FactChanges, name=name, version=3, types=types):
        tables: Mapping[str, str] = dict(shapes)

    return Made


def facts_projection(module: Module) -> FactChanges | None:
    """Return the projection of a system's facts, or None where it has neither facts nor cases."""
    types = sorted({watched.source.type for watched in watched_cases(module)})
    types = types or sorted({source_of(info).type for info in module.cases.values()})
    if not types:
        return None
    name = f"facts_{system_word(module.system)}"
    tables = {changes_table(module.system): CHANGES, fired_table(module.system): FIRED}
    judged = judged_of(module.system, module.facts, module.program.cases)
    tables.update({one.table: one.columns for one in judged.values()})
    return _class_of(name, tuple(types), tuple(tables.items()))(module)


def _changes_of(watched: _Watched, verdicts: Verdicts, at: Any) -> list[_Change]:
    change, items = verdicts.changes, verdicts.items
    if not len(change.fact):
        return []
    out: list[_Change] = []
    for number in np.unique(change.fact).tolist():
        mine = change.fact == number
        judged = number >= len(watched.facts)
        if judged:
            mine &= change.holds
        rows = change.item[mine]
        condition = watched.engine.conditions[number]
        judge = watched.judges[number - len(watched.facts)] if judged else None
        columns = zip(
            items.seq[rows].tolist(), items.idx[rows].tolist(), items.part[rows].tolist(), at[rows].tolist(),
            change.holds[mine].tolist(), change.first[mine].tolist(), verdicts.keys(number, rows),
            verdicts.evidence(number, rows), items.run.take(rows).plain(slice(None)), strict=True,  # type: ignore[arg-type]
        )  # fmt: skip
        name, kind = (condition.name, "fact") if judge is None else (judge.name, judge.kind)
        out += [
            _Change(seq, idx, part, number, name, place, holds, first, key, evidence, run, kind)
            for seq, idx, part, place, holds, first, key, evidence, run in columns
        ]
    return out


def _truths(watched: Iterable[_Watched], cases: Mapping[str, RunState]) -> dict[str, tuple[int, bool]]:
    """Return, for each fact, for how many keys it holds in a run, and whether any item was judged by it."""
    out = {}
    for one in watched:
        state = cases.get(one.info.name)
        for fact in one.facts:
            truth = None if state is None else state.truth.get(fact.name)
            out[fact.name] = (0, False) if truth is None else (int((truth == 1).sum()), bool((truth >= 0).any()))
    return out


def _across(
    judge: Judge, module: Module, facts: list[_Change], before: Mapping[str, dict[str, tuple[int, bool]]],
    runs: Mapping[str, tuple[dict[str, RunState], dict[str, Any]]],
) -> list[_Change]:  # fmt: skip
    """Judge a rule over several cases at every change of a fact that it asks; changes at one place count together."""
    asked = frozenset(judge.facts)
    now = {run: dict(truths) for run, truths in before.items()}
    mine = [one for one in facts if one.name in asked]
    name = f"{judge.kind}:{judge.name}"
    out: list[_Change] = []
    for i, one in enumerate(mine):
        truths = now[one.run]
        count, _ = truths[one.name]
        truths[one.name] = (count + 1 if one.holds else count if one.first else count - 1, True)
        after = mine[i + 1] if i + 1 < len(mine) else None
        if after is not None and (after.run, *after[:3]) == (one.run, *one[:3]):
            continue
        said = {fact: (truths[fact][0] > 0 if truths[fact][1] else None) for fact in judge.facts}
        holds = truth_of(judge, module.program, module.system, said)
        held = runs[one.run][1].get(name, False)
        if holds and not held:
            out.append(one._replace(name=judge.name, kind=judge.kind, key={}, evidence=said, holds=True))
        runs[one.run][1][name] = holds
    return out


def _columns(batch: Batch, found: list[_Change], own: dict[str, Any]) -> Columns:
    at = np.array([one.at for one in found], np.intp)
    every: tuple[Any, ...] = (batch.seq, batch.idx, batch.run, batch.attempt, batch.rank, batch.step, batch.time)
    front = {name: array[at] for name, array in zip(FRONT, every, strict=True)}
    lane, n = batch.lane, batch.n[at].tolist()
    ids = [f"{lane.words[code]}.{number}" for code, number in zip(lane.codes[at].tolist(), n, strict=True)]
    more = {"key": [one.key for one in found], "evidence": [one.evidence for one in found], "event": ids}
    return Columns({**front, **own, **more})
