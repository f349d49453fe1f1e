"""Every snippet of the page on loops does what the page says."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.producers.loops import runner
from morphogen.producers.loops.runner import Options
from morphogen.producers.loops.tools import Toolbox
from morphogen.producers.loops.tools.python import PythonTool
from morphogen.producers.loops.workspace import Workspace
from morphogen.schemas.knowledge.program import load_text

PAGE = (Path(__file__).parents[2] / "docs" / "knowledge" / "loops.md").read_text()
PROGRAMS = re.findall(r"```mk\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def toolbox() -> Toolbox:
    """The standard tools, and those that the page declares."""
    found: dict[str, Any] = {}
    for code in PYTHON:
        exec(code, found)
    return Toolbox.standard({"tool.word_count": PythonTool(found["word_count"])})


@pytest.mark.parametrize(
    "text", [one for one in PROGRAMS if "service_loop" not in one], ids=lambda text: text.split()[1]
)
def test_a_program_of_the_page_runs_and_is_a_success(
    text: str, bus: Bus, write: Callable[[str], Path], workspace: Path
) -> None:
    options = Options(live=True, workspace=workspace, tools=toolbox())

    ended = runner.start(bus, write(text), run="page", options=options)

    assert (ended.status, ended.reason) == ("done", "")


def test_the_service_of_the_page_checks() -> None:
    (service,) = [one for one in PROGRAMS if "service_loop" in one]

    assert load_text(service).find_loop().name == "Invoices"


def test_the_policy_of_the_page_is_one(tmp_path: Path) -> None:
    policy = next(one for one in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "hosts" in one)
    folder = tmp_path / ".morphogen"
    folder.mkdir()
    (folder / "policy.toml").write_text(policy)

    assert Workspace.open(tmp_path).policy.hosts == ("api.example.org", "127.0.0.1:8080")


def test_the_answer_of_the_page_is_one(bus: Bus, write: Callable[[str], Path], workspace: Path) -> None:
    found: dict[str, Any] = {}
    exec(next(code for code in PYTHON if "def say" in code), found)
    path = write('task t { step a: llm.query { prompt: "?" output_var: x } success: x == "yes" }')
    assert runner.start(bus, path, run="page", options=Options(live=True, workspace=workspace)).status == "suspended"

    found["say"]("page", "yes")

    assert runner.resume(bus, "page").status == "done"
