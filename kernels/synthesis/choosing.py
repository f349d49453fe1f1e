"""Conditions: different expressions for different examples, where a simple predicate tells which (Alur et al., TACAS 2017)."""

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any

from .bank import Bank, Entry
from .chance import enough
from .predicates import predicate
from .program import Choice, Const, Expr, Listed, Op, Ref
from .values import exact, loose

if TYPE_CHECKING:
    from .explaining import Explainer

_LEAST = 2  # examples that each case needs


def chosen(at: "Explainer", target: Sequence[Any]) -> Expr | None:
    """Return a choice between expressions with these values, or None."""
    if at.bank.count < 2 * _LEAST:
        return None
    return _of_constants(at, target) or _of_known(at, target) or _with_rest(at, target) or _by_name(at, target)


def _of_constants(at: "Explainer", target: Sequence[Any]) -> Expr | None:
    """Tell a few constants apart, one after the other."""
    keys = [exact(value) for value in target]
    classes = list(dict.fromkeys(keys))
    if not 2 <= len(classes) <= 4 or any(keys.count(key) < _LEAST for key in classes):
        return None
    values = dict(zip(keys, target, strict=True))
    if any(isinstance(value, dict | list) for value in values.values()):
        return None
    for order in permutations(classes):
        found = _chain(at.bank, keys, list(order), values)
        if found is not None:
            return found
    return None


def _chain(
    bank: Bank, keys: Sequence[bytes | None], order: list[bytes | None], values: dict[bytes | None, Any]
) -> Expr | None:
    """Test for the first of these, and for the others among the rest."""
    tests: list[Expr] = []
    left = list(range(len(keys)))
    for key in order[:-1]:
        part = bank if len(left) == bank.count else restricted(bank, left)
        test = predicate(part, [keys[place] == key for place in left])
        if test is None:
            return None
        tests.append(test)
        left = [place for place in left if keys[place] != key]
    found: Expr = Const(values[order[-1]])
    for test, key in zip(reversed(tests), reversed(order[:-1]), strict=True):
        found = Choice(test, Const(values[key]), found)
    return found


def restricted(bank: Bank, places: Sequence[int]) -> Bank:
    """Return a bank with some of the examples: the same expressions, as far as they still differ."""
    part = Bank(bank.search, len(places), depth=bank.depth, most=bank.most)
    part.hints = list(bank.hints)
    for entry in sorted(bank.entries, key=lambda one: one.size)[:400]:
        part.add(
            entry.expr, [entry.values[place] for place in places], entry.size, rank=entry.rank, simple=entry.simple
        )
    return part


def rooted(bank: Bank, places: Sequence[int]) -> Bank:
    """Return a bank with some of the examples that holds what the other began with, to be grown anew."""
    part = Bank(bank.search, len(places), depth=bank.depth, most=bank.most // 2)
    part.hints = list(bank.hints)
    for entry in bank.entries:
        if isinstance(entry.expr, Ref):
            part.add(
                entry.expr, [entry.values[place] for place in places], entry.size, rank=entry.rank, simple=entry.simple
            )
    return part


def _of_known(at: "Explainer", target: Sequence[Any]) -> Expr | None:
    """Choose between two known values, or a known one and a constant, that cover all examples together."""
    goal = [loose(value) for value in target]
    covers: list[tuple[Entry | None, list[bool], Any]] = []
    for entry in at.bank.entries[:4000]:
        if entry.kind not in ("none", "other"):
            mask = [one == two for one, two in zip(entry.per_example(), goal, strict=True)]
            if sum(mask) >= _LEAST:
                covers.append((entry, mask, None))
    for key in dict.fromkeys(goal):
        mask = [one == key for one in goal]
        if sum(mask) >= _LEAST:
            value = target[goal.index(key)]
            if not isinstance(value, dict | list) or not value:
                covers.append((None, mask, value))
    covers.sort(key=lambda cover: (-sum(cover[1]), cover[0].size if cover[0] is not None else 1))
    tried = 0
    for place, (one, left, constant) in enumerate(covers[:80]):
        if all(left):
            continue
        for two, right, other in covers[place + 1 : 120]:
            rest = [not a for a in left]
            if not all(b or a for a, b in zip(left, right, strict=True)) or sum(rest) < _LEAST:
                continue
            tried += 1
            if tried > 12:
                return None
            free = [place for place, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
            labels = [left[place] for place in free]
            if sum(labels) < _LEAST or len(labels) - sum(labels) < _LEAST:
                continue
            part = at.bank if len(free) == at.bank.count else restricted(at.bank, free)
            test = predicate(part, labels)
            if test is not None:
                return Choice(
                    test,
                    one.expr if one is not None else Const(constant),
                    two.expr if two is not None else Const(other),
                )
    return None


def _with_rest(at: "Explainer", target: Sequence[Any]) -> Expr | None:
    """Take a known value, or a constant, where it is right, and explain the other examples for themselves."""
    from .explaining import Explainer

    if at.level > 0:
        return None
    goal = [loose(value) for value in target]
    covers: list[tuple[Expr, list[bool]]] = []
    covers += [
        (entry.expr, [one == two for one, two in zip(entry.per_example(), goal, strict=True)])
        for entry in at.bank.entries[:3000]
        if entry.size <= 4 and entry.kind not in ("other", "mixed")
    ]
    for key in dict.fromkeys(goal):
        value = target[goal.index(key)]
        if not isinstance(value, dict | list) or not value:
            covers.append((Const(value), [one == key for one in goal]))
    some = [cover for cover in covers if _LEAST <= sum(cover[1]) <= len(goal) - _LEAST - 1]
    some.sort(key=lambda cover: -sum(cover[1]))
    for known, mask in some[:6]:
        test = predicate(at.bank, mask)
        if test is None:
            continue
        places = [place for place, held in enumerate(mask) if not held]
        rest = Explainer(rooted(at.bank, places))
        found = rest.explain([target[place] for place in places], conditions=False)
        if found is not None:
            return Choice(test, known, found)
    return None


def _by_name(at: "Explainer", target: Sequence[Any]) -> Expr | None:
    """Explain each group of examples for itself, where a text or a truth value of few values says the group."""
    from .explaining import Explainer

    if at.level > 0 or not enough(target, 16):
        return None
    for entry in [one for one in at.bank.of_kind("str", "bool", "int") if one.simple][:8]:
        groups: dict[Any, list[int]] = {}
        for place, value in enumerate(entry.values):
            groups.setdefault(value, []).append(place)
        if not 2 <= len(groups) <= 6 or min(map(len, groups.values())) < _LEAST:
            continue
        parts: list[tuple[Any, Expr]] = []
        for value, places in groups.items():
            bank = rooted(at.bank, places)
            found = Explainer(bank, level=max(at.level, 1)).explain(
                [target[place] for place in places], conditions=False
            )
            if found is None:
                break
            parts.append((value, found))
        if len(parts) == len(groups):
            whole = parts[-1][1]
            for value, found in reversed(parts[:-1]):
                whole = Choice(Op("eq", (entry.expr, Const(value))), found, whole)
            return whole
    return None


def one_of(subject: Expr, values: Sequence[Any]) -> Expr:
    """Return the test that a value is one of those that were seen."""
    return Op("contains", (Listed(tuple(map(Const, values))), subject))
