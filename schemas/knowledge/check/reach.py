"""Which conditions can hold at all, and which follow from others: bounds on each term, nothing cleverer.

A condition becomes a list of ways to hold (clauses), each a list of atoms that must all be true. An atom bounds a term
(a field, an aggregate, any expression that is not constant) or relates two. What is not understood is taken as possible,
so `possible` never refuses a condition that can hold.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ..errors import EvaluateError
from ..evaluate import Scope, evaluate
from ..index import Entry, Index
from ..logic import COMPARISONS, Value, is_number
from ..tree import Binary, Call, Expr, Field, ListExpr, Literal, Name, Unary
from ..types import Type
from ..wording import source
from .inline import Inliner, TooLarge

_MOST_CLAUSES = 256
_NEGATED = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<", "in": "not in", "not in": "in"}
_FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SIGNS = {"==": {"="}, "!=": {"<", ">"}, "<": {"<"}, "<=": {"<", "="}, ">": {">"}, ">=": {">", "="}}
_NEVER_NEGATIVE = frozenset({"count", "len", "std", "abs", "sqrt"})
_WHOLE = frozenset({"count", "len"})

Clause: TypeAlias = tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """Answers questions on conditions of one module, whose units have been made to agree."""

    index: Index

    def clauses(self, conditions: Iterable[Expr], system: str, item: tuple[str, Entry] | None = None) -> list[Clause]:
        """Return every way in which all conditions hold; one empty clause where there are too many ways to look at."""
        found: list[Clause] = [()]
        inliner = Inliner(self.index)
        for condition in conditions:
            try:
                ways = self._ways(inliner.inlined(condition, system, item), True)
            except (RecursionError, TooLarge):  # facts in facts in facts; nothing is said of what is that deep or large
                return [()]
            found = [one + other for one in found for other in ways]
            if len(found) > _MOST_CLAUSES:
                return [()]
        return found

    def impossible(self, clauses: Iterable[Clause]) -> str | None:
        """Say why none of these clauses can hold; None where one may."""
        reason: str | None = None
        for clause in clauses:
            why = self._contradiction(clause)
            if why is None:
                return None
            reason = reason or why
        return reason

    def implies(self, one: list[Clause], other: list[Clause]) -> bool:
        """Tell whether, whenever the one holds, the other surely does."""
        if not one or any(not clause for clause in (*one, *other)):
            return False
        return all(any(self._entails(clause, wanted) for wanted in other) for clause in one)

    def _entails(self, clause: Clause, wanted: Clause) -> bool:
        known = {term for atom in clause for term in terms_of(atom)}
        for atom in wanted:
            if atom in clause:
                continue
            if not all(term in known for term in terms_of(atom)):
                return False
            if any(self._contradiction((*clause, *way)) is None for way in self._ways(atom, False)):
                return False
        return True

    # Ways to hold -----------------------------------------------------------------------------------------------

    def _ways(self, expr: Expr, wanted: bool) -> list[Clause]:
        if isinstance(expr, Unary) and expr.op == "not":
            return self._ways(expr.operand, not wanted)
        if isinstance(expr, Binary) and expr.op in ("and", "or"):
            left, right = self._ways(expr.left, wanted), self._ways(expr.right, wanted)
            if (expr.op == "or") == wanted:
                return left + right if len(left) + len(right) <= _MOST_CLAUSES else [()]
            if len(left) * len(right) > _MOST_CLAUSES:
                return [()]
            return [one + other for one in left for other in right]
        if isinstance(expr, Binary) and expr.op in COMPARISONS:
            return [(expr if wanted else replace(expr, op=_NEGATED[expr.op]),)]
        return [(expr if wanted else Unary("not", expr, span=expr.span),)]

    # One clause -------------------------------------------------------------------------------------------------

    def _contradiction(self, clause: Clause) -> str | None:
        """Say which atoms of a clause exclude each other; None where they may hold together."""
        bounds: dict[Expr, _Bounds] = {}
        signs: dict[tuple[Expr, Expr], tuple[set[str], Expr]] = {}
        truths: dict[Expr, tuple[bool, Expr]] = {}
        for atom in clause:
            why = self._take(atom, bounds, signs, truths)
            if why is not None:
                return why
        return None

    def _take(
        self,
        atom: Expr,
        bounds: "dict[Expr, _Bounds]",
        signs: dict[tuple[Expr, Expr], tuple[set[str], Expr]],
        truths: dict[Expr, tuple[bool, Expr]],
    ) -> str | None:
        if isinstance(atom, Binary) and atom.op in COMPARISONS:
            left, right = folded(atom.left), folded(atom.right)
            if left is not None and right is not None:
                value = COMPARISONS[atom.op](left[0], right[0])
                return None if value is True else f"`{shown(atom)}` is {_word(value)}"
            if right is not None:
                return self._bound(atom.left, atom.op, right[0], atom, bounds)
            if left is not None and atom.op in _FLIPPED:
                return self._bound(atom.right, _FLIPPED[atom.op], left[0], atom, bounds)
            return None if atom.op not in _SIGNS else _relate(atom, signs)
        wanted, term = (False, atom.operand) if isinstance(atom, Unary) and atom.op == "not" else (True, atom)
        constant = folded(term)
        if constant is not None:
            return None if constant[0] is wanted else f"`{shown(atom)}` is {_word(constant[0] if wanted else None)}"
        there = truths.setdefault(term, (wanted, atom))
        return None if there[0] == wanted else f"`{shown(there[1])}` and `{shown(atom)}` exclude each other"

    def _bound(self, term: Expr, op: str, value: Value, atom: Expr, bounds: "dict[Expr, _Bounds]") -> str | None:
        if value is None:
            return f"`{shown(atom)}` compares with what is always unknown"
        there = bounds.get(term)
        if there is None:
            there = bounds[term] = self._natural(term)
        before = list(there.atoms)
        there.take(op, value, atom)
        if there.possible():
            return None
        if not before:
            return f"`{shown(atom)}` is never true of {there.nature}"
        for other in before:  # name the one that excludes this one alone, where there is one
            pair = self._natural(term)
            for one in (other, atom):
                assert isinstance(one, Binary)
                right, left = folded(one.right), folded(one.left)
                if right is not None:
                    pair.take(one.op, right[0], one)
                elif left is not None:
                    pair.take(_FLIPPED[one.op], left[0], one)
            if not pair.possible():
                return f"`{shown(other)}` and `{shown(atom)}` exclude each other"
        return f"{', '.join(f'`{shown(one)}`' for one in there.atoms)} exclude each other"

    def _natural(self, term: Expr) -> "_Bounds":
        """Return what is known of a term without any condition."""
        made = _Bounds()
        if isinstance(term, Call):
            if term.name in _NEVER_NEGATIVE:
                made.low, made.nature = 0.0, f"`{term.name}`, which is never negative"
            made.whole = term.name in _WHOLE
        type_ = self._type_of(term)
        if type_ is not None:
            made.whole = made.whole or type_.kind == "int"
            if type_.values:
                made.allowed = list(type_.values)
                made.nature = f"`{shown(term)}`, which is {type_}"
        return made

    def _type_of(self, term: Expr) -> Type | None:
        if isinstance(term, Field) and isinstance(term.base, Name) and term.base.name.startswith("@"):
            found = self.index.type_named(term.base.name[1:])
            return (found.fields or {}).get(term.name) if found is not None else None
        return None


@dataclass(slots=True)
class _Bounds:
    """What is known of one term: where it lies, what it may be, what it is not."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    allowed: list[Value] | None = None
    excluded: list[Value] = field(default_factory=list)
    whole: bool = False
    nature: str = "this"
    atoms: list[Expr] = field(default_factory=list)

    def take(self, op: str, value: Value, atom: Expr) -> None:
        """Narrow by one comparison with a constant."""
        self.atoms.append(atom)
        if op in ("in", "not in"):
            values = list(value) if isinstance(value, (list, tuple)) else []
            if op == "in":
                self._only(values)
            else:
                self.excluded += values
        elif op == "==":
            self._only([value])
        elif op == "!=":
            self.excluded.append(value)
        elif is_number(value):
            if op in ("<", "<=") and (value, op == "<=") <= (self.high, not self.high_open):
                self.high, self.high_open = float(value), op == "<"
            if op in (">", ">=") and (value, op == ">") >= (self.low, self.low_open):
                self.low, self.low_open = float(value), op == ">"

    def _only(self, values: list[Value]) -> None:
        have = self.allowed
        self.allowed = (
            values if have is None else [one for one in have if any(COMPARISONS["=="](one, other) for other in values)]
        )

    def possible(self) -> bool:
        """Tell whether any value is left."""
        if self.allowed is not None:
            return any(self._within(one) for one in self.allowed)
        if self.low > self.high or (self.low == self.high and (self.low_open or self.high_open)):
            return False
        if self.low == self.high:
            return self._within(self.low)
        if self.whole and math.isfinite(self.low) and math.isfinite(self.high) and self.high - self.low < 64:
            return any(self._within(one) for one in range(math.ceil(self.low), math.floor(self.high) + 1))
        return True

    def _within(self, value: Value) -> bool:
        if any(COMPARISONS["=="](value, one) for one in self.excluded):
            return False
        if not is_number(value):
            return True
        above = value > self.low or (value == self.low and not self.low_open)
        return above and (value < self.high or (value == self.high and not self.high_open))


