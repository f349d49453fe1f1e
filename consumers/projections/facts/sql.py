"""A condition as SQL: a SELECT over the table of its case, with the same meaning as the stream.

Unknown is NULL. What is NaN becomes NULL as soon as it can come up; windows follow the log's order within a run; a window
of time goes by the run's clock, the largest event time so far.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morphogen.schemas.knowledge.stream import Column, Condition, Const, Frame, Node, Op, Over

_NAN = "'NaN'::DOUBLE"
_QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
_COMPARE = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_WHOLE_TYPES = "'BIGINT', 'UBIGINT'"  # what `json_type` calls numbers
_NUMBER_TYPES = f"'DOUBLE', {_WHOLE_TYPES}"

_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Relation:
    """The table or view that holds the items of a case.

    `columns` gives the column of each field, `order` the columns that make the log's order, `shown` those that a view of
    a fact shows beside its truth.
    """

    name: str
    columns: Mapping[str, str]
    order: tuple[str, ...]
    shown: tuple[str, ...]
    floats: frozenset[str] = frozenset()
    """Fields that are DOUBLE, in which NaN may lie."""


def fact_sql(condition: Condition, relation: Relation) -> str:
    """Return the SELECT of a fact: the items that were measured, `truth` (NULL is unknown) and `holds`."""
    compiler = _Compiler(relation)
    truth, holds = compiler.at_end(condition.body), compiler.surely(condition.body)
    source = compiler.source()
    shown = ", ".join(quoted(name) for name in relation.shown)
    return f"SELECT {shown}, {truth} AS truth, {holds} AS holds FROM {source}"


def quoted(name: str) -> str:
    """Return a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(value: str) -> str:
    """Return a string as a literal of SQL."""
    parts = ["'" + part.replace("'", "''") + "'" for part in value.split("\0")]
    return parts[0] if len(parts) == 1 else "(" + " || chr(0) || ".join(parts) + ")"


@dataclass(frozen=True, slots=True)
class _Sql:
    """An expression, the level of the query on which it can stand, and whether it may be written twice."""

    text: str
    level: int
    plain: bool = False


