"""Facts, rules, hints and invariants one by one: their names, kinds and units."""

from dataclasses import dataclass

from ..index import Entry, Index
from ..tree import Expr, Fact, Hint, Invariant, Literal, MapExpr, Property, RecordedFact, Rule, Template
from ..types import Type
from .declarations import Declarations, number_of
from .environment import Environment
from .expressions import Expressions


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Checks what is known and what follows from it; `names` are those of the system's spaces, states and sweeps."""

    expressions: Expressions
    declarations: Declarations
    index: Index

    def fact(self, fact: Fact, system: str) -> None:
        """Check a predicate fact on its case."""
        self.declarations.not_builtin(fact.name, fact)
        env = Environment(self.index, "fact", system)
        found = self.index.candidates("case", fact.case, system)
        if len(found) != 1:
            report = self.expressions.report
            if found:
                report.add("K108", fact, f"the case `{fact.case}` could be {', '.join(one.full for one in found)}")
            else:
                known = list(self.index.spellings("case"))
                report.unknown(
                    "K103", fact, f"no case is called `{fact.case}`", fact.case, known, "declare it in a trace_schema"
                )
            return
        self.expressions.report.name(self.index, "case", fact, "case", found[0])
        inner = Environment(self.index, env.place, system, item=(fact.parameter, found[0]))
        self.expressions.condition(fact.body, inner, f"the fact `{fact.name}`")

    def recorded(self, fact: RecordedFact, system: str) -> None:
        """Check a recorded fact: each key once, and a confidence between 0 and 1."""
        self.declarations.unique(fact.properties, f"key of `{fact.name}`")
        env = Environment(self.index, "text", system, words=True)
        for one in fact.properties:
            found = self.expressions.infer(one.value, env)
            if one.key == "confidence" and isinstance(one.value, Literal):
                value = number_of(one.value)
                if not found.number and found.kind != "string":
                    self.expressions.report.add("K201", one.value, f"confidence is {found}; it must be a number")
                elif value is not None and not 0 <= value <= 1:
                    self.expressions.report.add(
                        "K502", one.value, f"confidence is {value:g}; it must be between 0 and 1"
                    )

    def rule(self, rule: Rule, system: str, names: dict[str, Type], spaces: dict[str, Expr]) -> None:
        """Check a rule's conditions and what it names to do."""
        own = {one.key: _any_of(one) for one in rule.parameters}
        env = Environment(self.index, "rule", system, {**names, **own}, trace=True)
        if not rule.when:
            self.expressions.report.add(
                "K311", rule, f"the rule `{rule.name}` has no `when:`, so nothing makes it fire"
            )
        self._conditions(rule.when, env, f"the rule `{rule.name}`")
        for action in (*rule.apply, *rule.recommend, rule.effect, rule.optimize):
            if action is not None:
                self._action(action, env, spaces)
        self.declarations.unique(rule.parameters, f"parameter of `{rule.name}`")
        space_env = Environment(self.index, "space", system, words=True)
        for parameter in rule.parameters:
            self.declarations.values(parameter.value, parameter.key, space_env)
            if parameter.key in spaces:
                self.declarations.inside(parameter.value, spaces[parameter.key], parameter.key, parameter)
        for one in rule.properties:
            self.expressions.infer(
                one.value, Environment(self.index, "text", system, env.names, trace=True, words=True)
            )

    def hint(self, hint: Hint, system: str, names: dict[str, Type], spaces: dict[str, Expr]) -> None:
        """Check a hint's triggers and what it suggests."""
        env = Environment(self.index, "rule", system, names, trace=True)
        if not hint.trigger:
            self.expressions.report.add(
                "K311", hint, f"the hint `{hint.name}` has no `trigger:`, so nothing brings it up"
            )
        self._conditions(hint.trigger, env, f"the hint `{hint.name}`")
        for one in hint.suggestion:
            self._action(one, env, spaces)
        for prop in hint.properties:
            self.expressions.infer(prop.value, Environment(self.index, "text", system, names, trace=True, words=True))

    def invariant(self, invariant: Invariant, system: str, names: dict[str, Type]) -> None:
        """Check that an invariant says something, and that it is a condition."""
        if not invariant.asserts and not invariant.properties:
            self.expressions.report.add(
                "K315",
                invariant,
                f"the invariant `{invariant.name}` says nothing",
                hint="give it an `assert:` or a `constraint:`",
            )
        env = Environment(self.index, "invariant", system, names, trace=True)
        self._conditions(invariant.asserts, env, f"the invariant `{invariant.name}`")
        for prop in invariant.properties:
            self.expressions.infer(prop.value, Environment(self.index, "text", system, names, trace=True, words=True))

    def _conditions(self, conditions: tuple[Expr, ...], env: Environment, owner: str) -> None:
        for one in conditions:
            if is_text(one):
                self.expressions.report.add(
                    "K310", one, f"this condition of {owner} is text: it is kept as advice and never executed"
                )
                if isinstance(one, Template):
                    self.expressions.infer(one, env)
            else:
                self.expressions.condition(one, env, owner)

    def _action(self, action: Expr, env: Environment, spaces: dict[str, Expr]) -> None:
        words = Environment(self.index, "text", env.system, env.names, trace=True, words=True)
        self.expressions.infer(action, words)
        if isinstance(action, MapExpr):
            for one in action.items:
                if one.key in spaces:
                    self.declarations.inside(one.value, spaces[one.key], one.key, one)


def is_text(condition: Expr) -> bool:
    """Tell whether a condition is plain text, which nothing can execute."""
    return isinstance(condition, Template) or (isinstance(condition, Literal) and isinstance(condition.value, str))


def _any_of(parameter: Property) -> Type:
    from .declarations import space_type

    return space_type(parameter, chosen=True)


def case_of(fact: Entry, index: Index) -> Entry | None:
    """Return the case that a fact looks at."""
    return index.find("case", getattr(fact.node, "case", ""), fact.system)
