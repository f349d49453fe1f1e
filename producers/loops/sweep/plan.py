"""What a sweep is to do, read from an engineering loop: pure, and wholly checked before anything is measured."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from morphogen.schemas.knowledge import tree
from morphogen.schemas.knowledge.aggregates import AGGREGATES
from morphogen.schemas.knowledge.evaluate import Scope, evaluate
from morphogen.schemas.knowledge.logic import SCALAR_FUNCTIONS
from morphogen.schemas.knowledge.units import convert

from .axes import axes_of, baseline_of, narrowed, plain_value
from .errors import SpaceError
from .settings import SETTINGS, Setting
from .space import Config, Space


@dataclass(frozen=True)
class Rule:
    """A condition with the name that people know it by."""

    name: str
    test: tree.Expr


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep, ready to be carried out. Settings as in `SETTINGS`."""

    name: str
    space: Space
    scope: Scope
    case: str | None  # of the metric
    field: str
    maximize: bool
    cmd: tree.Expr | None
    tool: str | None
    cases: Mapping[str, tuple[tree.FieldDecl, ...]]
    constraints: tuple[Rule, ...]
    invariants: tuple[Rule, ...]
    cost: tree.Expr | None
    settings: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        """Return a setting by its name."""
        try:
            return self.settings[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def metric(self) -> str:
        """The metric as people write it."""
        return self.field if self.case is None else f"{self.case}.{self.field}"

    def named(self, name: str) -> "Plan":
        """Return the same plan under another name in the log."""
        return replace(self, name=name)

    def allows(self, config: Config) -> bool:
        """Tell whether every constraint is exactly true of a configuration."""
        scope = self.scope.with_names(config)
        return all(evaluate(rule.test, scope) is True for rule in self.constraints)

    def cost_of(self, config: Config) -> float | None:
        """Return what a configuration costs, None where nothing says so."""
        if self.cost is None:
            return None
        found = evaluate(self.cost, self.scope.with_names(config))
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else math.inf


def plan_of(
    loop: tree.EngineeringLoop,
    module: tree.Module,
    *,
    scope: Scope | None = None,
    parameters: Mapping[str, Any] | None = None,
    budget: int | None = None,
    rules: Iterable[tree.Rule] = (),
) -> Plan:
    """Return the plan of a loop of a module. Raises SpaceError that names the loop and the setting.

    `parameters` replace axes by lists of values, `budget` the loop's own; `rules` are those that `narrow:` goes by.
    """
    system = _home(loop, module)
    scope = scope or Scope(names={one.name: evaluate(one.value, Scope()) for one in system.constants})
    where = f"engineering_loop {loop.name}"
    given = [*loop.properties, *(loop.measure.properties if loop.measure else ())]
    settings, cost, constraints = _settings(where, given, scope)
    if budget is not None:
        settings["budget"] = budget
    axes = tuple(axes_of(where, loop, system, scope, parameters or {}))
    if settings["narrow"]:
        axes = tuple(narrowed(axis, rules, scope) for axis in axes)
    names = {axis.name for axis in axes}
    cases = {case.name: case.fields for variant in system.variants for case in variant.cases}
    case, field = _metric(where, settings["metric"], cases)
    by_parameters, by_items = _invariants(system, names)
    cmd = next((one.value for one in given if one.key == "cmd"), None)
    if (cmd is None) == (settings["tool"] is None):
        raise SpaceError(f"{where}: `measure` needs either `cmd:` or `tool:`, one of them")
    if settings["baseline"] is not None:
        settings["baseline"] = baseline_of(where, settings["baseline"], axes)
    elif settings["interleave"] or settings["confirm"]:
        raise SpaceError(f"{where}: `interleave:` and `confirm:` compare with a baseline: write `baseline: {{...}}`")
    return Plan(
        name=loop.name,
        space=Space(axes),
        scope=scope,
        case=case,
        field=field,
        maximize=settings["objective"] == "maximize",
        cmd=cmd,
        tool=settings["tool"],
        cases=cases,
        constraints=(*(Rule(f"constraint {n}", one) for n, one in enumerate(constraints, 1)), *by_parameters),
        invariants=by_items,
        cost=cost,
        settings=settings,
    )


def _home(loop: tree.EngineeringLoop, module: tree.Module) -> tree.System:
    """Return the system that declares a loop; what is asked for may be a changed copy of it."""
    named = [each for each in module.systems if loop.name in {one.name for one in each.engineering_loops}]
    exact = [each for each in named if loop in each.engineering_loops]
    return next(iter([*exact, *named]), tree.System(loop.name))


def _settings(
    where: str, given: Sequence[tree.Property], scope: Scope
) -> tuple[dict[str, Any], tree.Expr | None, list[tree.Expr]]:
    found = {name: setting.default for name, setting in SETTINGS.items()}
    cost: tree.Expr | None = None
    constraints: list[tree.Expr] = []
    for one in given:
        setting = SETTINGS.get(one.key)
        if setting is None:
            from morphogen.schemas.knowledge.diagnostics import nearest

            near = nearest(one.key, list(SETTINGS))
            raise SpaceError(
                f"{where}: no setting is called `{one.key}`" + (f"; did you mean `{near}`?" if near else "")
            )
        if one.key == "constraint":
            constraints.extend(one.value.items if isinstance(one.value, tree.ListExpr) else [one.value])
        elif one.key == "cost":
            cost = one.value
        elif setting.kind != "command":
            found[one.key] = _value(f"{where}, {one.key}", setting, one.value, scope)
    return found, cost, constraints


def _value(where: str, setting: Setting, expr: tree.Expr, scope: Scope) -> Any:
    if setting.kind in ("word", "text"):
        value = _words(expr, scope)
        if setting.choices and value not in setting.choices:
            raise SpaceError(f"{where}: one of {', '.join(setting.choices)}, not {value!r}")
        return value
    value = plain_value(expr, scope)
    if setting.kind == "map":
        if not isinstance(value, Mapping):
            raise SpaceError(f"{where}: write a map, {{ name: value }}")
        return dict(value)
    if setting.kind == "flag":
        if not isinstance(value, bool):
            raise SpaceError(f"{where}: true or false, not {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not setting.least <= value < math.inf:
        raise SpaceError(f"{where}: a number of at least {setting.least:g}, not {value!r}")
    if value > setting.most:
        raise SpaceError(f"{where}: a number of at most {setting.most:,g}, not {value!r}")
    if setting.kind == "count":
        if value != int(value):
            raise SpaceError(f"{where}: a whole number, not {value!r}")
        return int(value)
    if setting.kind == "seconds" and isinstance(expr, tree.Literal) and expr.unit is not None:
        try:
            return float(convert(value, expr.unit, "s"))
        except ValueError as error:
            raise SpaceError(f"{where}: a time such as `30 s`, not a quantity in {expr.unit}") from error
    return float(value)


def _words(expr: tree.Expr, scope: Scope) -> str:
    """Return what is written as a string, a bare word or a dotted name."""
    if isinstance(expr, tree.Name):
        return expr.name
    if isinstance(expr, tree.Field):
        return f"{_words(expr.base, scope)}.{expr.name}"
    return str(evaluate(expr, scope))


def _metric(where: str, written: str | None, cases: Mapping[str, Any]) -> tuple[str | None, str]:
    if written is None:
        raise SpaceError(f"{where}: `measure` needs `metric:`, a field of a case such as Performance.tflops")
    *front, field = written.split(".")
    if front:
        if cases and front[-1] not in cases:
            raise SpaceError(f"{where}: metric {written}: no case is called {front[-1]}; cases: {', '.join(cases)}")
        if cases and field not in {one.name for one in cases[front[-1]]}:
            raise SpaceError(f"{where}: metric {written}: case {front[-1]} has no field {field}")
        return front[-1], field
    having = [name for name, declared in cases.items() if field in {one.name for one in declared}]
    if len(having) > 1:
        raise SpaceError(f"{where}: metric {field} is a field of {' and '.join(having)}: write {having[0]}.{field}")
    return (having[0] if having else None), field


def _invariants(system: tree.System, names: set[str]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Part the invariants: those over parameters alone rule out configurations, those over trace items rule out results."""
    constants = {one.name for one in system.constants}
    cases = {case.name for variant in system.variants for case in variant.cases}
    plain = {*SCALAR_FUNCTIONS, *AGGREGATES, *(one.name for one in system.functions)}
    by_parameters: list[Rule] = []
    by_items: list[Rule] = []
    for one in (*system.invariants, *(each for domain in system.domains for each in domain.invariants)):
        tests = [*one.asserts, *(each.value for each in one.properties if each.key == "constraint")]
        for test in tests:
            if isinstance(test, tree.Literal | tree.Template):
                continue  # advice in words
            used = set(names_in(test)) - plain
            if used & names and used <= names | constants:
                by_parameters.append(Rule(one.name, test))
            elif used & (cases | {"trace"}) or {fact.name for fact in system.facts} & used:
                by_items.append(Rule(one.name, test))
    return tuple(by_parameters), tuple(by_items)


def names_in(expr: tree.Expr) -> Iterator[str]:
    """Yield the names that an expression uses: variables, and what it calls that is no plain function."""
    if isinstance(expr, tree.Name):
        yield expr.name
    if isinstance(expr, tree.Call):
        yield from (expr.name.split(".")[0],) if expr.name.startswith("trace.") else (expr.name,)
    for child in _children(expr):
        yield from names_in(child)


def _children(expr: Any) -> Iterator[Any]:
    for each in fields(expr):
        value = getattr(expr, each.name)
        for inner in value if isinstance(value, tuple) else (value,):
            if is_dataclass(inner) and isinstance(inner, tree.Property):
                yield inner.value
            elif is_dataclass(inner) and not isinstance(inner, tree.Span | tree.Window):
                yield inner
