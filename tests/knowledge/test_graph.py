"""The graph has what leads where, in three formats, whatever the names are."""

import json
import re

import pytest

from morphogen.schemas.knowledge.graph import Edge, draw, graph_of
from morphogen.schemas.knowledge.program import load_text

from .programs import VALID, WHOLE


def test_edges_lead_from_cases_over_facts_and_rules_to_loops_and_back() -> None:
    graph = graph_of(load_text(WHOLE))

    assert {
        Edge("case:Gemm.Performance", "fact:Gemm.is_slow", "grounds"),
        Edge("fact:Gemm.is_slow", "fact:Gemm.is_crawling", "asks"),
        Edge("fact:Gemm.is_slow", "rule:Gemm.Swizzle blocks", "asks"),
        Edge("fact:Gemm.is_slow", "loop:Gemm.Improve", "asks"),
        Edge("loop:Gemm.Improve", "loop:Gemm.Tiles", "runs"),
        Edge("loop:Gemm.Improve", "procedure:Gemm.note", "calls"),
        Edge("loop:Gemm.Improve", "case:Gemm.Correctness", "emits"),
        Edge("loop:Gemm.Tiles", "case:Gemm.Performance", "emits"),
        Edge("case:Gemm.Performance", "loop:Gemm.Watch", "handles"),
        Edge("case:Gemm.Correctness", "invariant:Gemm.Exact", "is read"),
    } <= set(graph.edges)


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_json_edges_join_nodes_that_are_there(text: str) -> None:
    found = json.loads(draw(graph_of(load_text(text)), "json"))

    ids = {one["id"] for one in found["nodes"]}
    assert len(ids) == len(found["nodes"])
    assert all(one["source"] in ids and one["target"] in ids for one in found["edges"])


def test_names_cannot_break_out_of_a_drawing() -> None:
    odd = 'system S { knowledge { rule "a \\"quoted\\" [x] --> y; \\\\ end" { when: "odd" apply: "x" } } }'
    graph = graph_of(load_text(odd))

    mermaid, dot = draw(graph, "mermaid"), draw(graph, "dot")

    (label,) = re.findall(r'\[/"(.*)"/\]', mermaid)
    assert not set('"[]<>;') & set(re.sub(r"#\d+;", "", label))
    assert '\\"quoted\\"' in dot
    assert len(dot.splitlines()) == 5


def test_a_used_module_is_drawn_where_something_leads_to_it() -> None:
    shared = "system A { trace_schema { variant V { case C { x: int } case D { y: int } } } knowledge { fact f(t: C) { return t.x > 1 } } }"
    program = load_text('use "a.mk" system B { knowledge { rule "R" { when: f apply: "x" } } }', used={"a.mk": shared})

    names = {vertex.id for vertex in graph_of(program).vertices}

    assert names == {"case:A.C", "fact:A.f", "rule:B.R"}
