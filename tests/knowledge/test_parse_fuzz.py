"""Whatever the text, the parser ends, and says what is wrong in diagnostics."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.schemas.knowledge.diagnostics import render, to_json
from morphogen.schemas.knowledge.format import format_text
from morphogen.schemas.knowledge.keywords import KEYWORDS
from morphogen.schemas.knowledge.parse import parse

from .generated import MODULES, plain_source
from .programs import WHOLE

MARKS = list("{}()[],;:=<>+-*/%.|?!&\"'#\\$\0\ud800😀²\t\n ")
SOUP = st.lists(
    st.sampled_from(
        [*KEYWORDS, *MARKS, '"""', "/*", "//", "->", "{{", "}}", "not in", "-> emit", "1e999", "3 ms", "x"]
    ),
    max_size=60,
)


def survives(source: str) -> None:
    """Parse a text, and show all that is wrong with it."""
    parsed = parse(source)
    for one in parsed.diagnostics:
        assert 0 <= one.span.start <= one.span.end <= len(source)
        assert "\n" not in one.message
        assert to_json(one)
        render(one, source).encode()


@settings(max_examples=100)
@given(st.text(st.characters(), max_size=200))
def test_any_text_is_survived(source: str) -> None:
    survives(source)


@settings(max_examples=100)
@given(SOUP, st.sampled_from(["", " "]))
def test_any_soup_of_tokens_is_survived(atoms: list[str], between: str) -> None:
    survives(between.join(atoms))
    survives("system S { knowledge { " + between.join(atoms))
    survives("task T { step s { " + between.join(atoms) + "} }")


@settings(max_examples=20)
@given(MODULES, st.randoms(use_true_random=False))
def test_a_valid_file_with_atoms_lost_doubled_or_swapped_is_survived(module: object, chance: random.Random) -> None:
    atoms = re.findall(r"\w+|\s+|.", plain_source(module))  # type: ignore[arg-type]
    for _ in range(chance.randint(1, 4)):
        if atoms:
            place = chance.randrange(len(atoms))
            atoms[place : place + 1] = chance.choice(
                ([], [atoms[place]] * 2, [chance.choice(MARKS)], [chance.choice(atoms)])
            )
    survives("".join(atoms))


def complete(source: str) -> None:
    """Lay out a text in which nothing is wrong: all of it was read, and no end is missing."""
    parsed = parse(source)
    if parsed.ok:
        assert parse(format_text(source)).module == parsed.module


@pytest.mark.parametrize(
    "end", ["system", "system Lost", "domain D", "task", "task T", "use", "use a.", "system_model M"]
)
def test_an_unfinished_end_is_told(end: str) -> None:
    for before in ("", "system Kept {}\n\n", "use std.training\n"):
        for after in ("", "\n", "  // not yet"):
            assert [one.code for one in parse(before + end + after).diagnostics] == ["unexpected-token"]


@settings(max_examples=25)
@given(MODULES, st.randoms(use_true_random=False))
def test_what_is_read_without_an_error_is_read_to_its_end(module: object, chance: random.Random) -> None:
    source = plain_source(module)  # type: ignore[arg-type]
    for end in chance.choices([0, *(word.end() for word in re.finditer(r"\w\b", source))], k=8):
        complete(source[:end])


def test_a_file_cut_between_two_words_is_complete_or_wrong() -> None:
    for end in re.finditer(r"\w\b", WHOLE):
        complete(WHOLE[: end.end()])


def test_a_file_cut_anywhere_is_survived() -> None:
    for end in range(0, len(WHOLE), 41):
        survives(WHOLE[:end])
        survives(WHOLE[end:])


@pytest.mark.parametrize(
    "source",
    [
        "(" * 100_000,
        "{" * 100_000,
        ")" * 100_000,
        "(]" * 50_000,
        '"' * 100_001,
        '"""' * 33_333,
        "/*" * 100_000,
        "/*" + "*" * 500_000,
        "\0" * 100_000,
        "\ud800" * 100_000,
        " " * 500_000,
        "9" * 500_000,
        "a:" * 50_000,
        "system " * 50_000,
        "system S {\n" * 5000,
        "[\n a\n" * 20_000,
        'system S { const X = "' + "{{" * 50_000 + '" }',
        'system S { const X = "' + "{{a}}" * 20_000 + '" }',
        "system S { const X = a" + ".b" * 50_000 + " }",
        "system S { const X = a" + "[0]" * 50_000 + " }",
        "task T { step s { if a { } " + "else if a { } " * 20_000 + "} }",
        "task T { step s { " + "return " * 50_000,
        "---\n" + ": b\n" * 50_000,
        'system S { const X = "' + "\\" * 100_001,
    ],
    ids=lambda source: f"{source[:24]!r}",
)
def test_no_text_is_slow_to_refuse(source: str) -> None:
    survives(source)
