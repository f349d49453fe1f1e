"""Goals that mean the same family have one template, and those that do not, have two."""

import hashlib
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from morphogen.schemas.goals import places, signature, template


@pytest.mark.parametrize(
    ("goal", "params", "normal"),
    [
        ("Sum the column price of shop.csv", {"column": "price", "path": "shop.csv"}, "sum the column {column} of {path}"),
        ("Sum it!", {}, "sum it"),
        ("  sum,  it ", None, "sum it"),
        ("What is 1.5 of 5?", {"n": 5}, "what is 1.5 of {n}"),
        ("Move by -5, not 5", {"n": 5}, "move by -5 not {n}"),
        ("Move by \u22125", {"n": -5}, "move by {n}"),
        ("Take v5 of file5.csv at step-5", {"n": 5}, "take v5 of file5 csv at step {n}"),
        ("Wait 5.", {"n": 5.0}, "wait {n}"),
        ("Keep 1,000 rows", {"rows": 1000}, "keep {rows} rows"),
        ("Use a learning rate of 1e-05", {"lr": 1e-05}, "use a learning rate of {lr}"),
        ("Read shop.csv, then shop", {"name": "shop", "path": "shop.csv"}, "read {path} then {name}"),
        ("Read A Long Name", {"x": "a long name", "y": "long"}, "read {x}"),
        ("Sum PRICE", {"column": "price"}, "sum {column}"),
        ("Add 3 and 3", {"a": 3, "b": 3}, "add {a} and {b}"),
        ("Add 3 and 3 and 3", {"a": 3, "b": 3}, "add {a} and {b} and {b}"),
        ("Merge a.csv, b.csv and c.csv", {"files": ["a.csv", "b.csv", "c.csv"]}, "merge {files}"),
        ("Merge a.csv and b.csv", {"files": ("a.csv", "b.csv")}, "merge {files}"),
        ("Sum {Column} of {path}", {"path": "of"}, "sum {Column} {path} {path}"),
        ("Say {x}", {"x": "1", "y": "{x}"}, "say {x}"),
        ("The column column", {"column": "column"}, "the {column} {column}"),
        ("Copy x to y", {"my param": "x", "": "y", "{z}": "q"}, "copy {my_param} to {_}"),
        ("Is it True?", {"flag": True, "none": None, "map": {"a": 1}}, "is it true"),
    ],
)  # fmt: skip
def test_values_are_named_as_whole_words(goal: str, params: dict[str, Any] | None, normal: str) -> None:
    assert template(goal, params) == normal
    assert template(normal, params) == normal


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is a > b", "Is a < b"),
        ("What is 3*4", "What is 3/4"),
        ("Convert 5 € to $", "Convert 5 $ to €"),
        ("Discount by 5%", "Discount by 5"),
        ("Set it to -5", "Set it to 5"),
        ("Take 1.5", "Take 15"),
        ("हिन्दी", "हन्द"),
        ("naïve", "naive"),
        ("Write C#", "Write C"),
        ("Write C++", "Write C"),
    ],
)
def test_goals_that_mean_something_else_are_of_another_family(one: str, other: str) -> None:
    assert signature(one) != signature(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("ﬁnd ①", "FIND 1"),
        ("Sum\tit\n", "“Sum”, it…"),
        ("İstanbul", "i̇stanbul"),
    ],
)
def test_goals_that_are_only_written_differently_are_of_one_family(one: str, other: str) -> None:
    assert signature(one) == signature(other)


def test_a_signature_is_of_the_version_and_the_template() -> None:
    assert signature("Sum it!") == f"g1-{hashlib.sha256(b'1' + bytes([10]) + b'sum it').hexdigest()[:16]}"
    assert signature("Sum the column price", {"c": "price"}) == signature("sum the column {c}")


def test_places_are_the_names_in_their_order() -> None:
    assert places(template("Sum {b} of {a} and {b}")) == ("b", "a", "b")


WORDS = st.sampled_from(
    ["a", "the", "column", "price", "shop.csv", "5", "1.5", "-5", "{a}", "{b c}", "\u017f", "İ", "ǅ", "\u0345", "ﷺ", "%", "and", "a b", "x}", "{"]
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(WORDS, st.text(max_size=6), st.integers(), st.floats(), st.booleans(), st.none(), st.binary(max_size=2)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
NAMES = st.one_of(st.sampled_from(["a", "b", "the", "column", "price", "", "x y"]), st.text(max_size=3))
PARAMS = st.dictionaries(NAMES, VALUES, max_size=4)
GOALS = st.one_of(st.text(max_size=30), st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=8).map(" ".join))


@settings(max_examples=300)
@given(GOALS, PARAMS)
@example("sum a-b", {"x": "a b"})
@example("a b c d", {"x": "a b", "y": "b c d"})
@example("sum price", {"column": "price", "other": "{column}"})
def test_what_was_normalised_stays_as_it_is(goal: str, params: dict[str, Any]) -> None:
    once = template(goal, params)

    assert template(once, params) == once
    assert template(once) == once
    assert signature(once, params) == signature(goal, params)


@settings(max_examples=200)
@given(st.sampled_from(["Sum the column {} of {}", "{} and {}", "Take {}; then {}!"]),
       st.tuples(WORDS.filter(str.isalnum), st.integers(-9, 9)), st.data())  # fmt: skip
def test_goals_that_differ_in_their_values_alone_are_one_family(
    form: str, values: tuple[str, int], data: st.DataObject
) -> None:
    words = set(template(form.replace("{}", "")).split())
    one = data.draw(st.text("abcxyz", min_size=2, max_size=5).filter(lambda text: text not in words))
    two = data.draw(st.text("abcxyz", min_size=2, max_size=5).filter(lambda text: text not in {*words, one}))

    normal = template(form.format("{first}", "{second}"))

    assert template(form.format(one, values[1]), {"first": one, "second": values[1]}) == normal
    assert template(form.format(one, two), {"first": one, "second": two}) == normal


@given(GOALS, PARAMS)
def test_the_order_of_parameters_does_not_matter(goal: str, params: dict[str, Any]) -> None:
    assert template(goal, dict(reversed(params.items()))) == template(goal, params)
