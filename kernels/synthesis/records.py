"""Mappings: the same keys in all examples are explained one by one; other keys come from a list."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .bank import Entry, repeated
from .chance import supported
from .program import Expr, Op, Pairs, Record, Ref
from .values import loose

if TYPE_CHECKING:
    from .explaining import Explainer


def record(at: "Explainer", target: Sequence[dict[Any, Any]]) -> Expr | None:
    """Return a mapping with these values, or None."""
    first = target[0]
    if all(set(value) == set(first) for value in target):
        if not all(isinstance(key, str) for key in first) or len(first) > 60:
            return None
        fields = []
        for key in first:
            found = at.explain([value[key] for value in target])
            if found is None:
                return _paired(at, target)
            fields.append((key, found))
        return Record(tuple(fields))
    return _ordered(at, target) or _paired(at, target)


def _ordered(at: "Explainer", target: Sequence[dict[Any, Any]]) -> Expr | None:
    """Find a mapping that differs in the order of its keys alone: what is hashed does not, what is written does."""
    for entry in at.bank.of_kind("dict"):
        if [loose(value) for value in target] == entry.per_example():
            return entry.expr if supported(target, entry.size, at.bank) else Op("by_key", (entry.expr,))
    return None


def _paired(at: "Explainer", target: Sequence[dict[Any, Any]]) -> Expr | None:
    """Find the list that the keys come from, then what belongs to each."""
    if at.level > 1 or sum(map(len, target)) < 2:
        return None
    sizes = [len(value) for value in target]
    wanted = [set(value) for value in target]
    tried = 0
    for over in _sources(at, sizes):
        bank = at.bank.inside(over)
        if bank is None:
            continue
        for key in [one for one in bank.of_kind("str") if one.size <= 6]:
            columns = at.bank.column(over, key)
            if [set(column) for column in columns] != wanted:
                continue
            tried += 1
            if [len(column) for column in columns] == sizes:
                found = _valued(at, over, key, columns, target)
                if found is not None:
                    return found
            elif over.rank <= 1:
                unique = at.bank.find([list(dict.fromkeys(column)) for column in columns])
                found = _grouped(at, over, key, unique, columns, target)
                if found is not None:
                    return found
            if tried > 12:
                return None
    return None


def _sources(at: "Explainer", sizes: Sequence[int]) -> list[Entry]:
    lists = [one for one in at.bank.of_kind("list") if one.rank in (0, 1, 3, 5) and one.size <= 7]
    return [one for one in lists if all(len(value) >= size for value, size in zip(one.values, sizes, strict=True))][:40]


def _valued(
    at: "Explainer", over: Entry, key: Entry, columns: Sequence[Sequence[Any]], target: Sequence[dict[Any, Any]]
) -> Expr | None:
    from .nested import Nested

    values = [value[name] for value, column in zip(target, columns, strict=True) for name in column]
    inner = Nested(at, over)
    found = inner.explain(values)
    return Pairs(over.expr, at.bank.var, key.expr, found) if found is not None else None


def _grouped(
    at: "Explainer",
    over: Entry,
    key: Entry,
    unique: Entry | None,
    columns: Sequence[Sequence[Any]],
    target: Sequence[dict[Any, Any]],
) -> Expr | None:
    """Explain what belongs to a key from the items that have it."""
    from .explaining import Explainer
    from .program import Each

    names = [list(dict.fromkeys(column)) for column in columns]
    if unique is None:
        mapped = at.bank.add(Each(over.expr, at.bank.var, key.expr), columns, over.size + key.size, rank=4)
        unique = at.bank.op("unique", over.size + key.size + 1, mapped, rank=5) if mapped is not None else None
        if unique is None:
            return None
    from .bank import Bank

    var = f"group{at.bank.depth}"
    lengths = [len(part) for part in names]
    bank = Bank(at.bank.search, sum(lengths), depth=at.bank.depth + 1, most=900)
    bank.add(Ref(var), [name for part in names for name in part], 1, simple=True)
    members = [
        [item for item, mine in zip(items, column, strict=True) if mine == name]
        for items, column, part in zip(over.values, columns, names, strict=True)
        for name in part
    ]
    test = _renamed(key.expr, at.bank.var, bank.var)
    bank.add(Each(over.expr, bank.var, Ref(bank.var), Op("eq", (test, Ref(var)))), members, 2)
    for one in at.bank.scalars(8):
        bank.add(one.expr, list(repeated(one.values, lengths)), one.size, simple=True)
    values = [value[name] for value, part in zip(target, names, strict=True) for name in part]
    found = Explainer(bank, level=at.level + 1).explain(values, conditions=False)
    if found is None:
        return None
    return Pairs(unique.expr, var, Ref(var), found)


def _renamed(node: Expr, old: str, new: str) -> Expr:
    from .rewriting import renamed

    found: Expr = renamed(node, {old: new})
    return found
