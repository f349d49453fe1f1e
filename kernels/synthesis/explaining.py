"""Says how a value comes about: finds the smallest expression that gives it in every example, or that there is none.

A value that is not within reach as it stands is taken apart by its kind (records by key, lists by item, texts by piece, numbers
by an operation undone), and each part is explained in turn: deduction guides the enumeration, as in FlashFill (Gulwani, POPL
2011) and lambda-squared (Feser, Chaudhuri and Dillig, PLDI 2015). Conditions come last, as they explain anything.
"""

from collections.abc import Sequence
from typing import Any

from .bank import Bank
from .chance import supported
from .program import Const, Expr, Listed, Op, Record
from .values import exact, kind_of, same

LIMITS = (3, 5, 7)  # sizes up to which values are grown, one after the other


class Explainer:
    """Explains values over one bank. `level` says how deep inside lists it stands: less is tried there."""

    def __init__(self, bank: Bank, *, level: int = 0) -> None:
        self.bank = bank
        self.level = level
        self.limits = LIMITS if level == 0 else (LIMITS[:2] if level == 1 else (4,))
        self.reached = 0

    def explain(self, target: Sequence[Any], *, conditions: bool = True) -> Expr | None:
        """Return an expression with these values, or None. Small ones are tried before the bank is grown."""
        target = list(target)
        for limit in self.limits:
            if limit > self.reached:
                self.bank.grow(limit)
                self.reached = limit
            found = self.once(target)
            if found is not None:
                return found
        if conditions and self.level <= 1:
            from .choosing import chosen

            return chosen(self, target)
        return None

    def once(self, target: Sequence[Any]) -> Expr | None:
        """Return an expression with these values from what is within reach now."""
        entry = self.bank.find(target)
        if all(same(value, target[0]) for value in target[1:]) and not _made(target[0]):
            told = entry is not None and entry.size <= 3 and _telling(target[0])
            return entry.expr if entry is not None and told else constant(target[0])
        if entry is not None and supported(target, entry.size, self.bank):
            return steady(entry.expr, target)
        kind = kind_of(target)
        if kind == "dict":
            from .records import record

            return record(self, target)
        if kind == "list":
            from .listing import listed

            return listed(self, target)
        if kind == "str":
            from .texts import text

            return text(self, target)
        if kind in ("int", "float", "number"):
            from .numbers import number

            return number(self, target)
        if kind == "bool":
            from .predicates import predicate

            return predicate(self.bank, target)
        if kind == "bytes":
            try:
                inner = self.once([value.decode() for value in target])
            except UnicodeDecodeError:
                return None
            return Op("bytes_of", (inner,)) if inner is not None else None
        return None


_INEXACT = frozenset({"add", "sub", "mul", "div", "sum", "mean", "fmean", "smean", "median"})


def steady(expr: Expr, target: Sequence[Any]) -> Expr:
    """Return an expression rounded where its values were never longer than rounded ones: sums of decimals would be."""
    if not (isinstance(expr, Op) and expr.op in _INEXACT and all(isinstance(value, float) for value in target)):
        return expr
    decimals = max(len(repr(value).partition(".")[2]) if "e" not in repr(value) else 99 for value in target)
    if not 2 <= decimals <= 4 or len({exact(value) for value in target}) < 3:
        return expr
    return Op("round_to", (expr, Const(decimals)))


def _telling(value: Any) -> bool:
    """Say whether a constant is such that it is rather read than written: a word, or a number that is not a usual one."""
    if isinstance(value, str):
        return sum(char.isalnum() for char in value) >= 2
    return type(value) in (int, float) and value not in (0, 1, 2, 3, 10, 100)


def _made(value: Any) -> bool:
    """Say whether a constant is better taken apart: a mapping or a list that holds more than a few plain values."""
    return isinstance(value, dict | list) and len(value) > 0


def constant(value: Any) -> Expr:
    """Return a constant; mappings and lists are written out, so that each part can be looked at."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return Record(tuple((key, constant(item)) for key, item in value.items()))
    if isinstance(value, list):
        return Listed(tuple(constant(item) for item in value))
    return Const(value)
