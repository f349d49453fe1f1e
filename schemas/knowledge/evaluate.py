"""What an expression is worth in a scope: the reference meaning, which SQL and the streaming engine must equal.

Nothing here reads a clock, a file or the network, and no text is ever run as code. On a module that checks, `evaluate`
does not raise: what cannot be said is unknown (None).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .aggregates import AGGREGATES, MEASURED, Item, aggregate, is_aggregate, window_items
from .errors import EvaluateError
from .logic import (
    COMPARISONS,
    SCALAR_FUNCTIONS,
    Value,
    arithmetic,
    is_list,
    is_number,
    known,
    logical_and,
    logical_not,
    logical_or,
    negative,
    scalar,
)
from .tree import (
    Binary,
    Call,
    Expr,
    Fact,
    Field,
    Function,
    Index,
    ListExpr,
    Literal,
    MapExpr,
    Name,
    RangeExpr,
    SystemModel,
    Template,
    Unary,
)
from .wording import dotted_name

_DEEPEST = 64  # calls inside calls; the checker refuses recursion, so only an unchecked module comes this far
_MODEL_LISTS = {"axiom": "axioms", "heuristic": "heuristics", "prediction": "predictions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """All that an expression may name.

    names      variables and parameters; facts and functions do not see them
    constants  what never changes; facts and functions see it too
    items      the trace so far, in log order: `trace.latest`, `trace.all`, and the windows of facts
    item       what the fact that is being evaluated looks at; aggregates outside of a fact go over lists
    facts      predicate facts by every spelling that is allowed; a bare name is the fact on the latest item of its case
    functions  pure functions by every spelling
    calls      further functions from outside, such as the conditions of `success`
    model      where `{{axiom.0}}`, `{{heuristic.0}}` and `{{prediction.0}}` come from
    case_names full names (`System.Case`) of cases by every spelling; a bare one is the latest item of that case
    origins    which items ground a fact
    """

    names: Mapping[str, Value] = field(default_factory=dict)
    constants: Mapping[str, Value] = field(default_factory=dict)
    items: Sequence[Item] = ()
    item: Item | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    calls: Mapping[str, Callable[..., Value]] = field(default_factory=dict)
    model: SystemModel | None = None
    case_names: Mapping[str, str] = field(default_factory=dict)
    origins: frozenset[str] = MEASURED
    depth: int = 0

    def with_names(self, names: Mapping[str, Value]) -> "Scope":
        """Return the same scope with these names on top."""
        return replace(self, names={**self.names, **names})


def evaluate(expr: Expr, scope: Scope) -> Value:
    """Return the value of an expression; None where it is unknown.

    Raises EvaluateError only for what the checker refuses: a name that nobody gave, calls without end.
    """
    match expr:
        case Literal(value=value):
            return known(value)
        case Template():
            return expand(expr, scope)
        case Name(name=name):
            return _named(name, scope)
        case Field():
            return _field(expr, scope)
        case Index(base=base, index=index):
            return _at(evaluate(base, scope), evaluate(index, scope))
        case Unary(op=op, operand=operand):
            value = evaluate(operand, scope)
            return negative(value) if op == "-" else logical_not(value)
        case Binary():
            return _binary(expr, scope)
        case Call():
            return _call(expr, scope)
        case ListExpr(items=items):
            return [evaluate(one, scope) for one in items]
        case MapExpr(items=properties):
            return {one.key: evaluate(one.value, scope) for one in properties}
        case RangeExpr():
            return _range(expr, scope)


def holds(expr: Expr, scope: Scope) -> bool:
    """Tell whether an expression is exactly true; unknown is not."""
    return evaluate(expr, scope) is True


def evaluate_fact(fact: Fact, item: Mapping[str, Value], scope: Scope) -> bool | None:
    """Return whether a fact is true of an item; unknown where the item is of another case or not of an origin that counts.

    Windows go over the scope's items up to and including this one. An item that is not among them stands alone.
    """
    case = _case_name(fact.case, scope)
    if isinstance(item, Item):
        if not _is_case(item.case, case) or item.origin not in scope.origins:
            return None
    else:
        item = Item(case, item)
    inner = replace(_deeper(scope, fact.name), item=item, names={fact.parameter: item})
    value = _within(fact.body, inner, fact.name)
    return value if isinstance(value, bool) else None


def expand(template: Expr | str, scope: Scope) -> str:
    """Return the text of a template, every `{{expression}}` replaced by its value; a plain string is itself.

    Raises EvaluateError for an unknown name or value. What a value holds is never expanded again.
    """
    match template:
        case str():
            return template
        case Literal(value=value):
            return show(value)
        case Template(parts=parts):
            return "".join(part if isinstance(part, str) else _shown(part, scope) for part in parts)
        case _:
            return _shown(template, scope)


def show(value: Value) -> str:
    """Return a value as a command line or a prompt should hold it.

    A whole number has no fraction (`64`, not `64.0`), booleans are `true` and `false`, a list of plain values is joined
    with commas, all else is JSON. Raises EvaluateError for unknown.
    """
    value = known(value)
    if value is None:
        raise EvaluateError("the value is unknown (null), so there is no text for it; test it with is_known(...) first")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return _number_text(value)
    if is_list(value) and all(_plain(one) for one in value):
        return ",".join(show(one) for one in value)
    return json.dumps(_jsonable(value), ensure_ascii=False, separators=(", ", ": "))


# Names ----------------------------------------------------------------------------------------------------------


def _named(name: str, scope: Scope) -> Value:
    if name in scope.names:
        return known(scope.names[name])
    if name in scope.constants:
        return known(scope.constants[name])
    if name in _MODEL_LISTS and scope.model is not None:
        blind = replace(_deeper(scope, name), model=None)
        return [evaluate(one, blind) for one in getattr(scope.model, _MODEL_LISTS[name])]
    if name in scope.facts:
        fact = scope.facts[name]
        item = _latest(fact.case, scope, only=scope.origins)
        return None if item is None else evaluate_fact(fact, item, scope)
    if name in scope.case_names:
        return _latest(name, scope)
    raise EvaluateError(
        f"nothing is called `{name}` here; {_offer(name, [*scope.names, *scope.constants, *scope.facts])}"
    )


def _field(expr: Field, scope: Scope) -> Value:
    if isinstance(expr.base, Name) and expr.base.name == "trace" and "trace" not in scope.names:
        if expr.name == "latest":
            return _latest(None, scope)
        if expr.name == "all":
            return list(scope.items)
        raise EvaluateError(f"`trace` has `latest` and `all`, not `{expr.name}`")
    dotted = dotted_name(expr)
    if dotted is not None and dotted in scope.constants:
        return known(scope.constants[dotted])
    if dotted is not None and dotted in scope.facts and dotted.split(".")[0] not in scope.names:
        return _named(dotted, scope)
    return _member(evaluate(expr.base, scope), expr.name)


def _member(base: Value, name: str) -> Value:
    if isinstance(base, Mapping):
        return known(base.get(name))
    if is_list(base):
        return [_member(one, name) for one in base]
    return None


def _at(base: Value, index: Value) -> Value:
    if isinstance(base, Mapping):
        return known(base.get(index)) if isinstance(index, str) else None
    if not is_list(base) or not is_number(index) or not math.isfinite(index) or index != int(index):
        return None
    place = int(index)
    return known(base[place]) if 0 <= place < len(base) else None


# Operators and calls --------------------------------------------------------------------------------------------


def _binary(expr: Binary, scope: Scope) -> Value:
    left, right = evaluate(expr.left, scope), evaluate(expr.right, scope)
    if expr.op == "and":
        return logical_and(left, right)
    if expr.op == "or":
        return logical_or(left, right)
    if expr.op in COMPARISONS:
        return COMPARISONS[expr.op](left, right)
    return arithmetic(expr.op, left, right)


def _call(call: Call, scope: Scope) -> Value:
    name = call.name
    if name in ("trace.latest", "trace.all"):
        case = dotted_name(call.args[0]) if call.args else None
        if name == "trace.latest":
            return _latest(case, scope)
        return [item for item in scope.items if case is None or _is_case(item.case, _case_name(case, scope))]
    if scope.item is not None and is_aggregate(call):
        return _over_window(call, scope)
    arguments = [evaluate(one, scope) for one in call.args]
    if name in AGGREGATES and len(arguments) == 1 and (name not in SCALAR_FUNCTIONS or is_list(arguments[0])):
        return aggregate(name, arguments[0]) if is_list(arguments[0]) else None
    if name in SCALAR_FUNCTIONS:
        least, most = SCALAR_FUNCTIONS[name]
        if len(arguments) < least or (most is not None and len(arguments) > most):
            return None
        return scalar(name, arguments)
    if name in scope.facts:
        subject = arguments[0] if arguments else None
        return evaluate_fact(scope.facts[name], subject, scope) if isinstance(subject, Mapping) else None
    if name in scope.functions:
        return _apply(scope.functions[name], arguments, scope)
    if name in scope.calls:
        return known(scope.calls[name](*arguments))
    known_names = [*SCALAR_FUNCTIONS, *AGGREGATES, *scope.facts, *scope.functions, *scope.calls]
    raise EvaluateError(f"no function is called `{name}` here; {_offer(name, known_names)}")


def _over_window(call: Call, scope: Scope) -> Value:
    assert scope.item is not None
    chosen = window_items(_history(scope.item, scope), call.window)
    if not call.args:
        return len(chosen)
    parameters = [name for name, value in scope.names.items() if value is scope.item]
    values = []
    for item in chosen:
        there = replace(scope, item=item, names={**scope.names, **dict.fromkeys(parameters, item)})
        values.append(evaluate(call.args[0], there))
    return aggregate(call.name, values)


def _apply(function: Function, arguments: Sequence[Value], scope: Scope) -> Value:
    inner = replace(_deeper(scope, function.name), item=None, names={})
    given = {one.name: value for one, value in zip(function.parameters, arguments, strict=False)}
    missing = {one.name: None for one in function.parameters[len(arguments) :]}
    return _within(function.body, replace(inner, names={**given, **missing}), function.name)


def _within(body: Expr, scope: Scope, name: str) -> Value:
    """Evaluate a body; one that is nested deeper than Python can go is an error of ours, not a crash."""
    try:
        return evaluate(body, scope)
    except RecursionError:
        raise EvaluateError(f"`{name}` is nested too deep to be evaluated; split it up") from None


def _deeper(scope: Scope, name: str) -> Scope:
    if scope.depth >= _DEEPEST:
        raise EvaluateError(f"`{name}` calls itself without end; a fact or a function may not be recursive")
    return replace(scope, depth=scope.depth + 1)


def _range(expr: RangeExpr, scope: Scope) -> Value:
    low, high = evaluate(expr.low, scope), evaluate(expr.high, scope)
    step = 1 if expr.step is None else evaluate(expr.step, scope)
    if not (is_number(low) and is_number(high) and is_number(step)) or step <= 0:
        return None
    if expr.step is None and not (isinstance(low, int) and isinstance(high, int)):
        return None  # a continuous range has no list of values
    if not all(map(math.isfinite, (low, high, step))):
        return None
    count = math.floor((high - low) / step + 1e-9) + 1
    return [low + index * step for index in range(max(count, 0))]


# The trace ------------------------------------------------------------------------------------------------------


def _case_name(written: str, scope: Scope) -> str:
    return scope.case_names.get(written, written.rpartition(".")[2])


def _is_case(full: str, wanted: str) -> bool:
    return full == wanted or ("." not in wanted and full.rpartition(".")[2] == wanted)


def _latest(case: str | None, scope: Scope, only: frozenset[str] | None = None) -> Item | None:
    wanted = None if case is None else _case_name(case, scope)
    for item in reversed(scope.items):
        if (wanted is None or _is_case(item.case, wanted)) and (only is None or item.origin in only):
            return item
    return None


def _history(here: Item, scope: Scope) -> list[Item]:
    """Return the items of the same case that ground facts, up to and including this one."""
    past: list[Item] = []
    for item in scope.items:
        if item.case == here.case and item.origin in scope.origins:
            past.append(item)
        if item is here:
            return past
    return [here]


# Text -----------------------------------------------------------------------------------------------------------


def _shown(expr: Expr, scope: Scope) -> str:
    try:
        return show(evaluate(expr, scope))
    except EvaluateError as error:
        dotted = dotted_name(expr)
        raise EvaluateError(f"{{{{{dotted or '...'}}}}}: {error}") from None


def _number_text(value: int | float) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def _plain(value: Value) -> bool:
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and "," not in value)


def _jsonable(value: Value) -> Value:
    value = known(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(one) for key, one in value.items()}
    if is_list(value):
        return [_jsonable(one) for one in value]
    if isinstance(value, float):
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value


def _offer(name: str, known_names: Sequence[str]) -> str:
    from .diagnostics import nearest

    near = nearest(name, known_names)
    return f"did you mean `{near}`?" if near else "give it a value first"
