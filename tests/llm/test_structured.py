"""Declared types as JSON schemas, and the strict check of answers."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.producers.loops.llm import PromptError, answer_type
from morphogen.producers.loops.llm.extract import last_object
from morphogen.schemas import encode
from morphogen.schemas.knowledge.tree import EnumType, FieldDecl, ListType, NamedType, OptionalType, TypeExpr

DECLARED = {
    "Verdict": (
        FieldDecl("score", NamedType("float", "ms")),
        FieldDecl("verdict", EnumType(("good", "bad"))),
        FieldDecl("count", NamedType("int")),
        FieldDecl("why", OptionalType(NamedType("string"))),
        FieldDecl("parts", ListType(NamedType("Part"))),
    ),
    "Part": (FieldDecl("ok", NamedType("boolean")), FieldDecl("inner", OptionalType(NamedType("Part")))),
}
GOOD: dict[str, Any] = {"score": 1, "verdict": "good", "count": 2.0, "parts": [{"ok": True, "inner": {"ok": False}}]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Here it is:\n```json\n{"a": {"b": [1, {}]}}\n```\nHope it helps {smile}!', {"a": {"b": [1, {}]}}),
        ('<think>maybe {"a": 1}</think> {"a": 2}', {"a": 2}),
        ('{"a": "}{\\" }"} trailing', {"a": '}{" }'}),
        ('{broken {"a": 1}', {"a": 1}),
        ('[{"a": 1}, {"a": 2}]', {"a": 2}),
    ],
)
def test_the_answer_is_the_last_complete_object_whatever_stands_around_it(text: str, found: Any) -> None:
    assert last_object(text) == (found, "")


@pytest.mark.parametrize("text", ["", "no", '{"a": 1', '{"a": NaN}', '{"a": 1, "a": 2}', "{'a': 1}", "{" * 100_000])
def test_what_holds_no_strict_object_is_told_and_takes_no_time(text: str) -> None:
    began = time.monotonic()

    value, trouble = last_object(text)

    assert value is None
    assert trouble.startswith("the answer holds no")
    assert time.monotonic() - began < 5


@given(st.text(max_size=200))
def test_no_text_at_all_makes_the_search_fail(text: str) -> None:
    last_object(text)


def test_a_type_becomes_a_schema_with_the_types_it_names() -> None:
    schema = answer_type("Verdict", DECLARED).schema

    assert schema["properties"]["score"] == {"type": "number", "description": "in ms"}
    assert schema["properties"]["verdict"] == {"enum": ["good", "bad"]}
    assert schema["properties"]["why"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert schema["required"] == ["score", "verdict", "count", "parts"]
    assert schema["$defs"]["Part"]["properties"]["inner"] == {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]}
    assert schema["additionalProperties"] is False


def test_a_fitting_answer_comes_back_as_the_language_holds_it() -> None:
    value, fault = answer_type("Verdict", DECLARED).read(json.dumps(GOOD))

    assert fault is None
    assert list(value) == ["score", "verdict", "count", "why", "parts"]
    assert isinstance(value["score"], float)
    assert isinstance(value["count"], int)
    assert value["why"] is None
    assert value["parts"][0]["inner"] == {"ok": False, "inner": None}


def test_every_fault_of_an_answer_is_named_with_its_place() -> None:
    bad = {"score": "fast", "verdict": "ok", "count": 2.5, "parts": [{"ok": 1}, 3], "more": 0}

    _, fault = answer_type("Verdict", DECLARED).read(json.dumps(bad))

    assert fault is not None
    assert set(fault.split("; ")) == {
        "$ has no field 'more'",
        '$.score must be a number, got "fast"',
        '$.verdict must be one of "good", "bad", got "ok"',
        "$.count must be an integer, got 2.5",
        "$.parts[0].ok must be a boolean, got 1",
        "$.parts[1] must be an object, got 3",
    }
    assert answer_type("Verdict", DECLARED).read("{}")[1] == "; ".join(
        f"$.{name} is missing" for name in ("score", "verdict", "count", "parts")
    )


@pytest.mark.parametrize("value", [1e999, True, None, "1"])
def test_what_is_no_finite_number_is_no_number(value: Any) -> None:
    text = json.dumps(GOOD | {"score": value}).replace("Infinity", "1e999")

    assert "$.score must be a number" in (answer_type("Verdict", DECLARED).read(text)[1] or "")


@pytest.mark.parametrize("text", [
    '{"n": 1' + "0" * 400 + "}", '{"n": "\\ud800"}', '{"\\ud800": 1}', '{"n": {"a": [1' + "0" * 30 + "]}}",
    '{"n": ' + "[" * 900 + "]" * 900 + "}",
])  # fmt: skip
def test_what_the_log_cannot_hold_does_not_fit(text: str) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/any"}},
        "$defs": {"any": {"items": {"$ref": "#/$defs/any"}}},
    }

    value, fault = answer_type(schema, {}).read(text)

    assert fault is not None or encode(value)


@given(st.integers(), st.sampled_from(["int", "float"]))
def test_a_whole_number_of_any_size_fits_or_is_told(number: int, kind: str) -> None:
    form = answer_type("N", {"N": (FieldDecl("n", NamedType(kind)),)})

    for one in (number, number * 10**330):
        value, fault = form.read(json.dumps({"n": one}))
        assert encode(value) if fault is None else "$.n must be" in fault


def test_literals_of_an_enum_keep_their_kind() -> None:
    declared = {"E": (FieldDecl("x", EnumType((1, True, "1"))),)}
    form = answer_type("E", declared)

    assert form.read('{"x": 1}')[1] is None
    assert form.read('{"x": true}')[1] is None
    assert form.read('{"x": false}')[1] is not None
    assert answer_type("E", {"E": (FieldDecl("x", EnumType((1,))),)}).read('{"x": true}')[1] is not None


def test_a_schema_of_ones_own_is_checked_as_far_as_the_usual_keywords_go() -> None:
    form = answer_type(
        {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "minimum": 1, "maximum": 3},
                "kind": {"anyOf": [{"const": "a"}, {"type": "null"}]},
                "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}},
            },
            "required": ["n"],
            "additionalProperties": False,
            "$defs": {"row": {"type": ["string", "number"]}},
        },
        {},
    )

    assert form.read('{"n": 2, "kind": null, "rows": ["x", 1.5]}')[1] is None
    fault = form.read('{"n": 4, "kind": "b", "rows": [true], "z": 1}')[1] or ""
    assert "$.n must be at most 3, got 4" in fault
    assert '$.kind fits none of 2 forms, got "b"' in fault
    assert "$.rows[0] must be a string or a number, got true" in fault
    assert "$ has no field 'z'" in fault
    assert "$.n must be at least 1" in (form.read('{"n": 0}')[1] or "")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Verdicts", "no type or case 'Verdicts' is declared; known are Part, Verdict"),
        ("{nonsense", "schema is no JSON"),
        ({"type": "array"}, 'with "type": "object"'),
        (3, 'with "type": "object"'),
    ],
)
def test_a_form_that_nobody_declared_is_refused_before_anything_is_asked(wanted: object, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        answer_type(wanted, DECLARED)


def _values(kind: TypeExpr) -> st.SearchStrategy[Any]:
    match kind:
        case OptionalType(item=item):
            return st.none() | _values(item)
        case ListType(item=item):
            return st.lists(_values(item), max_size=3)
        case EnumType(values=values):
            return st.sampled_from(values)
        case NamedType(name="float"):
            return st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
        case NamedType(name="int"):
            return st.integers(-(2**63), 2**63 - 1)
        case NamedType(name="boolean"):
            return st.booleans()
        case _:
            return st.text(max_size=10)


_leaf = st.sampled_from(["int", "float", "string", "boolean"]).map(NamedType) | st.lists(
    st.text(max_size=5) | st.integers(-9, 9), min_size=1, max_size=3
).map(lambda values: EnumType(tuple(values)))
_kinds: st.SearchStrategy[TypeExpr] = st.recursive(
    _leaf, lambda inner: inner.map(ListType) | inner.map(OptionalType), max_leaves=3
)


@given(st.data(), st.lists(_kinds, min_size=1, max_size=4))
def test_any_value_of_any_type_is_read_back_out_of_prose(data: st.DataObject, kinds: list[TypeExpr]) -> None:
    fields = tuple(FieldDecl(f"f{number}", kind) for number, kind in enumerate(kinds))
    value = {field.name: data.draw(_values(field.type)) for field in fields}
    form = answer_type("T", {"T": fields})

    got, fault = form.read(f"Sure {{here}}: ```json\n{json.dumps(value, indent=1)}\n``` Done.")

    assert fault is None
    assert got == value
    assert not any(isinstance(one, float) and math.isnan(one) for one in got.values())
    assert form.read(json.dumps(value | {"unknown": 1}))[1] == "$ has no field 'unknown'"
    assert json.loads(json.dumps(form.schema)) == form.schema
