"""The program as data: it is read back as it was written, and its parts are found."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.synthesis import BadProgram, CannotRun, Program, run_program
from morphogen.kernels.synthesis.operators import FUNCTIONS, TABLE
from morphogen.kernels.synthesis.phrases import Phrases, quoted
from morphogen.kernels.synthesis.program import (
    Choice,
    Const,
    Each,
    Let,
    Op,
    Pairs,
    Param,
    Pick,
    Record,
    Ref,
    Require,
    Return,
    Shown,
    Sorted,
    Text,
    from_data,
    refs,
    to_data,
)  # fmt: skip
from morphogen.kernels.synthesis.rewriting import renamed, simple
from morphogen.kernels.synthesis.running import evaluate

NUMBERS = Ref("numbers")
ITEM = Ref("item0")
EXPRESSIONS = [
    Each(NUMBERS, "item0", Op("add", (ITEM, Const(1))), Op("gt", (ITEM, Const(2)))),
    Pairs(NUMBERS, "item0", Op("text", (ITEM,)), Op("mul", (ITEM, Op("sub", (ITEM, Const(-1)))))),
    Sorted(NUMBERS, "item0", Op("neg", (ITEM,)), True),
    Pick("max", NUMBERS, "item0", Op("mod", (ITEM, Const(3)))),
    Record((("a b", Op("sum", (NUMBERS,))), ("c", Op("mean", (NUMBERS,))))),
    Text((Const('{"q": '), Shown(Op("div", (Op("len", (NUMBERS,)), Const(3))), ".2f"), Const("}\n"))),
    Choice(Op("and", (Op("contains", (NUMBERS, Const(3))), Op("not", (Const(False),)))), Const("yes"), Const("it's")),
    Op("sub", (Const(1), Op("sub", (Const(2), Const(3))))),
    Op("joined", (Each(NUMBERS, "item0", Text((Const("<"), ITEM, Const(">")))), Const(", "))),
]


def program(value: Any) -> Program:
    return Program(params=(Param("numbers", "list[int]"),), body=(Return(value),))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_program_is_read_back_as_it_was_written(expression: Any) -> None:
    one = program(expression)
    assert from_data(msgspec.json.decode(msgspec.json.encode(to_data(one)))) == one
    assert from_data(to_data(one)).sha256 == one.sha256 != program(Const("other")).sha256


@pytest.mark.parametrize("expression", EXPRESSIONS)
@given(numbers=st.lists(st.integers(-5, 5), min_size=1, max_size=6))
def test_an_expression_means_as_text_what_it_means_as_data(expression: Any, numbers: list[int]) -> None:
    text = Phrases({}, {"numbers"}).write(expression)
    assert eval(text, {"numbers": numbers}) == evaluate(expression, {"numbers": numbers})


@given(st.text())
def test_a_text_is_quoted_so_that_python_reads_it_back(text: str) -> None:
    assert eval(quoted(text)) == text and eval(quoted(text, "'")) == text
    phrase = Phrases({}, set()).write(Text((Const(text), Op("text", (Const(1),)))))
    assert eval(phrase) == text + "1"


@pytest.mark.parametrize(
    "data",
    [None, 1, {"params": []}, {"params": (), "body": ({"is": "exec"},)}, {"params": (), "body": (), "format": 9}],
)
def test_what_is_no_program_is_refused_in_one_line(data: Any) -> None:
    with pytest.raises(BadProgram) as refusal:
        from_data(data)
    assert "\n" not in str(refusal.value)


def test_an_unknown_operation_is_refused_when_it_runs() -> None:
    with pytest.raises(BadProgram, match="no operation"):
        run_program(program(Op("exec", (Const("x"),))), {"numbers": []}, lambda name, args: None)


def test_parameters_that_differ_and_faults_of_values_are_told_in_one_line() -> None:
    with pytest.raises(CannotRun, match="numbers"):
        run_program(program(NUMBERS), {}, lambda name, args: None)
    with pytest.raises(CannotRun, match="ZeroDivisionError"):
        run_program(program(Op("mean", (NUMBERS,))), {"numbers": []}, lambda name, args: None)
    body = (
        Let("total", Op("sum", (NUMBERS,))),
        Require(Op("gt", (Ref("total"), Const(3))), "too little"),
        Return(Ref("total")),
    )
    guarded = Program(params=(Param("numbers", "list[int]"),), body=body)
    assert run_program(guarded, {"numbers": [4]}, lambda name, args: None).value == 4
    with pytest.raises(CannotRun, match="too little"):
        run_program(guarded, {"numbers": [1]}, lambda name, args: None)


def test_every_operation_has_one_line_and_a_function() -> None:
    assert set(TABLE) == set(FUNCTIONS)
    for operation in TABLE.values():
        assert "\n" not in operation.template
        assert all(f"${place}" in operation.template for place in range(len(operation.operands)))
        assert f"${len(operation.operands)}" not in operation.template


def test_names_are_changed_and_lists_gone_through_twice_are_gone_through_once() -> None:
    inner = Each(NUMBERS, "item0", ITEM, Op("gt", (ITEM, Const(2))))
    twice = Each(inner, "item0", Op("neg", (ITEM,)))
    once = simple(twice)
    assert once == Each(NUMBERS, "item0", Op("neg", (ITEM,)), Op("gt", (ITEM, Const(2))))
    assert evaluate(once, {"numbers": [1, 3]}) == evaluate(twice, {"numbers": [1, 3]}) == [-3]
    assert refs(renamed(once, {"numbers": "n", "item0": "x"})) == {"n", "x"}
