"""Numbers of any kind as whole ones."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas import MorphogenError
from morphogen.schemas.whole import lasted, whole, whole_if_known


class Odd:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


@given(st.one_of(st.integers(0, 2**63 - 1), st.floats(0, 2**62), st.fractions(0, 2**62), st.decimals(0, 2**62)))
def test_a_number_of_any_kind_becomes_the_nearest_whole_one(value: Any) -> None:
    found = whole("n", value, MorphogenError)

    assert type(found) is int
    assert abs(Fraction(found) - Fraction(value)) <= Fraction(1, 2)
    assert whole("n", value, MorphogenError, down=True) == math.floor(value)
    assert lasted("n", value, MorphogenError) == found


@pytest.mark.parametrize(
    "value",
    [True, np.True_, "3", [1], math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("sNaN"), -1, -3.5, 2**63, 1e300,
     10**5000, Decimal("1e999999999"), Decimal("-1e999999999"), Odd()],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_amount_is_refused_by_name_in_one_line(value: Any) -> None:
    with pytest.raises(MorphogenError, match=r"^cost is .{1,60}: give a number from 0") as refused:
        whole("cost", value, MorphogenError)
    assert "\n" not in str(refused.value)


def test_numpy_is_read_too_and_a_clock_that_was_set_back_lasted_nothing() -> None:
    assert [whole("n", value, MorphogenError) for value in (np.float32(1.6), np.int8(3), np.float64(2.4))] == [2, 3, 2]
    assert (lasted("n", -5.5, MorphogenError), whole_if_known("n", None, MorphogenError)) == (0, None)
    with pytest.raises(MorphogenError):
        lasted("n", -math.inf, MorphogenError)
