"""No text makes the checker, the explainer, the graph or the editor's questions raise anything but their own error."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from morphogen.cli.language_server.analysis import Document
from morphogen.schemas.knowledge.check import CODES
from morphogen.schemas.knowledge.check.conflicts import Conflicts
from morphogen.schemas.knowledge.diagnostics import render, to_json
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.explain import explain
from morphogen.schemas.knowledge.graph import draw, graph_of
from morphogen.schemas.knowledge.loading import Sources, examined_source
from morphogen.schemas.knowledge.program import load_text
from morphogen.schemas.knowledge.tools import TOOLS

from .findings import FINDINGS
from .programs import VALID

MARK = re.compile(r"«K\d+»")
TOKEN = re.compile(r"\w+|\"[^\"\n]*\"|\s+|.", re.DOTALL)
texts = [*VALID.values(), *(MARK.sub("", one) for one in FINDINGS.values())]
words = sorted({token for text in texts for token in TOKEN.findall(text)})


@st.composite
def changed(draw_from: st.DrawFn) -> str:
    """Return a program in which a few tokens are gone, doubled, swapped or others."""
    tokens = TOKEN.findall(draw_from(st.sampled_from(texts)))
    for _ in range(draw_from(st.integers(1, 6))):
        place = draw_from(st.integers(0, len(tokens) - 1))
        kind = draw_from(st.sampled_from(("drop", "double", "swap", "other")))
        if kind == "drop" and len(tokens) > 1:
            del tokens[place]
        elif kind == "double":
            tokens.insert(place, tokens[place])
        elif kind == "swap":
            other = draw_from(st.integers(0, len(tokens) - 1))
            tokens[place], tokens[other] = tokens[other], tokens[place]
        else:
            tokens[place] = draw_from(st.sampled_from(words))
    return "".join(tokens)


@example("task T { step s { n = 3_ } }")
@settings(max_examples=250)
@given(changed())
def test_a_changed_program_is_fine_or_has_findings_in_its_text(text: str) -> None:
    examined, _, diagnostics = examined_source(text, "fuzz.mk", Sources(TOOLS))

    for one in diagnostics:
        assert 0 <= one.span.start <= len(text)
        assert one.code in CODES or not one.code.startswith("K")
        assert render(one, text, "fuzz.mk")
        assert to_json(one)
    if not any(one.severity == "error" for one in diagnostics):
        program = load_text(text)
        assert program.module == examined.module
        assert explain(program)
        for form in ("mermaid", "dot", "json"):
            assert draw(graph_of(program), form)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(changed(), st.integers(0, 4000))
def test_an_editor_may_ask_about_any_place(text: str, place: int) -> None:
    document = Document(text, "fuzz.mk", TOOLS)
    offset = min(place, len(text))

    document.hover(offset)
    document.complete(offset)
    target = document.definition(offset)

    assert target is None or 0 <= target.start <= target.end


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_any_text_is_loaded_or_refused(text: str) -> None:
    refused = None
    try:
        load_text(text)
    except KnowledgeError as error:
        refused = error

    assert refused is None or "\n" not in str(refused)


@pytest.mark.parametrize("depth", [40, 400])
def test_facts_that_ask_facts_many_levels_down_are_checked(depth: int) -> None:
    chain = "".join(f"fact f{n}(t: C) {{ return f{n - 1}(t) && t.x > {n} }}\n" for n in range(1, depth))
    text = f"system S {{ trace_schema {{ variant V {{ case C {{ x: int }} }} }} knowledge {{ fact f0(t: C) {{ return t.x > 0 }} {chain} }} }}"

    _, _, diagnostics = examined_source(text, "deep.mk", Sources(TOOLS))

    assert diagnostics == ()


def test_facts_that_double_with_every_call_are_checked_in_no_time() -> None:
    doubled = "(f{0}(t) and not f{0}(t)) or (t.x > {1} and f{0}(t))"
    chain = "".join(f"fact f{n}(t: C) {{ return {doubled.format(n - 1, n)} }}\n" for n in range(1, 40))
    text = f"system S {{ trace_schema {{ variant V {{ case C {{ x: int }} }} }} knowledge {{ fact f0(t: C) {{ return t.x > 0 }} {chain} }} }}"

    began = time.process_time()
    _, _, diagnostics = examined_source(text, "wide.mk", Sources(TOOLS))

    assert diagnostics == ()
    assert time.process_time() - began < 20  # without a bound it takes longer than anybody waits


def test_many_rules_on_one_thing_are_compared_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(Conflicts, "_follows", lambda *rules: compared.append(rules))
    some = "".join(
        f'fact f{n}(t: C) {{ return t.x > {n} }} rule "R{n}" {{ when: f{n} apply: "a" }}\n' for n in range(150)
    )
    text = f"system S {{ trace_schema {{ variant V {{ case C {{ x: int }} }} }} knowledge {{ {some} }} }}"

    examined_source(text, "many.mk", Sources(TOOLS))
    assert len(compared) == 5_000

    compared.clear()
    examined_source(text, "many.mk", Sources(TOOLS, sealed=True))
    assert compared == []
