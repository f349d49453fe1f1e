"""Every snippet of the page on learners does what the page says."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli import do as verb
from morphogen.cli.app import run
from morphogen.cli.do_settings import DoSettings, read_settings
from morphogen.kernels.sandbox import Capabilities
from morphogen.producers.loops.goals import Program, tools_named
from morphogen.producers.loops.goals.learner import ROUNDS
from morphogen.producers.loops.tools import Toolbox

PAGE = (Path(__file__).parents[2] / "docs" / "learners.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_of_the_page_runs(
    bus: Bus, own: Settings, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(space)
    monkeypatch.setenv("MORPHOGEN_HOME", str(own.home))
    (tmp_path / "replies.toml").write_text(next(one for one in snippets("toml") if "reply" in one))
    first, second = snippets("python")
    exec(first, {})
    found: dict[str, Any] = {}
    exec(second, found)

    done = found["reach"]("Total the price of shop.csv", {"path": "shop.csv"}, str(tmp_path / "replies.toml"))

    assert (done.ok, done.mode, done.output) == (True, "learner", 7)


def test_the_settings_of_the_page_are_understood_and_are_all_there_are(tmp_path: Path) -> None:
    (text,) = [one for one in snippets("toml") if "do.toml" in one]
    path = tmp_path / "do.toml"
    path.write_text(text.replace("# trusted", "trusted"))

    read = read_settings(path, named=True)

    assert read.config().follower == 0.95
    (program,) = read.programs(tmp_path).values()
    assert program == Program(tmp_path / "sums.mk", "Sum")
    names = {field.name for field in msgspec.structs.fields(DoSettings)} - {"allow_run"}
    assert all(re.search(rf"^(# )?\[*{name}\b", text, re.MULTILINE) for name in names)


def test_the_goal_of_the_page_is_learned_and_then_followed(
    bus: Bus, own: Settings, space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (replies,) = [one for one in snippets("toml") if "reply" in one]
    (tmp_path / "replies.toml").write_text(replies)
    goal = [
        "do",
        "Sum the column price of shop.csv",
        "-p",
        "column=price",
        "-p",
        "path=shop.csv",
        "--workspace",
        str(space),
    ]

    assert run(["--home", str(own.home), *goal, "--backend", "script", "-o", f"file={tmp_path / 'replies.toml'}"]) == 0
    assert run(["--home", str(own.home), *goal]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["7", "learner", "7", "follower"]


def test_the_program_of_the_page_pursues_its_goal(
    bus: Bus,
    own: Settings,
    space: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    script: Callable[..., object],
) -> None:
    (text,) = snippets("mk")
    file = tmp_path / "sums.mk"
    file.write_text(text)
    (tmp_path / "seven.toml").write_text('[[reply]]\ntext = "7"\n')
    goal = ["do", "Add up price in shop.csv", "-p", "column=price", "-p", "path=shop.csv", "--mode", "learner", "-q"]

    code = run(
        ["--home", str(own.home), *goal, "--with", str(file), "--workspace", str(space), "--backend", "script",
         "-o", f"file={tmp_path / 'seven.toml'}"]
    )  # fmt: skip

    assert (code, capsys.readouterr().out) == (0, "7\n")
    assert (space / "total.txt").read_text() == "7"
    assert tools_named(Program(file), Toolbox.standard(installed=False)) == {"tool.read", "tool.write", "llm.query"}


def test_the_page_names_every_option_and_every_function(functions: Capabilities) -> None:
    import inspect

    for name, parameter in inspect.signature(verb.do).parameters.items():
        option = {"param": "-p", "program": "--with", "backend_option": "-o", "as_json": "--json", "quiet": "-q"}.get(
            name
        )
        if name not in {"context", "goal"}:
            assert (option or f"--{name.replace('_', '-')}") in PAGE, parameter
    for name in functions.names:
        assert f"`{name}`" in PAGE or name in {"files.read_bytes", "files.write_bytes"}
    assert f"After {ROUNDS} rounds" in PAGE
