"""What held in every example though nothing asked for it: conditions under which the program was learned.

A reading that was made in every example and is not needed, a parameter that always was what a reading says, two readings of which
one was always the larger: where that no longer holds, the examples tell nothing, so the program looks, and refuses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .bank import Entry
from .planning import Plan
from .program import Call, Choice, Const, Expr, If, Op, Ref, Require, Stmt, refs, walk
from .rewriting import renamed
from .tape import LOOKS
from .values import exact, same

_FEWEST = 6  # examples in which an order must have held to be told from chance
_SHORT = 120  # characters of a constant result that is compared
_NUMBERS = ("int", "float", "number")


def conditions(plan: Plan, body: Sequence[Stmt], answer: Sequence[Stmt]) -> list[Stmt]:
    """Return the checks to put before what changes the world; those name readings that must then be kept."""
    used = {name for part in (*body, *answer) for name in refs(part)}
    checks: list[Stmt] = []
    checks += _constant_readings(plan, body, used)
    checks += _aliases(plan)
    checks += _orders(plan, body)
    return checks


def _readings(plan: Plan, body: Sequence[Stmt]) -> dict[str, Call]:
    return {
        part.into: part
        for part in body
        if isinstance(part, Call) and part.into is not None and plan.tools.get(part.tool, "external") in LOOKS
    }


def _constant_readings(plan: Plan, body: Sequence[Stmt], used: set[str]) -> list[Stmt]:
    """Ask that a reading that nothing needs still says what it said in every example."""
    values = dict(plan.sources)
    found: list[Stmt] = []
    for name, call in _readings(plan, body).items():
        held = values[name]
        if name in used or not all(same(value, held[0]) for value in held) or len(repr(held[0])) > _SHORT:
            continue
        if isinstance(held[0], str | int | float | bool) or held[0] is None:
            test = Op("eq", (Ref(name), Const(held[0]))) if held[0] is not None else Op("is_none", (Ref(name),))
            found.append(Require(test, f"{call.tool} gave {held[0]!r:.60} in all examples"))
    return found


def _aliases(plan: Plan) -> list[Stmt]:
    """Ask that a parameter is what a reading says, where it was in every example."""
    made = {name for name, _ in plan.sources if name.startswith("result")}
    found: list[Stmt] = []
    for name, expressions in plan.bank.aliases.items():
        if name in made:
            continue
        values = next(values for source, values in plan.sources if source == name)
        if len({exact(value) for value in values}) < 2:
            continue
        fitting = [(size, expr) for size, expr in expressions if size <= 5 and refs(expr) and refs(expr) <= made]
        if fitting:
            expr = min(fitting, key=lambda pair: pair[0])[1]
            found.append(
                Require(Op("eq", (Ref(name), expr)), f"{name} was always the same as what is read in the examples")
            )
    return found[:4]


def _orders(plan: Plan, body: Sequence[Stmt]) -> list[Stmt]:
    """Ask that of two readings by the same tool the same one is larger, where it was in every example."""
    if plan.bank.count < _FEWEST:
        return []
    names = list(_readings(plan, body))
    calls = _readings(plan, body)
    found: list[Stmt] = []
    for place, one in enumerate(names):
        for two in names[:place]:
            if calls[one].tool != calls[two].tool:
                continue
            for left, right in _alike(plan, two, one)[:12]:
                for op in ("lt", "gt"):
                    if _always(op, left.values, right.values):
                        word = "less" if op == "lt" else "more"
                        found.append(
                            Require(
                                Op(op, (left.expr, right.expr)),
                                f"the first was always {word} than the second in the examples",
                            )
                        )
    return found[:3]


def _alike(plan: Plan, one: str, two: str) -> list[tuple[Entry, Entry]]:
    """Return numbers that are read in the same way from two results."""
    by_shape: dict[str, dict[str, Entry]] = {}
    for entry in plan.bank.of_kind(*_NUMBERS):
        names = refs(entry.expr)
        if entry.size <= 5 and len(names) == 1 and names <= {one, two} and len(set(entry.values)) > 1:
            (name,) = names
            if not any(isinstance(part, Op) and part.op == "len" for part in walk(entry.expr)):
                by_shape.setdefault(repr(renamed(entry.expr, {name: "result"})), {})[name] = entry
    return [(pair[one], pair[two]) for pair in by_shape.values() if len(pair) == 2]


def _always(op: str, left: Sequence[Any], right: Sequence[Any]) -> bool:
    return all((a < b) if op == "lt" else (a > b) for a, b in zip(left, right, strict=True))


def categories(body: Sequence[Stmt], params: Mapping[str, Sequence[Any]]) -> list[Stmt]:
    """Ask that a parameter that is compared with constants, or of few values chooses, has one that was seen."""
    found: dict[str, Stmt] = {}
    tests = [part.test for part in walk(tuple(body)) if isinstance(part, Choice | If)]
    for name in sorted({name for test in tests for name in refs(test)} & set(params)):
        values = {exact(value): value for value in params[name]}
        texts = all(isinstance(value, str) for value in values.values())
        if texts and 2 * len(values) <= len(params[name]) and len(values) <= 12:
            found[name] = Require(_one_of(Ref(name), list(values.values())), f"{name} is none of those in the examples")
    for part in walk(tuple(body)):
        if not (isinstance(part, Op) and part.op in ("eq", "ne", "contains", "lacks", "starts", "ends")):
            continue
        sides = part.args if part.op in ("eq", "ne") else part.args[::-1]
        subject, other = sides[0], sides[1]
        if isinstance(subject, Ref) and subject.name in params and not refs(other):
            values = {exact(value): value for value in params[subject.name]}
            if len(values) <= 12 and all(isinstance(value, str | int) for value in values.values()):
                message = f"{subject.name} is none of those in the examples"
                found[subject.name] = Require(_one_of(subject, list(values.values())), message)
    return list(found.values())


def _one_of(subject: Expr, values: Sequence[Any]) -> Expr:
    from .choosing import one_of

    return one_of(subject, sorted(values, key=repr))