class _Compiler:
    """Makes nested SELECTs: what an expression needs twice, and every window, is a column of a level below."""

    def __init__(self, relation: Relation) -> None:
        self._relation = relation
        self._levels: list[dict[str, str]] = []  # columns that each level adds, by name
        self._columns: dict[str, _Sql] = {}  # those columns by their text
        self._done: dict[Node, _Sql] = {}

    def at_end(self, node: Node) -> str:
        """Return the expression for the outermost SELECT."""
        return self._node(node).text

    def surely(self, node: Node, wanted: bool = True) -> str:
        """Return the expression that is true where a condition is `wanted`, and false, never NULL, where not.

        Comparisons of a field with a constant stay bare, so that DuckDB can skip what cannot match.
        """
        if isinstance(node, Op) and node.name == "not":
            return self.surely(node.args[0], not wanted)
        if isinstance(node, Op) and node.name in ("and", "or"):
            word = "AND" if (node.name == "and") == wanted else "OR"
            return "(" + f" {word} ".join(self.surely(arg, wanted) for arg in node.args) + ")"
        if isinstance(node, Column):
            name = quoted(self._relation.columns[node.name])
            return f"({name} IS NOT NULL AND {name if wanted else f'NOT {name}'})"
        if isinstance(node, Op) and node.name in _COMPARE:
            bare = self._bare(node, wanted)
            if bare is not None:
                return bare
        text = self._node(node).text
        return f"coalesce({text if wanted else f'NOT {text}'}, false)"

    def _bare(self, node: Op, wanted: bool) -> str | None:
        left, right = node.args
        name = node.name if wanted else _OPPOSITE[node.name]
        if isinstance(left, Const):
            left, right, name = right, left, _MIRRORED.get(name, name)
        if not (isinstance(left, Column) and isinstance(right, Const)) or right.value is None:
            return None
        if left.kind != right.kind and not (left.kind == "number" and right.kind == "int"):
            return None
        column = quoted(self._relation.columns[left.name])
        value = _const(right) if right.kind == left.kind else _double(right, _Sql(_const(right), 0)).text
        # NaN is above every number in DuckDB, so it answers to >, >= and <> alone.
        guard = f" AND {column} <= 'Infinity'::DOUBLE" if left.kind == "number" and name in (">", ">=", "!=") else ""
        return f"({column} IS NOT NULL AND {column} {_COMPARE[name]} {value}{guard})"

    def source(self) -> str:
        """Return what the outermost SELECT is over."""
        source = f"(SELECT * FROM {self._relation.name} WHERE origin = 'measured')"
        for level in self._levels:
            added = ", ".join(f"{sql} AS {name}" for name, sql in level.items())
            source = f"(SELECT *, {added} FROM {source})"
        return source

    def _let(self, text: str, level: int) -> _Sql:
        """Make an expression a column."""
        found = self._columns.get(text)
        if found is None:
            while len(self._levels) <= level:
                self._levels.append({})
            name = f"_v{len(self._columns)}"
            self._levels[level][name] = text
            found = self._columns[text] = _Sql(name, level + 1, plain=True)
        return found

    def _plain(self, sql: _Sql) -> _Sql:
        return sql if sql.plain else self._let(sql.text, sql.level)

    def _node(self, node: Node) -> _Sql:
        found = self._done.get(node)
        if found is None:
            match node:
                case Const():
                    found = _Sql(_const(node), 0, plain=True)
                case Column():
                    found = _Sql(self._column(node), 0, plain=True)
                case Over():
                    found = self._over(node)
                case Op():
                    found = self._op(node)
            self._done[node] = found
        return found

    def _column(self, node: Column) -> str:
        name = quoted(self._relation.columns[node.name])
        return f"nullif({name}, {_NAN})" if node.kind == "number" else name

    # Operators

    def _op(self, node: Op) -> _Sql:
        name = node.name
        args = [self._node(arg) for arg in node.args]
        level = max(arg.level for arg in args)
        if name in ("and", "or"):
            return _Sql("(" + f" {name.upper()} ".join(arg.text for arg in args) + ")", level)
        if name == "not":
            return _Sql(f"(NOT {args[0].text})", level)
        if name == "is_known":
            return _Sql(f"({args[0].text} IS NOT NULL)", level)
        if name in _COMPARE:
            left, right = self._alike(node.args, args)
            return _Sql(f"({left} {_COMPARE[name]} {right})", level)
        if name == "in":
            return self._in(node, args, level)
        if name == "within":
            return self._within(node, args)
        if name == "len":
            count = "json_array_length" if node.args[0].kind == "list" else "length"
            return _Sql(f"{count}({args[0].text})::BIGINT", level)
        if name == "concat":
            return _Sql(f"({args[0].text} || {args[1].text})", level)
        if name == "neg" and node.kind == "int":
            return _Sql(f"(-nullif({args[0].text}, {_const(_LEAST)}))", level)  # whose opposite has no 64 bits
        numbers = [_double(one, arg) for one, arg in zip(node.args, args, strict=True)]
        if name in ("min", "max", "clamp"):
            return self._bounded(name, numbers)
        return _Sql(_arithmetic(name, [one.text for one in numbers]), level)

    def _alike(self, nodes: Sequence[Node], args: Sequence[_Sql]) -> list[str]:
        """Return two sides of a comparison: whole numbers as they are, otherwise numbers as DOUBLE."""
        if all(node.kind == "int" for node in nodes) or nodes[0].kind in ("text", "flag"):
            return [arg.text for arg in args]
        return [_double(node, arg).text for node, arg in zip(nodes, args, strict=True)]

    def _in(self, node: Op, args: list[_Sql], level: int) -> _Sql:
        value, items = node.args[0], node.args[1:]
        if not items:
            here = self._plain(args[0])
            return _Sql(f"(CASE WHEN {here.text} IS NOT NULL THEN false END)", here.level)
        here = self._plain(args[0])
        level = max(level, here.level)
        numeric = value.kind in ("number", "int")
        tests = []
        for item, arg in zip(items, args[1:], strict=True):
            if item.kind == value.kind or (numeric and item.kind in ("number", "int")):
                left, right = self._alike((value, item), (here, arg))
                tests.append(f"{left} = {right}")
            else:
                tests.append("NULL::BOOLEAN")
        # Where the value is unknown, so is every test: also the one against a constant that can be no match.
        return _Sql(f"(CASE WHEN {here.text} IS NOT NULL THEN ({' OR '.join(tests)}) END)", level)

    def _within(self, node: Op, args: list[_Sql]) -> _Sql:
        """Tell whether a list, which is stored as JSON, holds a value; an item of another kind may be it or not."""
        value, items = (self._plain(arg) for arg in args)
        same = _same_item(node.args[0], value.text)
        tests = self._let(
            f"""list_transform(from_json({items.text}, '["JSON"]'), lambda e: {same})""", max(value.level, items.level)
        )
        return _Sql(
            f"(CASE WHEN {value.text} IS NULL OR {tests.text} IS NULL THEN NULL "
            f"WHEN list_contains({tests.text}, true) THEN true "
            f"WHEN len(list_filter({tests.text}, lambda e: e IS NULL)) = 0 THEN false END)",
            tests.level,
        )

    def _bounded(self, name: str, args: list[_Sql]) -> _Sql:
        """Return min, max or clamp: unknown where any argument is, which `least` and `greatest` would pass over."""
        plain = [self._plain(arg) for arg in args]
        texts = [arg.text for arg in plain]
        known = " AND ".join(f"{text} IS NOT NULL" for text in texts)
        if name == "clamp":
            value = f"least(greatest({texts[0]}, {texts[1]}), {texts[2]})"
        else:
            value = f"{'least' if name == 'min' else 'greatest'}({', '.join(texts)})"
        return self._let(f"CASE WHEN {known} THEN {value} END", max(arg.level for arg in plain))

    # Aggregates

    def _over(self, node: Over) -> _Sql:
        arg = None if node.arg is None else self._plain(_double(node.arg, self._node(node.arg), only=node.name))
        window, level = self._window(node.frame)
        if arg is not None:
            level = max(level, arg.level)
        if node.name == "count":
            return self._let(f"count({'*' if arg is None else arg.text}) OVER {window}", level)
        assert arg is not None
        if node.name in ("first", "last"):
            return self._let(f"{node.name}_value({arg.text} IGNORE NULLS) OVER {window}", level)
        if node.name in _QUANTILES:
            return self._let(f"nullif(quantile_cont({arg.text}, {_QUANTILES[node.name]}) OVER {window}, {_NAN})", level)
        if node.name == "delta":
            last, first = (f"{edge}_value({arg.text} IGNORE NULLS) OVER {window}" for edge in ("last", "first"))
            return self._let(f"nullif({last} - {first}, {_NAN})", level)
        if node.name in ("std", "slope"):
            return self._spread(node, arg, window, level)
        return self._let(f"nullif({node.name}({arg.text}) OVER {window}, {_NAN})", level)

    def _spread(self, node: Over, arg: _Sql, window: str, level: int) -> _Sql:
        """Return std or slope; where all values are one, they are 0 and not what rounding makes of it."""
        if node.name == "std":
            value = f"stddev_samp({arg.text}) OVER {window}"
        else:  # the number of each known value among those of its group; where it begins makes no difference
            part, order = self._partition(node.frame), ", ".join(map(quoted, self._relation.order))
            number = self._let(
                f"count({arg.text}) OVER (PARTITION BY {part} ORDER BY {order} ROWS UNBOUNDED PRECEDING)", level
            )
            level = max(level, number.level)
            value = f"regr_slope({arg.text}, {number.text}) OVER {window}"
        low, high = f"min({arg.text}) OVER {window}", f"max({arg.text}) OVER {window}"
        several = f"count({arg.text}) OVER {window} > 1"
        return self._let(
            f"CASE WHEN {several} THEN CASE WHEN {low} = {high} AND isfinite({low}) THEN 0.0::DOUBLE "
            f"ELSE nullif({value}, {_NAN}) END END",
            level,
        )

    def _partition(self, frame: Frame) -> str:
        groups = []
        for name in frame.per:
            column = quoted(self._relation.columns[name])
            groups.append(f"nullif({column}, {_NAN})" if name in self._relation.floats else column)
        return ", ".join(["run", *groups])

    def _window(self, frame: Frame) -> tuple[str, int]:
        """Return a window and the level on which it can stand."""
        part, order = self._partition(frame), ", ".join(map(quoted, self._relation.order))
        if frame.last is not None:
            if frame.last <= 0:
                return (
                    f"(PARTITION BY {part} ORDER BY {order} ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING EXCLUDE GROUP)",
                    0,
                )
            return f"(PARTITION BY {part} ORDER BY {order} ROWS BETWEEN {frame.last - 1} PRECEDING AND CURRENT ROW)", 0
        if frame.duration_ns is None:
            return f"(PARTITION BY {part} ORDER BY {order} ROWS UNBOUNDED PRECEDING)", 0
        clock = self._let(f"max(epoch_ns(time)) OVER (PARTITION BY run ORDER BY {order} ROWS UNBOUNDED PRECEDING)", 0)
        # Items of one clock are peers to RANGE, also those that come later: so the frame is counted out in rows.
        before = (
            f"row_number() OVER (PARTITION BY {part} ORDER BY {order}) - 1 - count(*) OVER (PARTITION BY {part} "
            f"ORDER BY {clock.text} RANGE BETWEEN UNBOUNDED PRECEDING AND {frame.duration_ns} PRECEDING)"
        )
        rows = self._let(before, clock.level)
        return (
            f"(PARTITION BY {part} ORDER BY {order} ROWS BETWEEN {rows.text} PRECEDING AND CURRENT ROW)",
            rows.level,
        )


