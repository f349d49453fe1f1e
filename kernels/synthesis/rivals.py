"""Rivals: other expressions that the examples allow as well, because two columns, keys, readings or parameters always agreed.

Which of them was meant, nobody can tell from these examples; the names may. So the program looks, and refuses where they differ.
A rival reads other data. What is only another way to say the same is none: it agrees in every world that might have been.
"""

from collections.abc import Iterator, Sequence
from math import isclose
from typing import TYPE_CHECKING, Any

from .alternatives import Alternatives, Nothing, Scope, data_of, value_of
from .evidence import data_names
from .examples import Doubt
from .perturbing import worlds
from .phrases import closed
from .program import (
    Call,
    CallEach,
    Const,
    Each,
    Expr,
    ForEach,
    If,
    Listed,
    Op,
    Pick,
    Record,
    Ref,
    Require,
    Return,
    Shown,
    Stmt,
    Text,
    refs,
    walk,
)
from .tape import LOOKS
from .values import same

if TYPE_CHECKING:
    from .planning import Plan

_MOST = 8  # rivals of one hole that are told
_CHECKS = 24  # of one program
_TRIED = 4000  # expressions that are looked at for one program
_WORLDS = 60
_ENOUGH = 3  # worlds in which two expressions must have agreed to be one
_WORDS = {
    "len": "the count",
    "min": "the least",
    "max": "the greatest",
    "sum": "the sum",
    "times_in": "the count in the whole text",
    "unique": "the different ones",
}


