"""What a system declares: types, cases, spaces, constants, functions, views, artifacts, and names given twice."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..aggregates import AGGREGATES
from ..diagnostics import did_you_mean
from ..index import Index, named_types
from ..logic import SCALAR_FUNCTIONS
from ..tree import (
    Artifact,
    EngineeringLoop,
    EnumType,
    Expr,
    FieldDecl,
    Function,
    ListExpr,
    ListType,
    Literal,
    MapExpr,
    Name,
    NamedType,
    Node,
    OptionalType,
    Property,
    RangeExpr,
    Space,
    StateDecl,
    System,
    Template,
    TypeExpr,
    Unary,
    View,
)
from ..types import ANY, SCALARS, STRING, Type, kind_of
from ..units import UNITS
from ..wording import quoted
from .environment import Environment
from .expressions import Expressions

_SECTIONS = frozenset({"design_space", "tuning_space", "knowledge", "model", "trace_schema", "trace", "system_model"})
_REFERENCES = frozenset({"input", "inputs", "content", "after"})


@dataclass(frozen=True, slots=True)
class Declarations:
    """Checks declarations; what it finds goes into the report of its expressions."""

    expressions: Expressions
    index: Index

    def fields(self, decls: Iterable[FieldDecl], system: str, owner: str) -> None:
        """Check the fields of a case, a type or a parameter list."""
        self.unique(decls, f"field of {owner}")
        for one in decls:
            self.type(one.type, system)

    def type(self, expr: TypeExpr, system: str) -> None:
        """Check that a type names only what there is."""
        report = self.expressions.report
        match expr:
            case EnumType(values=values):
                if len({kind_of(one) for one in values}) > 1:
                    report.add("K201", expr, "an enum's values must be of one kind")
                for value in sorted({str(one) for one in values if values.count(one) > 1}):
                    report.add("K508", expr, f"the enum has {value} twice")
            case ListType(item=item) | OptionalType(item=item):
                self.type(item, system)
            case NamedType():
                for one in named_types(expr):
                    self._named_type(one, system)

    def _named_type(self, one: NamedType, system: str) -> None:
        report = self.expressions.report
        if one.name not in SCALARS and self.index.type_named(one.name, system) is None:
            known = [*SCALARS, *self.index.spellings("type"), *self.index.spellings("case")]
            found = [*self.index.candidates("type", one.name, system), *self.index.candidates("case", one.name, system)]
            if len(found) > 1:
                report.add("K108", one, f"the type `{one.name}` could be {', '.join(entry.full for entry in found)}")
            else:
                report.unknown("K104", one, f"no type is called `{one.name}`", one.name, known)
        if one.unit is not None and one.unit not in UNITS:
            report.unknown("K203", one, f"`{one.unit}` is no unit", one.unit, UNITS)
        elif one.unit is not None and one.name not in ("int", "float"):
            report.add("K209", one, f"`{one.name}` is no number, so it has no unit")

    def unique(self, nodes: Iterable[Node], what: str) -> None:
        """Say which names a list of declarations gives more than once."""
        first: dict[str, Node] = {}
        for node in nodes:
            name = str(getattr(node, "key", None) or getattr(node, "name", ""))
            if name in first:
                line = first[name].span.line
                self.expressions.report.add("K107", node, f"{what} `{name}` is there already, at line {line}")
            else:
                first[name] = node

    # Spaces -----------------------------------------------------------------------------------------------------

    def space(self, space: Space, system: str) -> None:
        """Check the entries of a design or tuning space."""
        self.unique(space.entries, f"{space.kind}_space entry")
        env = Environment(self.index, "space", system, words=True)
        for entry in space.entries:
            self.values(entry.value, entry.key, env)

    def values(self, value: Expr, name: str, env: Environment) -> None:
        """Check one space: that it holds something, and nothing twice."""
        report = self.expressions.report
        match value:
            case ListExpr(items=()):
                report.add("K501", value, f"`{name}` has no values")
            case ListExpr(items=items):
                self.expressions.infer(value, env)
                seen: list[Expr] = []
                for item in items:
                    if item in seen:
                        report.add("K508", item, f"`{name}` has this value twice")
                    seen.append(item)
            case RangeExpr():
                self._range(value, name, env)
            case MapExpr(items=entries):
                self.unique(entries, f"entry of `{name}`")
                for entry in entries:
                    self.values(entry.value, f"{name}.{entry.key}", env)
            case _:
                self.expressions.infer(value, env)

    def _range(self, value: RangeExpr, name: str, env: Environment) -> None:
        report = self.expressions.report
        self.expressions.infer(value, env)
        low, high = number_of(value.low), number_of(value.high)
        step = None if value.step is None else number_of(value.step)
        if low is not None and high is not None and low > high:
            report.add("K507", value, f"the range of `{name}` goes from {low:g} down to {high:g}")
        if step is not None and step <= 0:
            report.add("K507", value, f"the range of `{name}` has a step of {step:g}; it must be above 0")
        if value.log and low is not None and low <= 0:
            report.add(
                "K507", value, f"the range of `{name}` is logarithmic and starts at {low:g}; it must start above 0"
            )

    def inside(self, value: Expr, space: Expr, name: str, node: Node) -> None:
        """Say so where a value, or one of a list of them, is outside of a declared space."""
        for one in value.items if isinstance(value, ListExpr) else (value,):
            if not in_space(one, space):
                self.expressions.report.add(
                    "K502", one if one.span.end else node, f"`{name}` is never {text_of(one)}: it is outside of its space",
                    hint=_near(one, space),
                )  # fmt: skip

    # Small declarations -----------------------------------------------------------------------------------------

    def state(self, state: StateDecl, system: str) -> None:
        """Check a state's type, and that its first value is of it."""
        self.type(state.type, system)
        if state.default is not None:
            found = self.expressions.infer(state.default, Environment(self.index, "space", system))
            wanted = self.index.resolved(state.type, system)
            self.expressions.fit(state.default, found, wanted, f"`{state.name}`")

    def function(self, function: Function, system: str) -> None:
        """Check a pure function: parameters, body, result."""
        self.fields(function.parameters, system, f"`{function.name}`")
        self.not_builtin(function.name, function)
        names = dict(self.index.fields(function.parameters, system))
        env = Environment(self.index, "function", system, names)
        found = self.expressions.infer(function.body, env)
        if function.returns is not None:
            self.type(function.returns, system)
            wanted = self.index.resolved(function.returns, system)
            self.expressions.fit(function.body, found, wanted, f"the result of `{function.name}`")

    def not_builtin(self, name: str, node: Node) -> None:
        """Say so where a declaration takes the name of a built-in function."""
        if name in SCALAR_FUNCTIONS or name in AGGREGATES:
            self.expressions.report.add("K107", node, f"`{name}` is a built-in function; choose another name")

    def view(self, view: View, system: str) -> None:
        """Check that a view has SQL."""
        given = next((one for one in view.properties if one.key == "sql"), None)
        if given is None:
            self.expressions.report.add("K510", view, f"the view `{view.name}` has no `sql:`")
            return
        found = self.expressions.infer(given.value, Environment(self.index, "text", system))
        if found.kind not in ("string", "any"):
            self.expressions.report.add("K201", given.value, f"`sql` is {found}; it must be string")
        elif isinstance(given.value, Literal) and not str(given.value.value).strip():
            self.expressions.report.add("K510", given, f"the SQL of the view `{view.name}` is empty")

    def artifact(self, artifact: Artifact, system: str) -> None:
        """Check that an artifact says what it is made from, and that all of that exists."""
        if not artifact.properties:
            self.expressions.report.add(
                "K511",
                artifact,
                f"nothing says what `{artifact.name}` is made from",
                hint="give it a generator, an input or content",
            )
        self.unique(artifact.properties, f"property of `{artifact.name}`")
        env = Environment(self.index, "text", system, trace=True, words=True)
        for one in artifact.properties:
            if one.key in _REFERENCES:
                self._references(one.value, env)
            self.expressions.infer(one.value, env) if not _sections(one.value) else None

    def _references(self, value: Expr, env: Environment) -> None:
        kinds = ("view", "artifact", "fact", "recorded", "loop", "task", "constant", "state", "function", "case")
        for name in _bare_names(value):
            if name.name in _SECTIONS or any(self.index.candidates(kind, name.name, env.system) for kind in kinds):  # type: ignore[arg-type]
                continue
            known = [*_SECTIONS, *(spelling for kind in kinds for spelling in self.index.spellings(kind))]  # type: ignore[arg-type]
            self.expressions.report.unknown("K106", name, f"nothing is called `{name.name}`", name.name, known)


