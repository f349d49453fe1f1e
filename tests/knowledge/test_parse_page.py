"""The language's page shows programs that are right."""

import re
from pathlib import Path

import pytest

from morphogen.schemas.knowledge.format import format_text
from morphogen.schemas.knowledge.keywords import DECLARATIONS, ITEMS, SECTIONS, STATEMENTS
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.knowledge.program import load_text

PAGE = Path(__file__).parents[2] / "docs" / "knowledge" / "language.md"
SNIPPETS = re.findall(r"```mk\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: re.sub(r"[^\w]+", "-", text[:30]))
def test_a_snippet_of_the_page_checks_and_formats(snippet: str) -> None:
    load_text(snippet)

    assert parse(format_text(snippet)).module == parse(snippet).module


def test_the_page_shows_every_keyword() -> None:
    shown = set(re.findall(r"\w+", " ".join(SNIPPETS))) | {"use", "return"}

    assert {*DECLARATIONS, *SECTIONS, *ITEMS, *STATEMENTS} - shown == set()


def test_the_page_names_every_code_of_the_parser() -> None:
    folder = Path(__file__).parents[2] / "schemas" / "knowledge"
    files = ("tokens", "brackets", "build", "build_expressions", "unexpected", "front_matter")
    source = "".join((folder / f"{name}.py").read_text(encoding="utf-8") for name in files)
    page = PAGE.read_text(encoding="utf-8")
    codes = set(re.findall(r'(?:report\(|Diagnostic\(|code = )\s*"([a-z]+(?:-[a-z]+)+)"', source))

    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in page} == set()
