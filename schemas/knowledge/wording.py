"""Expressions back to text: as a module would write them, on one line."""

import json

from .tree import (
    Binary,
    Call,
    EnumType,
    Expr,
    Field,
    Index,
    ListExpr,
    ListType,
    Literal,
    MapExpr,
    Name,
    NamedType,
    OptionalType,
    RangeExpr,
    Template,
    TypeExpr,
    Unary,
    Window,
)

_RANK = {"or": 1, "and": 2, "not": 3, "==": 4, "!=": 4, "<": 4, "<=": 4, ">": 4, ">=": 4, "in": 4, "not in": 4}
_RANK |= {"+": 5, "-": 5, "*": 6, "/": 6, "%": 6}
_SPANS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def source(expr: Expr, above: int = 0) -> str:
    """Return an expression as source on one line, with the parentheses that it needs below an operator of this rank."""
    match expr:
        case Literal(value=value, unit=unit):
            return literal(value) + (f" {unit}" if unit else "")
        case Template(parts=parts):
            text = "".join(part if isinstance(part, str) else "{{" + source(part) + "}}" for part in parts)
            return json.dumps(text, ensure_ascii=False)
        case Name(name=name):
            return name
        case Field(base=base, name=name):
            return f"{source(base, 9)}.{name}"
        case Index(base=base, index=index):
            return f"{source(base, 9)}[{source(index)}]"
        case Unary(op=op, operand=operand):
            rank = 3 if op == "not" else 8
            text = f"not {source(operand, rank)}" if op == "not" else f"-{source(operand, rank)}"
            return f"({text})" if rank < above else text
        case Binary(op=op, left=left, right=right):
            rank = _RANK[op]
            text = f"{source(left, rank)} {op} {source(right, rank + 1)}"
            return f"({text})" if rank < above else text
        case Call(name=name, args=args, window=window):
            text = f"{name}({', '.join(source(one) for one in args)})"
            text += "" if window is None else window_source(window)
            return f"({text})" if window is not None and above > 0 else text
        case ListExpr(items=items):
            return f"[{', '.join(source(one) for one in items)}]"
        case MapExpr(items=properties):
            inner = ", ".join(f"{one.key}: {source(one.value)}" for one in properties)
            return f"{{ {inner} }}" if inner else "{}"
        case RangeExpr(low=low, high=high, step=step, log=log):
            bounds = ", ".join(source(one) for one in (low, high, step) if one is not None)
            return f"range[{bounds}]" + (" log" if log else "")


def literal(value: bool | int | float | str | None) -> str:
    """Return a constant as source."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def window_source(window: Window) -> str:
    """Return a window as it stands after an aggregate."""
    text = ""
    if window.last is not None:
        text = f" over last {window.last}"
    elif window.duration_ns is not None:
        text = f" over {duration(window.duration_ns).replace(' ', '')}"
    return text + (f" per {', '.join(window.per)}" if window.per else "")


def duration(nanoseconds: int) -> str:
    """Return a length of time in the largest unit that states it exactly."""
    for name, seconds in _SPANS:
        if nanoseconds and nanoseconds % (seconds * 1_000_000_000) == 0:
            return f"{nanoseconds // (seconds * 1_000_000_000)} {name}"
    for name, size in (("ms", 1_000_000), ("us", 1000)):
        if nanoseconds % size == 0:
            return f"{nanoseconds // size} {name}"
    return f"{nanoseconds} ns"


def type_source(expr: TypeExpr) -> str:
    """Return a type as source."""
    match expr:
        case NamedType(name=name, unit=unit):
            return name + (f" in {unit}" if unit else "")
        case EnumType(values=values):
            return " | ".join(literal(one) for one in values)
        case ListType(item=item):
            return f"[{type_source(item)}]"
        case OptionalType(item=item):
            inner = type_source(item)
            return f"({inner})?" if isinstance(item, EnumType) else f"{inner}?"


def quoted(value: object) -> str:
    """Return a value as a module would write it."""
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def dotted_name(expr: Expr) -> str | None:
    """Return `a.b.c` for a chain of fields on a name, None for anything else."""
    if isinstance(expr, Name):
        return expr.name
    if isinstance(expr, Field):
        base = dotted_name(expr.base)
        return None if base is None else f"{base}.{expr.name}"
    return None