class Rivals:
    """Looks for rivals in one part of a program; `checks` and `doubts` are what came of it."""

    def __init__(self, plan: "Plan", body: Sequence[Stmt]) -> None:
        self.plan = plan
        self.checks: list[Require] = []
        self.doubts: list[Doubt] = []
        self._look = Alternatives(plan, body)
        self._late = _made_late(plan, body)
        self._worlds: list[Scope] | None = None
        self._single: dict[str, Expr] = {}  # lists that always had one item
        self._seen: set[str] = set()
        self._tried = 0
        self._open: set[str] = set()

    def statement(self, part: Stmt) -> Stmt:
        """Return a statement with the best named of rivals in each hole: of those that were known when it was done."""
        self._open = self._unknown(part)
        if isinstance(part, Return):
            return Return(self.expr(part.value, ""))
        if isinstance(part, Call):
            return Call(part.tool, tuple((name, self.expr(value, name)) for name, value in part.args), part.into)
        if isinstance(part, CallEach):
            self._in_round(part.over, part.var, part.args)
        elif isinstance(part, ForEach) and not part.beside:
            for one in part.body:
                if isinstance(one, Call):
                    self._in_round(part.over, part.var, one.args)
        return part

    def _unknown(self, part: Stmt) -> set[str]:
        """Return the names that a statement of the plan gives, or one after it."""
        later = self.plan.body[self.plan.body.index(part) :] if part in self.plan.body else []
        return {one.into for one in later if isinstance(one, Call | CallEach) and one.into is not None}

    def _in_round(self, over: Expr, var: str, args: Sequence[tuple[str, Expr]]) -> None:
        for name, value in args:
            self.hole(Each(over, var, value), name)

    def expr(self, node: Expr, beside: str) -> Expr:
        """Return an expression with the best named of rivals; `beside` is the key under which it is answered."""
        if isinstance(node, Record):
            return Record(tuple((key, self.expr(value, key)) for key, value in node.fields))
        if isinstance(node, Listed):
            return Listed(tuple(self.expr(value, beside) for value in node.items))
        if isinstance(node, Text):
            return Text(tuple(self.expr(value, beside) for value in node.parts))
        if isinstance(node, Shown):
            return Shown(self.expr(node.value, beside), node.spec)
        return self.hole(node, beside) if refs(node) else node

    def hole(self, node: Expr, beside: str) -> Expr:
        """Return the best named of the expressions that explain a hole as well as this one; note checks for the others."""
        values = [value_of(node, scope) for scope in self._look.scopes]
        if Nothing in map(type, values):
            return node
        self._one_item(node)
        alike: list[tuple[Expr, bool]] = []
        for number, offered in self._look.others(node, beside):
            other = offered
            if self._tried >= _TRIED:
                break
            self._tried += 1
            self.plan.search.tick()
            known = other == node or any(other == one for one, _ in alike) or refs(other) & self._open
            if not known and self._agrees(other, values):
                if number == 0 and self._look.weight(other, beside) > self._look.weight(node, beside):
                    node, other = other, node
                alike.append((other, number == 2))
        told: list[Expr] = []
        for other, found in alike:
            if len(told) < _MOST and all(self._distinct(one, other, found) for one in (node, *told)):
                self._told(node, other)
                told.append(other)
        return node

    def _agrees(self, other: Expr, values: Sequence[Any]) -> bool:
        return all(same(value_of(other, scope), value) for scope, value in zip(self._look.scopes, values, strict=True))

    def _distinct(self, one: Expr, other: Expr, found: bool) -> bool:
        """Say whether two expressions differ in some world (in some more, where the other one is of another form: now and
        then it is only another one of two equal items), or there are too few worlds to look at.
        """
        if self._worlds is None:
            self._worlds = [self._fitted(scope) for scope in worlds(self.plan.sources, _WORLDS)]
        met = differ = 0
        for scope in self._worlds:
            if any(not isinstance(value, list) or len(value) != 1 for value in self._singles(scope)):
                continue
            left, right = value_of(one, scope), value_of(other, scope)
            if isinstance(left, Nothing) or isinstance(right, Nothing):
                continue
            met += 1
            differ += not _near(left, right)
        return met < _ENOUGH or differ > (met // 24 if found else 0)

    def _fitted(self, scope: Scope) -> Scope:
        """Return a world with one item where there always was one, and a result for each item that a tool is used for."""
        for name in [one.name for one in self._single.values() if isinstance(one, Ref)]:
            scope[name] = scope[name][:1]
        for part in self.plan.body:
            held = scope.get(part.into) if isinstance(part, CallEach) else None
            over = value_of(part.over, scope) if isinstance(part, CallEach) else None
            if isinstance(part, CallEach) and isinstance(held, list) and isinstance(over, list) and held:
                scope[part.into] = [held[place % len(held)] for place in range(len(over))]
        return scope

    def _singles(self, scope: Scope) -> Iterator[Any]:
        yield from (value_of(part, scope) for part in self._single.values())

    def _one_item(self, node: Expr) -> None:
        """Ask for one item where there always was one: which item is meant, and what of all, nobody saw."""
        for part in list(walk(node))[::-1]:  # the innermost first: what is made of a list has as many items for that
            if isinstance(part, Const | Ref | Listed) and not (isinstance(part, Ref) and part.name in self._look.names):
                continue
            if not closed(part, self._look.names) or any(repr(over) in self._single for over in walk(part)):
                continue
            lists = [value_of(part, scope) for scope in self._look.scopes]
            if all(isinstance(value, list) and len(value) == 1 for value in lists):
                self._single[repr(part)] = part
                self._worlds = None
                test = Op("eq", (Op("len", (part,)), Const(1)))
                self._note(test, "a list of one item", "a list had one item", "it refuses others")

    def _told(self, one: Expr, other: Expr) -> None:
        left, right = self._said(one, other), self._said(other, one)
        if left == right:
            left, right = f"one of {left}", "another"
        self._note(
            Op("eq", (one, other)), left, f"{left} and {right} always gave the same", "it refuses where they differ"
        )

    def _note(self, test: Op, subject: str, what: str, then: str) -> None:
        key = repr(test)
        if key in self._seen or len(self._seen) >= _CHECKS:
            return
        self._seen.add(key)
        count = len(self.plan.examples)
        if refs(test) & self._late:  # what is known only after a change of the world comes too late to refuse
            self.doubts.append(
                Doubt(kind="rival", subject=subject, text=f"{what} in all {count} examples; it is not checked")
            )
            return
        self.checks.append(Require(test, f"{what} in the examples"))
        self.doubts.append(Doubt(kind="rival", subject=subject, text=f"{what} in all {count} examples; {then}"))

    def _said(self, one: Expr, other: Expr) -> str:
        """Name what an expression takes and the other does not."""
        own = data_of(one) - data_of(other)
        tools = {part.into: part.tool for part in self.plan.body if isinstance(part, Call | CallEach)}
        names = ", ".join(sorted(name for name in own if name not in tools and not name.startswith("item")))
        parts = [part for part in walk(one) if part not in list(walk(other))]
        if any(isinstance(part, Op) and part.op == "unique" for part in parts):
            return f"the count of different {names or 'ones'}"
        for part in parts:
            if isinstance(part, Pick):
                by = ", ".join(name for name in data_names(part.key) if name != part.var)
                return f"the {'least' if part.which == 'min' else 'greatest'}{' by ' * bool(by)}{by}"
            if isinstance(part, Op) and part.op in _WORDS and not names:
                return _WORDS[part.op]
        if names:
            return names
        read = sorted(tools[name] for name in own if name in tools)
        return f"what {read[0]} gave" if read else "what is taken"


def _made_late(plan: "Plan", body: Sequence[Stmt]) -> set[str]:
    """Return the names that are known only when the world has been changed."""
    late: set[str] = set()
    changed = False
    for part in body:
        if isinstance(part, ForEach | If):
            changed = True
        elif isinstance(part, Call | CallEach):
            changed = changed or plan.tools.get(part.tool, "external") not in LOOKS
            if changed and part.into is not None:
                late.add(part.into)
    return late


def _near(one: Any, other: Any) -> bool:
    if type(one) is float and type(other) is float:
        return isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_near, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one)
    return same(one, other)
