"""How a finding is shown to a person and given to a machine."""

import json

from morphogen.schemas.knowledge.diagnostics import Diagnostic, any_of, nearest, render, to_json
from morphogen.schemas.knowledge.lines import Lines


def at(text: str, part: str, **more: object) -> Diagnostic:
    start = text.index(part)
    return Diagnostic("a-code", "error", Lines(text).span(start, start + len(part)), "what is wrong", **more)  # type: ignore[arg-type]


def test_a_finding_shows_its_line_with_a_caret_and_what_would_help() -> None:
    text = "one\n  two three\n"

    assert render(at(text, "three", expected=("`a`", "`b`", "`c`"), hint="do this"), text, "f.mk") == (
        "f.mk:2:7: error[a-code]: what is wrong\n"
        "2 |   two three\n"
        "  |       ^^^^^\n"
        "  = expected `a`, `b` or `c`\n"
        "  = do this"
    )


def test_tabs_and_wide_characters_keep_the_caret_below_its_word() -> None:
    for before, cells in (("\t", 4), ("😀", 2), ("名", 2), ("e\u0301", 1), ("\x07", 1), ("\ud800", 1)):
        shown = render(at(f"{before}bad", "bad"), f"{before}bad").split("\n")
        assert shown[2] == f"  | {' ' * cells}^^^"


def test_the_caret_stands_at_the_end_of_a_file_and_never_leaves_its_line() -> None:
    text = "abc"
    end = Diagnostic("a-code", "error", Lines(text).span(3, 3), "more is needed")
    lines = "ab\ncd"
    both = Diagnostic("a-code", "error", Lines(lines).span(1, 5), "two lines")

    assert render(end, text).split("\n")[1:3] == ["1 | abc", "  |    ^"]
    assert render(both, lines).split("\n")[1:3] == ["1 | ab", "  |  ^"]


def test_a_very_long_line_is_shown_around_the_caret() -> None:
    text = "x" * 5000 + "BAD" + "y" * 5000
    shown = render(at(text, "BAD"), text).split("\n")

    assert len(shown[1]) < 200
    assert shown[1].index("BAD") == shown[2].index("^^^")


def test_a_finding_is_plain_json() -> None:
    found = to_json(at("a bad", "bad", expected=("x",)), "f.mk")

    assert json.loads(json.dumps(found)) == found
    assert (found["path"], found["line"], found["column"], found["start"], found["end"]) == ("f.mk", 1, 3, 2, 5)


def test_the_nearest_name_is_found_and_a_far_one_is_not() -> None:
    assert nearest("engineering_lop", ["agent_loop", "engineering_loop"]) == "engineering_loop"
    assert nearest("TFLOPS", ["tflops", "latency"]) == "tflops"
    assert nearest("banana", ["tflops", "latency"]) is None
    assert nearest("x" * 100_000, ["tflops"]) is None


def test_alternatives_are_listed_as_people_do() -> None:
    assert [any_of(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "a, b or c"]
