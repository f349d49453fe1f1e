"""What a run found, gathered from what it recorded: sweeps, trace items, facts and rules. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from morphogen.schemas import (
    Event,
    LoopGrounded,
    LoopRuleFired,
    SweepBest,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    Unknown,
)
from morphogen.schemas.knowledge.aggregates import Item

from ..grounding import Grounds
from ..items import case_of

if TYPE_CHECKING:
    from morphogen.schemas.knowledge.program import Program

    from ..context import Recorded

MEASURED = "measured"


@dataclass(frozen=True)
class Sweep:
    """One sweep of the run."""

    started: SweepStarted
    trials: tuple[TrialFinished, ...]
    bests: tuple[SweepBest, ...]
    finished: SweepFinished | None
    moves: tuple[int, ...] = ()  # for each of `bests`, the trial after which it was the best

    @property
    def maximize(self) -> bool:
        """Which way is better."""
        return self.started.objective == "maximize"

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters, in the order written."""
        return list(self.started.parameters)


@dataclass(frozen=True)
class Trace:
    """One trace item: its case without the system, its fields, its origin and what gave it (`Tune#12` is trial 12)."""

    case: str
    fields: Mapping[str, Any]
    origin: str
    source: str


@dataclass(frozen=True)
class Held:
    """A fact over the run: on how many items it was asked and held, and the first that it held on."""

    fact: str
    asked: int
    held: int
    first: Trace | None


@dataclass(frozen=True)
class Fired:
    """A rule that fired: what it says to do, and the item that made it."""

    rule: str
    apply: tuple[str, ...]
    on: Trace


@dataclass(frozen=True)
class Findings:
    """All that a run found."""

    run: str
    loop: str
    program: str
    sha256: str
    sweeps: tuple[Sweep, ...] = ()
    items: tuple[Trace, ...] = ()
    facts: tuple[Held, ...] = ()
    rules: tuple[Fired, ...] = ()
    unmeasured: Mapping[str, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON and for generators of the workspace."""
        found: dict[str, Any] = msgspec.to_builtins(
            {
                "run": self.run,
                "loop": self.loop,
                "program": self.program,
                "sha256": self.sha256,
                "sweeps": [
                    {
                        "started": one.started,
                        "trials": list(one.trials),
                        "bests": list(one.bests),
                        "finished": one.finished,
                    }
                    for one in self.sweeps
                ],
                "items": [_trace(one) for one in self.items],
                "facts": [
                    {"fact": one.fact, "asked": one.asked, "held": one.held, "first": _trace(one.first)}
                    for one in self.facts
                ],
                "rules": [{"rule": one.rule, "apply": list(one.apply), "on": _trace(one.on)} for one in self.rules],
                "unmeasured": dict(self.unmeasured),
            }
        )
        return found


def gather(past: Sequence["Recorded"], program: "Program", *, run: str, loop: str, system: str | None) -> Findings:
    """Return the findings of a run; only measured items ground facts, all others are counted."""
    events = [one.event for one in past]
    items = [_item(event, program) for event in events if event.type.startswith("trace.")]
    measured = [one for one in items if one.origin == MEASURED]
    facts, rules = _grounded(measured, program, system)
    unmeasured: dict[str, int] = {}
    for one in items:
        if one.origin != MEASURED:
            unmeasured[one.origin] = unmeasured.get(one.origin, 0) + 1
    return Findings(
        run=run,
        loop=loop,
        program=program.path,
        sha256=program.sha256,
        sweeps=tuple(sweeps_of(event for event in events if isinstance(event, Event))),
        items=tuple(items),
        facts=tuple(facts),
        rules=tuple(rules),
        unmeasured=unmeasured,
    )


def sweeps_of(events: Iterable[Event]) -> list[Sweep]:
    """Return the sweeps among events, in the order in which they began."""
    found: dict[str, Sweep] = {}
    for event in events:
        if isinstance(event, SweepStarted):
            found.setdefault(event.sweep, Sweep(event, (), (), None))
        elif isinstance(event, TrialFinished) and event.sweep in found:
            one = found[event.sweep]
            found[event.sweep] = replace(one, trials=(*one.trials, event))
        elif isinstance(event, SweepBest) and event.sweep in found:
            one = found[event.sweep]
            last = one.trials[-1].number if one.trials else event.number
            found[event.sweep] = replace(one, bests=(*one.bests, event), moves=(*one.moves, last))
        elif isinstance(event, SweepFinished) and event.sweep in found:
            found[event.sweep] = replace(found[event.sweep], finished=event)
    return list(found.values())


def _item(event: Event | Unknown, program: "Program") -> Trace:
    body = event.fields() if isinstance(event, Unknown) else msgspec.structs.asdict(event)
    fields = dict(body) if isinstance(body, Mapping) else {}
    origin, source = str(fields.pop("origin", MEASURED)), str(fields.pop("source", ""))
    case = (case_of(program, event.type) or event.type).rpartition(".")[2]
    return Trace(case, fields, origin, source)


def _grounded(items: Sequence[Trace], program: "Program", system: str | None) -> tuple[list[Held], list[Fired]]:
    """Ask the program's facts and rules of the items again, in their order: they are pure, so the answers are the same."""
    seen: list[Item] = []
    scope = replace(program.scope({}, (), system=system), items=seen)
    grounds = Grounds(program)
    asked: dict[str, int] = dict.fromkeys(program.facts, 0)
    held: dict[str, int] = dict.fromkeys(program.facts, 0)
    first: dict[str, Trace] = {}
    rules: list[Fired] = []
    full = {info.case.name: name for name, info in program.cases.items()}
    for one in items:
        item = Item(full.get(one.case, one.case), one.fields)
        seen.append(item)
        for told in grounds.see(item, scope, one.source):
            if isinstance(told, LoopRuleFired):
                rules.append(Fired(told.rule.rpartition(".")[2], tuple(told.apply), one))
            elif isinstance(told, LoopGrounded) and told.value is True:
                first.setdefault(told.fact, one)
        for name, info in program.facts.items():
            if info.case == item.case:
                asked[name] += 1
                held[name] += grounds.facts.get(name) is True
    return [Held(name.rpartition(".")[2], asked[name], held[name], first.get(name)) for name in asked], rules


def _trace(one: Trace | None) -> Any:
    if one is None:
        return None
    return {"case": one.case, "fields": dict(one.fields), "origin": one.origin, "source": one.source}
