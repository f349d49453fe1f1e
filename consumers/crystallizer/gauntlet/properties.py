"""The stage of properties: what must hold of a tool for inputs and worlds that nobody recorded.

- It is a function of its parameters and of what the tools answer: run in another interpreter, with another hash seed and its
  arguments in another order, it does and gives the same.
- It ends: it is never killed, and never dies.
- Whatever varied in the recordings, a parameter or an answer that was always asked for, makes a difference to it (`influence`).
- What it cannot do, it refuses loudly: ValueError (or what is one) or ToolError, TypeError for a value of another type. Where
  the world answers otherwise than recorded, a failed look-up or a division by zero is loud enough; a fault of the text (a name that
  is not there, recursion, a failed assertion) never is.

Real tools are never called: a stand-in answers from the recordings, and the same question always gets the same answer.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import BadJob, Capabilities, Outcome, Refused, Sandbox, value_sha256
from morphogen.schemas import CrystalDrafted
from morphogen.schemas.crystals import Guard

from ..acting import Use, answering, as_recorded
from ..guards import missed
from ..tape import Tape
from ..world import site
from . import inputs
from .config import GauntletConfig
from .influence import Said, Site, passed_over
from .replaying import Replayed, told
from .stage import Stage

REFUSALS = frozenset(
    {"ValueError", "ToolError", "JSONDecodeError", "UnicodeDecodeError", "UnicodeEncodeError", "UnicodeError",
     "StatisticsError", "InvalidOperation", "TypeError"}
)  # fmt: skip
LOUD = REFUSALS | {
    "KeyError", "IndexError", "LookupError", "ZeroDivisionError", "ArithmeticError", "OverflowError", "AttributeError",
    "StopIteration", "error", "Error", "DivisionByZero", "RuntimeError", "FileNotFoundError", "PermissionError", "OSError",
}  # fmt: skip
BADLY = frozenset({"Died", "BadValue"})


@dataclass(frozen=True)
class _Case:
    kind: str
    params: Mapping[str, Any]
    seed: int
    world: bool = False  # whether the stand-in answers otherwise than recorded


class StandIn:
    """Answers for the tools: as recorded where the very question was, else as one of that name was answered once."""

    def __init__(
        self,
        names: Sequence[str],
        traces: Sequence[Trace],
        real: Capabilities | None,
        *,
        seed: int,
        other: bool,
        given: Mapping[Site, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self.uses: list[Use] = []
        self._seed, self._other = seed, other
        self._given, self._params = given or {}, params or {}
        self._known: dict[tuple[str, str], Any] = {}
        self._alike: dict[str, list[Any]] = {name: [] for name in names}
        for trace in traces:
            for step in trace.tools:
                if step.ok and step.name in self._alike:
                    self._known.setdefault((step.name, value_sha256(dict(step.args))), step.result)
                    self._alike[step.name].append(step.result)
        functions = {} if real is None else real.functions
        self.capabilities = answering({name: functions.get(name) for name in names}, self._answer, waits=False)

    def _answer(self, name: str, args: dict[str, Any]) -> Any:
        args = as_recorded(args)
        if self._given:
            number = sum(1 for use in self.uses if use.name == name)
            for at in ((name, f"#{number}"), (name, site(args, self._params))):
                if at in self._given:
                    self.uses.append(Use(name=name, args=args, result=self._given[at]))
                    return self._given[at]
        asked = value_sha256(args)
        nth = sum(1 for use in self.uses if use.name == name and value_sha256(use.args) == asked) if self._other else 0
        rng = random.Random(f"{self._seed} {name} {asked} {nth}")  # noqa: S311 - a draw that must repeat itself
        if self._other and rng.random() < 0.15:
            self.uses.append(Use(name=name, args=args, ok=False, error="it failed"))
            raise Refused(f"{name} failed: the tool was told so to see what it does")
        alike = self._alike[name]
        found = self._known.get((name, asked), rng.choice(alike) if alike else None)
        result = inputs.changed(found, rng) if self._other else found
        self.uses.append(Use(name=name, args=args, result=result))
        return result


def properties(
    draft: CrystalDrafted,
    traces: Sequence[Trace],
    runs: Sequence[Replayed],
    guards: Sequence[Guard],
    pooled: Sandbox,
    fresh: Sandbox,
    real: Capabilities | None,
    config: GauntletConfig,
) -> Stage:
    """Judge a draft that was replayed (`runs`). `fresh` starts an interpreter for each call, `pooled` need not."""
    counts: dict[str, int] = {}
    raised: dict[str, int] = {}
    layers: tuple[str, ...] = ()
    for run in runs[: config.again]:
        counts["again"] = counts.get("again", 0) + 1
        tape = Tape(run.trace.tools, real)
        turned = dict(list(run.trace.params.items())[::-1])
        outcome = fresh.run(draft.source, turned, entry=draft.entry, capabilities=tape.capabilities)
        layers = outcome.layers_held
        before = None if run.outcome is None else _said(run.outcome, run.uses)
        if before != _said(outcome, tape.uses):
            return _refused(
                f"{run.trace.execution} run again in another interpreter gives something else", counts, layers
            )
    for case in _cases(draft, traces, guards, config):
        first = _run(draft, case, traces, pooled, real)
        if first is None:
            continue  # a value that cannot cross to a tool never reaches one
        outcome, said = first
        again = _run(draft, case, traces, fresh, real)
        counts[case.kind] = counts.get(case.kind, 0) + 1
        shown = f"with {repr(dict(case.params))[:160]}"
        if again is None or again[1] != said:
            return _refused(f"two runs {shown} differ: it depends on chance or order", counts, layers)
        fault = _fault(outcome, case)
        if fault is not None:
            world = " where the tools answer otherwise" if case.world else ""
            return _refused(f"{shown}{world}: {fault}", counts, layers)
        if outcome.error is not None:
            raised[outcome.error.type] = raised.get(outcome.error.type, 0) + 1
    known: dict[str, Said] = {}

    def swapped(params: Mapping[str, Any], given: Mapping[Site, Any]) -> Said:
        key = value_sha256([dict(params), [[*at, answer] for at, answer in given.items()]])
        if key not in known:
            known[key] = _swapped(draft, traces, pooled, real, params, given)
        return known[key]

    over = passed_over(draft, traces, swapped)
    if over is not None:
        return _refused(over, counts, layers)
    evidence = {"cases": counts, "raised": dict(sorted(raised.items()))}
    total = sum(counts.values())
    return Stage("property", evidence=evidence, tried=total, matched=total, layers=layers)


def _cases(
    draft: CrystalDrafted, traces: Sequence[Trace], guards: Sequence[Guard], config: GauntletConfig
) -> Iterator[_Case]:
    rng = random.Random(draft.source_sha256)  # noqa: S311 - a draw that must repeat itself
    recorded = [dict(trace.params) for trace in traces]
    here = [one for one in guards if one.kind in {"type", "precondition"}]

    def inside(params: Mapping[str, Any]) -> bool:
        return missed(here, params, {}) is None

    for kind, drawn, count in (
        ("crossed", filter(inside, inputs.crossed(recorded, rng, config.crossed)), config.crossed),
        ("edge", filter(inside, inputs.edges(recorded, rng, config.edges)), config.edges),
        ("wrong", inputs.wrong(recorded, rng, config.wrong), config.wrong),
    ):
        for params in islice(drawn, count):
            yield _Case(kind, params, rng.randrange(1 << 30))
    if draft.capabilities:
        for _ in range(config.worlds):
            yield _Case("world", rng.choice(recorded), rng.randrange(1 << 30), world=True)


def _run(
    draft: CrystalDrafted, case: _Case, traces: Sequence[Trace], sandbox: Sandbox, real: Capabilities | None
) -> tuple[Outcome, Any] | None:
    world = StandIn(draft.capabilities, traces, real, seed=case.seed, other=case.world)
    try:
        outcome = sandbox.run(draft.source, dict(case.params), entry=draft.entry, capabilities=world.capabilities)
    except BadJob:
        return None
    return outcome, _said(outcome, world.uses)


def _swapped(
    draft: CrystalDrafted,
    traces: Sequence[Trace],
    sandbox: Sandbox,
    real: Capabilities | None,
    params: Mapping[str, Any],
    given: Mapping[Site, Any],
) -> Said:
    """Run the draft in the recorded world, with other answers at some sites; a value that cannot cross counts as another."""
    world = StandIn(draft.capabilities, traces, real, seed=0, other=False, given=given, params=params)
    try:
        outcome = sandbox.run(draft.source, dict(params), entry=draft.entry, capabilities=world.capabilities)
    except BadJob:
        return None, "it cannot be asked", []
    return _said(outcome, world.uses)


def _said(outcome: Outcome, uses: Sequence[Use]) -> Said:
    """Return what two runs must have in common: the answer or the failure, and each use with its arguments."""
    error = None if outcome.error is None else (outcome.error.type, outcome.error.message)
    value = None if outcome.error is not None else value_sha256(outcome.value)
    return value, error, [(use.name, value_sha256(use.args)) for use in uses]


def _fault(outcome: Outcome, case: _Case) -> str | None:
    """Say what is wrong with an outcome; None where it is an answer, or a loud refusal."""
    if outcome.killed_by is not None:
        return f"it was ended by {outcome.killed_by}: {told(outcome)}"
    if outcome.error is None:
        return None
    allowed = REFUSALS if case.kind == "wrong" else LOUD
    return None if outcome.error.type in allowed else f"it fails by {told(outcome)}"


def _refused(reason: str, counts: dict[str, int], layers: tuple[str, ...]) -> Stage:
    return Stage("property", reason, evidence={"cases": counts}, tried=sum(counts.values()), layers=layers)
