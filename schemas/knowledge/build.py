# ruff: noqa: D102  (a builder is named after its alternative in grammar.lark, which says what it reads)
"""Builders of statements and declarations, and of the whole module. See `build_expressions.py` for how they are called."""

from collections.abc import Iterable
from typing import Any, TypeVar

from .build_expressions import ExpressionBuilder
from .tree import (
    Action,
    AgentLoop,
    Artifact,
    Assign,
    Case,
    Check,
    Constant,
    Domain,
    Emit,
    EngineeringLoop,
    Expr,
    Fact,
    FieldDecl,
    For,
    Function,
    Handler,
    Hint,
    If,
    Invariant,
    ListExpr,
    Literal,
    MapExpr,
    Measure,
    Module,
    Procedure,
    Property,
    RecordedFact,
    Return,
    Rule,
    ServiceLoop,
    Space,
    Span,
    StateDecl,
    Step,
    System,
    SystemModel,
    Task,
    TypeDecl,
    Use,
    Variant,
    View,
)

Item = TypeVar("Item")


class Parameter(Property):
    """A property that was written with `parameter` before it."""

    __slots__ = ()


class Conditions(tuple[Expr, ...]):
    """What `success:` names."""

    __slots__ = ()


class Checks(tuple[Check, ...]):
    """What `evaluation` holds."""

    __slots__ = ()


