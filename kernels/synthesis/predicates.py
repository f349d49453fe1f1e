"""Predicates: what tells these examples from those. Simple ones first, as any two groups can be told apart somehow."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from .bank import Bank, Entry
from .chance import bits
from .numbers import shortest
from .operators import FUNCTIONS
from .program import Const, Expr, Listed, Op
from .values import exact, is_date, is_number

_NUMBERS = ("int", "float", "number")
_NEXT = 400  # tests that are looked at for rivals of the one that was found


def predicate(bank: Bank, labels: Sequence[bool], *, most: int = 40) -> Expr | None:
    """Return a test that holds where the labels do, or None where none is simple enough for so many examples."""
    wanted = list(labels)
    held = bits(wanted)
    if held == 0.0:
        return None
    offered = candidates(bank, wanted, most)
    for tried, (test, values) in enumerate(offered, 1):
        if values in (wanted, [not value for value in wanted]) and _told_apart(bank, test, wanted, tried):
            found = test if values == wanted else _negated(test)
            bank.search.tests[repr(found)] = _rivals(test, wanted, offered)
            return found
        if tried > 2 ** min(11.0, held + 1.0):
            return None
    return _both(bank, wanted, most) if held >= 14.0 else None


def _rivals(test: Expr, wanted: list[bool], offered: Iterator[tuple[Expr, list[bool]]]) -> list[Expr]:
    """Return the tests of the same kind on other data that tell the same apart, a few of those that would have come next."""
    found: list[Expr] = []
    for other, values in islice(offered, _NEXT):
        alike = isinstance(test, Op) and isinstance(other, Op) and test.op == other.op
        if alike and values in (wanted, [not value for value in wanted]) and len(found) < 8:
            found.append(other if values == wanted else _negated(other))
    return found


def _told_apart(bank: Bank, test: Expr, wanted: Sequence[bool], tried: int) -> bool:
    """Say whether a test on the form of a text or the size of a number is held up by enough different ones."""
    if not (isinstance(test, Op) and test.op in ("starts", "ends", "contains", "gt", "lt", "ge", "le")):
        return True
    if isinstance(test.args[0], Listed):
        return True
    asked = [part for part in test.args if not isinstance(part, Const)]
    known = [next((one.values for one in bank.entries if one.expr == part), None) for part in asked]
    if any(values is None for values in known):
        return True
    rows = [exact([values[place] for values in known if values is not None]) for place in range(len(wanted))]
    once = dict(zip(rows, wanted, strict=True))
    return tried <= 2 ** min(11.0, bits(list(once.values())) + 1.0)


def candidates(bank: Bank, labels: Sequence[bool], most: int) -> Iterator[tuple[Expr, list[bool]]]:
    """Give tests and where they hold, the simplest first."""
    entries = [one for one in sorted(bank.entries, key=lambda one: one.size) if one.size <= 6][: most * 4]
    scalars = [one for one in entries if one.kind in (*_NUMBERS, "str", "bool")][:most]
    for entry in entries:
        if entry.kind == "bool":
            yield entry.expr, entry.values
        elif entry.kind == "mixed" and any(value is None for value in entry.values):
            yield Op("is_none", (entry.expr,)), [value is None for value in entry.values]
        elif entry.kind in ("list", "dict", "str") and not all(entry.values) and any(entry.values):
            yield Op("truth", (entry.expr,)), [bool(value) for value in entry.values]
    for entry in scalars:
        if entry.kind == "str":
            yield from _of_text(entry, labels)
    for entry in scalars:
        if entry.kind == "int":
            yield from _whole(entry)
    for place, one in enumerate(scalars):
        for two in scalars[:place]:
            yield from _compared(two, one)
    for holder in [one for one in entries if one.kind in ("list", "dict", "str")][:20]:
        for one in scalars[:16]:
            if (
                one is not holder
                and one.kind in (*_NUMBERS, "str")
                and not (holder.kind == "str" and one.kind != "str")
            ):
                yield from _tested("contains", holder, one)
    for entry in scalars:
        if entry.kind in _NUMBERS:
            yield from _bounded(entry, labels)


def _of_text(entry: Entry, labels: Sequence[bool]) -> Iterator[tuple[Expr, list[bool]]]:
    yes = sorted({value for value, label in zip(entry.values, labels, strict=True) if label})
    no = sorted({value for value, label in zip(entry.values, labels, strict=True) if not label})
    for side in (yes, no):
        if len(side) == 1:
            yield Op("eq", (entry.expr, Const(side[0]))), [value == side[0] for value in entry.values]
    for name, read in (("starts", str.startswith), ("ends", str.endswith)):
        for side, other in ((yes, no), (no, yes)):
            part = _shared(side, name)
            if part and not any(read(value, part) for value in other):
                yield Op(name, (entry.expr, Const(part))), [read(value, part) for value in entry.values]
    for side, other in ((yes, no), (no, yes)):
        if 1 < len(side) <= 4 and not set(side) & set(other) and len(entry.values) >= 4 * len(side):
            yield (
                Op("contains", (Listed(tuple(map(Const, side))), entry.expr)),
                [value in side for value in entry.values],
            )
    words = {word for value in yes[:1] for word in value.replace(":", " ").replace("[", " ").replace("]", " ").split()}
    for word in sorted(words, key=lambda word: (-word.isupper(), len(word)))[:12]:
        if all(word in value for value in yes) and not any(word in value for value in no):
            yield Op("contains", (entry.expr, Const(word))), [word in value for value in entry.values]


def _shared(values: Sequence[str], where: str) -> str:
    if not values:
        return ""
    turned = [value[::-1] for value in values] if where == "ends" else list(values)
    low, high = min(turned), max(turned)
    length = 0
    while length < min(len(low), len(high)) and low[length] == high[length]:
        length += 1
    part = low[:length]
    if len(values) == 1:
        return ""  # one text's own beginning says nothing: it is compared whole
    return part[::-1] if where == "ends" else part


def _whole(entry: Entry) -> Iterator[tuple[Expr, list[bool]]]:
    for by in (2, 3, 5, 10):
        expr = Op("eq", (Op("mod", (entry.expr, Const(by))), Const(0)))
        values = [value % by == 0 for value in entry.values]
        if any(values) and not all(values):
            yield expr, values


def _compared(one: Entry, two: Entry) -> Iterator[tuple[Expr, list[bool]]]:
    numbers = one.kind in _NUMBERS and two.kind in _NUMBERS
    dates = one.kind == two.kind == "str" and is_date(one.values[0]) and is_date(two.values[0])
    if numbers or dates:
        for name in ("lt", "gt", "eq"):
            yield from _tested(name, one, two)
    elif one.kind == two.kind:
        yield from _tested("eq", one, two)


def _tested(name: str, one: Entry, two: Entry) -> Iterator[tuple[Expr, list[bool]]]:
    try:
        values = [bool(FUNCTIONS[name](left, right)) for left, right in zip(one.values, two.values, strict=True)]
    except TypeError:
        return
    if any(values) and not all(values):
        yield Op(name, (one.expr, two.expr)), values


def _bounded(entry: Entry, labels: Sequence[bool]) -> Iterator[tuple[Expr, list[bool]]]:
    """Compare with a constant between the two groups: 0 or another short decimal in the gap."""
    yes = [value for value, label in zip(entry.values, labels, strict=True) if label]
    no = [value for value, label in zip(entry.values, labels, strict=True) if not label]
    for name, low, high in (("gt", max(no), min(yes)), ("lt", max(yes), min(no))):
        if not (is_number(low) and is_number(high) and low < high):
            continue
        limits = [0] if low < 0 < high else shortest(low, high)[:1]
        if not limits:
            continue
        limit: Any = limits[0]
        test = name
        if name == "gt" and limit == high:
            test = "ge"
        elif name == "lt" and limit == low:
            test = "le"
        yield Op(test, (entry.expr, Const(limit))), [FUNCTIONS[test](value, limit) for value in entry.values]


_OPPOSITE = {
    "eq": "ne",
    "ne": "eq",
    "lt": "ge",
    "ge": "lt",
    "gt": "le",
    "le": "gt",
    "contains": "lacks",
    "is_none": "is_some",
}


def _negated(test: Expr) -> Expr:
    if isinstance(test, Op) and test.op in _OPPOSITE:
        return Op(_OPPOSITE[test.op], test.args)
    if isinstance(test, Op) and test.op == "not":
        return test.args[0]
    return Op("not", (test,))


def _both(bank: Bank, wanted: list[bool], most: int) -> Expr | None:
    """Find two tests that hold together, or of which one holds, where the labels do."""
    simple: list[tuple[Expr, list[bool]]] = []
    seen: set[bytes | None] = set()
    for test, values in candidates(bank, wanted, min(most, 14)):
        for one, mask in ((test, values), (_negated(test), [not value for value in values])):
            key = exact(mask)
            if key not in seen:
                seen.add(key)
                simple.append((one, mask))
        if len(simple) >= 80:
            break
    wide = [(test, mask) for test, mask in simple if all(m or not w for m, w in zip(mask, wanted, strict=True))]
    for place, (one, left) in enumerate(wide):
        for two, right in wide[:place]:
            if [a and b for a, b in zip(left, right, strict=True)] == wanted:
                return Op("and", (two, one))
    narrow = [(test, mask) for test, mask in simple if all(w or not m for m, w in zip(mask, wanted, strict=True))]
    for place, (one, left) in enumerate(narrow):
        for two, right in narrow[:place]:
            if [a or b for a, b in zip(left, right, strict=True)] == wanted:
                return Op("or", (two, one))
    return None