def _double(node: Node, sql: _Sql, only: str = "") -> _Sql:
    """Return a whole number as DOUBLE; anything else, and what is only counted or handed on, as it is."""
    if node.kind != "int" or only in ("count", "first", "last"):
        return sql
    return _Sql(f"{sql.text}::DOUBLE", sql.level, sql.plain)


def _same_item(node: Node, value: str) -> str:
    """Return whether `e`, an item of a list as JSON, is a value; NULL where it is NaN, null or of another kind."""
    if node.kind == "text":
        return f"CASE WHEN json_type(e) = 'VARCHAR' THEN (e->>'$') = {value} END"
    if node.kind == "flag":
        return f"CASE WHEN json_type(e) = 'BOOLEAN' THEN e::BOOLEAN = {value} END"
    number = f"CASE WHEN json_type(e) IN ({_NUMBER_TYPES}) THEN nullif(e::DOUBLE, {_NAN}) = {value}::DOUBLE END"
    if node.kind != "int":
        return number
    return f"CASE WHEN json_type(e) IN ({_WHOLE_TYPES}) THEN e::HUGEINT = {value} ELSE {number} END"


_LEAST = Const(-(2**63), "int")


def _const(node: Const) -> str:
    value = node.value
    if value is None:
        return {"flag": "NULL::BOOLEAN", "text": "NULL::VARCHAR"}.get(node.kind, "NULL::DOUBLE")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return text_literal(value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return f"(({value})::BIGINT)"
    number = float(value) if abs(value) < 1e308 or isinstance(value, float) else math.copysign(math.inf, value)
    if math.isinf(number):
        return "'Infinity'::DOUBLE" if number > 0 else "'-Infinity'::DOUBLE"
    return f"({number!r}::DOUBLE)"


def _arithmetic(name: str, args: list[str]) -> str:
    one = args[0]
    if name in ("+", "-", "*"):
        return f"nullif({one} {name} {args[1]}, {_NAN})"
    if name in ("/", "%"):
        return f"nullif({one} {name} nullif({args[1]}, 0), {_NAN})"
    if name == "neg":
        return f"(-{one})"
    if name in ("log", "log2"):  # of 0 it is -inf, and of nothing else
        return f"nullif(nullif({'ln' if name == 'log' else 'log2'}({one}), {_NAN}), '-Infinity'::DOUBLE)"
    return f"nullif({name}({one}), {_NAN})"
