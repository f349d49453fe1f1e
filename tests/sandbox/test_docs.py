"""The page on the sandbox shows what runs, and its figures are those of the code and the corpus."""

import re
from pathlib import Path

import pytest

import morphogen.kernels.sandbox as room
from morphogen.kernels.sandbox import layers
from morphogen.kernels.sandbox.capabilities import FILES
from morphogen.kernels.sandbox.syscalls import X86_64

from .canary import ATTACKS
from .test_corpus import HARMLESS_TEXT

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("place", range(len(SNIPPETS)))
def test_a_snippet_of_the_page_runs_as_it_stands(place: int) -> None:
    exec(compile(SNIPPETS[place], f"docs/sandbox.md, snippet {place + 1}", "exec"), {})


def test_the_page_names_every_layer_field_and_file_operation() -> None:
    for name in (*layers.ALL, *room.Outcome.__struct_fields__, *FILES):
        assert f"`{name}`" in PAGE or f"`files.{name}`" in PAGE


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    assert f"hold {len(ATTACKS)} attacks" in PAGE
    assert f"caught {len(ATTACKS) - len(HARMLESS_TEXT)} of them; the other {len(HARMLESS_TEXT)}" in PAGE
    assert f"allow-list of {len(X86_64)} system calls" in PAGE
    assert len(layers.REQUIRED) == 9


def test_every_public_name_is_there() -> None:
    assert room.__all__ == sorted(room.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in room.__all__:
        assert getattr(room, name) is not None
