"""The page on the gauntlet shows what runs, and its tables are those of the code."""

import re
from pathlib import Path

import morphogen.consumers.crystallizer as room
from morphogen.consumers.crystallizer import MOVES
from morphogen.consumers.crystallizer.guards import KINDS
from morphogen.kernels.sandbox import Sandbox
from morphogen.schemas.crystals import STAGES

PAGE = (Path(__file__).parents[2] / "docs" / "gauntlet.md").read_text()


def test_the_snippet_of_the_page_runs_as_it_stands(sandbox: Sandbox) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(snippet, "docs/gauntlet.md", "exec"), {})


def test_the_page_names_every_stage_kind_of_guard_and_move() -> None:
    for stage in STAGES:
        assert f"| `{stage}` |" in PAGE
    for kind in KINDS:
        assert f"| `{kind}` |" in PAGE
    for was, after in MOVES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{was}` | ") and "Did it" not in line)
        assert set(re.findall(r"`(\w+)`", row)[1:]) == after or was == "retired"


def test_every_public_name_is_there() -> None:
    assert sorted(room.__all__) == sorted(set(room.__all__))
    for name in room.__all__:
        assert getattr(room, name) is not None
