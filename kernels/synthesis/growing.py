"""What one more operation makes of a value: by its kind, smallest first. The table of moves of the bottom-up search."""

import re
from collections.abc import Sequence
from typing import Any

from .bank import Bank, Entry
from .operators import FUNCTIONS
from .program import Const, Each, Expr, Op, Pick, Ref, Sorted
from .values import is_date, is_moment, is_number

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_INTEGER = re.compile(r"-?\d+")
_MARKS = ("-", "_", "/", ".", ":", ",", "=", " ", "@", "|", ";", "\t")
_MOST_KEYS = 40
_SHORT = 400  # characters of a text that is taken apart as a word rather than as a document


def grown_from(bank: Bank, entry: Entry) -> None:
    """Add to the bank what one operation makes of an entry, alone or with the simple values known so far."""
    {
        "dict": _of_dict, "list": _of_list, "str": _of_text, "bytes": _of_bytes,
    }.get(entry.kind, _of_nothing)(bank, entry)  # fmt: skip
    if entry.simple:
        for other in [one for one in bank.grown if one is not entry and one.kind in ("list", "dict")]:
            _with_scalar(bank, other, entry)


def _of_nothing(bank: Bank, entry: Entry) -> None:
    """Leave numbers and the like to those who look for one."""


def _of_bytes(bank: Bank, entry: Entry) -> None:
    bank.op("len", entry.size + 1, entry)
    bank.op("text_of", entry.size + 1, entry)


def _of_dict(bank: Bank, entry: Entry) -> None:
    size = entry.size + 1
    common = [key for key in entry.values[0] if all(key in value for value in entry.values)][:_MOST_KEYS]
    for key in common:
        bank.op("item", size, entry, key, simple=entry.size <= 3)
    if len({tuple(value) for value in entry.values}) > 1 or (bank.depth == 0 and _alike(entry.values)):
        bank.op("keys", size, entry)
        bank.op("values", size, entry)
        bank.op("pairs", size + 1, entry)
        bank.op("len", size, entry)
    for scalar in bank.scalars():
        _with_scalar(bank, entry, scalar)
    if entry.size <= 3:
        others = [other for other in bank.grown if other.kind == "dict" and other.size <= 3 and other is not entry]
        for other in others[:8]:
            for one, two in ((other, entry), (entry, other)):
                bank.op("merge", one.size + two.size + 1, one, two)
                bank.op("deep_merge", one.size + two.size + 1, one, two)


def _alike(values: Sequence[dict[Any, Any]]) -> bool:
    """Say whether mappings hold values of one kind, so that they are a table rather than a record."""
    kinds = {type(item) for value in values for item in value.values()}
    return len(kinds) == 1 and any(len(value) > 1 for value in values)


