"""The page on blueprints shows what runs, and names what there is."""

import re
from pathlib import Path

import pytest

import morphogen.kernels.blueprints as room
from morphogen.kernels.blueprints import ops

PAGE = (Path(__file__).parents[2] / "docs" / "blueprints.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("place", range(len(SNIPPETS)))
def test_a_snippet_of_the_page_runs_as_it_stands(place: int) -> None:
    exec(compile(SNIPPETS[place], f"docs/blueprints.md, snippet {place + 1}", "exec"), {})


def test_the_page_names_every_operation() -> None:
    for operation in ops.Node.__args__:
        assert f"`{operation.__name__}(" in PAGE


def test_every_public_name_is_there() -> None:
    assert set(room.__all__) == set(room._HOMES)
    for name in room.__all__:
        assert getattr(room, name) is not None
    with pytest.raises(AttributeError):
        room.nothing  # noqa: B018
