"""Any body as JSON text: every value has a form, however deep it lies."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from morphogen.schemas import json_text, jsonable

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(), st.binary(), st.none()), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_has_a_text_that_is_read_back_as_its_plain_form(value: Any) -> None:
    assert json.loads(json_text(value)) == jsonable(value)


@pytest.mark.parametrize("around", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: ({"a": [inner]},)])
def test_no_body_is_too_deep_to_be_written_down(around: Any) -> None:
    value: Any = 1
    for _ in range(5000):
        value = around(value)
    assert "<nested deeper than 200>" in json_text(value)
    whole: Any = 1
    for _ in range(200):
        whole = [whole]
    assert json_text(whole) == "[" * 200 + "1" + "]" * 200
