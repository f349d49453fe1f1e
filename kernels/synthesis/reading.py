"""Which recorded readings the program can make itself: their arguments follow from parameters and from what was read before.

A reading that stands in every example is a *slot*: one call. Readings that follow the items of a list are a *round*: one call for each.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .bank import Entry
from .examples import Example, ToolStep
from .nested import Nested
from .program import Call, CallEach, Each, Expr, Ref
from .tape import LOOKS
from .values import loose

if TYPE_CHECKING:
    from .planning import Plan


class Reading(msgspec.Struct):
    """One recorded reading: what was asked, what came, and whether something changed before that it may depend on."""

    args: dict[str, Any]
    key: bytes
    result: Any
    late: bool


def readings_of(example: Example, tools: Mapping[str, str]) -> dict[str, list[Reading]]:
    """Return the different readings of an example by tool, in order; of one that was repeated the first."""
    found: dict[str, list[Reading]] = {}
    seen: set[tuple[str, bytes | None]] = set()
    changed: list[str] = []
    for step in example.steps:
        if not step.ok:
            continue
        if tools.get(step.name, "external") not in LOOKS:
            changed += _texts(step.args)
            continue
        key = loose(step.args)
        if key is None or (step.name, key) in seen:
            continue
        seen.add((step.name, key))
        late = _depends(step, changed)
        found.setdefault(step.name, []).append(Reading(step.args, key, step.result, late))
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if len(value) < 500 else []
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return []


def _depends(step: ToolStep, changed: Sequence[str]) -> bool:
    """Say whether a reading may show what was changed: it names the same thing, or something that it lies in."""
    if not changed:
        return False
    mine = _texts(step.args)
    return not mine or any(one.startswith(text) or text.startswith(one) for text in mine for one in changed)


def read_more(plan: "Plan", *, late: bool) -> bool:
    """Add to the plan every reading that can be explained now; say whether there was one."""
    names = sorted(
        {name for one in plan.readings for name in one},
        key=lambda name: (max(map(len, _open(plan, name, late))), name),
    )
    for name in names:  # rounds first: the first item of a list is no reading of its own
        if _round(plan, name, late):
            return True
    return any(_slots(plan, name, late) for name in names)


def _open(plan: "Plan", name: str, late: bool) -> list[list[Reading]]:
    """Return the readings of a tool that are not yet part of the plan, for each example."""
    return [
        [one for one in readings.get(name, []) if one.key not in taken.get(name, set()) and (late or not one.late)]
        for readings, taken in zip(plan.readings, plan.taken, strict=True)
    ]


def _slots(plan: "Plan", name: str, late: bool) -> bool:
    added = False
    for _ in range(8):
        left = _open(plan, name, late)
        if not all(left):
            break
        if not any(_take_slot(plan, name, group) for group in _groups(plan, left)):
            break
        added = True
    return added


def _groups(plan: "Plan", left: Sequence[list[Reading]]) -> list[list[Reading]]:
    """Return rows of readings, one of each example, that look alike: the same, the same but for known values, the same place."""
    rows: list[list[Reading]] = []
    for one in left[0][:12]:
        same = [next((other for other in others if other.key == one.key), None) for others in left]
        if all(other is not None for other in same):
            rows.append([other for other in same if other is not None])
    shapes = [{_shape(plan, place, one): one for one in reversed(others)} for place, others in enumerate(left)]
    shared = [shape for shape in list(shapes[0])[:12] if all(shape in other for other in shapes)]
    rows += [[other[shape] for other in shapes] for shape in shared]
    if len({len(others) for others in left}) == 1 and len(left[0]) <= 4:
        rows += [[others[place] for others in left] for place in range(len(left[0]))]
    rows.append([others[0] for others in left])
    unique: dict[tuple[bytes, ...], list[Reading]] = {}
    for row in rows:
        if all(set(one.args) == set(row[0].args) for one in row):
            unique.setdefault(tuple(one.key for one in row), row)
    return list(unique.values())


def _shape(plan: "Plan", place: int, reading: Reading) -> str:
    """Return the arguments with known simple values written as their names."""
    text = repr(sorted(reading.args.items()))
    known = [
        (str(entry.values[place]), f"<{number}>")
        for number, entry in enumerate(plan.bank.scalars(16))
        if entry.kind in ("str", "int") and str(entry.values[place])
    ]
    if not known:
        return text
    marks = dict(reversed(known))
    longest = "|".join(re.escape(value) for value in sorted(marks, key=lambda value: (-len(value), value)))
    return re.sub(rf"(?<![A-Za-z0-9])({longest})(?![A-Za-z0-9])", lambda found: marks[found.group()], text)


def _take_slot(plan: "Plan", name: str, row: Sequence[Reading]) -> bool:
    key = (name, tuple(one.key for one in row))
    if plan.failed.get(key) == len(plan.sources):
        return False
    args = explained_args(plan, [one.args for one in row])
    if args is None:
        plan.failed[key] = len(plan.sources)
        return False
    for taken, one in zip(plan.taken, row, strict=True):
        taken.setdefault(name, set()).add(one.key)
    into = plan.fresh()
    plan.body.append(Call(name, args, into))
    plan.source(into, [one.result for one in row])
    return True


def explained_args(plan: "Plan", rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, Expr], ...] | None:
    """Return an expression for each argument, or None where one cannot be explained."""
    args: list[tuple[str, Expr]] = []
    if any(set(row) != set(rows[0]) for row in rows):
        return None
    for name in rows[0]:
        found = plan.explainer.explain([row[name] for row in rows], conditions=False)
        if found is None:
            return None
        args.append((name, found))
    return tuple(args)


def _round(plan: "Plan", name: str, late: bool) -> bool:
    left = _open(plan, name, late)
    if sum(len(one) > 1 for one in left) < 1 or sum(map(len, left)) < 3:
        return False
    plan.bank.grow(3)
    lists = [one for one in plan.bank.of_kind("list") if one.rank <= 3 and one.size <= 5]
    for over in lists[:60]:
        if max(map(len, over.values)) < 2 or (over.rank in (2, 3) and over.base is not None and over.places == []):
            continue
        matched = _matched(over, left)
        if matched is None:
            continue
        made = _take_round(plan, name, over, matched)
        if made:
            return True
    return False


def _matched(over: Entry, left: Sequence[list[Reading]]) -> list[list[Reading | None]] | None:
    """Return the reading that belongs to each item: by order where there are as many, else by what it names."""
    rows: list[list[Reading | None]] = []
    for items, readings in zip(over.values, left, strict=True):
        in_order = len(items) == len(readings) and all(
            _names(item, one) for item, one in zip(items, readings, strict=True)
        )
        if in_order:
            rows.append(list(readings))
            continue
        row: list[Reading | None] = []
        for item in items:
            fitting = [one for one in readings if _names(item, one)]
            row.append(min(fitting, key=lambda one: len(repr(one.args))) if fitting else None)
        rows.append(row)
    wanted = sum(map(len, left))
    reached = len({(place, one.key) for place, row in enumerate(rows) for one in row if one is not None})
    return rows if reached * 3 >= wanted * 2 and reached >= 3 else None


def _names(item: Any, reading: Reading) -> bool:
    texts = [str(value) for value in reading.args.values() if isinstance(value, str | int)]
    parts = [item] if not isinstance(item, dict | list) else list(item.values()) if isinstance(item, dict) else item
    known = [
        str(part).rstrip("/")
        for part in parts
        if isinstance(part, str | int) and not isinstance(part, bool) and str(part)
    ]
    return any(re.search(rf"(?<![A-Za-z0-9]){re.escape(one)}(?![A-Za-z0-9])", text) for one in known for text in texts)


def _take_round(plan: "Plan", name: str, over: Entry, matched: Sequence[list[Reading | None]]) -> bool:
    labels = [one is not None for row in matched for one in row]
    if not all(labels):
        kept = _kept(plan, over, matched)
        if kept is None:
            return False
        over = kept
        matched = [[one for one in row if one is not None] for row in matched]
    rows = [one for row in matched for one in row if one is not None]
    if not rows or any(set(one.args) != set(rows[0].args) for one in rows):
        return False
    if any(len({one.key for one in row if one is not None}) != len(row) for row in matched):
        return False
    inner = Nested(plan.explainer, over)
    args: list[tuple[str, Expr]] = []
    for arg in rows[0].args:
        found = inner.explain([one.args[arg] for one in rows])
        if found is None:
            return False
        args.append((arg, found))
    var = plan.bank.var
    if not any(var in _read(value) for _, value in args):
        return False
    for taken, row in zip(plan.taken, matched, strict=True):
        taken.setdefault(name, set()).update(one.key for one in row if one is not None)
    into = plan.fresh()
    plan.body.append(CallEach(name, tuple(args), over.expr, var, into))
    results = [[one.result for one in row if one is not None] for row in matched]
    plan.source(into, results)
    made = plan.bank.find(results)
    if made is not None:
        plan.bank.op("zipped", 1, over, made)
    return True


def _kept(plan: "Plan", over: Entry, matched: Sequence[list[Reading | None]]) -> Entry | None:
    """Find what tells the items that were read from those that were not."""
    from .predicates import predicate

    inner = Nested(plan.explainer, over)
    inner.bank.grow(4)
    labels = [one is not None for row in matched for one in row]
    test = predicate(inner.bank, [labels[place] for place in inner.chosen])
    if test is None:
        return None
    places = [[place for place, one in enumerate(row) if one is not None] for row in matched]
    expr = Each(over.expr, plan.bank.var, Ref(plan.bank.var), test)
    return plan.bank.derive(over, expr, places, over.size + 3, 1)


def _read(node: Expr) -> set[str]:
    from .program import refs

    return refs(node)
