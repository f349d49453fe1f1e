"""Runs a program as data: the meaning that its text must have. Tools are given as one function of name and arguments."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .errors import BadProgram, CannotRun
from .operators import FUNCTIONS
from .program import (
    Call,
    CallEach,
    Choice,
    Const,
    Each,
    Expr,
    ForEach,
    If,
    Let,
    Listed,
    Op,
    Pairs,
    Pick,
    Program,
    Record,
    Ref,
    Require,
    Return,
    Shown,
    Sorted,
    Stmt,
    Text,
)  # fmt: skip
from .values import plain

CallTool = Callable[[str, dict[str, Any]], Any]


class Trace(msgspec.Struct):
    """What a program did: its answer, and each use of a tool in order."""

    value: Any = None
    calls: list[tuple[str, dict[str, Any]]] = msgspec.field(default_factory=list)


def run_program(program: Program, params: Mapping[str, Any], call: CallTool) -> Trace:
    """Return what a program answers and did; CannotRun where a value does not allow it. What `call` raises passes."""
    missing = sorted({param.name for param in program.params} ^ set(params))
    if missing:
        raise CannotRun(f"the parameters differ from the program's in {', '.join(missing)}; give exactly those")
    trace = Trace()

    def asked(name: str, args: dict[str, Any]) -> Any:
        trace.calls.append((name, args))
        return call(name, args)

    try:
        answer = _run(program.body, dict(params), asked)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CannotRun(f"the program stops: {type(error).__name__}: {error}; look at its input") from None
    trace.value = plain(answer[0]) if answer is not None else None
    return trace


def _run(body: tuple[Stmt, ...], scope: dict[str, Any], call: CallTool) -> tuple[Any] | None:
    for part in body:
        if isinstance(part, Let):
            scope[part.name] = evaluate(part.value, scope)
        elif isinstance(part, Call):
            result = call(part.tool, {name: plain(evaluate(value, scope)) for name, value in part.args})
            if part.into is not None:
                scope[part.into] = result
        elif isinstance(part, CallEach):
            scope[part.into] = [
                call(part.tool, {name: plain(evaluate(value, {**scope, part.var: item})) for name, value in part.args})
                for item in evaluate(part.over, scope)
            ]
        elif isinstance(part, ForEach):
            beside = [(name, evaluate(value, scope)) for name, value in part.beside]
            for place, item in enumerate(list(evaluate(part.over, scope))):
                found = _run(
                    part.body, {**scope, part.var: item, **{name: values[place] for name, values in beside}}, call
                )
                if found is not None:
                    return found
        elif isinstance(part, If):
            found = _run(part.then if evaluate(part.test, scope) else part.other, scope, call)
            if found is not None:
                return found
        elif isinstance(part, Require):
            if not evaluate(part.test, scope):
                raise ValueError(part.message)
        elif isinstance(part, Return):
            return (evaluate(part.value, scope),)
    return None


def evaluate(node: Expr, scope: Mapping[str, Any]) -> Any:
    """Return the value of an expression where these names are bound; it raises as the same line of Python would."""
    if isinstance(node, Const):
        return node.value
    if isinstance(node, Ref):
        return scope[node.name]
    if isinstance(node, Op):
        function = FUNCTIONS.get(node.op)
        if function is None:
            raise BadProgram(f"there is no operation {node.op[:60]!r}; draft the program again")
        if node.op == "and":
            return evaluate(node.args[0], scope) and evaluate(node.args[1], scope)
        if node.op == "or":
            return evaluate(node.args[0], scope) or evaluate(node.args[1], scope)
        return function(*(evaluate(part, scope) for part in node.args))
    if isinstance(node, Text):
        return "".join(_shown(part, scope) for part in node.parts)
    if isinstance(node, Shown):
        return _shown(node, scope)
    if isinstance(node, Record):
        return {name: evaluate(value, scope) for name, value in node.fields}
    if isinstance(node, Listed):
        return [evaluate(value, scope) for value in node.items]
    if isinstance(node, Choice):
        return evaluate(node.then if evaluate(node.test, scope) else node.other, scope)
    return _through(node, scope)


def _through(node: Each | Pairs | Sorted | Pick, scope: Mapping[str, Any]) -> Any:
    inner = dict(scope)

    def at(item: Any, part: Expr) -> Any:
        inner[node.var] = item
        return evaluate(part, inner)

    over = evaluate(node.over, scope)
    if isinstance(node, Sorted):
        return sorted(over, key=lambda item: at(item, node.key), reverse=node.reverse)
    if isinstance(node, Pick):
        return (min if node.which == "min" else max)(over, key=lambda item: at(item, node.key))
    kept = over if node.where is None else [item for item in over if at(item, node.where)]
    if isinstance(node, Pairs):
        return {at(item, node.key): at(item, node.value) for item in kept}
    return [at(item, node.value) for item in kept]


def _shown(part: Expr, scope: Mapping[str, Any]) -> str:
    if isinstance(part, Shown):
        return f"{evaluate(part.value, scope):{part.spec}}"
    return f"{evaluate(part, scope)}"
