"""Explanations say in plain words what a module says."""

import pytest

from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.explain import explain
from morphogen.schemas.knowledge.phrases import phrase
from morphogen.schemas.knowledge.program import load_text

from .findings import fact
from .programs import TASK, VALID, WHOLE


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('t.tflops < 10.0 && t.bound == "mem"', 'tflops is below 10.0 and bound is "mem"'),
        ("t.latency >= 3 s", "latency is at least 3 s"),
        (
            "avg(t.latency) over last 100 per name > 2",
            "the average of latency over the last 100 items of the same name is above 2",
        ),
        ("p95(t.tflops) over 5m < 2", "the 95th percentile of tflops over the last 5 min is below 2"),
        ("count() over last 3 == 3", "the number of items over the last 3 items is 3"),
        ("slope(t.tflops) > 0", "the slope per item of tflops so far is above 0"),
        ("!t.ok or not is_known(t.note)", "ok is false or note is unknown"),
        ('t.bound not in ["mem"]', 'bound is none of "mem"'),
        (
            "(t.ok or t.count > 1) and t.speedup * 2 + 1 < 3",
            "(ok or count is above 1) and (speedup times 2) plus 1 is below 3",
        ),
        ("abs(t.tflops) > clamp(t.speedup, 0, 1)", "the size of tflops is above speedup held between 0 and 1"),
        ("min(t.tflops, t.speedup) > 1", "the smaller of tflops and speedup is above 1"),
        ("not (t.tflops > 1)", "it is not so that tflops is above 1"),
    ],
)
def test_a_fact_is_put_in_words(body: str, words: str) -> None:
    program = load_text(fact(body))

    assert explain(program, "f").startswith(f"f: true of a Perf when {words}\n")


def test_everything_that_is_declared_is_named() -> None:
    program = load_text(WHOLE, "gemm.mk")

    text = explain(program)

    for names in (program.cases, program.facts, program.recorded, program.rules, program.invariants, program.functions,
                  program.procedures, program.constants, program.states, program.loops, program.views, program.artifacts):  # fmt: skip
        for name in names:
            assert name.partition(".")[2] in text


def test_a_loop_says_what_its_steps_do_to_the_world() -> None:
    text = explain(load_text(WHOLE), "Improve")

    assert (
        "tool.run (acts on the outside); the result is out; what it prints is recorded as TraceItem.Performance" in text
    )
    assert "llm.query (asks a model; the loop may suspend until it answers); the result is plan" in text
    assert "if is_slow holds and tile of plan is above 16" in text
    assert "for each item of all Performance" in text


def test_text_conditions_are_marked_as_never_executed() -> None:
    assert "in words only, never executed: when the numbers look odd" in explain(load_text(WHOLE), "Ask a person")


def test_a_sweep_says_how_many_configurations_it_has() -> None:
    text = 'system S { engineering_loop T { parameter A: [1, 2, 3] parameter B: ["x", "y"] measure { cmd: "b {{A}} {{B}}" metric: "m" } } }'

    assert "that is 6 configurations" in explain(load_text(text), "T")


def test_a_thing_says_who_uses_it_and_where_it_stands() -> None:
    text = explain(load_text(WHOLE), "is_slow")

    assert "used by: fact Gemm.is_crawling, rule Gemm.Swizzle blocks and loop Gemm.Improve" in text
    assert "declared at line 27" in text


def test_a_step_is_explained_by_its_name() -> None:
    assert explain(load_text(TASK), "ask").startswith("step of Greet\nstep ask\n  llm.query")


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(KnowledgeError, match="nothing called `Improv`; did you mean `Improve`"):
        explain(load_text(WHOLE), "Improv")


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_every_program_can_be_explained(text: str) -> None:
    program = load_text(text)

    assert program.sha256[:12] in explain(program)


def test_an_expression_out_of_a_fact_names_its_base() -> None:
    program = load_text(WHOLE)

    assert phrase(program.rules["Gemm.Larger tiles"].conditions[0]) == "is_memory_bound holds"
