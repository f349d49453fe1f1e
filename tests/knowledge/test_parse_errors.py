"""What a person is told who wrote something wrong: the place, the reason, what could stand there, the nearest word."""

import pytest

from morphogen.schemas.knowledge.diagnostics import Diagnostic
from morphogen.schemas.knowledge.parse import parse


def only(source: str) -> Diagnostic:
    (found,) = parse(source).diagnostics
    return found


def place(source: str) -> tuple[str, int, int]:
    found = only(source)
    return found.code, found.span.line, found.span.column


def test_three_independent_mistakes_give_three_diagnostics_and_the_rest_is_read() -> None:
    parsed = parse(
        """system S {
  trace_schema { variant V { case C { a: int, b; c: float } } }
  knowledge {
    fact f(t: V.C) { return t.a < < 3 }
    fact g(t: V.C) { return t.a < 3 }
  }
  agent_loop L {
    step a tool.run { cmd: "x" }
    step b: tool.run { cmd: "y" }
  }
  const AFTER = 1
}
"""
    )
    system = parsed.module.systems[0]

    assert [one.span.line for one in parsed.diagnostics] == [2, 4, 8]
    assert [one.name for one in system.facts] == ["g"]
    assert [one.name for one in system.agent_loops[0].steps] == ["b"]
    assert system.constants[0].name == "AFTER"


def test_a_misspelled_keyword_is_named_and_read_as_the_one_that_was_meant() -> None:
    parsed = parse("system S { engineering_lop T { paramter A: [1] } }")

    assert [one.hint for one in parsed.diagnostics] == [
        "did you mean `engineering_loop`?",
        "did you mean `parameter`?",
    ]
    assert parsed.module.systems[0].engineering_loops[0].parameters[0].key == "A"


def test_an_unclosed_brace_points_at_the_brace_that_opened() -> None:
    found = parse("system S {\n  model { state x: int\n").diagnostics

    assert [(one.code, one.span.line, one.span.column) for one in found] == [
        ("unclosed-bracket", 1, 10),
        ("unclosed-bracket", 2, 9),
    ]


def test_the_layout_tells_which_brace_is_not_closed() -> None:
    source = """system S {
  agent_loop L {
    step a: tool.run { cmd: "x" }

  build {
    artifact "r"
  }
}
"""
    parsed = parse(source)

    assert place(source) == ("unclosed-bracket", 2, 16)
    assert parsed.module.systems[0].artifacts[0].name == "r"


def test_a_brace_too_many_is_named() -> None:
    assert place("system S {\n  model {\n    state x: int\n    }\n  }\n}\n")[0] == "unmatched-bracket"


@pytest.mark.parametrize(
    ("source", "code", "column", "expected", "hint"),
    [
        ('system S { const X = "abc\n}', "unclosed-string", 22, None, '"""'),
        ("system S { /* abc }", "unclosed-comment", 12, None, None),
        ("system S { const X = a = b }", "unexpected-token", 24, "an operator", "write `==`"),
        ("system S { const X = 1 < 2 < 3 }", "unexpected-token", 28, "an operator", "do not chain"),
        ("system S { const X = [1 2] }", "unexpected-token", 25, "`]`", None),
        ("system S { const X = 3 msec }", "unexpected-token", 24, None, "unit"),
        ("system S { const X = ? }", "unexpected-token", 22, "an expression", None),
        ("system S { const X = $ 1 }", "bad-character", 22, None, None),
        ("system S { const X = “a” }", "bad-character", 22, None, 'write "'),
        ("import std", "unexpected-token", 1, "`use`", "`use`"),
        ('system S { engineering_loop E { a [1] } }', "missing-colon", 33, None, "`a: ...`"),
        ('task T { step a { emitt X } }', "unexpected-token", 25, "`=`", "`emit`"),
        ('task T { step a tool.run { } }', "unexpected-token", 17, "`{`", "step NAME: tool.run"),
        ('system S { const X = 1e999 }', "number-too-large", 22, None, None),
        ('system S { const X = (a + b)(1) }', "not-callable", 23, None, "max(a, b)"),
        ('system S { const X = "{{ 1 + }}" }', "unexpected-token", 30, "an expression", "\\{\\{"),
        ('system S { const X = avg(x) over 3 GB }', "bad-window", 34, None, "over 5m"),
        ('system S { const X = avg(x) over last 0 }', "bad-window", 39, None, None),
        ('system_model S { axom: "x" }', "unknown-key", 18, None, "axiom"),
        ('task T { step a: tool.run { output_var: 3 } }', "bad-output", 41, None, None),
        ('system S { knowledge { rule r { effect: 1 effect: 2 } } }', "duplicate-key", 43, None, None),
        ('system S { model { state x: float | int } }', "bad-type", 29, None, "such as"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_would_mend_it(
    source: str, code: str, column: int, expected: str | None, hint: str | None
) -> None:
    found = next(one for one in parse(source).diagnostics if one.severity == "error")

    assert (found.code, found.span.column) == (code, column)
    assert expected is None or expected in found.expected
    assert hint is None or hint in (found.hint or "")


def test_an_escape_that_means_nothing_stays_and_is_warned_of() -> None:
    found = only(r'system S { const X = "\d+" }')

    assert (found.code, found.severity, found.span.column) == ("unknown-escape", "warning", 23)


def test_front_matter_that_is_not_closed_or_not_flat_is_named() -> None:
    assert place("---\ntitle: x\n") == ("unclosed-front-matter", 1, 1)
    assert place("---\na:\n  - b\n---\n") == ("bad-front-matter", 3, 1)


def test_what_comes_after_too_deep_a_nesting_is_not_complained_of() -> None:
    assert only("system S { const X = " + "(" * 100_000).message == "brackets are nested deeper than 100"


@pytest.mark.parametrize("chain", ["1 + ", "not ", "-", "a == 1 or "])
def test_a_chain_of_operators_that_nobody_could_walk_is_refused(chain: str) -> None:
    assert place(f"system S {{ const X = {chain * 20_000} x }}")[0] == "nested-too-deep"


def test_no_more_than_a_hundred_mistakes_are_told() -> None:
    assert len(parse("system S { " + "fact x\n" * 5000 + "}").diagnostics) <= 101


@pytest.mark.parametrize("links", [101, 500])
def test_a_chain_of_branches_that_nobody_could_walk_is_refused(links: int) -> None:
    chain = " else ".join(f"if x > {n} {{ emit P {{ }} }}" for n in range(links))

    found = only(f"system A {{ agent_loop L {{ step s {{ {chain} }} }} }}")

    assert (found.code, found.message) == ("nested-too-deep", "this `if` is nested deeper than 100")


@pytest.mark.parametrize("count", [0, 10**12 + 1, 10**21])
def test_a_window_holds_as_many_items_as_can_be_counted(count: int) -> None:
    found = only(f"system S {{ knowledge {{ fact f(t: P) {{ return avg(t.y) over last {count} > 1 }} }} }}")

    assert (found.code, found.message) == ("bad-window", "a window holds at least one item and at most a trillion")
