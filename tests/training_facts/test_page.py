"""The page on the standard facts: its facts are the library's, its module checks, its commands run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from morphogen.bus.settings import Settings
from morphogen.cli.app import run
from morphogen.consumers.projections.sql.query import SqlClient
from morphogen.schemas.knowledge.loading import LIBRARY
from morphogen.schemas.knowledge.program import load, load_text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "knowledge" / "training-facts.md").read_text()
LIBRARY_TEXT = (LIBRARY / "training.mk").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_the_page_shows_every_fact_as_it_stands_in_the_library() -> None:
    shown = [fact for block in blocks("mk") if block.startswith("fact") for fact in block.strip().split("\n\n")]
    named = [re.match(r"fact (\w+)", fact)[1] for fact in shown]  # type: ignore[index]

    assert named == [name.partition(".")[2] for name in load("std.training").facts]
    for fact in shown:
        assert lines(fact) in lines(LIBRARY_TEXT)


def test_every_name_that_a_run_has_to_log_stands_in_the_page() -> None:
    for info in load("std.training").cases.values():
        for field in set(info.fields) - {"rank", "layer", "nonfinite", "grad_norm", "weight_norm", "dead_share"}:
            assert f"`{field}`" in PAGE or f"{field}=" in PAGE


def test_the_module_of_the_page_and_the_example_check_without_a_warning() -> None:
    (module,) = (block for block in blocks("mk") if block.startswith("use"))

    assert load_text(module).warnings == ()
    assert load(ROOT / "examples" / "knowledge" / "training.mk").warnings == ()
    assert load("std.training").warnings == ()


def test_the_copy_of_the_page_is_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copying,) = blocks("python")
    monkeypatch.chdir(tmp_path)

    exec(compile(copying, "training-facts.md", "exec"), {})

    assert (tmp_path / "training.mk").read_text() == LIBRARY_TEXT


def test_the_commands_of_the_page_show_the_silent_layer_and_the_example_runs_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    commands = [line.removeprefix("$ ") for line in blocks("console")[0].splitlines()]
    assert commands[0] == "python examples/training_facts.py"
    shown = []
    for line in (*commands, commands[0]):
        program, *arguments = shlex.split(line)
        if program == "python":
            done = subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False
            )
            assert (done.returncode, done.stderr) == (0, "")
            shown.append(done.stdout)
        else:  # in this process: one of its own costs a second of imports
            code = run(arguments)
            said = capsys.readouterr()
            assert code == 0, said.err
            shown.append(said.out)
            SqlClient.shared(settings).close()
    example, loaded, facts, fired, again = shown

    assert "Give the layer its biases back" in example
    assert [line.split()[0] for line in loaded.splitlines()] == ["Digits", "Training"]
    assert "dead_units" in facts
    assert "at_chance" in facts
    assert fired.count("Revive the units") == 2
    assert "Give the layer its biases back" in again
