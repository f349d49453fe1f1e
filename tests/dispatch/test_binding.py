"""Parameters of a like family."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.dispatch.binding import Unbound, bind

NAMES = st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), unique=True, max_size=4)


@given(names=NAMES)
def test_equal_names_are_equal_parameters(names: list[str]) -> None:
    params = {name: at for at, name in enumerate(names)}
    assert bind("anything", params, "something else", names) == params


def test_one_name_that_is_left_is_the_other_one() -> None:
    assert bind("count the rows of {file}", {"file": "a"}, "rows in {path}", ["path"]) == {"path": "a"}


def test_several_names_are_told_apart_by_the_word_before_them() -> None:
    bound = bind("copy {a} to {b}", {"a": 1, "b": 2}, "copy {src} to {dst}", ["src", "dst"])
    assert bound == {"src": 1, "dst": 2}
    turned = bind("to {b} copy {a}", {"a": 1, "b": 2}, "copy {src} to {dst}", ["src", "dst"])
    assert turned == {"src": 1, "dst": 2}


@pytest.mark.parametrize(
    ("template", "params", "other", "names", "said"),
    [
        ("sum {a}", {"a": 1}, "sum {a} of {b}", ["a", "b"], "does not give 'b'"),
        ("sum {a} of {b}", {"a": 1, "b": 2}, "sum {a}", ["a"], "knows no parameter 'b'"),
        ("move {a} {b}", {"a": 1, "b": 2}, "{x} and {y}", ["x", "y"], "could be"),
        ("move it", {"a": 1}, "move {x}", ["x"], "not in the words"),
        ("swap {a} {c}", {"a": 1, "b": 2, "c": 3}, "swap {x}", ["x"], "where the family takes"),
        ("move {a} and {b}", {"a": 1, "b": 2}, "move {x} move {y}", ["x", "y"], "could be"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    template: str, params: dict[str, int], other: str, names: list[str], said: str
) -> None:
    with pytest.raises(Unbound, match=said):
        bind(template, params, other, names)