def folded(expr: Expr) -> tuple[Value] | None:
    """Return the value of a constant expression, in a tuple since it may be unknown; None where it is not constant."""
    if not _closed(expr):
        return None
    try:
        return (evaluate(expr, Scope()),)
    except EvaluateError:
        return None


def _closed(expr: Expr) -> bool:
    match expr:
        case Literal():
            return True
        case Unary(operand=operand):
            return _closed(operand)
        case Binary(left=left, right=right):
            return _closed(left) and _closed(right)
        case ListExpr(items=items):
            return all(_closed(one) for one in items)
        case Call(args=args, window=None, name=name):
            return (
                name not in ("count", "trace.latest", "trace.all") and bool(args) and all(_closed(one) for one in args)
            )
        case _:
            return False


def _relate(atom: Binary, signs: dict[tuple[Expr, Expr], tuple[set[str], Expr]]) -> str | None:
    left, right, op = atom.left, atom.right, atom.op
    if left == right:
        return None if "=" in _SIGNS[op] else f"`{shown(atom)}` compares a value with itself"
    if repr(left) > repr(right):
        left, right, op = right, left, _FLIPPED[op]
    there = signs.get((left, right))
    both = set(_SIGNS[op]) if there is None else there[0] & _SIGNS[op]
    if not both and there is not None:
        return f"`{shown(there[1])}` and `{shown(atom)}` exclude each other"
    signs[(left, right)] = (both, atom)
    return None


def terms_of(atom: Expr) -> list[Expr]:
    """Return the terms that an atom needs to know."""
    if isinstance(atom, Binary) and atom.op in COMPARISONS:
        return [side for side in (atom.left, atom.right) if folded(side) is None]
    return [atom.operand if isinstance(atom, Unary) and atom.op == "not" else atom]


def _word(value: Value) -> str:
    return "always unknown" if value is None else "always false"


def shown(expr: Expr) -> str:
    """Return an expression as source, an item's name cut down to its case."""
    text = source(expr)
    return text.replace("@", "") if "@" in text else text
