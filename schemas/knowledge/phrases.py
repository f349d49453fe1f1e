"""Expressions and windows in plain words."""

from .tree import (
    Binary,
    Call,
    EnumType,
    Expr,
    Field,
    ListExpr,
    ListType,
    Literal,
    Name,
    NamedType,
    OptionalType,
    Template,
    TypeExpr,
    Unary,
    Window,
)
from .wording import duration, literal, source

_COMPARED = {
    "==": "is",
    "!=": "is not",
    "<": "is below",
    "<=": "is at most",
    ">": "is above",
    ">=": "is at least",
    "in": "is one of",
    "not in": "is none of",
}
_OPERATED = {"+": "plus", "-": "minus", "*": "times", "/": "divided by", "%": "modulo"}
_AGGREGATED = {
    "count": "the number of known values of",
    "sum": "the sum of",
    "avg": "the average of",
    "min": "the smallest",
    "max": "the largest",
    "p50": "the median of",
    "p90": "the 90th percentile of",
    "p95": "the 95th percentile of",
    "p99": "the 99th percentile of",
    "std": "the standard deviation of",
    "first": "the first",
    "last": "the last",
    "delta": "the change of",
    "slope": "the slope per item of",
}
_FUNCTIONS = {
    "abs": "the size of {}",
    "log2": "the binary logarithm of {}",
    "log": "the natural logarithm of {}",
    "exp": "e to the power of {}",
    "sqrt": "the square root of {}",
    "floor": "{} rounded down",
    "ceil": "{} rounded up",
    "round": "{} rounded",
    "len": "the length of {}",
    "number": "the number in {}",
    "clamp": "{} held between {} and {}",
}


def phrase(expr: Expr, item: str | None = None) -> str:
    """Return an expression in words; `item` is the parameter of the fact that it stands in, which goes without saying."""
    match expr:
        case Literal(value=value, unit=unit):
            return literal(value) + (f" {unit}" if unit else "")
        case Field(base=Name(name=base), name=name) if base == item:
            return name
        case Field(base=base, name=name):
            return f"{name} of {phrase(base, item)}"
        case Name(name=name):
            return "the item" if name == item else name
        case Unary(op="not", operand=operand):
            return _negated(operand, item)
        case Unary(operand=operand):
            return f"minus {phrase(operand, item)}"
        case Binary(op=op, left=left, right=right) if op in ("and", "or"):
            return f"{_side(left, op, item)} {op} {_side(right, op, item)}"
        case Binary(op=op, left=left, right=right) if op in _COMPARED:
            return f"{phrase(left, item)} {_COMPARED[op]} {phrase(right, item)}"
        case Binary(op=op, left=left, right=right):
            return f"{_operand(left, item)} {_OPERATED[op]} {_operand(right, item)}"
        case Call():
            return _call(expr, item)
        case ListExpr(items=items):
            return listed([phrase(one, item) for one in items], "or") if items else "nothing"
        case Template():
            return source(expr)
        case _:
            return source(expr)


def _side(expr: Expr, op: str, item: str | None) -> str:
    text = phrase(expr, item)
    return f"({text})" if isinstance(expr, Binary) and expr.op in ("and", "or") and expr.op != op else text


def _operand(expr: Expr, item: str | None) -> str:
    text = phrase(expr, item)
    return f"({text})" if isinstance(expr, Binary) else text


def _negated(expr: Expr, item: str | None) -> str:
    if isinstance(expr, Call) and expr.name == "is_known":
        return f"{phrase(expr.args[0], item)} is unknown"
    if isinstance(expr, (Field, Name)):
        return f"{phrase(expr, item)} is false"
    if isinstance(expr, Call):
        return f"{expr.name} does not hold" if _is_fact(expr, item) else f"not {phrase(expr, item)}"
    return f"it is not so that {phrase(expr, item)}"


def _is_fact(call: Call, item: str | None) -> bool:
    if call.window is not None or len(call.args) != 1 or call.name in _FUNCTIONS or call.name in _AGGREGATED:
        return False
    return source(call.args[0]).split("(")[0] in (item, "trace.latest")


def _call(call: Call, item: str | None) -> str:
    words = [phrase(one, item) for one in call.args]
    if call.name == "trace.latest":
        return f"the latest {words[0]}" if words else "the latest item"
    if call.name == "trace.all":
        return f"all {words[0]}" if words else "all items"
    if call.name == "is_known":
        return f"{words[0]} is known"
    if call.name in _AGGREGATED and (call.window is not None or len(words) < 2):
        what = f"{_AGGREGATED[call.name]} {words[0]}" if words else "the number of items"
        return what if item is None and call.window is None else what + window_phrase(call.window)
    if call.name in ("min", "max"):
        return f"the {'smaller' if call.name == 'min' else 'larger'} of {listed(words, 'and')}"
    if call.name in _FUNCTIONS:
        return _FUNCTIONS[call.name].format(*words)
    if _is_fact(call, item):
        return f"{call.name} holds"
    if len(words) == 1 and isinstance(call.args[0], Name):
        return f"{call.name} of {words[0]}"
    return f"{call.name}({', '.join(words)})"


def window_phrase(window: Window | None) -> str:
    """Return a window in words, with a space before it."""
    if window is None:
        return " so far"
    if window.last is not None:
        text = f" over the last {window.last} items"
    elif window.duration_ns is not None:
        text = f" over the last {duration(window.duration_ns)}"
    else:
        text = " so far"
    return text + (f" of the same {listed(list(window.per), 'and')}" if window.per else "")


def type_phrase(expr: TypeExpr) -> str:
    """Return a type in words."""
    match expr:
        case NamedType(name=name, unit=unit):
            return name + (f" in {unit}" if unit else "")
        case EnumType(values=values):
            return listed([literal(one) for one in values], "or")
        case ListType(item=item):
            return f"list of {type_phrase(item)}"
        case OptionalType(item=item):
            return f"{type_phrase(item)}, may be unknown"


def listed(words: list[str], last: str) -> str:
    """Join words as in a sentence: `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
