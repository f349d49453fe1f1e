"""Types of tools: what is inferred fits what it was inferred from, and reads back as itself."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.crystallizer.annotations import NotAType, fits, infer, parse

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=5), st.binary(max_size=5)
)
values = st.recursive(
    scalars,
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inside, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.lists(values, min_size=1, max_size=5))
def test_what_is_inferred_fits_every_value_and_reads_back(many: list[Any]) -> None:
    kind = infer(many)
    assert all(fits(kind, value) for value in many)
    again = parse(str(kind))
    assert str(again) == str(kind)
    assert all(fits(again, value) for value in many)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "many",
    [
        # A union is as deep as one of its members, however many they are.
        [None, [], {"": None, "0": "", "1": 0}, {"": [], "0": False}, {"": {"0": False, "": [None, False]}}, 1.5, b""],
        [nested(12)],
        [nested(13)],
        [{"a": nested(400)}],
    ],
)
def test_what_is_inferred_of_much_reads_back_as_well(many: list[Any]) -> None:
    kind = infer(many)
    assert parse(str(kind)) == kind
    assert all(fits(kind, value) for value in many)


def test_of_what_is_nested_too_deep_the_outer_part_is_still_known() -> None:
    assert str(infer([nested(2)])) == "list[list[int]]"
    assert str(infer([nested(13)])) == "list[" * 12 + "Any" + "]" * 12


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("int", [1, -3], [True, 1.0, "1", None]),
        ("float", [1, 1.5, float("nan")], [True, "1"]),
        ("bool", [True], [1, 0]),
        ("list[str]", [[], ["a"], ("a",)], ["a", [1], None]),
        ("dict[str, int]", [{}, {"a": 1}], [{"a": "1"}, {1: 1}, []]),
        ("str | None", ["a", None], [1]),
        ("Optional[int]", [None, 2], ["2"]),
        ("Literal['a', 1]", ["a", 1], ["b", True, 1.0]),
        ("tuple[int, ...]", [[1, 2]], [["a"]]),
        ("Any", [None, 1, "a", [1]], []),
        ("'int'", [4], ["4"]),
    ],
)
def test_annotations_mean_what_python_means(text: str, good: list[Any], bad: list[Any]) -> None:
    kind = parse(text)
    assert [value for value in good if not fits(kind, value)] == []
    assert [value for value in bad if fits(kind, value)] == []


@pytest.mark.parametrize(
    "text", ["", "int(", "os.system('x')", "Foo", "dict[str]", "list[" * 40, "x" * 100_000, "1 + 1"]
)
def test_what_is_no_type_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(NotAType) as refused:
        parse(text)
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)
