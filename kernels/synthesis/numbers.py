"""Numbers: known ones rounded, times or plus a constant, or two or three of them put together.

Pairs are looked at all at once as arrays, with the room that rounding leaves; what remains is then computed as the program would
and compared exactly. A constant is the shortest decimal that all examples allow.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .bank import Bank, Entry
from .chance import enough
from .operators import FUNCTIONS
from .program import Const, Expr, Op, walk
from .values import exact

if TYPE_CHECKING:
    from .explaining import Explainer

_MOST = (120, 40, 20)  # numbers that are put together in pairs, by level
_FAULTS = (ArithmeticError, ValueError, TypeError)
_NICE = (2, 10, 100, 1000, 60, 3600, 24, 7, 12, 1024, 1024**2, 1024**3, 10**6, 10**9, 86400)
Array = NDArray[np.float64]


def number(at: "Explainer", target: Sequence[Any]) -> Expr | None:
    """Return an expression with these numbers, or None."""
    if len({exact(value) for value in target}) < 2 or not all(isfinite(value) for value in target):
        return None
    goal = _Goal(target)
    known = [one for one in at.bank.of_kind("int", "float", "number") if _finite(one.values)]
    for entry in known[:600]:
        found = goal.met(entry.expr, entry.values)
        if found is not None and enough(target, len(known) * 2):
            return found
    few = _preferred(known)[: _MOST[min(at.level, 2)]]
    if not few:
        return None
    at.bank.search.tick(len(few) ** 2)
    rows = _rows(few)
    fixed = _with_constant(goal, [(one.expr, one.values) for one in few], rows)
    if fixed is not None and not _is_long(fixed):
        return fixed
    return (
        _with_another(at.bank, goal, few, rows)
        or fixed
        or (_with_two_others(at.bank, goal, few) if at.reached >= at.limits[-1] and at.level == 0 else None)
    )


def _is_long(expr: Expr) -> bool:
    """Say whether a constant has so many digits that two values put together are the likelier: 1.414214 is some root."""
    digits = [repr(part.value).replace(".", "").strip("-0") for part in walk(expr) if isinstance(part, Const)]
    return any(len(one) >= 6 for one in digits)


def _finite(values: Sequence[Any]) -> bool:
    return all(isfinite(value) and abs(value) < 1e15 for value in values)


def _preferred(known: Sequence[Entry]) -> list[Entry]:
    return sorted(known, key=lambda one: (one.size, len(set(one.values)) == 1))


def _rows(entries: Sequence[Entry]) -> Array:
    return np.array([one.values for one in entries], dtype=np.float64)


class _Goal:
    """The numbers that are looked for, with the room that their rounding leaves."""

    def __init__(self, target: Sequence[Any]) -> None:
        self.target = list(target)
        self.key = exact(self.target)
        self.whole = all(isinstance(value, int) for value in target)
        self.decimals = max(len(repr(value).partition(".")[2]) if isinstance(value, float) else 0 for value in target)
        self.exponent = any("e" in repr(value) for value in target)
        self.array: Array = np.array([float(value) for value in target])
        fine = 1e-9 * np.maximum(1.0, np.abs(self.array))
        self.rounded = self.whole or (self.decimals <= 6 and not self.exponent)
        self.room: Array = fine + (1.0 if self.whole else 0.5001 * 10.0**-self.decimals if self.rounded else 0.0)

    def near(self, values: Array) -> NDArray[np.bool_]:
        """Say, for each row, whether rounding could give the target."""
        with np.errstate(all="ignore"):
            return np.asarray(np.all(np.abs(values - self.array) <= self.room, axis=-1), dtype=np.bool_)

    def met(self, expr: Expr, values: Sequence[Any]) -> Expr | None:
        """Return an expression that is the target, of values that are it but for rounding."""
        if exact(list(values)) == self.key:
            return expr
        ways: list[tuple[str, tuple[Any, ...]]] = []
        if self.whole:
            ways = [("round", ()), ("int", ()), ("floor", ()), ("ceil", ())]
        elif self.rounded:
            ways = [("round_to", (self.decimals,)), ("float", ())]
            ways += [("round_to", (more,)) for more in range(self.decimals + 1, 7)]
        for name, operands in ways:
            try:
                if abs(values[0] - self.target[0]) > 1.0:
                    return None
                if exact([FUNCTIONS[name](value, *operands) for value in values]) == self.key:
                    return Op(name, (expr, *map(Const, operands)))
            except _FAULTS:
                continue
        return None


def _computed(name: str, left: Sequence[Any], right: Sequence[Any]) -> list[Any] | None:
    try:
        return [FUNCTIONS[name](one, two) for one, two in zip(left, right, strict=True)]
    except _FAULTS:
        return None


def _with_constant(goal: _Goal, known: Sequence[tuple[Expr, Sequence[Any]]], rows: Array) -> Expr | None:
    """Find a constant that is added, multiplied with, or both."""
    count = rows.shape[1]
    for place, (expr, values) in enumerate(known):
        row = rows[place]
        if len(set(values)) < min(3, count) or not np.all(np.isfinite(row)):
            continue
        for name, constant in (*_added(goal, row), *_times(goal, row)):
            made = _computed(name, values, [constant] * count)
            found = goal.met(Op(name, (expr, Const(constant))), made) if made is not None else None
            if found is not None and enough(goal.target, len(known) * 8):
                return found
        if len(set(values)) >= min(4, count):
            found = _line(goal, expr, values, row, len(known))
            if found is not None:
                return found
    return None


def _added(goal: _Goal, row: Array) -> Iterator[tuple[str, Any]]:
    apart = goal.array - row
    low, high = float(np.max(apart - goal.room)), float(np.min(apart + goal.room))
    if low <= high:
        for constant in shortest(low, high):
            if constant:
                yield ("add", constant) if constant > 0 else ("sub", -constant)


def _times(goal: _Goal, row: Array) -> Iterator[tuple[str, Any]]:
    if np.any(row == 0.0):
        zero = row == 0.0
        if np.any(np.abs(goal.array[zero]) > goal.room[zero]) or np.all(zero):
            return
        row, array, room = row[~zero], goal.array[~zero], goal.room[~zero]
    else:
        array, room = goal.array, goal.room
    with np.errstate(all="ignore"):
        one, two = (array - room) / row, (array + room) / row
    low, high = float(np.max(np.minimum(one, two))), float(np.min(np.maximum(one, two)))
    if low > high or not np.isfinite(low) or not np.isfinite(high):
        return
    for nice in _NICE:
        if low <= nice <= high:
            yield "mul", nice
        if low <= 1 / nice <= high:
            yield "div", nice
            yield "floordiv", nice
    if high - low <= 0.02 * max(abs(low), abs(high)):
        for constant in shortest(low, high):
            if constant not in (0, 1):
                yield "mul", constant
        if low > 0:
            for constant in shortest(1 / high, 1 / low):
                if constant not in (0, 1):
                    yield "div", constant


def _line(goal: _Goal, expr: Expr, values: Sequence[Any], row: Array, tried: int) -> Expr | None:
    """Find the straight line through all points: a constant times, and another added."""
    first, last = int(np.argmin(row)), int(np.argmax(row))
    span = float(row[last] - row[first])
    if span == 0.0:
        return None
    slope = float(goal.array[last] - goal.array[first]) / span
    room = 2.0 * float(np.max(goal.room)) / span
    off = np.abs(row * slope + (goal.array[first] - slope * row[first]) - goal.array)
    if slope == 0.0 or not np.all(off <= 2.1 * goal.room + 1e-9 * np.abs(goal.array)):
        return None
    for steep in _slopes(slope, room):
        factor = float(steep)
        rest = goal.array - factor * row
        for offset in shortest(float(np.max(rest - goal.room)), float(np.min(rest + goal.room))):
            for made_expr, made in _line_forms(expr, values, steep, offset):
                found = goal.met(made_expr, made)
                if found is not None and enough(goal.target, tried * 64):
                    return found
        shift = goal.array / factor - row
        wide = goal.room / abs(factor)
        for before in shortest(float(np.max(shift - wide)), float(np.min(shift + wide))):
            for made_expr, made in _shifted_forms(expr, values, steep, before):
                found = goal.met(made_expr, made)
                if found is not None and enough(goal.target, tried * 64):
                    return found
    return None


def _slopes(slope: float, room: float) -> list[Any]:
    """Return the factors about a slope, the simplest first: 5/9 before 0.556, and 1.8 for what is 9/5 as well."""
    decimals = shortest(slope - room, slope + room)
    ratio = Fraction(slope).limit_denominator(20)
    if ratio in map(Fraction, map(str, decimals)):
        return [factor for factor in decimals if factor]
    return sorted((factor for factor in (ratio, *decimals) if factor), key=_digits)


def _digits(factor: Any) -> int:
    if isinstance(factor, Fraction):
        return _digits(factor.numerator) + _digits(factor.denominator)
    return len(str(abs(factor)).replace(".", "").strip("0"))


def _scaled(expr: Expr, values: Sequence[Any], factor: Any) -> tuple[Expr, list[Any]]:
    if isinstance(factor, Fraction) and factor.numerator == 1:
        return Op("div", (expr, Const(factor.denominator))), [value / factor.denominator for value in values]
    if isinstance(factor, Fraction):
        times = Op("mul", (expr, Const(factor.numerator)))
        return Op("div", (times, Const(factor.denominator))), [
            value * factor.numerator / factor.denominator for value in values
        ]
    return Op("mul", (expr, Const(factor))), [value * factor for value in values]


def _shift(expr: Expr, values: Sequence[Any], offset: Any) -> tuple[Expr, list[Any]]:
    if offset == 0:
        return expr, list(values)
    if offset < 0:
        return Op("sub", (expr, Const(-offset))), [value - -offset for value in values]
    return Op("add", (expr, Const(offset))), [value + offset for value in values]


def _line_forms(expr: Expr, values: Sequence[Any], factor: Any, offset: Any) -> list[tuple[Expr, list[Any]]]:
    return [_shift(*_scaled(expr, values, factor), offset)]


def _shifted_forms(expr: Expr, values: Sequence[Any], factor: Any, before: Any) -> list[tuple[Expr, list[Any]]]:
    return [_scaled(*_shift(expr, values, before), factor)]


def shortest(low: float, high: float) -> list[Any]:
    """Return the shortest decimals between two numbers: an int where there is one, then a float, at most two."""
    if low > high or not (isfinite(low) and isfinite(high)):
        return []
    middle = (low + high) / 2
    found: list[Any] = []
    if low <= round(middle) <= high and abs(middle) < 1e15:
        found.append(round(middle))
    for digits in range(1, 13):
        value = round(middle, digits)
        if low <= value <= high:
            if value != int(value) if abs(value) < 1e15 else True:
                found.append(value)
            break
    return found[:2]


_PAIRS = (("sub", np.subtract), ("add", np.add), ("mul", np.multiply), ("div", np.divide), ("floordiv", np.floor_divide),
          ("mod", np.mod), ("min2", np.minimum), ("max2", np.maximum))  # fmt: skip


def _with_another(bank: Bank, goal: _Goal, few: Sequence[Entry], rows: Array) -> Expr | None:
    count = len(few)
    tries = count * count * len(_PAIRS) // 2
    if not enough(goal.target, tries):
        count = min(count, 12)
        rows = rows[:count]
        tries = count * count * len(_PAIRS) // 2
        if not enough(goal.target, tries):
            return None
    best: tuple[int, Expr] | None = None
    for name, function in _PAIRS:
        with np.errstate(all="ignore"):
            near = goal.near(function(rows[:, None, :], rows[None, :, :]))
        for one, two in np.argwhere(near)[:200]:
            if one == two:
                continue
            left, right = few[int(one)], few[int(two)]
            if len(set(left.values)) == 1 and len(set(right.values)) == 1:
                continue
            made = _computed(name, left.values, right.values)
            found = goal.met(Op(name, (left.expr, right.expr)), made) if made is not None else None
            if found is not None and (best is None or left.size + right.size < best[0]):
                best = (left.size + right.size, found)
    bank.search.tick(tries)
    return best[1] if best is not None else None


def _with_two_others(bank: Bank, goal: _Goal, few: Sequence[Entry]) -> Expr | None:
    """Put two together, then a third or a constant: a share in percent, a relative change."""
    some = list(few[:28])
    made: list[tuple[Expr, list[Any]]] = []
    for name in ("sub", "div", "add", "mul"):
        for place, left in enumerate(some):
            for other, right in enumerate(some):
                if left is right or (name in ("add", "mul") and other < place):
                    continue
                values = _computed(name, left.values, right.values)
                if values is not None and _finite(values) and len(set(values)) > 1:
                    made.append((Op(name, (left.expr, right.expr)), values))
    bank.search.tick(len(made))
    if not made:
        return None
    rows: Array = np.array([values for _, values in made], dtype=np.float64)
    if not enough(goal.target, len(made) * 32):
        return None
    found = _scaled_pair(goal, made, rows)
    if found is not None:
        return found
    thirds = _rows(some)
    for name, function in (("div", np.divide), ("sub", np.subtract), ("mul", np.multiply), ("add", np.add)):
        for scale in (None, 100):
            for place, third in enumerate(some):
                with np.errstate(all="ignore"):
                    values = function(rows, thirds[place][None, :])
                    near = goal.near(values if scale is None else values * scale)
                for row in np.flatnonzero(near)[:20]:
                    expr, row_values = made[int(row)]
                    made_of = _computed(name, row_values, third.values)
                    for built, made_values in _percent(Op(name, (expr, third.expr)), made_of, scale):
                        met = goal.met(built, made_values)
                        if met is not None:
                            return met
    return None


def _percent(expr: Expr, values: list[Any] | None, scale: int | None) -> list[tuple[Expr, list[Any]]]:
    if values is None:
        return []
    if scale is None:
        return [(expr, values)]
    forms: list[tuple[Expr, list[Any]]] = [(Op("mul", (expr, Const(scale))), [value * scale for value in values])]
    if isinstance(expr, Op) and expr.op == "div":
        # 100 * (a - b) / b is another float than (a - b) / b * 100
        forms.append((Op("mul", (Const(scale), expr)), [scale * value for value in values]))
    return forms


def _scaled_pair(goal: _Goal, made: Sequence[tuple[Expr, list[Any]]], rows: Array) -> Expr | None:
    for nice in (100, 1000, 60, 3600, 1024, 2):
        for name, scaled in (("mul", rows * nice), ("div", rows / nice)):
            for row in np.flatnonzero(goal.near(scaled))[:20]:
                expr, values = made[int(row)]
                forms = [(Op(name, (expr, Const(nice))), _computed(name, values, [nice] * len(values)))]
                if name == "mul" and isinstance(expr, Op) and expr.op == "div":
                    forms.append((Op("mul", (Const(nice), expr)), [nice * value for value in values]))
                for built, numbers in forms:
                    found = goal.met(built, numbers) if numbers is not None else None
                    if found is not None:
                        return found
    return None
