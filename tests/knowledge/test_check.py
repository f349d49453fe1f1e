"""The checker finds what is wrong where it is, and nothing in what is right."""

import re

import pytest

from morphogen.schemas.knowledge.check import CODES
from morphogen.schemas.knowledge.diagnostics import Diagnostic
from morphogen.schemas.knowledge.loading import Sources, examined_source
from morphogen.schemas.knowledge.tools import TOOLS

from .findings import FINDINGS
from .programs import VALID

MARK = re.compile(r"«(K\d+)»")


def found(text: str) -> tuple[Diagnostic, ...]:
    _, _, diagnostics = examined_source(text, "test.mk", Sources(TOOLS))
    return diagnostics


def marked(text: str) -> tuple[str, set[tuple[str, int, int]]]:
    wanted = set()
    clean = ""
    end = 0
    for mark in MARK.finditer(text):
        clean += text[end : mark.start()]
        wanted.add((mark[1], clean.count("\n") + 1, len(clean) - clean.rfind("\n")))
        end = mark.end()
    return clean + text[end:], wanted


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_a_valid_program_has_no_errors_and_no_warnings(text: str) -> None:
    assert [one for one in found(text) if one.severity != "note"] == []


@pytest.mark.parametrize("text", FINDINGS.values(), ids=FINDINGS)
def test_what_is_wrong_is_found_where_it_stands(text: str) -> None:
    clean, wanted = marked(text)

    diagnostics = found(clean)

    assert {(one.code, one.span.line, one.span.column) for one in diagnostics} == wanted
    assert all(one.severity == CODES[one.code][0] for one in diagnostics)
    assert all("\n" not in one.message and one.message for one in diagnostics)


def test_every_code_has_an_example() -> None:
    shown = {mark[1] for text in FINDINGS.values() for mark in MARK.finditer(text)}
    elsewhere = {"K109", "K110", "K111"}  # of used modules

    assert shown | elsewhere == set(CODES)
