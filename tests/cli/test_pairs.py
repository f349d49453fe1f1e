"""Values by name on a command line."""

import json

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from morphogen.cli.pairs import pairs
from morphogen.schemas import MorphogenError

_NAMES = st.text(st.characters(exclude_characters="=", exclude_categories=("Cs", "Zs", "Cc")), min_size=1).filter(
    lambda name: name == name.strip()
)
_VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_values_come_as_they_were_written(values: dict[str, object]) -> None:
    assert pairs([f"{name}={json.dumps(value)}" for name, value in values.items()], "--set") == values


def test_what_is_no_json_is_text() -> None:
    given_ = ["a=x=y", "b=", "c=NaN", "d=-Infinity", f"e={'[' * 100_000}", "f='q'"]
    found = pairs(given_, "--set")
    assert found == {"a": "x=y", "b": "", "c": "NaN", "d": "-Infinity", "e": "[" * 100_000, "f": "'q'"}
    assert pairs(None, "--set") == {}


@pytest.mark.parametrize(
    ("given_", "says"),
    [(["x"], "--set takes name=value, got 'x'"), ([" =1"], "takes name=value"), (["x=1", " x =2"], "x is given twice")],
)
def test_what_has_no_name_or_comes_twice_is_refused(given_: list[str], says: str) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        pairs(given_, "--set")
    with pytest.raises(MorphogenError, match=says):
        pairs(given_, "--set", MorphogenError)
