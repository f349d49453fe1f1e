"""Types resolve to what is declared, and values are held to them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas.knowledge.program import load_text
from morphogen.schemas.knowledge.tree import EnumType, ListType, NamedType, OptionalType
from morphogen.schemas.knowledge.types import Type, problem_of, resolve

SYSTEM = """
system S {
  model { type Plan matches { tile: int, why: string?, next: Plan? } }
  trace_schema { variant V { case C {
    x: float in ms, n: int, bound: "mem" | "compute", level: 1 | 2, tags: [string], note: string?, plan: Plan
  } } }
}
"""


def test_a_case_has_its_fields_resolved_in_order() -> None:
    info = load_text(SYSTEM).case("V.C")

    assert list(info.fields) == ["x", "n", "bound", "level", "tags", "note", "plan"]
    assert (str(info.fields["x"]), str(info.fields["bound"])) == ("float in ms", '"mem" | "compute"')
    assert info.fields["note"].optional
    assert info.fields["plan"].fields is not None
    assert (info.name, info.system, info.variant, info.source) == ("S.C", "S", "V", None)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("x", 3, None),
        ("x", None, "is missing"),
        ("x", math.nan, "is missing"),
        ("x", "3", "is string"),
        ("n", 3.5, "is float"),
        ("n", True, "is boolean"),
        ("bound", "mem", None),
        ("bound", "memm", 'did you mean "mem"'),
        ("level", 3, "must be one of"),
        ("level", True, "is boolean"),
        ("tags", ["a"], None),
        ("tags", ["a", 1], "item 1 is int"),
        ("note", None, None),
        ("plan", {"tile": 3}, None),
        ("plan", {"tile": "3"}, "`tile` is string"),
        ("plan", {"tile": 3, "tyle": 4}, "no field `tyle`"),
    ],
)
def test_a_value_is_held_to_its_type(field: str, value: object, problem: str | None) -> None:
    found = problem_of(value, load_text(SYSTEM).case("C").fields[field])

    assert (found is None) if problem is None else (found is not None and problem in found)


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_anything_is_of_any_type(value: object) -> None:
    assert problem_of(value, Type("any")) is None


def test_what_nobody_declared_does_not_resolve() -> None:
    assert resolve(NamedType("Plan"), lambda _: None) is None
    assert resolve(NamedType("float", "parsec"), lambda _: None) is None
    assert str(resolve(OptionalType(ListType(NamedType("int"))), lambda _: None)) == "[int]?"
    assert str(resolve(EnumType((1, 2)), lambda _: None)) == "1 | 2"
