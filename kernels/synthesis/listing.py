"""Lists: something for each item of another list, of all of its items, of the first so many, or of those that a predicate keeps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .bank import Entry
from .chance import supported
from .nested import Nested
from .program import Const, Each, Expr, Listed, Op, Ref
from .values import exact, loose

if TYPE_CHECKING:
    from .explaining import Explainer

_MOST_SOURCES = 8


def listed(at: "Explainer", target: Sequence[list[Any]]) -> Expr | None:
    """Return a list with these values, or None."""
    if not any(target):
        return Listed(())
    found = mapped(at, target)
    if found is not None:
        return found
    lengths = {len(value) for value in target}
    if len(lengths) == 1 and 0 < len(target[0]) <= 6 and at.level <= 1:
        items = []
        for place in range(len(target[0])):
            one = at.explain([value[place] for value in target], conditions=False)
            if one is None:
                return None
            items.append(one)
        return Listed(tuple(items))
    return None


def mapped(at: "Explainer", target: Sequence[list[Any]]) -> Expr | None:
    """Return what goes through a list and gives these items, or None."""
    entry = at.bank.find(target)
    if entry is not None and supported(target, entry.size, at.bank):
        return entry.expr
    if at.level > 1 or sum(map(len, target)) < 2:
        return None
    promising, others = _sources(at, target)
    for over in promising:
        found = _through(at, over, target, conditions=at.reached >= at.limits[-1])
        if found is not None:
            return found
    if at.reached >= at.limits[-1] and not any(isinstance(item, str) for value in target for item in value):
        for over in others:
            found = _through(at, over, target)
            if found is not None:
                return found
    return _selected(at, target) or _counted(at, target)


def _through(at: "Explainer", over: Entry, target: Sequence[list[Any]], *, conditions: bool = False) -> Expr | None:
    inner = Nested(at, over)
    found = inner.explain([item for value in target for item in value], conditions=conditions)
    if found is None:
        return None
    return over.expr if found == Ref(at.bank.var) else Each(over.expr, at.bank.var, found)


def _leaf(value: Any) -> Any:
    """Return a plain value that stands in an item, to compare lists by before they are explained."""
    if isinstance(value, dict):
        return next((_leaf(one) for one in value.values() if _leaf(one) is not None), None)
    if isinstance(value, list):
        return _leaf(value[0]) if value else None
    return value


def _leaves(target: Sequence[list[Any]]) -> list[list[list[Any]]]:
    """Return the columns of plain values of the items: one for each key, or the items themselves."""
    first = next(item for value in target for item in value)
    items = [item for value in target for item in value]
    if isinstance(first, dict) and all(isinstance(item, dict) and item.keys() == first.keys() for item in items):
        return [[[item[key] for item in value] for value in target] for key in list(first)[:8]]
    if isinstance(first, list) and all(isinstance(item, list) and len(item) == len(first) for item in items):
        return [[[item[place] for item in value] for value in target] for place in range(len(first))[:8]]
    return [[list(value) for value in target]]


def _sources(at: "Explainer", target: Sequence[list[Any]]) -> tuple[list[Entry], list[Entry]]:
    """Return the lists as long as these: those whose items hold what is looked for, and a few of the others."""
    lengths = [len(value) for value in target]
    fitting = [
        entry
        for entry in at.bank.of_kind("list")
        if entry.rank != 4
        if entry.size <= 10 and [len(value) for value in entry.values] == lengths
    ]
    columns = _leaves(target)
    keys = [[exact(column) for column in leaf] for leaf in columns]
    promising: list[tuple[int, Entry]] = []
    others: list[Entry] = []
    for entry in fitting[:200]:
        score = _promise(at, entry, columns, keys)
        if score:
            promising.append((-score, entry))
        else:
            others.append(entry)
    ordered = [entry for _, entry in sorted(promising, key=lambda pair: (pair[0], pair[1].size))]
    best = max((-score for score, _ in promising), default=0)
    full = [entry for score, entry in sorted(promising, key=lambda pair: pair[1].size) if -score == best]
    return (full + [entry for entry in ordered if entry not in full])[:_MOST_SOURCES], others[:4]


def _promise(
    at: "Explainer", entry: Entry, columns: Sequence[list[list[Any]]], keys: Sequence[list[bytes | None]]
) -> int:
    """Count the columns that a list's items show, as they are or inside a text."""
    bank = at.bank.inside(entry)
    if bank is None:
        return 0
    score = 0
    inner = [one for one in bank.of_kind("int", "float", "number", "str", "bool", "dict") if one.size <= 5]
    read = [at.bank.column(entry, one) for one in inner[:60]]
    known = [[exact(column) for column in one] for one in read]
    for leaf, key in zip(columns, keys, strict=True):
        if key in known:
            score += 2
        elif all(isinstance(item, str) for column in leaf for item in column):
            texts = [item for column in leaf for item in column]
            for one in read:
                parts = [str(item) for column in one for item in column]
                if len(set(parts)) > 1 and all(part and part in text for part, text in zip(parts, texts, strict=True)):
                    score += 1
                    break
    return score


