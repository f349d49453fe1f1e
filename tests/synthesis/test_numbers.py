"""Numbers that follow from one by a line: found, of Python's own kinds, and the same when the program is written down."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.kernels.synthesis import Budget, Drafted, Example, synthesize
from morphogen.kernels.synthesis.errors import BadBudget
from morphogen.kernels.synthesis.program import Const, from_data, to_data, walk

WAYS: dict[str, Callable[[float], Any]] = {
    "round": round,
    "int": int,
    "floor": math.floor,
    "cents": lambda value: round(value, 2),
    "exact": float,
}
OWN = (type(None), bool, int, float, str, bytes, list, dict)


def drafted(values: list[int], output: Callable[[int], Any]) -> Drafted | None:
    examples = [Example(params={"x": value}, output=output(value)) for value in values]
    found = synthesize(examples, tools={}, budget=Budget(seconds=5.0))
    return found if isinstance(found, Drafted) else None


def constants(found: Drafted) -> list[Any]:
    return [part.value for part in walk(found.program.body) if isinstance(part, Const)]


def test_a_line_that_is_rounded_is_found_and_can_be_stored() -> None:
    found = drafted([at * 7 for at in range(12)], lambda x: round(x * 1.8 + 32))
    assert found is not None
    assert "round(x * 1.8 + 32)" in found.source
    data = msgspec.msgpack.encode(to_data(found.program))
    assert from_data(msgspec.msgpack.decode(data)) == found.program


def test_a_ratio_comes_before_a_decimal_that_only_fits_what_was_shown() -> None:
    found = drafted([at * 7 for at in range(10)], lambda x: x // 3)
    assert found is not None
    assert "x / 3" in found.source
    assert 3 in constants(found)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-300, 300).map(lambda value: round(value, 4)),
    st.floats(-300, 300).map(lambda value: round(value, 2)),
    st.sampled_from(sorted(WAYS)),
    st.integers(-40, 40),
    st.integers(1, 30),
)
def test_whatever_line_it_is_a_program_holds_only_what_can_be_stored(
    steep: float, offset: float, way: str, first: int, step: int
) -> None:
    found = drafted([first + at * step for at in range(10)], lambda x: WAYS[way](x * steep + offset))
    if found is not None:
        assert [type(value) for value in constants(found) if type(value) not in OWN] == []
        msgspec.msgpack.encode(to_data(found.program))


@pytest.mark.parametrize(
    "wrong", [{"seconds": math.nan}, {"seconds": -1.0}, {"values": 0}, {"examples": 0}], ids=lambda one: next(iter(one))
)
def test_a_budget_that_bounds_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadBudget, match="a budget takes seconds from 0"):
        Budget(**wrong)
