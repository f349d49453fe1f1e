"""A checked tree with every number in the unit of what it meets, and every bare word that stands for itself as a string."""

from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar, cast

from ..tree import Binary, Expr, Literal, Module, Node, Unary
from ..units import scaled
from .report import Report

T = TypeVar("T")


def lowered(module: Module, report: Report) -> Module:
    """Return the module as it is executed: what the check decided to convert or replace is converted or replaced."""
    if not report.factors and not report.replaced and not report.renamed:
        return module
    return _rewrite(module, report)


def _rewrite(value: T, report: Report) -> T:
    if isinstance(value, tuple):
        items = tuple(_rewrite(one, report) for one in value)
        same = all(one is other for one, other in zip(items, value, strict=True))
        return value if same else cast(T, items)
    if not isinstance(value, Node) or not is_dataclass(value):
        return value
    if id(value) in report.replaced:
        return cast(T, report.replaced[id(value)])
    changes: dict[str, Any] = {}
    for one in fields(value):
        old = getattr(value, one.name)
        new = _rewrite(old, report)
        if new is not old:
            changes[one.name] = new
    if id(value) in report.renamed:
        name, full = report.renamed[id(value)]
        changes[name] = full
    made = replace(value, **changes) if changes else value
    if id(value) in report.factors:
        factor, unit = report.factors[id(value)]
        return cast(T, converted(cast(Expr, made), factor, unit))
    return made


def converted(expr: Expr, factor: Fraction, unit: str | None) -> Expr:
    """Return an expression times a factor; a number is folded, so that `3 s` becomes `3000 ms`."""
    if isinstance(expr, Literal) and isinstance(expr.value, (int, float)) and not isinstance(expr.value, bool):
        return replace(expr, value=scaled(expr.value, factor), unit=unit)
    if isinstance(expr, Unary) and expr.op == "-":
        return replace(expr, operand=converted(expr.operand, factor, unit))
    op, by = ("*", factor) if factor.numerator != 1 else ("/", 1 / factor)
    number = by.numerator if by.denominator == 1 else float(by)
    return Binary(op, expr, Literal(number, span=expr.span), span=expr.span)
