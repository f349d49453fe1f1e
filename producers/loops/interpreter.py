"""Walk a program, statement by statement, past everything that the log says is done.

Every statement has a stable path: `step`, `step.2` (its second statement), `step.2.then.1`, `step.3[0].1` (in the first round of a
`for`), `step.4>procedure.1`. Actions are carried out by `Actions`; values that statements compute and branches that they
take are decisions, recorded once and never computed again.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from morphogen.schemas import LoopDecided, Signal, StepFinished, StepStarted
from morphogen.schemas.knowledge.aggregates import Item
from morphogen.schemas.knowledge.errors import EvaluateError, KnowledgeError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate
from morphogen.schemas.knowledge.tree import (
    Action,
    Assign,
    Call,
    Emit,
    Expr,
    For,
    If,
    Procedure,
    Property,
    Return,
    Statement,
    Step,
)

from . import stored
from .actions import QUERY, Actions, argument
from .errors import EmitFailed, StepFailed, one_line
from .live import Live

_DEEPEST = 32  # procedures inside procedures


@dataclass
class Frame:
    """Where names live: the loop's own, and those of procedure calls and handlers, which are theirs alone."""

    name: str | None = None
    local: dict[str, Any] = field(default_factory=dict)
    depth: int = 0


class Returned(Exception):
    """A `return` was reached."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Interpreter:
    """Run steps of one program. Raises StepFailed, Suspended, Fenced, Interrupted, or a BusError."""

    def __init__(self, live: Live, actions: Actions) -> None:
        self._live = live
        self._actions = actions

    def prepare(self, states: Mapping[str, Expr | None], parameters: Mapping[str, Any]) -> None:
        """Give states their first values and parameters theirs, once a run."""
        decisions = self._live.journal.state.decisions
        for name, default in states.items():
            path = f"state {name}"
            if path not in decisions and name not in parameters:
                self._live.assign(path, name, None if default is None else evaluate(default, self._live.scope))
        for name, value in parameters.items():
            path = f"set {name}"
            if path not in decisions:
                self._live.assign(path, name, value)

    def steps(self, steps: Sequence[Step]) -> None:
        """Run steps in order; a `return` ends them."""
        try:
            for step in steps:
                self.step(step)
        except Returned:
            return

    def step(self, step: Step) -> None:
        """Run one step."""
        only = [statement for statement in joined(step.body) if statement is not None]
        if len(only) == 1 and isinstance(only[0], Action) and not self._procedure(only[0].name):
            self._action(only[0], step.name, step.name, Frame())
            return
        journal = self._live.journal
        if step.name in journal.state.outcomes:
            return
        if step.name not in journal.state.pending:
            journal.add(StepStarted(path=step.name, step=step.name, number=journal.state.steps))
        began = time.monotonic_ns()
        try:
            self.block(step.body, step.name, step.name, Frame())
        except Returned:
            journal.add(StepFinished(path=step.name, ok=True, duration_ns=time.monotonic_ns() - began))
            raise
        except StepFailed as error:
            line = one_line(error)
            journal.add(StepFinished(path=step.name, ok=False, error=line, duration_ns=time.monotonic_ns() - began))
            raise
        journal.add(StepFinished(path=step.name, ok=True, duration_ns=time.monotonic_ns() - began))

    def block(self, statements: Sequence[Statement], path: str, step: str, frame: Frame) -> None:
        """Run statements in order."""
        for number, statement in enumerate(joined(statements), start=1):
            self._live.check()
            if statement is not None:
                self._statement(statement, f"{path}.{number}", step, frame)

    def _statement(self, statement: Statement, path: str, step: str, frame: Frame) -> None:
        match statement:
            case Action():
                procedure = self._procedure(statement.name)
                if procedure is None:
                    self._action(statement, path, step, frame)
                else:
                    value = self._call(procedure, statement.arguments, path, step, frame)
                    if statement.output is not None:
                        self._assign(f"{path}.=", statement.output, value, frame)
            case Emit():
                self._emit(statement, path, frame)
            case Assign(name=name, value=Call() as call) if self._procedure(call.name):
                procedure = self._procedure(call.name)
                assert procedure is not None
                given = [
                    Property(parameter.name, one)
                    for parameter, one in zip(procedure.parameters, call.args, strict=False)
                ]
                self._assign(f"{path}.=", name, self._call(procedure, given, path, step, frame), frame)
            case Assign(name=name, value=value):
                if path not in self._live.journal.state.decisions:
                    self._assign(path, name, self._value(value, frame), frame)
                    self._live.hold(path)
            case If():
                self._if(statement, path, step, frame)
            case For():
                self._for(statement, path, step, frame)
            case Return(value=value):
                raise Returned(None if value is None else self._decided(path, "return", value, frame))

    def _action(self, action: Action, path: str, step: str, frame: Frame) -> None:
        output = action.output
        kept = (
            output if output is None or frame.name is None or output in self._live.names else f"{frame.name}\0{output}"
        )
        fresh = path not in self._live.journal.state.outcomes
        value = self._actions.perform(action, path, step, self._scope(frame), kept)
        if output is not None and fresh:  # what was done before is in the state, and may have changed since
            (self._live.names if kept == output else frame.local)[output] = value

    def _emit(self, emit: Emit, path: str, frame: Frame) -> None:
        if path in self._live.journal.state.recorded:
            return
        scope = self._scope(frame)
        values = {one.key: _plain(argument(one.value, scope)) for one in emit.values}
        try:
            self._live.program.case(emit.case)
        except KnowledgeError:
            event: Any = Signal(name=emit.case, values=values)
        else:
            origin = str(values.pop("origin", "measured"))
            try:
                event = self._live.item(emit.case, values, origin, path)
            except EmitFailed as error:
                raise EmitFailed(f"step {path}: {error}") from error
        self._live.settle(path, [event])
        self._live.flush_if_long()

    def _if(self, statement: If, path: str, step: str, frame: Frame) -> None:
        taken = self._decided(path, "if", statement.condition, frame)
        if taken is True:
            self.block(statement.then, f"{path}.then", step, frame)
        else:
            self.block(statement.otherwise, f"{path}.else", step, frame)

    def _for(self, statement: For, path: str, step: str, frame: Frame) -> None:
        items = self._decided(path, "for", statement.items, frame)
        if not isinstance(items, list | tuple):
            raise StepFailed(
                f"step {path}: `for` goes over a list, and this is {'unknown' if items is None else 'none'}"
            )
        before = frame.local.get(statement.name, _ABSENT)
        try:
            for index, item in enumerate(items):
                frame.local[statement.name] = item
                self.block(statement.body, f"{path}[{index}]", step, frame)
        finally:
            if before is _ABSENT:
                frame.local.pop(statement.name, None)
            else:
                frame.local[statement.name] = before

    def _call(self, procedure: Procedure, given: Sequence[Property], path: str, step: str, frame: Frame) -> Any:
        if frame.depth >= _DEEPEST:
            raise StepFailed(f"step {path}: procedures are called {_DEEPEST} deep: is {procedure.name} calling itself?")
        name = f"{path}>{procedure.name}"
        scope = self._scope(frame)
        arguments: dict[str, Any] = {one.name: None for one in procedure.parameters}
        for one in given:
            begun = f"{name}({one.key})"
            decisions = self._live.journal.state.decisions
            if begun in decisions:
                arguments[one.key] = stored.get(decisions[begun], self._live.context.bus)
                continue
            arguments[one.key] = _plain(argument(one.value, scope))
            kept = stored.put(arguments[one.key], self._live.context.bus)
            self._live.journal.add(LoopDecided(path=begun, kind="argument", value=kept))
        inner = Frame(name, {**arguments, **self._live.frame_names(name)}, frame.depth + 1)
        try:
            self.block(procedure.body, name, step, inner)
        except Returned as returned:
            return returned.value
        return None

    def _decided(self, path: str, kind: str, expr: Expr, frame: Frame) -> Any:
        """Return the value that the log holds for this decision, or take it and record it."""
        decisions = self._live.journal.state.decisions
        if path in decisions:
            return stored.get(decisions[path], self._live.context.bus)
        value = _plain(self._value(expr, frame))
        self._live.journal.add(LoopDecided(path=path, kind=kind, value=stored.put(value, self._live.context.bus)))
        self._live.flush_if_long()
        return value

    def _assign(self, path: str, name: str, value: Any, frame: Frame) -> None:
        if path in self._live.journal.state.decisions:
            return
        own = frame.name is not None and name not in self._live.names
        self._live.assign(path, name, _plain(value), frame=frame.name if own else None)
        if own:
            frame.local[name] = _plain(value)

    def _value(self, expr: Expr, frame: Frame) -> Any:
        try:
            return evaluate(expr, self._scope(frame))
        except EvaluateError as error:
            if not self._live.context.live:
                return None  # it depends on what only a real run can know
            raise StepFailed(str(error)) from error

    def _scope(self, frame: Frame) -> Scope:
        return self._live.scope.with_names(frame.local) if frame.local else self._live.scope

    def _procedure(self, name: str) -> Procedure | None:
        if name.startswith("tool.") or name == QUERY:
            return None
        try:
            return self._live.program.procedure(name)
        except KnowledgeError:
            return None


def joined(statements: Sequence[Statement]) -> list[Statement | None]:
    """Return the statements with each `emit Case` that stands bare behind an action made part of that action.

    Such an emit takes what the action printed. Places stay, so paths do: what became part of another is None.
    """
    found: list[Statement | None] = list(statements)
    for index, statement in enumerate(statements):
        if not isinstance(statement, Action) or statement.emit is not None:
            continue
        cases = []
        for after in range(index + 1, len(statements)):
            follower = statements[after]
            if not isinstance(follower, Emit) or follower.values:
                break
            cases.append(follower.case)
            found[after] = None
        if cases:
            found[index] = replace(statement, emit=cases[0] if len(cases) == 1 else "")
    return found


_ABSENT = object()


def _plain(value: Any) -> Any:
    """Return a value as the log can hold it: trace items become maps of their fields."""
    if isinstance(value, Item):
        return dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