def _of_text(bank: Bank, entry: Entry) -> None:
    texts: list[str] = entry.values
    size = entry.size + 1
    bank.op("len", size + 1, entry)
    if all(text[:1] in ("{", "[") for text in map(str.lstrip, texts)):
        bank.op("json", size, entry)
    if any("\n" in text.strip() for text in texts):
        _of_document(bank, entry)
        return
    if any(text != text.strip() for text in texts):
        bank.op("strip", entry.size, entry, simple=max(map(len, texts)) <= 200)
        return
    if max(map(len, texts)) > _SHORT:
        return
    if all(_INTEGER.fullmatch(text.strip()) for text in texts):
        bank.op("int", entry.size, entry, simple=entry.simple)
    if all(_NUMBER.fullmatch(text.strip()) for text in texts):
        bank.op("float", entry.size, entry, simple=entry.simple)
        return
    if all(is_date(text) for text in texts):
        bank.op("weekday", size + 1, entry)
        bank.op("on_workday", size + 1, entry)
        return
    if all(is_moment(text) for text in texts):
        bank.op("take", size + 1, entry, 10, simple=entry.simple)
        return
    if entry.size > 5:
        return
    for name in ("lower", "upper", "strip", "title", "capital"):
        bank.op(name, size + 1, entry, simple=entry.simple and entry.size == 1)
    for mark in _MARKS:
        present = [text.count(mark) for text in texts]
        if not all(present):
            continue
        bank.op("before", size + 1, entry, mark, simple=entry.simple and entry.size == 1)
        bank.op("after", size + 1, entry, mark, simple=entry.simple and entry.size == 1)
        if max(present) > 1:
            bank.op("before_last", size + 1, entry, mark)
            bank.op("after_last", size + 1, entry, mark)
            bank.op("split", size + 1, entry, mark, rank=6)
        if mark == "=" and " " in texts[0]:
            bank.op("fields", size, entry)
    for old, new in (
        (" ", "_"),
        (" ", "-"),
        ("_", "-"),
        ("-", "_"),
        ("_", " "),
        ("-", " "),
        ("/", "_"),
        (".", "_"),
        (",", ""),
    ):
        if any(old in text for text in texts):
            bank.op("replace", size + 2, entry, old, new)
    if any(" " in text for text in texts):
        bank.op("words", size, entry, rank=6)
    if all(any(char.isdigit() for char in text) for text in texts):
        bank.op("found", size, entry, "[0-9]+", rank=6)
        if any("." in text or "-" in text for text in texts):
            bank.op("found", size + 1, entry, "-?[0-9]+[.][0-9]+", rank=6)
    if all(text[:1] in "[(<" and text[-1:] in "])>:" for text in texts if text):
        bank.op("strip_of", size, entry, "[]()<>:")
    elif all(text[-1:] in ":,;%" for text in texts):
        bank.op("strip_of", size, entry, ":,;%")


def _of_document(bank: Bank, entry: Entry) -> None:
    texts: list[str] = entry.values
    size = entry.size + 1
    heads = [text.split("\n", 1)[0] for text in texts]
    table = False
    for mark, name in ((",", "csv"), ("\t", "csv_by"), (";", "csv_by")):
        if all(mark in head for head in heads):
            table = True
            bank.op(name, size, entry, *(() if name == "csv" else (mark,)))
            bank.op("csv_cells", size + 4, entry)
    bank.op("lines", size + (3 if table else 0), entry)
    for mark in ("=", ":"):
        if all(sum(mark in line for line in text.splitlines()) * 2 >= text.count("\n") for text in texts):
            bank.op("options", size, entry, mark)
    for hint in bank.hints:
        if any(hint in text for text in texts):
            bank.op("times_in", size + 2, entry, hint)


