"""The page on synthesis shows what runs, and names what there is."""

import re
from pathlib import Path

import pytest

import morphogen.kernels.synthesis as room

PAGE = (Path(__file__).parents[2] / "docs" / "synthesis.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("place", range(len(SNIPPETS)))
def test_a_snippet_of_the_page_runs_as_it_stands(place: int) -> None:
    exec(compile(SNIPPETS[place], f"docs/synthesis.md, snippet {place + 1}", "exec"), {})


def test_the_page_names_every_field_and_every_kind_of_doubt() -> None:
    for name in (*room.Example.__struct_fields__, *room.Budget.__struct_fields__, *room.Drafted.__struct_fields__):
        assert f"`{name}`" in PAGE
    for kind in re.findall(r"`(\w+)` \(", (room.Doubt.__doc__ or "")):
        assert f"`{kind}`" in PAGE


def test_every_public_name_is_there() -> None:
    for name in room.__all__:
        assert getattr(room, name) is not None
