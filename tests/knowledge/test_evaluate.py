"""What expressions are worth: total, three-valued, and never text run as code."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas.knowledge.aggregates import AGGREGATES, Item, aggregate, window_items
from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate, evaluate_fact, expand, holds, show
from morphogen.schemas.knowledge.logic import COMPARISONS, arithmetic
from morphogen.schemas.knowledge.program import load_text
from morphogen.schemas.knowledge.tree import (
    Binary,
    Call,
    Expr,
    Fact,
    Field,
    Index,
    ListExpr,
    Literal,
    MapExpr,
    Name,
    Property,
    RangeExpr,
    SystemModel,
    Template,
    Unary,
    Window,
)

OPERATORS = ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
numbers = st.none() | st.integers() | st.floats()


def op(symbol: str, left: object, right: object) -> Any:
    return evaluate(Binary(symbol, Name("a"), Name("b")), Scope(names={"a": left, "b": right}))


def call(name: str, *arguments: object) -> Any:
    names = {f"x{place}": one for place, one in enumerate(arguments)}
    return evaluate(Call(name, tuple(Name(one) for one in names)), Scope(names=names))


@given(st.sampled_from(OPERATORS), values, values)
def test_no_operator_raises_or_gives_nan(symbol: str, left: object, right: object) -> None:
    found = op(symbol, left, right)

    assert not (isinstance(found, float) and math.isnan(found))


@given(
    st.sampled_from(
        [
            "abs",
            "min",
            "max",
            "log2",
            "log",
            "exp",
            "sqrt",
            "floor",
            "ceil",
            "round",
            "len",
            "is_known",
            "clamp",
            "number",
            *AGGREGATES,
        ]
    ),
    st.lists(values, min_size=1, max_size=4),
)
def test_no_function_raises_or_gives_nan(name: str, arguments: list[object]) -> None:
    try:
        found = call(name, *arguments)
    except EvaluateError:
        assert name in AGGREGATES and len(arguments) != 1  # the checker refuses these
        return

    assert not (isinstance(found, float) and math.isnan(found))


@pytest.mark.parametrize(("left", "right"), list(product((True, False, None), repeat=2)))
def test_logic_is_kleenes(left: bool | None, right: bool | None) -> None:
    def rank(value: bool | None) -> float:
        return 0.5 if value is None else float(value)

    def value(number: float) -> bool | None:
        return None if number == 0.5 else bool(number)

    assert op("and", left, right) is value(min(rank(left), rank(right)))
    assert op("or", left, right) is value(max(rank(left), rank(right)))
    assert evaluate(Unary("not", Name("a")), Scope(names={"a": left})) is value(1 - rank(left))


@given(st.sampled_from([*COMPARISONS, "+", "-", "*", "/", "%"]), values)
def test_nothing_is_known_of_what_is_unknown(symbol: str, other: object) -> None:
    assert op(symbol, None, other) is None
    assert op(symbol, math.nan, other) is None


@pytest.mark.parametrize(
    ("symbol", "left", "right", "wanted"),
    [
        ("/", 1, 0, None),
        ("/", 0, 0, None),
        ("/", 7, 2, 3.5),
        ("-", math.inf, math.inf, None),
        ("*", math.inf, 0, None),
        ("+", math.inf, 1, math.inf),
        ("*", 1e308, 10, math.inf),
        ("%", 7, 3, 1.0),
        ("%", -7, 3, -1.0),
        ("%", 7, -3, 1.0),
        ("%", math.inf, 3, None),
        ("%", 3, math.inf, 3.0),
        ("%", 3, 0, None),
        ("+", "a", "b", "ab"),
        ("+", "a", 1, None),
        ("+", True, 1, None),
        ("==", 1, 1.0, True),
        ("==", True, 1, None),
        ("==", "1", 1, None),
        ("==", 2**53 + 1, 2**53, False),
        ("==", 2**53 + 1, float(2**53), True),
        ("<", "Z", "a", True),
        ("<", "é", "z", False),
        ("<", True, False, None),
        ("<", math.inf, 1, False),
        ("==", [1, 2], [1, 2.0], True),
        ("==", [1, None], [1, 2], None),
        ("==", [1, None], [2, 2], False),
        ("in", 2, [1, 2], True),
        ("in", 3, [1, None], None),
        ("in", 1, [1, None], True),
        ("in", 1, [], False),
        ("in", None, [], None),
        ("not in", 3, [1, 2], True),
    ],
)
def test_an_operator_means_what_the_reference_says(symbol: str, left: object, right: object, wanted: object) -> None:
    found = op(symbol, left, right)

    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("round", [0.5], 1.0),
        ("round", [-0.5], -1.0),
        ("round", [2.5], 3.0),
        ("round", [0.49999999999999994], 0.0),
        ("round", [math.inf], math.inf),
        ("floor", [-1.5], -2.0),
        ("ceil", [-1.5], -1.0),
        ("floor", [-math.inf], -math.inf),
        ("log2", [8], 3.0),
        ("log2", [0], None),
        ("log", [-1], None),
        ("exp", [1000], math.inf),
        ("sqrt", [-1], None),
        ("sqrt", [9], 3.0),
        ("abs", [-3], 3.0),
        ("min", [3, 1, 2], 1.0),
        ("max", [3, None], None),
        ("clamp", [5, 0, 3], 3.0),
        ("clamp", [5, 7, 3], 3.0),
        ("len", ["héé"], 3),
        ("len", [[1, 2]], 2),
        ("len", [3], None),
        ("is_known", [None], False),
        ("is_known", [math.nan], False),
        ("is_known", [0], True),
        ("number", [" 41\n"], 41.0),
        ("number", ["1e-3"], 0.001),
        ("number", ["forty"], None),
        ("number", ["1_000"], None),
        ("number", ["nan"], None),
        ("max", [[1, None, 3]], 3.0),
        ("avg", [[]], None),
        ("count", [[1, None]], 1),
    ],
)
def test_a_function_means_what_the_reference_says(name: str, arguments: list[object], wanted: object) -> None:
    found = call(name, *arguments)

    assert found == wanted
    assert type(found) is type(wanted)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_aggregates_are_numpys(readings: list[float]) -> None:
    array = np.array(readings)
    wanted = {
        "count": len(readings), "sum": array.sum(), "avg": array.mean(), "min": array.min(), "max": array.max(),
        "first": array[0], "last": array[-1], "delta": array[-1] - array[0],
    } | {f"p{share}": np.percentile(array, share) for share in (50, 90, 95, 99)}  # fmt: skip
    if len(readings) > 1:
        wanted["std"] = array.std(ddof=1)
        wanted["slope"] = np.polynomial.polynomial.polyfit(np.arange(len(array)), array, 1)[1]

    for name, value in wanted.items():
        assert aggregate(name, readings) == pytest.approx(value, rel=1e-7, abs=1e-5)


@given(st.sampled_from(sorted(AGGREGATES)), st.lists(numbers, max_size=8))
def test_an_aggregate_leaves_out_what_is_unknown(name: str, readings: list[float | None]) -> None:
    known = [one for one in readings if one is not None and not math.isnan(one)]

    assert aggregate(name, readings) == aggregate(name, known)
    assert (aggregate(name, readings) == 0) if not known and name == "count" else True
    assert (aggregate(name, readings) is None) if not known and name != "count" else True


def items(*readings: tuple[float | None, int, str], run: str = "r") -> list[Item]:
    return [Item("S.Perf", {"x": x, "name": name}, run, time_ns) for x, time_ns, name in readings]


def test_a_window_of_items_is_the_last_of_the_run_and_group() -> None:
    history = [
        *items((1, 0, "a"), (2, 1, "b")),
        *items((9, 2, "a"), run="other"),
        *items((3, 3, "a"), (4, 4, "b"), (5, 5, "a")),
    ]

    assert [one["x"] for one in window_items(history, None)] == [1, 2, 3, 4, 5]
    assert [one["x"] for one in window_items(history, Window(last=2))] == [4, 5]
    assert [one["x"] for one in window_items(history, Window(last=2, per=("name",)))] == [3, 5]


def test_a_late_item_counts_when_it_arrived() -> None:
    history = items((1, 100, "a"), (2, 40, "a"), (3, 120, "a"))

    assert [one["x"] for one in window_items(history[:2], Window(duration_ns=10))] == [1, 2]
    assert [one["x"] for one in window_items(history, Window(duration_ns=20))] == [3]
    assert [one["x"] for one in window_items(history, Window(duration_ns=21))] == [1, 2, 3]


def test_a_group_of_missing_values_is_a_group() -> None:
    history = [
        Item("S.Perf", {"x": 1}),
        Item("S.Perf", {"x": 2, "name": "a"}),
        Item("S.Perf", {"x": 3, "name": math.nan}),
    ]

    assert [one["x"] for one in window_items(history, Window(per=("name",)))] == [1, 3]


SYSTEM = """
system S {
  const LIMIT = 2
  trace_schema { variant Item { case Perf { x: float?, ok: boolean } case Other { x: float } } }
  knowledge {
    fact high(t: Perf) { return t.x > LIMIT }
    fact rising(t: Perf) { return high(t) && avg(t.x) over last 2 > 2.5 }
    fact calm(t: Perf) { return !high(t) }
  }
  function twice(a: float): float { return 2 * a }
}
"""


def perf(x: float | None, *, origin: str = "measured") -> Item:
    return Item("S.Perf", {"x": x, "ok": True}, "r", 0, origin)


def test_a_fact_sees_its_item_and_what_came_before() -> None:
    program = load_text(SYSTEM)
    trace = [perf(1), perf(4), perf(3), perf(None)]
    scope = program.scope(items=trace)

    assert [evaluate_fact(program.fact("high").fact, one, scope) for one in trace] == [False, True, True, None]
    assert [evaluate_fact(program.fact("rising").fact, one, scope) for one in trace] == [False, False, True, None]
    assert [evaluate_fact(program.fact("calm").fact, one, scope) for one in trace] == [True, False, False, None]


def test_only_measured_items_ground_a_fact() -> None:
    program = load_text(SYSTEM)
    trace = [perf(4), perf(9, origin="simulated"), perf(3)]
    scope = program.scope(items=trace)

    assert evaluate_fact(program.fact("high").fact, trace[1], scope) is None
    assert (
        evaluate(Call("avg", (Field(Name("t"), "x"),)), Scope(names={"t": trace[2]}, item=trace[2], items=trace)) == 3.5
    )


def test_a_bare_fact_is_that_fact_on_the_latest_measured_item_of_its_case() -> None:
    program = load_text(SYSTEM)

    assert evaluate(Name("high"), program.scope()) is None
    assert holds(Name("high"), program.scope(items=[perf(9), Item("S.Other", {"x": 0}), perf(0, origin="projected")]))


def test_a_fact_is_unknown_of_an_item_of_another_case() -> None:
    program = load_text(SYSTEM)
    other = Item("S.Other", {"x": 9.0})

    assert evaluate(Call("high", (Field(Name("trace"), "latest"),)), program.scope(items=[perf(9), other])) is None


def test_the_trace_has_a_latest_and_all() -> None:
    program = load_text(SYSTEM)
    trace = [perf(4), Item("S.Other", {"x": 7.0}), perf(3)]
    scope = program.scope(items=trace)
    latest = Call("trace.latest", (Name("Other"),))
    every = Call("trace.all", (Field(Name("Item"), "Perf"),))

    assert evaluate(Field(latest, "x"), scope) == 7.0
    assert evaluate(Field(every, "x"), scope) == [4, 3]
    assert evaluate(Call("max", (Field(every, "x"),)), scope) == 4
    assert evaluate(Field(Field(Name("trace"), "latest"), "x"), scope) == 3
    assert evaluate(Field(Name("Other"), "x"), scope) == 7.0
    assert evaluate(Field(latest, "x"), program.scope()) is None


def test_functions_see_their_arguments_and_constants_only() -> None:
    program = load_text(SYSTEM)

    assert evaluate(Call("twice", (Literal(3),)), program.scope()) == 6.0
    with pytest.raises(EvaluateError, match="`secret`"):
        evaluate(Name("secret"), program.scope())


def test_calls_without_end_are_an_error_and_not_a_crash() -> None:
    endless = Fact("f", "t", "Perf", Call("f", (Name("t"),)))

    with pytest.raises(EvaluateError, match="calls itself without end"):
        evaluate_fact(endless, perf(1), Scope(facts={"f": endless}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (64.0, "64"),
        (64, "64"),
        (0.1, "0.1"),
        (1e-9, "1e-09"),
        (1e300, "1e+300"),
        (2**60, str(2**60)),
        (math.inf, "inf"),
        (True, "true"),
        ("a b", "a b"),
        ([1, 2.0, "x"], "1,2,x"),
        ([], ""),
        (["a,b", 1], '["a,b", 1]'),
        ({"a": 1.0, "b": [None, math.inf]}, '{"a": 1, "b": [null, "inf"]}'),
    ],
)
def test_a_value_is_shown_as_a_command_line_wants_it(value: object, text: str) -> None:
    assert show(value) == text


def test_a_template_expands_expressions_once() -> None:
    template = Template(("--tile ", Name("tile"), " ", Binary("*", Name("tile"), Literal(2)), " ", Name("text")))
    scope = Scope(names={"tile": 32, "text": "{{tile}}"})

    assert expand(template, scope) == "--tile 32 64 {{tile}}"
    assert expand(Literal("{{tile}}"), scope) == "{{tile}}"


def test_a_template_names_the_system_models_lists() -> None:
    model = SystemModel("M", (Literal("verify first"),), (Literal("small steps"),))
    template = Template((Index(Name("axiom"), Literal(0)), "; ", Index(Name("heuristic"), Literal(0))))

    assert expand(template, Scope(model=model)) == "verify first; small steps"


@pytest.mark.parametrize("names", [{}, {"tile": None}])
def test_a_template_without_a_value_is_an_error_that_names_it(names: dict[str, object]) -> None:
    with pytest.raises(EvaluateError, match=r"{{tile}}"):
        expand(Template((Name("tile"),)), Scope(names=names))


def test_lists_maps_places_and_ranges_are_values() -> None:
    scope = Scope(names={"rows": [{"a": 1}, {"a": 2}], "n": 1.0})

    assert evaluate(Index(Field(Name("rows"), "a"), Name("n")), scope) == 2
    assert evaluate(Index(Name("rows"), Literal(9)), scope) is None
    assert evaluate(MapExpr((Property("k", ListExpr((Literal(1),))),)), scope) == {"k": [1]}
    assert evaluate(RangeExpr(Literal(1), Literal(3)), scope) == [1, 2, 3]
    assert evaluate(RangeExpr(Literal(0.0), Literal(1.0), Literal(0.25)), scope) == [0, 0.25, 0.5, 0.75, 1]
    assert evaluate(RangeExpr(Literal(0.0), Literal(1.0)), scope) is None


@given(numbers, numbers)
def test_sums_and_products_do_not_mind_the_order(left: float | None, right: float | None) -> None:
    assert arithmetic("+", left, right) == arithmetic("+", right, left)
    assert arithmetic("*", left, right) == arithmetic("*", right, left)


def test_nothing_in_a_string_is_ever_run() -> None:
    text: Expr = Literal("__import__('os').system('true')")

    assert evaluate(text, Scope()) == "__import__('os').system('true')"
    with pytest.raises(EvaluateError):
        evaluate(Call("__import__", (Literal("os"),)), Scope())