def _of_list(bank: Bank, entry: Entry) -> None:
    size = entry.size + 1
    lengths = [len(value) for value in entry.values]
    bank.op("len", size, entry)
    if min(lengths) > 0:
        bank.op("item", size, entry, 0, simple=entry.size <= 2)
        if len(set(lengths)) > 1 or max(lengths) > 8:
            bank.op("item", size, entry, -1)
        shortest = min(lengths) if len(set(lengths)) == 1 or entry.rank in (0, 6) else 1
        for place in range(1, min(shortest, 8)):
            bank.op("item", size + place // 3, entry, place)
    if entry.rank == 6:
        return
    if min(lengths) == 0 and max(lengths) > 0 and bank.depth == 0:
        bank.op("first_of", size, entry)
    items = [item for value in entry.values for item in value]
    if not items:
        return
    if all(is_number(item) for item in items):
        _of_numbers(bank, entry, min(lengths))
        return
    if all(isinstance(item, str) for item in items):
        _of_texts(bank, entry, items)
    elif any(isinstance(item, list) for item in items) and all(isinstance(item, list) for item in items):
        bank.op("flat", size + 1, entry)
    whole = bank.depth == 0 or (bank.count <= 60 and entry.rank == 0 and not isinstance(items[0], str))
    if entry.rank <= 3 and whole:
        _of_items(bank, entry)
    for scalar in bank.scalars():
        _with_scalar(bank, entry, scalar)
    if entry.rank == 0 and entry.size <= 4:
        for other in [
            one for one in bank.grown if one.kind == "list" and one.rank == 0 and one.size <= 4 and one is not entry
        ][:6]:
            for one, two in ((other, entry), (entry, other)):
                bank.op("without", one.size + two.size + 1, one, two, rank=1)
                bank.op("shared", one.size + two.size + 1, one, two, rank=1)
                bank.op("concat", one.size + two.size + 2, one, two, rank=0)


def _of_numbers(bank: Bank, entry: Entry, shortest: int) -> None:
    size = entry.size + 1
    bank.op("sum", size, entry)
    if shortest > 0:
        for name in ("min", "max", "mean", "median"):
            bank.op(name, size, entry)
        bank.op("fmean", size + 1, entry)
        bank.op("smean", size + 1, entry)
    if shortest > 1:
        bank.op("stdev", size + 1, entry)
        bank.op("pstdev", size + 1, entry)
    bank.op("fsum", size + 1, entry)
    if entry.rank <= 4:
        bank.op("sorted", size + 1, entry, rank=5)
        bank.op("sorted_down", size + 1, entry, rank=5)
        bank.op("unique", size + 1, entry, rank=5)
        bank.op("sorted_set", size + 1, entry, rank=5)
    for scalar in bank.scalars():
        _with_scalar(bank, entry, scalar)


def _of_texts(bank: Bank, entry: Entry, items: Sequence[str]) -> None:
    size = entry.size + 1
    if len(set(items)) < 2 and len(items) > 1:
        return
    for name in ("sorted", "sorted_down"):
        if entry.rank < 2:
            bank.op(name, size + 1, entry, rank=2)
    if entry.rank == 4 or len(set(items)) < len(items):
        bank.op("unique", size + 1, entry, rank=5)
        bank.op("sorted_set", size + 1, entry, rank=5)
        bank.op("counted", entry.size, entry)
    if entry.rank != 0 or (bank.depth > 0 and bank.count > 60):
        return
    ends = sorted({f".{item.rsplit('.', 1)[1]}" for item in items if re.search(r".\.[A-Za-z0-9]{1,8}$", item)})
    starts = sorted({found.group() for item in items if (found := re.match(r"[A-Za-z]+", item))})
    capitals = sorted({word for item in items for word in re.findall(r"\b[A-Z]{3,}\b", item)})
    for tail in ends if len(ends) <= 8 else ():
        _kept(bank, entry, "ends", tail, size + 2)
    for head in starts if len(starts) <= 8 else ():
        _kept(bank, entry, "starts", head, size + 2)
    hints = [hint for hint in bank.hints if any(hint in item for item in items)]
    for word in dict.fromkeys([*(capitals if 1 < len(capitals) <= 10 else ()), *hints[:12]]):
        _kept(bank, entry, "contains", word, size + 2)
    if any(item.endswith("/") for item in items):
        places = [[place for place, item in enumerate(value) if not item.endswith("/")] for value in entry.values]
        _derived(bank, entry, Op("not", (Op("ends", (Ref(bank.var), Const("/"))),)), places, size + 2, 1)
    if any(not item.strip() for item in items):
        places = [[place for place, item in enumerate(value) if item.strip()] for value in entry.values]
        _derived(bank, entry, Op("strip", (Ref(bank.var),)), places, size + 2, 0)


def _kept(bank: Bank, entry: Entry, name: str, operand: str, size: int) -> None:
    """Keep the texts that begin with, end with or hold a constant."""
    test = FUNCTIONS[name]
    places = [[place for place, item in enumerate(value) if test(item, operand)] for value in entry.values]
    _derived(bank, entry, Op(name, (Ref(bank.var), Const(operand))), places, size, 1)


def _derived(bank: Bank, entry: Entry, test: Expr, places: Sequence[Sequence[int]], size: int, rank: int) -> None:
    if any(places):
        bank.derive(entry, Each(entry.expr, bank.var, Ref(bank.var), test), places, size, rank)


def columns_of(bank: Bank, entry: Entry) -> list[Entry]:
    """Return what can be read of each item of a list: the scalar values of its inner bank, smallest first."""
    inner = bank.inside(entry)
    if inner is None:
        return []
    return [one for one in inner.of_kind("int", "float", "number", "str", "bool") if one.size > 1]


def _of_items(bank: Bank, entry: Entry) -> None:
    """Columns, the items with the least and greatest of one, orders by one, and what is kept by one."""
    some = min(len(value) for value in entry.values) > 0
    records = all(isinstance(item, dict | list) for value in entry.values for item in value)
    for column in columns_of(bank, entry)[: 60 if entry.rank == 0 else 24]:
        if column.size <= (4 if entry.rank <= 1 else 3) + (0 if records else 1):
            _use_column(bank, entry, column, some)
    if entry.rank == 0 and records:
        _without_none(bank, entry)


def _use_column(bank: Bank, entry: Entry, column: Entry, some: bool) -> None:
    by = bank.column(entry, column)
    numeric = column.kind in ("int", "float", "number")
    bank.add(Each(entry.expr, bank.var, column.expr), by, entry.size + column.size - 1, rank=4)
    if numeric and some and entry.rank <= 1:
        for which in ("min", "max"):
            _picked(bank, entry, column, which, by)
    plain_text = column.kind == "str" and not all(_NUMBER.fullmatch(text) for text in column.values)
    if entry.rank <= 1 and (numeric or plain_text) and len(set(map(str, column.values))) > 1 and column.size <= 4:
        for down in (False, True):
            _ordered(bank, entry, column, by, down)
    if entry.rank == 0 and column.kind == "str" and any(not text for text in column.values):
        places = [[place for place, text in enumerate(texts) if text] for texts in by]
        expr = Each(entry.expr, bank.var, Ref(bank.var), column.expr)
        bank.derive(entry, expr, places, entry.size + column.size - 1, 0)


def _named_column(bank: Bank, entry: Entry, scalar: Entry) -> None:
    """Read the column that a text names."""
    names = {name for value, name in zip(entry.values, scalar.values, strict=True) if value}
    if (
        entry.rank > 1
        or not all(
            isinstance(item, dict) and name in item
            for value, name in zip(entry.values, scalar.values, strict=True)
            for item in value
        )
        or not names
    ):
        return
    inner = bank.inside(entry)
    if inner is None:
        return
    base = entry.base or entry
    lengths = [len(value) for value in base.values]
    names_of = [name for name, length in zip(scalar.values, lengths, strict=True) for _ in range(length)]
    items = [item for value in base.values for item in value]
    if not all(name in item for name, item in zip(names_of, items, strict=True)):
        return
    before = len(inner.entries)
    values = [item[name] for name, item in zip(names_of, items, strict=True)]
    inner.add(Op("item", (Ref(bank.var), scalar.expr)), values, 2)
    inner.grow(4)
    some = min(len(value) for value in entry.values) > 0
    for column in inner.entries[before:][:12]:
        if column.kind in ("int", "float", "number", "str", "bool") and column.size <= 3:
            _use_column(bank, entry, column, some)


def _picked(bank: Bank, entry: Entry, column: Entry, which: str, by: Sequence[Sequence[Any]]) -> None:
    chosen = min if which == "min" else max
    values = [
        value[chosen(range(len(value)), key=keys.__getitem__)] for value, keys in zip(entry.values, by, strict=True)
    ]
    bank.add(Pick(which, entry.expr, bank.var, column.expr), values, entry.size + column.size)


def _ordered(bank: Bank, entry: Entry, column: Entry, by: Sequence[Sequence[Any]], down: bool) -> None:
    places = [sorted(range(len(keys)), key=keys.__getitem__, reverse=down) for keys in by]
    bank.derive(entry, Sorted(entry.expr, bank.var, column.expr, down), places, entry.size + column.size, 2)


def _without_none(bank: Bank, entry: Entry) -> None:
    first = next((value[0] for value in entry.values if value), None)
    names: Sequence[Any] = (
        list(first) if isinstance(first, dict) else range(len(first)) if isinstance(first, list) else ()
    )
    for name in list(names)[:_MOST_KEYS]:
        try:
            places = [[place for place, item in enumerate(value) if item[name] is not None] for value in entry.values]
        except (LookupError, TypeError):
            continue
        if any(len(kept) < len(value) for kept, value in zip(places, entry.values, strict=True)) and any(places):
            test = Op("is_some", (Op("item", (Ref(bank.var), Const(name))),))
            bank.derive(entry, Each(entry.expr, bank.var, Ref(bank.var), test), places, entry.size + 2, 0)


def _with_scalar(bank: Bank, entry: Entry, scalar: Entry) -> None:
    """Look into a list or a mapping with a simple value: by place, by key, by comparing."""
    size = entry.size + scalar.size
    if entry.kind == "dict":
        if scalar.kind == "str" and all(one in value for value, one in zip(entry.values, scalar.values, strict=True)):
            bank.op("item", size + 1, entry, scalar, simple=entry.size <= 2 and scalar.size == 1)
        return
    if scalar.kind == "str" and scalar.size <= 2 and entry.size <= 4:
        _named_column(bank, entry, scalar)
    if scalar.kind == "int" and bank.depth == 0 and all(0 <= one <= 10_000 for one in scalar.values):
        longer = any(len(value) > one for value, one in zip(entry.values, scalar.values, strict=True))
        if longer and entry.rank in (0, 2, 4, 5):
            _cut(bank, entry, scalar, size + 1)
        if entry.rank == 0 and scalar.size == 1:
            bank.op("item", size + 1, entry, scalar)
            bank.op("drop", size + 1, entry, scalar, rank=3)
    if entry.rank > 1 or entry.size > 5 or scalar.size > 4 or (bank.depth > 0 and bank.count > 24):
        return
    _compared(bank, entry, scalar, size)


def _cut(bank: Bank, entry: Entry, count: Entry, size: int) -> None:
    """Take so many items from the beginning, or from the end."""
    rank = 3 if entry.rank < 4 else entry.rank
    lengths = [len(value) for value in entry.values]
    first = [list(range(length))[:most] for length, most in zip(lengths, count.values, strict=True)]
    bank.derive(entry, Op("take", (entry.expr, count.expr)), first, size, rank)
    if all(count.values):
        last = [list(range(length))[-most:] for length, most in zip(lengths, count.values, strict=True)]
        bank.derive(entry, Op("take_last", (entry.expr, count.expr)), last, size, rank)


def _compared(bank: Bank, entry: Entry, scalar: Entry, size: int) -> None:
    inner = bank.inside(entry)
    if inner is None or len(bank.entries) > bank.most * 3 // 4:
        return
    numbers = ("int", "float", "number")
    columns = [one for one in inner.of_kind(*numbers, "str", "bool") if one.size <= (4 if entry.rank == 0 else 2)]
    for column in columns[:40]:
        by = bank.column(entry, column)
        names: tuple[str, ...] = ()
        if scalar.kind == column.kind or (scalar.kind in numbers and column.kind in numbers):
            ordered = scalar.kind in numbers or (is_date(scalar.values[0]) and is_date(column.values[0]))
            names = ("eq", "lt", "gt", "ge", "le") if ordered and entry.rank == 0 else ("eq",)
        if scalar.kind == "str" and column.kind == "str" and column.size == 1:
            names = (*names, "contains", "starts", "ends")
        for name in names:
            _kept_by(bank, entry, column, scalar, name, by, size + (name != "eq"))


def _kept_by(
    bank: Bank, entry: Entry, column: Entry, scalar: Entry, name: str, by: Sequence[Sequence[Any]], size: int
) -> None:
    function = FUNCTIONS[name]
    try:
        places = [
            [place for place, left in enumerate(keys) if function(left, right)]
            for keys, right in zip(by, scalar.values, strict=True)
        ]
    except TypeError:
        return
    kept = sum(map(len, places))
    if 0 < kept < sum(map(len, by)):
        test = Op(name, (column.expr, scalar.expr))
        bank.derive(entry, Each(entry.expr, bank.var, Ref(bank.var), test), places, size + max(1, column.size - 1), 1)
