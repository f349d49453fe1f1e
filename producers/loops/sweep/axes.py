"""The axes of a sweep, read from what a program says of its parameters."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from morphogen.schemas.knowledge import tree
from morphogen.schemas.knowledge.evaluate import Scope, evaluate

from .errors import SpaceError
from .space import Axis, Choice, Config, axis_from


def axes_of(
    where: str, loop: tree.EngineeringLoop, system: tree.System, scope: Scope, replaced: Mapping[str, Any]
) -> Iterator[Axis]:
    """Yield the axes of a loop's parameters, or of its system's tuning space where it has none.

    `replaced` gives other values for some. Raises SpaceError, which begins with `where`.
    """
    spaces = {one.key: one.value for space in system.spaces for one in space.entries}
    written = loop.parameters or tuple(
        one for space in system.spaces if space.kind == "tuning" for one in space.entries if _is_axis(one.value)
    )
    if not written:
        raise SpaceError(f"{where}: nothing to vary: write `parameter NAME: [values]`, or a tuning_space")
    known = {one.key for one in written}
    for name in replaced:
        if name not in known:
            raise SpaceError(f"{where}: no parameter is called {name}; parameters: {', '.join(sorted(known))}")
    seen: set[str] = set()
    for one in written:
        if one.key in seen:
            raise SpaceError(f"{where}: parameter {one.key} is declared twice")
        seen.add(one.key)
        yield _listed(where, one.key, replaced[one.key]) if one.key in replaced else _axis(where, one, spaces, scope)


def _is_axis(expr: tree.Expr) -> bool:
    return isinstance(expr, tree.ListExpr | tree.RangeExpr)


def _axis(where: str, one: tree.Property, spaces: Mapping[str, tree.Expr], scope: Scope) -> Axis:
    expr = one.value
    named = expr.name if isinstance(expr, tree.Name | tree.Field) else None
    if named is not None and named in spaces and named not in scope.names:
        expr = spaces[named]
    if isinstance(expr, tree.RangeExpr):
        low, high = evaluate(expr.low, scope), evaluate(expr.high, scope)
        step = None if expr.step is None else evaluate(expr.step, scope)
        return axis_from(one.key, low, high, step, expr.log)
    return _listed(where, one.key, plain_value(expr, scope))


def _listed(where: str, name: str, values: Any) -> Axis:
    if not isinstance(values, list | tuple):
        raise SpaceError(f"{where}: parameter {name} is a list of values or a range[low, high, step]")
    if not values:
        raise SpaceError(f"{where}: parameter {name} has no values")
    if any(a == b and type(a) is type(b) for n, a in enumerate(values) for b in values[:n]):
        raise SpaceError(f"{where}: parameter {name} lists a value twice")
    return Choice(name, tuple(values))


def narrowed(axis: Axis, rules: Iterable[tree.Rule], scope: Scope) -> Axis:
    """Return an axis with only the values that every rule names; a rule that would leave none says nothing."""
    if axis.count is None:
        return axis
    values = [axis.at(place) for place in range(axis.count)]
    for one in (each for rule in rules for each in rule.parameters if each.key == axis.name):
        named = plain_value(one.value, scope)
        kept = [value for value in values if value in named] if isinstance(named, list) else []
        values = kept or values
    return axis if len(values) == axis.count else Choice(axis.name, tuple(values))


def baseline_of(where: str, given: Mapping[str, Any], axes: Sequence[Axis]) -> Config:
    """Return the baseline as a whole configuration: what it leaves out is the first value of the axis."""
    known = {axis.name: axis for axis in axes}
    for name in given:
        if name not in known:
            raise SpaceError(f"{where}: baseline names {name}, which is no parameter; parameters: {', '.join(known)}")
    return {
        name: given[name] if name in given else (axis.low if axis.count is None else axis.at(0))
        for name, axis in known.items()
    }


def plain_value(expr: tree.Expr, scope: Scope) -> Any:
    """Return what an expression is worth, where a bare name that means nothing stands for itself."""
    if isinstance(expr, tree.ListExpr):
        return [plain_value(each, scope) for each in expr.items]
    if isinstance(expr, tree.MapExpr):
        return {each.key: plain_value(each.value, scope) for each in expr.items}
    if isinstance(expr, tree.Name) and expr.name not in scope.names and expr.name not in scope.facts:
        return expr.name
    return evaluate(expr, scope)