class TreeBuilder(ExpressionBuilder):
    """Makes the nodes of statements and declarations."""

    # Statements ---------------------------------------------------------------------------------------------------

    def action(self, parts: list[Any], first: int, last: int) -> Action:
        return self._action(parts[0], parts[2], parts[4], self.span(first, last))

    def called_action(self, parts: list[Any], first: int, last: int) -> Action:
        name = self.dotted_name(parts[0])
        if name is None:
            self.report("bad-action", parts[0].span, "an action has a name", hint="such as `tool.run { ... }`")
        return self._action(name or "?", parts[2], parts[4], self.span(first, last))

    def _action(self, name: str, given: list[Property], emit: str | None, span: Span) -> Action:
        output: str | None = None
        arguments = []
        for one in given:
            if one.key != "output_var":
                arguments.append(one)
                continue
            variable = self.dotted_name(one.value)
            if variable is None and isinstance(one.value, Literal) and isinstance(one.value.value, str):
                variable = one.value.value
            if variable is None:
                self.report("bad-output", one.value.span, "output_var is the name of a variable")
            elif output is not None:
                self.report("duplicate-key", one.span, "output_var is given twice")
            output = variable
        return Action(name, tuple(arguments), output, emit, span=span)

    def no_capture(self, parts: list[Any], first: int, last: int) -> None:
        return None

    def capture_any(self, parts: list[Any], first: int, last: int) -> str:
        return ""

    def capture_case(self, parts: list[Any], first: int, last: int) -> Any:
        return parts[1]

    def emit(self, parts: list[Any], first: int, last: int) -> Emit:
        return Emit(parts[1], span=self.span(first, last))

    def emit_values(self, parts: list[Any], first: int, last: int) -> Emit:
        return Emit(parts[1], tuple(parts[3]), span=self.span(first, last))

    def assign(self, parts: list[Any], first: int, last: int) -> Assign | Action:
        name, _, value = parts
        span = self.span(first, last)
        if not isinstance(value, Action):
            return Assign(name, value, span=span)
        if value.output is not None and value.output != name:
            self.report("duplicate-key", value.span, f"the result goes to {name}, and output_var says {value.output}")
        return Action(value.name, value.arguments, name, value.emit, span=span)

    def if_(self, parts: list[Any], first: int, last: int) -> If:
        return self._branches(If(parts[1], tuple(parts[3]), span=self.span(first, last)))

    def if_else(self, parts: list[Any], first: int, last: int) -> If:
        return self._branches(If(parts[1], tuple(parts[3]), tuple(parts[7]), span=self.span(first, last)))

    def if_else_if(self, parts: list[Any], first: int, last: int) -> If:
        return self._branches(If(parts[1], tuple(parts[3]), (parts[6],), span=self.span(first, last)))

    def _branches(self, made: If) -> If:
        """Return an `if`, and without what it leads to where that is nested too deep to be worked with."""
        hint = "ask in fewer steps, or in a procedure"
        return If(made.condition, (), span=made.span) if self._too_deep(made, "this `if` is", hint) else made

    def for_(self, parts: list[Any], first: int, last: int) -> For:
        return For(self.spelling(parts[1]), parts[3], tuple(parts[5]), span=self.span(first, last))

    def return_value(self, parts: list[Any], first: int, last: int) -> Return:
        return Return(parts[1], span=self.span(first, last))

    def return_nothing(self, parts: list[Any], first: int, last: int) -> Return:
        return Return(None, span=self.span(first, last))

    def result(self, parts: list[Any], first: int, last: int) -> Any:
        return parts[1]

    # Steps and loops ----------------------------------------------------------------------------------------------

    def short_step(self, parts: list[Any], first: int, last: int) -> Step:
        return Step(self.key(parts[1]), (parts[2],), span=self.span(first, last))

    def step(self, parts: list[Any], first: int, last: int) -> Step:
        return Step(parts[1], tuple(parts[3]), span=self.span(first, last))

    def check(self, parts: list[Any], first: int, last: int) -> Check:
        return Check(self.key(parts[1]), parts[2], span=self.span(first, last))

    def evaluation(self, parts: list[Any], first: int, last: int) -> Checks:
        return Checks(parts[2])

    def success(self, parts: list[Any], first: int, last: int) -> Conditions:
        return Conditions(_flat(parts[1]))

    def task(self, parts: list[Any], first: int, last: int) -> Task:
        return Task(parts[1], *self._loop(parts[3]), span=self.span(first, last))

    def agent_loop(self, parts: list[Any], first: int, last: int) -> AgentLoop:
        return AgentLoop(parts[1], *self._loop(parts[3]), span=self.span(first, last))

    def _loop(
        self, items: list[Any]
    ) -> tuple[tuple[Step, ...], tuple[Check, ...], tuple[Expr, ...], tuple[Property, ...]]:
        evaluation = tuple(check for item in items if isinstance(item, Checks) for check in item)
        success = tuple(one for item in items if isinstance(item, Conditions) for one in item)
        return _only(Step, items), evaluation, success, _only(Property, items)

    def handler(self, parts: list[Any], first: int, last: int) -> Handler:
        return Handler(parts[1], (), tuple(parts[3]), span=self.span(first, last))

    def handler_empty(self, parts: list[Any], first: int, last: int) -> Handler:
        return Handler(parts[1], (), tuple(parts[5]), span=self.span(first, last))

    def handler_with(self, parts: list[Any], first: int, last: int) -> Handler:
        names = tuple(one.name if isinstance(one, FieldDecl) else one for one in parts[3])
        declared = _only(FieldDecl, parts[3])
        return Handler(parts[1], names, tuple(parts[6]), declared, span=self.span(first, last))

    bare_parameter = ExpressionBuilder.bare

    def service_loop(self, parts: list[Any], first: int, last: int) -> ServiceLoop:
        return ServiceLoop(parts[1], _only(Handler, parts[3]), _only(Property, parts[3]), span=self.span(first, last))

    def parameter(self, parts: list[Any], first: int, last: int) -> Parameter:
        return Parameter(self.key(parts[1]), parts[2], span=self.span(first, last))

    def measure(self, parts: list[Any], first: int, last: int) -> Measure:
        return Measure(tuple(parts[2]), span=self.span(first, last))

    def engineering_loop(self, parts: list[Any], first: int, last: int) -> EngineeringLoop:
        parameters, properties = _parameters(parts[3])
        measures = _only(Measure, parts[3])
        for extra in measures[1:]:
            self.report("duplicate-section", extra.span, "an engineering_loop measures once", hint="put all into one")
        return EngineeringLoop(
            parts[1],
            parameters,
            measures[0] if measures else None,
            _only(Step, parts[3]),
            properties,
            span=self.span(first, last),
        )

    # Knowledge ----------------------------------------------------------------------------------------------------

    def fact(self, parts: list[Any], first: int, last: int) -> Fact:
        return Fact(parts[1], self.key(parts[3]), parts[4], parts[7], span=self.span(first, last))

    def recorded_fact(self, parts: list[Any], first: int, last: int) -> RecordedFact:
        return RecordedFact(parts[1], tuple(parts[3]), span=self.span(first, last))

    def rule(self, parts: list[Any], first: int, last: int) -> Rule:
        parameters, properties = _parameters(parts[3])
        (when, apply, recommend, effect, optimize), other = _by_key(
            properties, "when", "apply", "recommend", "effect", "optimize"
        )
        return Rule(
            parts[1],
            _values(when),
            _values(apply),
            _values(recommend),
            self._single(effect),
            parameters,
            self._single(optimize),
            other,
            span=self.span(first, last),
        )

    def hint(self, parts: list[Any], first: int, last: int) -> Hint:
        (trigger, suggestion), other = _by_key(parts[3], "trigger", "suggestion")
        return Hint(parts[1], _values(trigger), _values(suggestion), other, span=self.span(first, last))

    def invariant(self, parts: list[Any], first: int, last: int) -> Invariant:
        (asserts,), other = _by_key(parts[3], "assert")
        return Invariant(parts[1], _values(asserts), other, span=self.span(first, last))

    def system_model(self, parts: list[Any], first: int, last: int) -> SystemModel:
        (axioms, heuristics, predictions), other = _by_key(parts[3], "axiom", "heuristic", "prediction")
        for one in other:
            self.report(
                "unknown-key",
                one.span,
                f"a system_model has no `{one.key}`",
                hint="it has axiom, heuristic and prediction",
            )
        return SystemModel(
            parts[1], _values(axioms), _values(heuristics), _values(predictions), span=self.span(first, last)
        )

    def domain(self, parts: list[Any], first: int, last: int) -> Domain:
        items = parts[3]
        return Domain(
            parts[1], _only(TypeDecl, items), _only(Invariant, items), _only(Rule, items), span=self.span(first, last)
        )

    def _single(self, given: list[Property]) -> Expr | None:
        for extra in given[1:]:
            self.report("duplicate-key", extra.span, f"{extra.key} is given twice")
        return given[0].value if given else None

    # Models, traces, spaces, code ---------------------------------------------------------------------------------

    def type_declaration(self, parts: list[Any], first: int, last: int) -> TypeDecl:
        return TypeDecl(parts[1], tuple(parts[4]), span=self.span(first, last))

    def state(self, parts: list[Any], first: int, last: int) -> StateDecl:
        return StateDecl(self.key(parts[1]), parts[2], span=self.span(first, last))

    def state_default(self, parts: list[Any], first: int, last: int) -> StateDecl:
        return StateDecl(self.key(parts[1]), parts[2], parts[4], span=self.span(first, last))

    def variant(self, parts: list[Any], first: int, last: int) -> Variant:
        return Variant(parts[1], tuple(parts[3]), span=self.span(first, last))

    def case(self, parts: list[Any], first: int, last: int) -> Case:
        return Case(parts[1], tuple(parts[3]), span=self.span(first, last))

    def case_from(self, parts: list[Any], first: int, last: int) -> Case:
        source = self.quoted([parts[3]], parts[3], parts[3])
        return Case(parts[1], tuple(parts[5]), source, span=self.span(first, last))

    def design_space(self, parts: list[Any], first: int, last: int) -> Space:
        return Space("design", tuple(parts[2]), span=self.span(first, last))

    def tuning_space(self, parts: list[Any], first: int, last: int) -> Space:
        return Space("tuning", tuple(parts[2]), span=self.span(first, last))

    def nested(self, parts: list[Any], first: int, last: int) -> Property:
        inner = MapExpr(tuple(parts[2]), span=self.span(first + 1, last))
        return Property(self.spelling(first), inner, span=self.span(first, last))

    def constant(self, parts: list[Any], first: int, last: int) -> Constant:
        return Constant(self.spelling(parts[1]), parts[3], span=self.span(first, last))

    def bare_artifact(self, parts: list[Any], first: int, last: int) -> Artifact:
        return Artifact(parts[1], (), span=self.span(first, last))

    def artifact(self, parts: list[Any], first: int, last: int) -> Artifact:
        return Artifact(parts[1], tuple(parts[3]), span=self.span(first, last))

    def view(self, parts: list[Any], first: int, last: int) -> View:
        return View(parts[1], tuple(parts[3]), span=self.span(first, last))

    def function(self, parts: list[Any], first: int, last: int) -> Function:
        return Function(parts[1], tuple(parts[3]), None, parts[6], span=self.span(first, last))

    def typed_function(self, parts: list[Any], first: int, last: int) -> Function:
        return Function(parts[1], tuple(parts[3]), parts[6], parts[8], span=self.span(first, last))

    def procedure(self, parts: list[Any], first: int, last: int) -> Procedure:
        return Procedure(parts[1], tuple(parts[3]), tuple(parts[6]), span=self.span(first, last))

    # Modules ------------------------------------------------------------------------------------------------------

    def section(self, parts: list[Any], first: int, last: int) -> list[Any]:
        return parts[2]  # type: ignore[no-any-return]

    def system(self, parts: list[Any], first: int, last: int) -> System:
        items: list[Any] = []
        for one in parts[3]:
            items.extend(one if one.__class__ is list else (one,))
        (description,), properties = _by_key(_only(Property, items), "description")
        text = self._single(description)
        if text is not None and not (isinstance(text, Literal) and isinstance(text.value, str)):
            self.report("bad-description", text.span, "a description is a string without `{{ }}`")
            text = None
        return System(
            parts[1],
            None if text is None else str(text.value),
            _only(Constant, items),
            _only(Space, items),
            _only(TypeDecl, items),
            _only(StateDecl, items),
            _only(Variant, items),
            _only(Fact, items),
            _only(RecordedFact, items),
            _only(Rule, items),
            _only(Hint, items),
            _only(Invariant, items),
            _only(Domain, items),
            _only(View, items),
            _only(Function, items),
            _only(Procedure, items),
            _only(AgentLoop, items),
            _only(ServiceLoop, items),
            _only(EngineeringLoop, items),
            _only(Artifact, items),
            _only(Task, items),
            properties,
            span=self.span(first, last),
        )

    def use_path(self, parts: list[Any], first: int, last: int) -> Use:
        return Use(self.quoted([last], last, last), span=self.span(first, last))

    def use_name(self, parts: list[Any], first: int, last: int) -> Use:
        return Use(parts[1], span=self.span(first, last))

    def module(self, parts: list[Any], first: int, last: int) -> Module:
        items = parts[0]
        return Module(
            (),
            _only(Use, items),
            _only(SystemModel, items),
            _only(Task, items),
            _only(System, items),
            _only(Domain, items),
            span=self.lines.span(0, len(self.text)),
        )


