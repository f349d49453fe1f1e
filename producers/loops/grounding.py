"""What a program makes of its own trace while it runs: facts, rules, invariants. Pure, over the items so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from morphogen.schemas import Event, LoopGrounded, LoopRuleFired, LoopViolated
from morphogen.schemas.knowledge.aggregates import Item
from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate, evaluate_fact, expand, show
from morphogen.schemas.knowledge.tree import Expr, Invariant, Literal, Template
from morphogen.schemas.knowledge.wording import source

if TYPE_CHECKING:
    from morphogen.schemas.knowledge.program import Program


@dataclass
class Grounds:
    """Facts and rules of a program over the trace of one run.

    A fact is told when its truth changes, a rule when its conditions come to hold, an invariant when it is exactly false.
    """

    program: "Program"
    facts: dict[str, bool | None] = field(default_factory=dict)
    rules: dict[str, bool] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def see(self, item: Item, scope: Scope, path: str) -> list[Event]:
        """Return what follows from one more item, which is the newest of the scope's."""
        told: list[Event] = []
        evidence = dict(item.fields)
        for name, info in self.program.facts.items():
            if info.case != item.case:
                continue
            value = evaluate_fact(info.fact, item, scope)
            if name not in self.facts or self.facts[name] != value:
                if value is not None or name in self.facts:
                    told.append(LoopGrounded(path=path, fact=name, case=item.case, value=value, evidence=evidence))
                self.facts[name] = value
        told.extend(self._fired(item, scope, path, evidence))
        told.extend(self.violations(scope, path, evidence))
        return told

    def violations(self, scope: Scope, path: str, evidence: Mapping[str, Any] | None = None) -> list[Event]:
        """Return a violation for each invariant that is false now and was not before."""
        told: list[Event] = []
        for name, invariant in self.program.invariants.items():
            condition = broken_by(invariant, scope)
            if condition is None:
                self.broken.discard(name)
            elif name not in self.broken:
                self.broken.add(name)
                told.append(LoopViolated(path=path, invariant=name, condition=condition, evidence=dict(evidence or {})))
        return told

    def _fired(self, item: Item, scope: Scope, path: str, evidence: dict[str, Any]) -> list[Event]:
        told: list[Event] = []
        for name, info in self.program.rules.items():
            if not info.conditions or info.advice:
                continue  # what is said in words is for people and models
            cases = {self.program.facts[fact].case for fact in info.facts if fact in self.program.facts}
            if cases and item.case not in cases:
                continue
            holds = all(_value(condition, scope) is True for condition in info.conditions)
            if holds and not self.rules.get(name, False):
                texts = [said(one, scope) for one in (*info.rule.apply, *info.rule.recommend)]
                told.append(LoopRuleFired(path=path, rule=name, apply=texts, evidence=evidence))
            self.rules[name] = holds
        return told


def advice_of(program: "Program", fired: Sequence[str] = ()) -> tuple[str, ...]:
    """Return, a line each, what the program says in words: hints, rules with conditions in words, rules that fired."""
    scope = program.scope()
    lines = []
    for name, rule in program.rules.items():
        texts = "; ".join(said(one, scope) for one in (*rule.rule.apply, *rule.rule.recommend))
        if rule.advice:
            lines.append(f"{rule.rule.name}: when {' and '.join(rule.advice)}: {texts}")
        elif name in fired:
            lines.append(f"{rule.rule.name}: holds on what was measured: {texts}")
    for hint in program.hints.values():
        texts = "; ".join(said(one, scope) for one in hint.hint.suggestion)
        when = f" when {' and '.join(hint.advice)}" if hint.advice else ""
        lines.append(f"{hint.hint.name}{when}: {texts}")
    return tuple(lines)


def broken_by(invariant: Invariant, scope: Scope) -> str | None:
    """Return the condition of an invariant that is exactly false, None where none is; unknown is not false."""
    for condition in invariant.asserts:
        if _value(condition, scope) is False:
            return source(condition)
    return None


def said(expr: Expr, scope: Scope) -> str:
    """Return a text of the program, with what it can be filled in with."""
    try:
        return expand(expr, scope) if isinstance(expr, Template | Literal) else show(evaluate(expr, scope))
    except EvaluateError:
        return source(expr)


def _value(expr: Expr, scope: Scope) -> Any:
    try:
        return evaluate(expr, scope)
    except EvaluateError:
        return None  # it speaks of what is not there (yet): unknown
