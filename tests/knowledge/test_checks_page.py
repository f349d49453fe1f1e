"""The page on checks shows what the checker does."""

import re
from pathlib import Path

import pytest

from morphogen.schemas.knowledge.check import CODES
from morphogen.schemas.knowledge.loading import Sources, examined_source
from morphogen.schemas.knowledge.tools import TOOLS
from morphogen.schemas.knowledge.units import UNITS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "knowledge" / "checks.md").read_text()
SNIPPETS = re.findall(r"```mk\n(.*?)```", PAGE, re.DOTALL)
SHIPPED = [
    *sorted((ROOT / "schemas" / "knowledge" / "library").glob("*.mk")),
    *sorted((ROOT / "examples").rglob("*.mk")),
]


def test_every_code_stands_in_the_page_with_its_severity_and_meaning() -> None:
    shown = {code: (severity, what) for code, severity, what in re.findall(r"\| `(K\d+)` \| (\w+) \| (.*) \|", PAGE)}

    assert shown == CODES


@pytest.mark.parametrize("text", SNIPPETS, ids=[one.split("\n")[-3].strip()[:30] for one in SNIPPETS])
def test_a_snippet_has_just_the_findings_that_it_says(text: str) -> None:
    first = text.split("\n", 1)[0]
    wanted = first.removeprefix("// finds: ").split() if first.startswith("// finds: ") else []

    _, _, diagnostics = examined_source(text, "page.mk", Sources(TOOLS))

    assert [one.code for one in diagnostics] == wanted


def test_every_family_of_units_is_named_in_the_page() -> None:
    page = PAGE.split("## Units")[1].split("## ")[0]

    for name in UNITS:
        if not any(mark in name for mark in "/µμ") and not name.endswith(("FLOP", "FLOPS")) and name != "kB":
            assert re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", page), name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_module_that_ships_checks(path: Path) -> None:
    _, _, diagnostics = examined_source(path.read_text(), str(path), Sources(TOOLS))

    assert [one for one in diagnostics if one.severity == "error"] == []
