"""Values and what can be done with them: the one meaning of every operator and scalar function.

A value is null, a boolean, a number, a string, a list or a map. Null is *unknown*: a missing reading, NaN, a division by
zero. Nothing here raises; what has no answer is unknown, and logic is three-valued (Kleene). All arithmetic is float64.
SQL and the streaming engine are held to these functions by tests.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Value: TypeAlias = Any
"""None, bool, int, float, str, a list or tuple of values, or a mapping from names to values."""


def known(value: Value) -> Value:
    """Return the value, with NaN as unknown."""
    return None if isinstance(value, float) and math.isnan(value) else value


def is_number(value: Value) -> bool:
    """Tell whether the value is a number; booleans are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_list(value: Value) -> bool:
    """Tell whether the value is a list."""
    return isinstance(value, (list, tuple))


def as_float(value: Value) -> float | None:
    """Return a number as float64 (an int beyond its range is an infinity); None where it is unknown or no number."""
    if not is_number(value):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return None if math.isnan(number) else number


# Logic ----------------------------------------------------------------------------------------------------------


def logical_not(value: Value) -> bool | None:
    """Return the opposite of a boolean; unknown stays unknown."""
    return (not value) if isinstance(value, bool) else None


def logical_and(left: Value, right: Value) -> bool | None:
    """Return false if either is false, true if both are true, else unknown."""
    if left is False or right is False:
        return False
    return True if left is True and right is True else None


def logical_or(left: Value, right: Value) -> bool | None:
    """Return true if either is true, false if both are false, else unknown."""
    if left is True or right is True:
        return True
    return False if left is False and right is False else None


# Comparison -----------------------------------------------------------------------------------------------------


def equal(left: Value, right: Value) -> bool | None:
    """Tell whether two values of one kind are equal; unknown where either is, or where the kinds differ.

    Two ints compare exactly, an int and a float as float64. Lists are equal when they are so item by item.
    """
    left, right = known(left), known(right)
    if left is None or right is None:
        return None
    if is_number(left) and is_number(right):
        return _numbers(left, right, lambda one, other: one == other)
    if is_list(left) and is_list(right):
        if len(left) != len(right):
            return False
        result: bool | None = True
        for one, other in zip(left, right, strict=True):
            result = logical_and(result, equal(one, other))
        return result
    if isinstance(left, bool) and isinstance(right, bool):
        return left == right
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        if left.keys() != right.keys():
            return False
        result = True
        for key in left:
            result = logical_and(result, equal(left[key], right[key]))
        return result
    return None


def less(left: Value, right: Value) -> bool | None:
    """Tell whether one number or string is below another; strings compare by code point."""
    left, right = known(left), known(right)
    if is_number(left) and is_number(right):
        return _numbers(left, right, lambda one, other: one < other)
    if isinstance(left, str) and isinstance(right, str):
        return left < right
    return None


def at_most(left: Value, right: Value) -> bool | None:
    """Tell whether one number or string is not above another."""
    above = less(right, left)
    return None if above is None else not above


def contains(items: Value, value: Value) -> bool | None:
    """Tell whether a list holds a value: unknown where the value is, or where an unknown item may be it."""
    value = known(value)
    if value is None or not is_list(items):
        return None
    result: bool | None = False
    for item in items:
        result = logical_or(result, equal(value, item))
    return result


def _numbers(left: int | float, right: int | float, compare: Callable[[Any, Any], bool]) -> bool:
    if isinstance(left, int) and isinstance(right, int):
        return compare(left, right)
    return compare(as_float(left), as_float(right))


COMPARISONS: dict[str, Callable[[Value, Value], bool | None]] = {
    "==": equal,
    "!=": lambda left, right: logical_not(equal(left, right)),
    "<": less,
    "<=": at_most,
    ">": lambda left, right: less(right, left),
    ">=": lambda left, right: at_most(right, left),
    "in": lambda value, items: contains(items, value),
    "not in": lambda value, items: logical_not(contains(items, value)),
}


# Arithmetic -----------------------------------------------------------------------------------------------------


def arithmetic(op: str, left: Value, right: Value) -> float | str | None:
    """Return `left op right` for + - * / %: float64, `%` with the sign of the dividend; `+` joins two strings."""
    if op == "+" and isinstance(left, str) and isinstance(right, str):
        return left + right
    one, other = as_float(left), as_float(right)
    if one is None or other is None:
        return None
    result: float
    if op == "+":
        result = one + other
    elif op == "-":
        result = one - other
    elif op == "*":
        result = one * other
    elif op == "/":
        if other == 0:
            return None
        result = one / other
    else:
        if other == 0 or math.isinf(one):
            return None
        result = math.fmod(one, other)
    return None if math.isnan(result) else result


def negative(value: Value) -> int | float | None:
    """Return a number with its sign turned; an int stays one, and the opposite of -2^63, which has no 64 bits, is unknown."""
    if isinstance(value, int) and not isinstance(value, bool):
        return None if value == -(2**63) else -value
    number = as_float(value)
    return None if number is None else -number


# Scalar functions -----------------------------------------------------------------------------------------------


def _round(number: float) -> float:
    if math.isinf(number):
        return number
    whole = math.floor(abs(number))
    return math.copysign(whole + 1 if abs(number) - whole >= 0.5 else whole, number)


def _exp(number: float) -> float:
    try:
        return math.exp(number)
    except OverflowError:
        return math.inf


_NUMERIC: dict[str, Callable[[float], float | None]] = {
    "abs": abs,
    "log2": lambda number: math.log2(number) if number > 0 else None,
    "log": lambda number: math.log(number) if number > 0 else None,
    "exp": _exp,
    "sqrt": lambda number: math.sqrt(number) if number >= 0 else None,
    "floor": lambda number: number if math.isinf(number) else float(math.floor(number)),
    "ceil": lambda number: number if math.isinf(number) else float(math.ceil(number)),
    "round": _round,
}

SCALAR_FUNCTIONS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(_NUMERIC, (1, 1)),
    "min": (2, None),
    "max": (2, None),
    "len": (1, 1),
    "is_known": (1, 1),
    "clamp": (3, 3),
    "number": (1, 1),
}
"""Every scalar function, with the least and the most arguments (None: any number)."""

LOOP_ONLY = frozenset({"number"})
"""Functions for what programs print; a fact reads typed fields and has no use for them."""


def scalar(name: str, arguments: Sequence[Value]) -> Value:
    """Return what a scalar function gives; unknown for arguments that it has no answer for."""
    if name == "is_known":
        return known(arguments[0]) is not None
    if name == "len":
        subject = arguments[0]
        return len(subject) if isinstance(subject, (str, list, tuple)) else None
    if name == "number":
        return _parsed(arguments[0])
    numbers = [as_float(one) for one in arguments]
    if any(one is None for one in numbers):
        return None
    found = [one for one in numbers if one is not None]
    if name == "min":
        return min(found)
    if name == "max":
        return max(found)
    if name == "clamp":
        return min(max(found[0], found[1]), found[2])
    return known(_NUMERIC[name](found[0]))


def _parsed(subject: Value) -> float | None:
    if not isinstance(subject, str):
        return as_float(subject)
    try:
        return as_float(float(subject.strip().replace("_", "x")))  # Python alone reads 1_000 as a number
    except ValueError:
        return None
