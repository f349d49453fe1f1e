"""What a node is worth for every item of a batch: operators and scalar functions over whole columns.

The meaning is that of `..logic`: NaN is unknown, arithmetic is float64, logic is three-valued, two ints compare exactly.
Aggregates and fields are looked up, not computed here.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ..logic import contains
from .columns import Codes, Flag, Floats, Integer, Lists, Mask, Number, Text, Values
from .plan import Const, Node, Op

Known: TypeAlias = "dict[Node, Values | Const]"
"""Values of nodes by what the node says; fields and aggregates must be in it from the start."""


def value_of(node: Node, known: Known) -> "Values | Const":
    """Return the value of a node; a constant stays one. What is computed on the way is kept in `known`."""
    if isinstance(node, Const):
        return node
    found = known.get(node)
    if found is None:
        assert isinstance(node, Op), f"{node} was not read"
        found = known[node] = _op(node, known)
    return found


def column_of(node: Node, known: Known, length: int) -> Values:
    """Return the value of a node as a column of `length` rows."""
    found = value_of(node, known)
    return spread(found, length) if isinstance(found, Const) else found


def spread(const: Const, length: int) -> Values:
    """Return a constant as a column."""
    value = const.value
    if const.kind == "flag":
        return Flag(np.full(length, value is True), np.full(length, value is False))
    if isinstance(value, str):
        return Text(np.zeros(length, np.int32), [value])
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return Integer(np.full(length, value, np.int64))
    return Number(np.full(length, np.nan if value is None else _float(value)))


def floats(value: "Values | Const") -> Any:
    """Return numbers as float64, NaN where unknown; a constant as one float."""
    if isinstance(value, Number):
        return value.values
    if isinstance(value, Integer):
        return value.floats()
    if isinstance(value, Const) and value.value is not None:
        return _float(value.value)
    return np.nan


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def _op(node: Op, known: Known) -> "Values | Const":
    args = [value_of(arg, known) for arg in node.args]
    lengths = [len(arg) for arg in args if not isinstance(arg, Const)]
    if lengths:
        return _compute(node, args, lengths[0])
    alone = _compute(node, [spread(arg, 1) if isinstance(arg, Const) else arg for arg in args], 1)
    return _single(node, alone)


def _single(node: Op, value: Values) -> Const:
    """Return a column of one row as a constant."""
    return Const(value.plain(np.zeros(1, np.intp))[0], node.kind)


def _compute(node: Op, args: "list[Values | Const]", length: int) -> Values:
    name = node.name
    if name in ("and", "or"):
        return _logic(name, args)
    if name == "not":
        inner = args[0]
        assert isinstance(inner, Flag)
        return Flag(inner.false, inner.true)
    if name in _COMPARE:
        return _compare(name, args[0], args[1])
    if name == "in":
        return _in(args[0], args[1:], length)
    if name == "within":
        return _within(args[0], args[1])
    if name == "is_known":
        there = known_rows(args[0] if not isinstance(args[0], Const) else spread(args[0], length))
        return Flag(there, ~there)
    if name == "len":
        return _len(args[0])
    if name == "concat":
        return _concat(args[0], args[1])
    if name == "neg" and isinstance(args[0], Integer):
        return _negated(args[0])
    with np.errstate(all="ignore"):
        return Number(_NUMERIC[name](*map(floats, args)))


# Logic ----------------------------------------------------------------------------------------------------------


def _logic(name: str, args: "list[Values | Const]") -> Flag:
    true: Any = name == "and"
    false: Any = name == "or"
    for arg in args:
        if isinstance(arg, Const):
            here_true: Any = arg.value is True
            here_false: Any = arg.value is False
        else:
            assert isinstance(arg, Flag)
            here_true, here_false = arg.true, arg.false
        if name == "and":
            true, false = true & here_true, false | here_false
        else:
            true, false = true | here_true, false & here_false
    return Flag(true, false)


def known_rows(value: "Values | Const") -> Mask:
    """Return which rows of a column are known."""
    match value:
        case Number(values=values):
            return ~np.isnan(values)
        case Integer(values=values, missing=missing):
            return np.ones(len(values), np.bool_) if missing is None else ~missing
        case Text(codes=codes):
            return codes >= 0
        case Flag(true=true, false=false):
            return true | false
        case Lists(values=values):
            return np.array([one is not None for one in values], np.bool_)
        case _:
            raise AssertionError(value)


# Comparison -----------------------------------------------------------------------------------------------------

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def _compare(name: str, left: "Values | Const", right: "Values | Const") -> Flag:
    if isinstance(left, Flag) or isinstance(right, Flag):
        return _compare_flags(name, left, right)
    if isinstance(left, Text) or isinstance(right, Text):
        return _compare_texts(name, left, right)
    exact, exact_too = _exact(left), _exact(right)
    if exact is not None and exact_too is not None:
        (one, gone), (other, gone_too) = exact, exact_too
        true, false = _COMPARE[name](one, other), _COMPARE[_OPPOSITE[name]](one, other)
        for missing in (gone, gone_too):
            if missing is not None:
                true, false = true & ~missing, false & ~missing
        return Flag(true, false)
    one, other = floats(left), floats(right)
    true, false = _COMPARE[name](one, other), _COMPARE[_OPPOSITE[name]](one, other)
    if name == "!=":  # true of NaN, which is unknown
        true = (one < other) | (one > other)
    elif name == "==":
        false = (one < other) | (one > other)
    return Flag(true, false)


def _exact(value: "Values | Const") -> "tuple[Any, Mask | None] | None":
    """Return whole numbers as int64 with what is missing; None where they are no ints, or beyond int64."""
    if isinstance(value, Integer):
        return value.values, value.missing
    if isinstance(value, Const) and value.kind == "int" and isinstance(value.value, int):
        return (np.int64(value.value), None) if -(2**63) <= value.value < 2**63 else None
    return None


def _compare_flags(name: str, left: "Values | Const", right: "Values | Const") -> Flag:
    one, other = _as_flag(left), _as_flag(right)
    same = (one.true & other.true) | (one.false & other.false)
    unlike = (one.true & other.false) | (one.false & other.true)
    return Flag(same, unlike) if name == "==" else Flag(unlike, same)


def _as_flag(value: "Values | Const") -> Flag:
    if isinstance(value, Flag):
        return value
    assert isinstance(value, Const)
    return Flag(np.bool_(value.value is True), np.bool_(value.value is False))  # type: ignore[arg-type]


def _compare_texts(name: str, left: "Values | Const", right: "Values | Const") -> Flag:
    if isinstance(left, Const):
        mirrored = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
        return _compare_texts(mirrored.get(name, name), right, left)
    assert isinstance(left, Text)
    if isinstance(right, Const):
        word = right.value
        if not isinstance(word, str):
            return Flag(np.zeros(len(left), np.bool_), np.zeros(len(left), np.bool_))
        # Words compare as Python compares strings: by code point. The entry at the end is for unknown ones.
        table = np.array([bool(_COMPARE[name](one, word)) for one in left.words] + [False], np.bool_)
        there = left.codes >= 0
        return Flag(table[left.codes], ~table[left.codes] & there)
    assert isinstance(right, Text)
    ranks = {word: rank for rank, word in enumerate(sorted({*left.words, *right.words}))}
    one, other = _ranked(left, ranks), _ranked(right, ranks)
    there = (left.codes >= 0) & (right.codes >= 0)
    return Flag(_COMPARE[name](one, other) & there, _COMPARE[_OPPOSITE[name]](one, other) & there)


def _ranked(value: Text, ranks: Mapping[str, int]) -> Any:
    return np.array([*(ranks[word] for word in value.words), -1], np.int64)[value.codes]


def _in(value: "Values | Const", items: "list[Values | Const]", length: int) -> Flag:
    column = spread(value, length) if isinstance(value, Const) else value
    true: Mask = np.zeros(length, np.bool_)
    false: Mask = known_rows(column)  # nothing is in an empty list; whether an unknown value is, is unknown
    for item in items:
        if _kind(value) != _kind(item):  # unlike kinds, or null: it may be or may not be
            false = np.zeros(length, np.bool_)
        else:
            found = _compare("==", column, item)
            true, false = true | found.true, false & found.false
    return Flag(true, false)


def _kind(value: "Values | Const") -> str:
    if isinstance(value, Const):
        return {"int": "number"}.get(value.kind, value.kind)
    return {Number: "number", Integer: "number", Text: "text", Flag: "flag", Lists: "list"}[type(value)]


def _within(value: "Values | Const", items: "Values | Const") -> Flag:
    assert isinstance(items, Lists)
    every = np.arange(len(items))
    values = [value.value] * len(items) if isinstance(value, Const) else value.plain(every)
    found = [contains(some, one) for some, one in zip(items.values, values, strict=True)]
    return Flag(np.array([one is True for one in found]), np.array([one is False for one in found]))


# Text -----------------------------------------------------------------------------------------------------------


def _len(value: "Values | Const") -> Integer:
    if isinstance(value, Text):
        sizes = np.array([*(len(word) for word in value.words), 0], np.int64)
        return Integer(sizes[value.codes], value.codes < 0)
    assert isinstance(value, Lists)
    gone = np.array([one is None for one in value.values], np.bool_)
    return Integer(np.array([0 if one is None else len(one) for one in value.values], np.int64), gone)


def _concat(left: "Values | Const", right: "Values | Const") -> Text:
    length = max(len(value) for value in (left, right) if not isinstance(value, Const))
    one, other = (spread(value, length) if isinstance(value, Const) else value for value in (left, right))
    if not (isinstance(one, Text) and isinstance(other, Text)):
        return Text(np.full(length, -1, np.int32), [])
    pairs = one.codes.astype(np.int64) * (len(other.words) + 1) + other.codes
    there = (one.codes >= 0) & (other.codes >= 0)
    used, codes = np.unique(pairs[there], return_inverse=True)
    width = len(other.words) + 1
    words = [one.words[pair // width] + other.words[pair % width] for pair in used.tolist()]
    out: Codes = np.full(length, -1, np.int32)
    out[there] = codes
    return Text(out, words)


# Arithmetic -----------------------------------------------------------------------------------------------------


def _negated(value: Integer) -> Integer:
    least = value.values == np.iinfo(np.int64).min  # whose opposite has no 64 bits
    missing = value.missing if not least.any() else least if value.missing is None else least | value.missing
    return Integer(-value.values, missing)


def _divide(one: Floats, other: Floats) -> Floats:
    return np.where(np.equal(other, 0), np.nan, np.divide(one, other))


def _positive(function: Callable[[Any], Any]) -> Callable[[Floats], Floats]:
    return lambda value: np.where(np.greater(value, 0), function(value), np.nan)


def _round(value: Floats) -> Floats:
    size = np.abs(value)
    whole = np.floor(size)
    return np.copysign(np.where(size - whole >= 0.5, whole + 1, whole), value)


def _least(*values: Floats) -> Floats:
    out = values[0]
    for value in values[1:]:
        out = np.minimum(out, value)
    return out


def _most(*values: Floats) -> Floats:
    out = values[0]
    for value in values[1:]:
        out = np.maximum(out, value)
    return out


_NUMERIC: Mapping[str, Callable[..., Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _divide,
    "%": np.fmod,
    "neg": np.negative,
    "abs": np.abs,
    "log2": _positive(np.log2),
    "log": _positive(np.log),
    "exp": np.exp,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": _round,
    "min": _least,
    "max": _most,
    "clamp": lambda value, low, high: np.minimum(np.maximum(value, low), high),
}
