"""The page on crystals shows what runs, and its figures are those of the code."""

import re
from pathlib import Path

import msgspec
import pytest
import typer

from morphogen.consumers.crystallizer import drafting, planning, splitting, worker
from morphogen.consumers.crystallizer.lifecycle import Life
from morphogen.consumers.crystallizer.moves import MOVES

PAGE = (Path(__file__).parents[2] / "docs" / "crystals.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("place", range(len(SNIPPETS)))
def test_a_snippet_of_the_page_runs_as_it_stands(place: int) -> None:
    exec(compile(SNIPPETS[place], f"docs/crystals.md, snippet {place + 1}", "exec"), {})


def test_the_thresholds_of_the_page_are_those_of_the_code() -> None:
    for name, value in msgspec.structs.asdict(Life()).items():
        assert f"`{name}` = {value:g}" in PAGE


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    assert f"shown up to {drafting.SHOWN} executions" in PAGE
    assert f"{planning.FEWEST} in all are needed" in PAGE
    assert f"from {splitting.LEARN} at most" in PAGE
    assert f"one of the newest {worker.REPLAYED}" in PAGE
    assert planning.GROWTH == 1.5
    assert f"at least {planning.INDEPENDENT} of them" in PAGE
    for mode in planning.REASONED | planning.FOLLOWED:
        assert f"`{mode}`" in PAGE
    for state in ("shadow", "active", "superseded"):
        assert state in MOVES
        assert state in PAGE


def test_every_command_is_on_the_page() -> None:
    from morphogen.cli import verbs  # noqa: F401
    from morphogen.cli.crystals import crystals

    names = typer.main.get_command(crystals).commands  # type: ignore[attr-defined]
    assert set(names) == {"list", "show", "diff", "make", "promote", "demote", "rollback", "retire", "export", "import"}
    for name, command in names.items():
        assert command.help
        assert re.search(rf"\b{name}\b", PAGE)
