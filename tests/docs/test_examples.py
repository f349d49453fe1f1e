"""The examples run, and the documents show what the code is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from morphogen.bus.settings import Settings
from morphogen.schemas import event_classes

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


ELSEWHERE = {  # each is run twice in that room
    "crystallize.py": "crystallization",
    "handoff.py": "kv_examples",
    "training_facts.py": "training_facts",
}
HERE = [path for path in sorted((ROOT / "examples").glob("*.py")) if path.name not in ELSEWHERE]


def test_every_example_is_run_here_or_in_a_room_of_its_own() -> None:
    for name, room in ELSEWHERE.items():
        assert any(name in path.read_text() for path in (ROOT / "tests" / room).glob("test_*.py"))


@pytest.mark.parametrize("path", HERE, ids=lambda path: path.name)
def test_an_example_runs_as_it_stands(path: Path, settings: Settings) -> None:
    if "llama_cpp" in path.read_text():
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    again = "import torch" not in path.read_text()  # to import it twice takes longer than all of the others do
    for _ in range(1 + again):
        done = subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=False, env=os.environ
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


def test_the_readmes_quickstart_is_the_first_example() -> None:
    example = (ROOT / "examples" / "first.py").read_text().split('"""', 2)[2].strip()
    (shown,) = re.findall(r"```python\n# first\.py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    assert shown.strip() == example


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_shipped_event_type_stands_in_the_page_on_events() -> None:
    page = (ROOT / "docs" / "events.md").read_text()

    for cls in event_classes():
        if cls.__module__.startswith("morphogen."):
            assert f"`{cls.type}`" in page


def test_the_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()

    assert "make demo" in readme
    assert "make test" in readme


def test_every_environment_variable_of_ours_stands_in_the_page_on_operations() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rooms = ("bus", "schemas", "producers", "consumers", "replay", "cli", "api")
    used = {
        name
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        for name in re.findall(r"MORPHOGEN_[A-Z]+", path.read_text())
    }
    streams = {
        "MORPHOGEN_LOG",
        "MORPHOGEN_COMMANDS",
        "MORPHOGEN_DEAD",
        "MORPHOGEN_BLOBS",
        "MORPHOGEN_REPLAY",
        "MORPHOGEN_SPOOL",
    }

    assert {name for name in used - streams if name not in page} == set()
