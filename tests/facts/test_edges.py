"""SQL, the stream and the reference agree at the edges of each type: lists, whole numbers of 64 bits, NaN, empty texts."""

import itertools
import math
from typing import Any

import pytest

from morphogen.schemas.knowledge.stream import NotExecutable, lower
from morphogen.schemas.knowledge.tree import Binary, Call, Expr, Fact, ListExpr, Literal, Unary, Window
from morphogen.schemas.knowledge.wording import source

from .test_equality import CON, sql_truth, stream_truth
from .traces import CASE, EDGES, FIELDS, LISTS, START, Probe, field_of, reference, scope_of

NONE = dict.fromkeys(FIELDS)
COMPARE = ("==", "!=", "<", "<=", ">", ">=")
BEYOND = [2**63, 2**63 + 1, -(2**63) - 1]


def trace(rows: list[dict[str, Any]]) -> list[Probe]:
    return [Probe("r", START + i, "measured", {**NONE, **row}) for i, row in enumerate(rows)]


def facts(bodies: list[Expr]) -> list[Fact]:
    return [Fact(f"f{number}", "t", CASE, body) for number, body in enumerate(bodies)]


def agree(bodies: list[Expr], rows: list[dict[str, Any]]) -> list[list[bool | None]]:
    some, items = facts(bodies), trace(rows)
    expected = reference(some, items)
    streamed, asked = stream_truth(some, items, [1, 3]), sql_truth(CON, some, items)
    for one, *said in zip(bodies, expected, streamed, asked, strict=True):
        assert said[0] == said[1] == said[2], source(one)
    return expected


SOME_LISTS: dict[str, list[Any]] = {
    "xs": [[], [1.0, 2.5], [math.nan], [math.inf, -0.0, None], [1.0] * 12, None],
    "ns": [[], [1, 2**53 + 1], [2**63 - 1, -(2**63)], [None, 1], None],
    "ss": [[], ["a", "NaN", "1"], ["", "\0", "\U0001d538", None], ["true", "null"], None],
    "any": [[], [1, "1", True, None], [2.0, 2**53, 2**53 + 1], [[1], "a"], [2**64 - 1, math.nan, math.inf], None],
}
VALUES = {"x": 1.0, "n": 2**53 + 1, "s": "a", "b": True}


def test_what_a_list_holds_and_how_much() -> None:
    held = [field_of(name) for name in VALUES]
    held += [Literal(one) for one in (1, 2.0, 2**53, math.inf, -(2**63), "NaN", "", "\0", "1", True, False, None)]
    rows = [{**VALUES, name: some} for name, lists in SOME_LISTS.items() for some in lists]
    rows += [{"x": math.nan, "xs": [1.0], "ns": [1], "ss": ["a"], "any": [1]}]
    bodies = [Binary(op, one, field_of(name)) for op, one, name in itertools.product(("in", "not in"), held, LISTS)]
    agree(bodies, rows)


def test_the_length_of_a_list_also_of_one_before() -> None:
    lengths: list[Expr] = [Call("len", (field_of(name),)) for name in LISTS]
    lengths += [Call("len", (Call("first", (field_of(name),), Window(last=2)),)) for name in LISTS]
    bodies = [Binary(op, one, Literal(size)) for op, one, size in itertools.product(("==", ">="), lengths, (0, 3))]
    bodies += [
        Binary(">=", Call("sum", (lengths[0],), Window(last=2)), Literal(3)),
        Binary("<", Unary("-", lengths[0]), Literal(0)),
    ]
    three = agree([Binary(">=", lengths[0], Literal(3)), *bodies], [{"xs": some} for some in SOME_LISTS["xs"]])[0]

    assert three == [False, False, False, True, True, None]


def test_whole_numbers_at_the_end_of_64_bits() -> None:
    n = field_of("n")
    rows: list[dict[str, Any]] = [{"n": one} for one in [*EDGES, 0, 1, None]]
    bodies: list[Expr] = [
        Binary(op, left, right)
        for op, one in itertools.product(COMPARE, [*EDGES, *BEYOND])
        for left, right in ((n, Literal(one)), (Literal(one), n))
    ]
    bodies += [
        Binary("in", n, ListExpr(tuple(map(Literal, some)))) for some in (EDGES, BEYOND, [*BEYOND, None], [1, *BEYOND])
    ]
    bodies += [Binary(op, Unary("-", n), Literal(0)) for op in COMPARE]
    bodies += [Binary(">", Call(name, (Unary("-", n),), Window(last=3)), Literal(0)) for name in ("max", "min", "last")]
    agree(bodies, rows)


def test_what_has_no_single_value_is_refused_where_one_is_needed() -> None:
    grouped = Binary(">", Call("count", (), Window(last=2, per=("xs",))), Literal(1))
    listed = Binary("in", field_of("xs"), field_of("any"))
    for body, said in ((grouped, r"`per xs` groups by \[float\]"), (listed, "a list stands before `in`")):
        with pytest.raises(NotExecutable, match=said):
            lower(Fact("f", "t", CASE, body), FIELDS, scope_of([]))


def test_a_window_of_very_many_items_is_one_of_all() -> None:
    much = Call("count", (), Window(last=10**12))
    rows: list[dict[str, Any]] = [{"x": 1.0}] * 4

    assert agree([Binary(">", much, Literal(2))], rows) == [[False, False, True, True]]