def _selected(at: "Explainer", target: Sequence[list[Any]]) -> Expr | None:
    """Find a list that holds more: take its first or last ones, or those that a predicate keeps."""
    columns = _leaves(target)
    leaf = max(columns, key=lambda column: len({exact(item) for part in column for item in part}))
    wanted = [[loose(item) for item in part] for part in leaf]
    lengths = [len(part) for part in target]
    candidates = [
        entry
        for entry in at.bank.of_kind("list")
        if entry.rank <= 2
        if entry.size <= 10 and all(len(value) >= length for value, length in zip(entry.values, lengths, strict=True))
    ]
    tried = 0
    for over in candidates[:60]:
        bank = at.bank.inside(over)
        if bank is None:
            continue
        for inner in [one for one in bank.entries if one.size <= 5 and one.kind not in ("list", "none", "bool")][:60]:
            have = [[loose(item) for item in column] for column in at.bank.column(over, inner)]
            places = [_places(mine, theirs) for mine, theirs in zip(wanted, have, strict=True)]
            if any(place is None for place in places):
                continue
            tried += 1
            found = _as_cut(at, over, lengths, target) or _as_kept(at, over, [one or [] for one in places], target)
            if found is not None:
                return found
            if tried >= 10:
                return None
    return None


def _places(wanted: Sequence[Any], have: Sequence[Any]) -> list[int] | None:
    """Return where the wanted items stand, in this order, or None."""
    places: list[int] = []
    at = 0
    for item in wanted:
        while at < len(have) and have[at] != item:
            at += 1
        if at == len(have):
            return None
        places.append(at)
        at += 1
    return places


def _as_cut(at: "Explainer", over: Entry, lengths: Sequence[int], target: Sequence[list[Any]]) -> Expr | None:
    """Take the first so many, where one number says how many."""
    full = [len(value) for value in over.values]
    counts = [entry for entry in at.bank.of_kind("int") if entry.size <= 4]
    for count in counts[:40]:
        if [min(most, length) for most, length in zip(count.values, full, strict=True)] == list(lengths):
            places = [list(range(length)) for length in lengths]
            cut = at.bank.derive(over, Op("take", (over.expr, count.expr)), places, over.size + count.size + 1, 3)
            found = _through(at, cut, target) if cut is not None else None
            if found is not None:
                return found
    if len(set(lengths)) == 1 and all(length >= lengths[0] for length in full) and len(set(full)) > 1:
        places = [list(range(length)) for length in lengths]
        cut = at.bank.derive(over, Op("take", (over.expr, Const(lengths[0]))), places, over.size + 2, 3)
        return _through(at, cut, target) if cut is not None else None
    return None


def _as_kept(at: "Explainer", over: Entry, places: Sequence[list[int]], target: Sequence[list[Any]]) -> Expr | None:
    from .predicates import predicate

    kept = [[place in mine for place in range(len(value))] for mine, value in zip(places, over.values, strict=True)]
    labels = [label for part in kept for label in part]
    if all(labels) or not any(labels):
        return None
    inner = Nested(at, over)
    inner.bank.grow(4)
    test = predicate(inner.bank, [labels[place] for place in inner.chosen])
    if test is None:
        return None
    expr = Each(over.expr, at.bank.var, Ref(at.bank.var), test)
    cut = at.bank.derive(over, expr, places, over.size + 3, 1)
    if cut is None:
        return None
    found = _through(at, cut, target)
    if isinstance(found, Each) and found.over is expr:
        return Each(over.expr, at.bank.var, found.value, test)
    return found


def _counted(at: "Explainer", target: Sequence[list[Any]]) -> Expr | None:
    """Go through the numbers up to one that says how many there are, or through a list with its numbers."""
    lengths = [len(value) for value in target]
    for entry in [one for one in at.bank.of_kind("int") if one.size <= 4][:20]:
        if entry.values == lengths and len(set(lengths)) > 1:
            for name in ("range", "range_one"):
                numbers = at.bank.op(name, entry.size + 2, entry)
                found = _through(at, numbers, target) if numbers is not None else None
                if found is not None:
                    return found
    for over in _sources(at, target)[0][:3]:
        numbered = at.bank.op("numbered", over.size + 2, over)
        found = _through(at, numbered, target) if numbered is not None else None
        if found is not None:
            return found
    return None
