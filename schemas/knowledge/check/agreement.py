"""Making kinds and units agree: what fits where, and what a number is converted to."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ..tree import Binary, Call, Expr, ListExpr, Literal, Template, Unary
from ..types import ANY, NULL, Type, kind_of
from ..units import PLAIN, UNITS, Unit, describe_dimension, ratio, same_dimension
from ..wording import quoted
from .report import Report


@dataclass(frozen=True, slots=True)
class Agreement:
    """Says what does not go together, and notes what must be converted so that the rest does."""

    report: Report

    def fit(self, expr: Expr, found: Type, wanted: Type, what: str, code: str = "K201") -> None:
        """Hold an inferred expression to the type that its place wants, converting its unit."""
        if wanted.kind == "any" or found.kind == "any":
            return
        if found.kind == "null":
            if not wanted.optional and wanted.kind != "null":
                self.report.add(code, expr, f"{what} is null; it must be {wanted}", hint=_optional_hint(wanted))
            return
        if wanted.number and found.number:
            if (
                wanted.kind == "int"
                and found.kind == "float"
                and isinstance(expr, Literal)
                and not _whole(expr, wanted)
            ):
                self.report.add(code, expr, f"{what} is a float; it must be {wanted}")
                return
            if self.convert(expr, found, wanted, what):
                self._fit_values(expr, found, wanted, what)
            return
        if wanted.kind != found.kind:
            hint = None
            if wanted.number and found.kind == "string":
                hint = "a text becomes a number with number(...)" if not isinstance(expr, Literal) else None
            self.report.add(code, expr, f"{what} is {found}; it must be {wanted}", hint=hint)
            return
        self._fit_values(expr, found, wanted, what)
        if wanted.kind == "list" and wanted.item is not None and isinstance(expr, ListExpr):
            for one in expr.items:
                self.fit(one, self.quiet(one), wanted.item, f"an item of {what}", code)
        elif wanted.item is not None and found.item is not None and not _alike(found.item, wanted.item):
            self.report.add(code, expr, f"{what} is {found}; it must be {wanted}")

    def convert(self, expr: Expr, found: Type, wanted: Type, what: str) -> bool:
        """Make a number stand in the wanted unit; tell whether it can."""
        if found.unit is None or wanted.unit is None:
            return True
        if not same_dimension(found.unit, wanted.unit):
            self._units_differ(expr, found.unit, wanted.unit, what)
            return False
        self._scale(expr, found.unit, wanted.unit)
        return True

    def need_condition(self, found: Type, expr: Expr, where: str) -> None:
        """Say so where something that is no condition is used as one."""
        if found.kind in ("boolean", "any"):
            return
        hint = "compare it with something, or test it with is_known(...)"
        if found.kind == "string" and isinstance(expr, (Literal, Template)):
            hint = "write the condition without quotes"
        self.report.add("K208", expr, f"{where} needs a condition (true or false), and this is {found}", hint=hint)

    def unify(self, left: Expr, one: Type, right: Expr, other: Type, what: str) -> Unit | None:
        """Make two numbers stand in one unit and return it; the side that is constant is the one that is converted."""
        if one.unit is None or other.unit is None:
            return other.unit if one.unit is None else one.unit
        if not same_dimension(one.unit, other.unit):
            self._units_differ(right, other.unit, one.unit, what)
            return one.unit
        if _constant(left) and not _constant(right):
            self._scale(left, one.unit, other.unit)
            return other.unit
        self._scale(right, other.unit, one.unit)
        return one.unit

    def unify_all(self, call: Call, types: list[Type]) -> Unit | None:
        """Make all arguments stand in the unit of the first one that is not constant."""
        order = sorted(
            range(len(types)), key=lambda place: (types[place].unit is None, _constant(call.args[place]), place)
        )
        first = order[0]
        for place in order[1:]:
            self.convert(call.args[place], types[place], types[first], f"an argument of `{call.name}`")
        return types[first].unit

    def _scale(self, expr: Expr, found: Unit, wanted: Unit) -> None:
        factor = ratio(found, wanted)
        if factor != 1:
            self.report.factors[id(expr)] = (factor, wanted.name or None)

    def need_number(self, found: Type, expr: Expr, where: str) -> None:
        """Say so where something that is no number is calculated with."""
        if found.number or found.kind == "any":
            return
        hint = (
            "a text becomes a number with number(...)"
            if found.kind == "string" and not isinstance(expr, Literal)
            else None
        )
        self.report.add("K201", expr, f"{where} needs a number, and this is {kind_word(found)}", hint=hint)

    def kinds_differ(self, expr: Binary, left: Type, right: Type) -> None:
        """Say that two sides are of kinds that never equal each other."""
        hint = None
        if {left.kind, right.kind} & {"string"} and (left.number or right.number):
            hint = "a text becomes a number with number(...)"
            if any(isinstance(side, Literal) and isinstance(side.value, str) for side in (expr.left, expr.right)):
                hint = "write the number without quotes"
        self.report.add(
            "K201",
            expr,
            f"`{expr.op}` compares {kind_word(left)} with {kind_word(right)}, which are never equal",
            hint=hint,
        )

    def enum_values(self, expr: Binary, left: Type, right: Type) -> None:
        """Say so where an enum meets a value that it cannot have, or another enum that shares none of its values."""
        if isinstance(expr.right, Literal) and not isinstance(expr.left, Literal):
            self.in_enum(expr.right, right.values, left)
        elif isinstance(expr.left, Literal) and not isinstance(expr.right, Literal):
            self.in_enum(expr.left, left.values, right)
        elif left.values and right.values and not set(left.values) & set(right.values):
            self.report.add("K204", expr, f"{left} and {right} have no value in common")

    def in_enum(self, node: Expr, values: tuple[str | int | float | bool, ...], enum: Type) -> None:
        """Say which of some constants an enum does not have."""
        if not values and isinstance(node, Literal) and isinstance(node.value, (int, float)):
            values = (node.value,)
        for value in values if enum.values else ():
            if value not in enum.values:
                known = [str(one) for one in enum.values]
                self.report.unknown("K204", node, f"{quoted(value)} is none of {enum}", str(value), known)

    def _fit_values(self, expr: Expr, found: Type, wanted: Type, what: str) -> None:
        if not wanted.values:
            return
        values = found.values or ((expr.value,) if isinstance(expr, Literal) and expr.value is not None else ())
        for value in values:
            if value not in wanted.values:
                self.report.unknown(
                    "K204",
                    expr,
                    f"{what} is {quoted(value)}; it must be one of {wanted}",
                    str(value),
                    [str(one) for one in wanted.values],
                )

    def _units_differ(self, expr: Expr, found: Unit, wanted: Unit, what: str) -> None:
        one, other = _unit_words(found), _unit_words(wanted)
        hint = None
        if PLAIN in (found, wanted):
            other_unit = found if wanted == PLAIN else wanted
            hint = (
                f"declare the plain number with its unit, such as `float in {other_unit}`" if other_unit.name else None
            )
        self.report.add("K202", expr, f"{what}: {one} does not go with {other}", hint=hint)

    def quiet(self, expr: Expr) -> Type:
        """Return the type of a literal or a list of them without saying anything twice."""
        if isinstance(expr, Literal):
            return Agreement(Report()).literal(expr)
        if isinstance(expr, Unary) and expr.op == "-":
            return self.quiet(expr.operand)
        return ANY

    def literal(self, expr: Literal) -> Type:
        """Return the type of a constant, its unit included."""
        value = expr.value
        if expr.unit is not None:
            if expr.unit not in UNITS:
                self.report.unknown("K203", expr, f"`{expr.unit}` is no unit", expr.unit, UNITS)
                return Type(kind_of(value))
            return Type(kind_of(value), unit=UNITS[expr.unit])
        if isinstance(value, str):
            return Type("string", values=(value,))
        return NULL if value is None else Type(kind_of(value))


def _alike(one: Type, other: Type) -> bool:
    return one.kind == other.kind or "any" in (one.kind, other.kind) or (one.number and other.number)


def _constant(expr: Expr) -> bool:
    match expr:
        case Literal():
            return True
        case Unary(operand=operand):
            return _constant(operand)
        case Binary(left=left, right=right):
            return _constant(left) and _constant(right)
        case _:
            return False


def _whole(expr: Literal, wanted: Type) -> bool:
    """Whether a float literal is a whole number in the unit that is wanted (`1.5 s` is 1500 ms)."""
    if not isinstance(expr.value, float):
        return True
    if expr.unit in UNITS and wanted.unit is not None and same_dimension(UNITS[expr.unit], wanted.unit):
        return (Fraction(repr(expr.value)) * ratio(UNITS[expr.unit], wanted.unit)).denominator == 1
    return expr.value.is_integer()


def _unit_words(unit: Unit) -> str:
    if unit == PLAIN:
        return "a plain number"
    return f"{unit} ({describe_dimension(unit)})" if unit.name else str(unit)


def kind_word(found: Type) -> str:
    """Return a kind with its article."""
    return {"string": "a string", "boolean": "a boolean", "list": "a list", "null": "null"}.get(
        found.kind, "a number" if found.number else str(found)
    )


def _optional_hint(wanted: Type) -> str:
    return f"declare it `{wanted}?` where it may be unknown"


def listed(names: Iterable[object]) -> str:
    """Join a few names with commas, and dots for the rest."""
    words = [str(one) for one in names]
    return ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")