def space_names(system: System, *, chosen: bool) -> dict[str, Type]:
    """Return the names that the spaces of a system give: the chosen value of each, or the list of all."""
    names: dict[str, Type] = {}
    for entry in (one for space in system.spaces for one in space.entries):
        names[entry.key] = space_type(entry, chosen=chosen)
    return names


def space_type(entry: Property, *, chosen: bool) -> Type:
    """Return what a space's name stands for: the value that was chosen, or the list of all values."""
    value = entry.value
    if isinstance(value, MapExpr):
        return Type("map", fields={one.key: space_type(one, chosen=chosen) for one in value.items})
    if isinstance(value, RangeExpr):
        item = Type("float")
    elif isinstance(value, ListExpr):
        item = values_type(value)
    elif isinstance(value, (Literal, Template)):
        return STRING if isinstance(value, Template) else Type(kind_of(value.value))
    else:
        return ANY
    return item if chosen else Type("list", item=item)


def values_type(value: ListExpr) -> Type:
    """Return the type of one of a list of constants: an enum of them, where all are of one kind and have no unit."""
    literals = [one for one in value.items if isinstance(one, (Literal, Name))]
    if not literals or len(literals) != len(value.items):
        return ANY
    plain = [one.name if isinstance(one, Name) else one.value for one in literals]
    kinds = {kind_of(one) for one in plain}
    if any(isinstance(one, Literal) and one.unit for one in literals) or "null" in kinds:
        return ANY
    if kinds <= {"int", "float"}:
        return Type("int" if kinds == {"int"} else "float")
    if len(kinds) == 1:
        return Type(kinds.pop(), values=tuple(one for one in plain if one is not None))
    return ANY


