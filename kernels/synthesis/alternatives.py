"""What else an expression could be: the same with other names, other tests or counts, and what the search met beside it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .evidence import Evidence, data_names
from .operators import FUNCTIONS
from .phrases import closed
from .program import Const, Each, Expr, Listed, Op, Pick, Ref, Sorted, Stmt, walk
from .rewriting import rewritten
from .running import evaluate
from .values import kind_of

if TYPE_CHECKING:
    from .planning import Plan

_KEYS = 40
_COLUMNS = 6  # words of a line that are looked at one by one
_PLACES = (0, 1, 2, 3, 4, 5, 6, 7, -1, -2)
_READ = frozenset({"csv", "csv_by", "csv_cells", "json", "lines", "options"})
_FAULTS = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError)
Scope = dict[str, Any]


class Nothing:
    """The value of what has none."""


class Alternatives:
    """What expressions of one part of a program could be instead: `scopes` are what is known in each example."""

    def __init__(self, plan: "Plan", body: Sequence[Stmt]) -> None:
        self.plan = plan
        self.names = {name for name, _ in plan.sources}
        self.params = set(plan.examples[0].params)
        self.scopes: list[Scope] = [
            {name: values[place] for name, values in plan.sources} for place in range(len(plan.examples))
        ]
        self._evidence = Evidence(plan.goal, self.params)
        self._used = Counter(data_names(tuple(body)))
        self._beside = _keys_beside(self.scopes, plan)

    def weight(self, node: Expr, beside: str) -> int:
        """Return how much speaks for the names of an expression."""
        return self._evidence.weight(node, beside, self._used)

    def others(self, node: Expr, beside: str) -> Iterator[tuple[int, Expr]]:
        """Give expressions of the same form with other names (0), with other tests or counts (1), and those that were found (2)."""
        parts = list(walk(node))
        changes: list[tuple[Any, Any]] = []
        for part in parts:
            changes += [(part, other) for other in self._renamed(part)]
        for old, new in {repr(pair): pair for pair in changes}.values():
            yield 0, _exchanged(node, old, new)
            times = sum(_is(one, old) for one in parts)
            for place in range(times if 1 < times <= 4 else 0):
                yield 1, rewritten(node, _only(place, old, new))
        for part in parts:
            tests = [one for one in self.plan.search.tests.get(repr(part), ()) if data_of(one) != data_of(part)]
            for other in (*tests, *self._distinct_count(part, beside)):
                yield 1, _exchanged(node, part, other)
            for other in self._lines_with(part):
                yield 1, other
        for other in self._with_unused(node):
            yield 1, other
        mine = data_of(node)
        picks = any(
            isinstance(part, Pick) for part in parts
        )  # then an order changes nothing but which of two equal ones
        for part in parts:
            for other in (_exchanged(node, part, one) for one in self._found(part)):
                if data_of(other) != mine and not (picks and any(isinstance(one, Sorted) for one in walk(other))):
                    yield 2, other

    def _renamed(self, part: Any) -> list[Any]:
        if isinstance(part, Op) and part.op in ("item", "get_or") and isinstance(part.args[1], Const):
            key = part.args[1].value
            others: Sequence[Any] = ()
            if isinstance(key, str):
                others = self._beside.get(key, ())
            elif type(key) is int:
                others = [place for place in _PLACES if place != key]
            return [Op(part.op, (part.args[0], Const(other), *part.args[2:])) for other in others]
        if isinstance(part, Op) and part.op in ("before", "after", "before_last", "after_last"):
            pieces = Op("split", part.args)
            return [Op("item", (pieces, Const(place))) for place in _PLACES]
        if isinstance(part, Ref) and part.name in self.names:
            mine = dict(self.plan.sources)[part.name]
            return [
                Ref(name)
                for name, values in self.plan.sources
                if name != part.name and kind_of(values) == kind_of(mine) and not self._asked_for(part.name, name)
            ]
        return []

    def _asked_for(self, one: str, other: str) -> bool:
        """Say whether both are parameters: two that were always equal are checked as such."""
        return one in self.params and other in self.params

    def _distinct_count(self, part: Any, beside: str) -> list[Expr]:
        """Return counts of what is different, where a part counts all there is: by a column of texts, or one that is named."""
        if not (isinstance(part, Op) and part.op == "len" and closed(part, self.names)):
            return []
        over = part.args[0]
        lists = [value_of(over, scope) for scope in self.scopes]
        items = [item for value in lists if isinstance(value, list) for item in value]
        if not items:
            return []
        var = self.plan.bank.var
        if all(isinstance(item, dict) for item in items):
            names = [key for key in items[0] if isinstance(key, str) and all(key in item for item in items)][:_KEYS]
            columns = [
                key for key in names
                if self._evidence.names(key, beside) or all(_is_word(item[key]) for item in items)
            ]  # fmt: skip
            lifted = [Each(over, var, Op("item", (Ref(var), Const(key)))) for key in columns]
            return [Op("len", (Op("unique", (one,)),)) for one in lifted]
        if all(isinstance(item, str) for item in items) and not isinstance(over, Ref):
            return [Op("len", (Op("unique", (over,)),))]
        return []

    def _lines_with(self, part: Any) -> list[Expr]:
        """Return counts of lines that hold a word, or have it in one place, where it is counted in the whole of a text."""
        if not (isinstance(part, Op) and part.op == "times_in" and closed(part, self.names)):
            return []
        text, word, line = part.args[0], part.args[1], Ref(self.plan.bank.var)
        words = Op("words", (line,))
        tests = [Op("contains", (line, word))]
        tests += [
            Op("eq", (Op("slice", (words, Const(place), Const(place + 1))), Listed((word,))))
            for place in range(_COLUMNS)
        ]
        lines = Op("lines", (text,))
        return [Op("len", (Each(lines, line.name, line, test),)) for test in tests]

    def _with_unused(self, node: Expr) -> Iterator[Expr]:
        """Give what parameters that nothing needs may be for: the first so many, those that have this value in a column."""
        idle = [name for name in sorted(self.params) if not self._used[name]]
        for name in idle:
            values = [scope[name] for scope in self.scopes]
            if kind_of(values) == "int" and min(values) > 0 and len(set(values)) > 1:
                if all(isinstance(value_of(node, scope), list) for scope in self.scopes):
                    yield Op("take", (node, Ref(name)))
            elif kind_of(values) == "str" and len(set(values)) > 1:
                for part in [one for one in walk(node) if isinstance(one, Op | Ref) and closed(one, self.names)]:
                    for key in self._always(part, values):
                        var = self.plan.bank.var
                        test = Op("eq", (Op("item", (Ref(var), Const(key))), Ref(name)))
                        yield _exchanged(node, part, Each(part, var, Ref(var), test))

    def _always(self, part: Expr, values: Sequence[Any]) -> list[str]:
        """Return the columns of a list that had this value in every item of every example."""
        lists = [value_of(part, scope) for scope in self.scopes]
        if (
            not all(isinstance(one, list) and all(isinstance(item, dict) for item in one) for one in lists)
            or not lists[0]
        ):
            return []
        return [
            key for key in lists[0][0]
            if isinstance(key, str) and all(item.get(key) == value for one, value in zip(lists, values, strict=True) for item in one)
        ]  # fmt: skip

    def _found(self, part: Any) -> list[Expr]:
        """Return what the search met with the same value in every example, of other data and about as small."""
        if not isinstance(part, Op | Each | Ref) and not hasattr(part, "over"):
            return []
        if not closed(part, self.names) or (isinstance(part, Ref) and part.name in self.params):
            return []
        values = [value_of(part, scope) for scope in self.scopes]
        entry = self.plan.bank.find(values) if Nothing not in map(type, values) else None
        if entry is None:
            return []
        near = [expr for size, expr in entry.rivals if size <= entry.size + 2]
        mine = data_of(part)
        return [
            one for one in [entry.expr, *near]
            if data_of(one) != mine and closed(one, self.names) and not _counts_different(one) and not _by_length(one)
        ]  # fmt: skip


def value_of(node: Expr, scope: Scope) -> Any:
    """Return the value of an expression, `Nothing` where it has none; what is read apart is read once."""

    def change(part: Any) -> Any:
        if isinstance(part, Op) and part.op in _READ and isinstance(part.args[0], Ref):
            name = f"{part.op} {part.args[0].name} {part.args[1:]!r}"
            if part.args[0].name in scope and name not in scope:
                try:
                    scope[name] = FUNCTIONS[part.op](*(evaluate(one, scope) for one in part.args))
                except _FAULTS:
                    return part
            return Ref(name) if name in scope else part
        return part

    try:
        return evaluate(rewritten(node, change), scope)
    except _FAULTS:
        return Nothing()


def _keys_beside(scopes: Sequence[Scope], plan: "Plan") -> dict[str, list[str]]:
    """Return, for each key of a mapping that is known, the other keys that stand there."""
    found: dict[str, dict[str, None]] = {}

    def look(value: Any, depth: int) -> None:
        if isinstance(value, dict):
            keys = [key for key in value if isinstance(key, str)][:_KEYS]
            for key in keys:
                found.setdefault(key, {}).update(dict.fromkeys(other for other in keys if other != key))
            for item in list(value.values())[:_KEYS] if depth else ():
                look(item, depth - 1)
        elif isinstance(value, list) and value and depth:
            look(value[0], depth - 1)

    for scope in scopes[:1]:
        for value in list(scope.values()):
            look(value, 4)
    for entry in plan.bank.entries:
        if entry.kind in ("dict", "list") and entry.size <= 4:
            look(entry.values[0], 4)
    for entry in plan.bank.entries:
        if entry.kind == "list" and entry.size <= 4 and entry.rank in (0, 6):
            inner = plan.bank._inner.get(id(entry))
            for one in inner.entries if inner is not None else ():
                if one.kind == "dict" and one.values:
                    look(one.values[0], 2)
    return {key: list(others)[:_KEYS] for key, others in found.items()}


def _is(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _exchanged(node: Expr, old: Any, new: Any) -> Expr:
    found: Expr = rewritten(node, lambda one: new if _is(one, old) else one)
    return found


def _only(place: int, old: Any, new: Any) -> Callable[[Any], Any]:
    """Return what exchanges a part in one place alone."""
    met = [0]

    def change(part: Any) -> Any:
        if not _is(part, old):
            return part
        met[0] += 1
        return new if met[0] == place + 1 else part

    return change


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and any(char.isalpha() for char in value)


def data_of(node: Any) -> set[str]:
    """Return what tells the data of an expression: names, keys and places."""
    places = {
        f"[{part.args[1].value}]"
        for part in walk(node)
        if isinstance(part, Op)
        and part.op == "item"
        and isinstance(part.args[1], Const)
        and type(part.args[1].value) is int
    }
    return set(data_names(node)) | places


def _counts_different(node: Expr) -> bool:
    return any(isinstance(part, Op) and part.op in ("unique", "counted", "sorted_set") for part in walk(node))


def _by_length(node: Expr) -> bool:
    """Say whether the longest or the shortest text is taken: there are too many such, and nobody names them."""
    keys = [part.key for part in walk(node) if isinstance(part, Pick | Sorted)]
    return any(isinstance(part, Op) and part.op == "len" for key in keys for part in walk(key))