def _only(kind: type[Item], items: Iterable[Any]) -> tuple[Item, ...]:
    return tuple(item for item in items if isinstance(item, kind))


def _parameters(items: list[Property]) -> tuple[tuple[Property, ...], tuple[Property, ...]]:
    """Part `parameter P: ..` from `key: ..`."""
    parameters = tuple(Property(one.key, one.value, span=one.span) for one in items if isinstance(one, Parameter))
    return parameters, tuple(one for one in items if one.__class__ is Property)


def _by_key(given: Iterable[Property], *keys: str) -> tuple[list[list[Property]], tuple[Property, ...]]:
    """Part properties by their keys, and give those of no named key last."""
    found: dict[str, list[Property]] = {key: [] for key in keys}
    other = [one for one in given if one.key not in found or found[one.key].append(one)]  # type: ignore[func-returns-value]
    return list(found.values()), tuple(other)


def _values(given: list[Property]) -> tuple[Expr, ...]:
    """Collect what a repeatable key holds: each value given, and each item of a list given."""
    return _flat([one.value for one in given])


def _flat(values: list[Expr]) -> tuple[Expr, ...]:
    flat: list[Expr] = []
    for value in values:
        flat.extend(value.items if isinstance(value, ListExpr) else (value,))
    return tuple(flat)