def spaces_of(system: System) -> Mapping[str, Expr]:
    """Return the declared space of every name."""
    return {entry.key: entry.value for space in system.spaces for entry in space.entries}


def parameters_of(loop: EngineeringLoop) -> dict[str, Type]:
    """Return what each parameter of a sweep stands for in one configuration."""
    return {one.key: space_type(one, chosen=True) for one in loop.parameters}


def number_of(expr: Expr) -> float | None:
    """Return the value of a number literal, signed or not, in its base unit; None for anything else."""
    if isinstance(expr, Unary) and expr.op == "-":
        inner = number_of(expr.operand)
        return None if inner is None else -inner
    if isinstance(expr, Literal) and isinstance(expr.value, (int, float)) and not isinstance(expr.value, bool):
        factor = UNITS[expr.unit].factor if expr.unit in UNITS else 1
        return float(expr.value * float(factor))
    return None


def in_space(value: Expr, space: Expr) -> bool:
    """Tell whether a constant is in a space; true where that cannot be told."""
    number = number_of(value)
    if isinstance(space, RangeExpr):
        low, high = number_of(space.low), number_of(space.high)
        if number is None or low is None or high is None:
            return True
        step = number_of(space.step) if space.step is not None else None
        if not low <= number <= high:
            return False
        return (
            step is None or step <= 0 or math.isclose((number - low) / step, round((number - low) / step), abs_tol=1e-9)
        )
    if not isinstance(space, ListExpr) or not isinstance(value, (Literal, Name, Unary)):
        return True
    wanted = _plain(value)
    values = [_plain(one) for one in space.items]
    if wanted is None or any(one is None for one in values):
        return True
    return any(one == wanted and isinstance(one, bool) == isinstance(wanted, bool) for one in values)


def _plain(value: Expr) -> object:
    number = number_of(value)
    if number is not None:
        return number
    return value.name if isinstance(value, Name) else value.value if isinstance(value, Literal) else None


def text_of(value: Expr) -> str:
    """Return a constant as it was written."""
    if isinstance(value, Unary):
        return f"-{text_of(value.operand)}"
    if isinstance(value, Name):
        return value.name
    if isinstance(value, Literal):
        return quoted(value.value) + (f" {value.unit}" if value.unit else "")
    return "this"


def _near(value: Expr, space: Expr) -> str | None:
    if isinstance(space, ListExpr):
        words = [text_of(one) for one in space.items]
        return (
            did_you_mean(text_of(value), words) or f"it has {', '.join(words[:8])}{', ...' if len(words) > 8 else ''}"
        )
    if isinstance(space, RangeExpr):
        return f"it goes from {text_of(space.low)} to {text_of(space.high)}"
    return None


def _bare_names(value: Expr) -> Iterable[Name]:
    match value:
        case Name():
            yield value
        case ListExpr(items=items):
            for one in items:
                yield from _bare_names(one)
        case _ if _sections(value):
            yield from _bare_names(value.left)  # type: ignore[union-attr]
            yield from _bare_names(value.right)  # type: ignore[union-attr]
        case _:
            return


def _sections(value: Expr) -> bool:
    """Tell whether an expression joins sections of the module, such as `design_space + knowledge`."""
    from ..tree import Binary

    if not isinstance(value, Binary) or value.op != "+":
        return False
    return all(isinstance(side, Name) or _sections(side) for side in (value.left, value.right))
