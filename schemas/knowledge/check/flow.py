"""Statements in their order: which variables have a value where, what is never reached, what nothing reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..index import Index
from ..tree import (
    Action,
    Assign,
    Call,
    Check,
    Emit,
    Expr,
    For,
    If,
    Name,
    Node,
    Return,
    Statement,
    Step,
)
from ..types import ANY, Type
from .actions import NO_MODEL, Actions, LoopKind
from .environment import Environment
from .expressions import Expressions
from .reach import folded
from .recursion import reaches
from .walk import nodes


@dataclass(slots=True)
class Flow:
    """Walks the statements of one loop, task, handler or procedure.

    `sure` are variables that have a value by now, `maybe` those that only some ways here have given one.
    """

    actions: Actions
    env: Environment
    loop: LoopKind
    states: Mapping[str, Type] = field(default_factory=dict)
    events: frozenset[str] = frozenset()
    sure: dict[str, Type] = field(default_factory=dict)
    maybe: dict[str, Type] = field(default_factory=dict)
    later: frozenset[str] = frozenset()

    @property
    def expressions(self) -> Expressions:
        """What infers expressions here."""
        return self.actions.expressions

    @property
    def index(self) -> Index:
        """What is declared."""
        return self.actions.index

    def here(self) -> Environment:
        """Return the environment at this place."""
        names = {**self.env.names, **self.sure}
        maybe = {name: type_ for name, type_ in self.maybe.items() if name not in names}
        return replace(self.env, names=names, maybe=maybe, later=self.later)

    def steps(self, steps: Sequence[Step]) -> bool:
        """Walk steps; tell whether the last of them is never left in the usual way."""
        self.later |= frozenset(assigned(steps))
        ended = False
        told = False
        for step in steps:
            if ended and not told:
                self.expressions.report.add(
                    "K407", step, f"the step `{step.name}` is never reached: a step before it always returns"
                )
                told = True
            ended = self.body(step.body) or ended
        return ended

    def body(self, body: Iterable[Statement]) -> bool:
        """Walk statements; tell whether they always return."""
        ended = told = False
        before: Statement | None = None
        for one in body:
            if ended and not told:
                self.expressions.report.add("K407", one, "this is never reached: what stands before it always returns")
                told = True
            ended = self._statement(one, before) or ended
            before = one
        return ended

    def _statement(self, one: Statement, before: Statement | None) -> bool:
        match one:
            case Action():
                found = self.actions.action(one, self.here(), self.loop)
                if one.output is not None:
                    self._assign(one.output, found, None)
            case Emit():
                self.actions.emit(one, self.here(), captured=isinstance(before, Action), events=self.events)
            case Assign(name=name, value=value):
                self._calls(value)
                self._assign(name, self.expressions.infer(value, self.here()), value)
            case If():
                return self._if(one)
            case For():
                self._for(one)
            case Return(value=value):
                if value is not None:
                    self._calls(value)
                    self.expressions.infer(value, self.here())
                return True
        return False

    def _assign(self, name: str, found: Type, value: Expr | None) -> None:
        if name in self.states:
            if value is not None:
                self.expressions.fit(value, found, self.states[name], f"`{name}`")
            return
        self.sure[name] = replace(found, values=()) if found.values else found
        self.maybe.pop(name, None)

    def _if(self, one: If) -> bool:
        self._calls(one.condition)
        self.expressions.condition(one.condition, self.here(), "`if`")
        constant = folded(one.condition)
        if constant is not None and constant[0] in (True, False, None):
            never = one.otherwise if constant[0] is True else one.then
            if never:
                word = {True: "true", False: "false", None: "unknown"}[constant[0]]
                self.expressions.report.add("K407", never[0], f"this is never reached: the condition is always {word}")
        before, before_maybe = dict(self.sure), dict(self.maybe)
        then_ends = self.body(one.then)
        then, then_maybe = self.sure, self.maybe
        self.sure, self.maybe = dict(before), dict(before_maybe)
        else_ends = self.body(one.otherwise)
        other, other_maybe = self.sure, self.maybe
        if then_ends and not else_ends:
            self.sure, self.maybe = other, other_maybe
        elif else_ends and not then_ends:
            self.sure, self.maybe = then, then_maybe
        else:
            self.sure = {name: type_ if other[name] == type_ else ANY for name, type_ in then.items() if name in other}
            self.maybe = {
                name: type_
                for name, type_ in {**before_maybe, **then_maybe, **other_maybe, **then, **other}.items()
                if name not in self.sure
            }
        return then_ends and else_ends

    def _for(self, one: For) -> None:
        self._calls(one.items)
        found = self.expressions.infer(one.items, self.here())
        if found.kind not in ("list", "any"):
            self.expressions.report.add("K201", one.items, f"`for` goes over a list, and this is {found}")
        item = (found.item or ANY) if found.kind == "list" else ANY
        before = dict(self.sure)
        self.sure[one.name] = item
        self.body(one.body)
        inside = self.sure
        self.sure = before
        for name, type_ in inside.items():
            if name not in before and name != one.name:
                self.maybe[name] = type_

    def _calls(self, value: Expr) -> None:
        """Look for procedures that are called inside of an expression and ask a model there."""
        if self.loop not in NO_MODEL:
            return
        for one in nodes(value):
            if isinstance(one, Call):
                entry = self.index.find("procedure", one.name, self.env.system)
                found = reaches(self.index, entry, lambda name: name.startswith("llm.")) if entry else None
                if found is not None:
                    self.expressions.report.add(
                        "K405", one, f"LLM call not allowed in {self.loop}: `{one.name}` does `{found}`"
                    )

    def checks(self, checks: Sequence[Check], success: Sequence[Expr]) -> None:
        """Walk the evaluation and the conditions of success, which see every variable and the result of every check."""
        for check in checks:
            if isinstance(check.body, Action):
                found = self.actions.action(check.body, replace(self.here(), conditions=True), self.loop)
                if check.body.output is not None:
                    self._assign(check.body.output, found, None)
            else:
                found = self.expressions.infer(check.body, replace(self.here(), conditions=True))
            self.sure.setdefault(check.name, found)
        for one in success:
            self.expressions.condition(one, replace(self.here(), conditions=True), "`success`")


def assigned(steps: Iterable[Node]) -> Iterable[str]:
    """Yield every name that steps give a value to."""
    for one in nodes(tuple(steps)):
        if isinstance(one, Action) and one.output is not None:
            yield one.output
        elif isinstance(one, (Assign, For)):
            yield one.name


def unread_outputs(steps: Sequence[Node], readers: Sequence[object]) -> Iterable[tuple[Node, str]]:
    """Yield actions and assignments whose variable nothing ever reads; a name that starts with `_` says that on purpose."""
    read = {one.name for one in nodes((*steps, *readers)) if isinstance(one, Name)}
    for one in nodes(tuple(steps)):
        name = one.output if isinstance(one, Action) else one.name if isinstance(one, Assign) else None
        if name is not None and name not in read and not name.startswith("_"):
            yield one, name
