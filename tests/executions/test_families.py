"""Of events, in the order of the log, families are made: nothing else decides."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from morphogen.consumers.executions import At, Families, Z, tool_name, wilson_lower
from morphogen.schemas.event import Unknown
from morphogen.schemas.executions import (
    ExecutionFeedback,
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
    GoalEmbedded,
)
from morphogen.schemas.goals import signature, template


def started(execution: str, goal: str = "sum it", **fields: object) -> ExecutionStarted:
    return ExecutionStarted(execution=execution, goal=goal, template=template(goal), signature=signature(goal),
                            norm_version=1, **fields)  # type: ignore[arg-type]  # fmt: skip


def folded(*events: object, kept: int = 200) -> Families:
    found = Families(kept=kept)
    for at, event in enumerate(events, 1):
        found.seen(event, At(at, 0, at * 10))  # type: ignore[arg-type]
    return found


def done(execution: str, outcome: str = "success", **fields: object) -> ExecutionFinished:
    return ExecutionFinished(execution=execution, outcome=outcome, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("successes", "trials", "bound"),
    [(0, 0, 0.0), (0, 5, 0.0), (5, 5, 0.6489), (19, 20, 0.8040), (20, 20, 0.8809), (100, 100, 0.9737), (1, 2, 0.1209)],
)
def test_the_bound_is_wilsons(successes: int, trials: int, bound: float) -> None:
    found = wilson_lower(successes, trials)

    assert found == pytest.approx(bound, abs=1e-4)
    if successes:  # the bound is the share from which what was seen lies z standard errors away
        assert trials * (successes / trials - found) ** 2 == pytest.approx(Z**2 * found * (1 - found))


@given(st.integers(0, 2000), st.integers(0, 2000))
def test_the_bound_lies_below_the_share_and_rises_with_evidence(successes: int, failures: int) -> None:
    trials = successes + failures
    bound = wilson_lower(successes, trials)

    assert 0 <= bound <= (successes / trials if trials else 0)
    assert wilson_lower(successes + 1, trials + 1) > bound or math.isclose(bound, 1)
    assert wilson_lower(successes, trials + 1) <= bound
    with pytest.raises(ValueError, match="count again"):
        wilson_lower(trials + 1, trials)


def test_a_family_counts_its_trials_by_mode() -> None:
    family = folded(
        started("a", params={"n": 1}), done("a", cost_microusd=10, duration_ns=4),
        started("b", params={"n": 1}), done("b", "timeout", duration_ns=6),
        started("c", params={"n": "x"}, mode="follower"), done("c", "failure", cost_microusd=0, judged_by="assertion"),
        started("d"), done("d", "cancelled"), started("e", "Sum IT!"), started("f", "another"),
    ).family(signature("sum it"))  # fmt: skip

    assert family is not None
    assert (family.uses, family.successes, family.cancelled, family.unfinished, family.judged) == (3, 1, 1, 1, 0)
    assert (family.learner_microusd, family.learner_ns, family.goal) == (10, 5, "Sum IT!")
    assert {mode: (one.uses, one.successes) for mode, one in family.modes.items()} == {
        "follower": (1, 0),
        "learner": (2, 1),
    }
    assert (family.params["n"].types, family.params["n"].values) == (("int", "str"), {"1": 2, "'x'": 1})
    assert [trace.execution for trace in family.traces] == ["a", "b", "c", "d"]
    assert ([one.execution for one in family.good], [one.execution for one in family.bad]) == (["a"], ["b", "c"])
    assert family.tool == tool_name(family.signature) == f"tool_{family.signature[3:]}"


def test_the_newest_feedback_counts_even_where_it_stands_before_the_end() -> None:
    assert (
        folded(started("a"), done("a"), ExecutionFeedback(execution="a", outcome="failure")).outcome("a") == "failure"
    )
    assert (
        folded(ExecutionFeedback(execution="a", outcome="failure"), started("a"), done("a")).outcome("a") == "failure"
    )
    twice = (ExecutionFeedback(execution="a", outcome="failure"), ExecutionFeedback(execution="a", outcome="success"))
    assert folded(started("a"), done("a"), *twice).outcome("a") == "success"
    assert folded(started("a"), *twice).outcome("a") is None


def test_an_id_is_of_the_first_and_a_step_is_told_by_the_newest() -> None:
    families = folded(
        started("a"), ExecutionStep(execution="a", number=1, kind="tool", name="y"), started("a", "another goal"),
        ExecutionStep(execution="a", number=0, kind="tool", name="x"),
        ExecutionStep(execution="a", number=1, kind="tool", name="z"), done("a"),
    )  # fmt: skip

    trace = families.trace("a")
    assert trace is not None
    assert (len(families), trace.goal, [step.name for step in trace.steps]) == (1, "sum it", ["x", "z"])
    assert trace.whole
    assert families.trace("nobody") is None
    assert families.family("g1-none") is None


def test_a_trace_with_a_hole_is_not_whole() -> None:
    trace = folded(started("a"), ExecutionStep(execution="a", number=1, kind="tool", name="x"), done("a")).trace("a")

    assert trace is not None
    assert not trace.whole


def test_of_many_the_newest_of_each_kind_are_kept_and_all_are_counted() -> None:
    events: list[object] = []
    for at in range(12):
        events += [
            started(f"s{at}"),
            ExecutionStep(execution=f"s{at}", number=0, kind="tool", name="t"),
            done(f"s{at}"),
        ]
        events += [started(f"f{at}"), done(f"f{at}", "failure")]
    families = folded(*events, kept=3)

    family = families.family(signature("sum it"))

    assert family is not None
    assert (family.uses, family.successes) == (24, 12)
    assert [one.execution for one in family.good] == ["s9", "s10", "s11"]
    assert [one.execution for one in family.bad] == ["f9", "f10", "f11"]
    old = families.trace("s0")
    assert old is not None
    assert (old.kept, old.steps, old.outcome) == (False, (), "success")


def test_calls_of_a_tool_do_not_drive_out_what_it_was_made_from() -> None:
    events: list[object] = []
    for at in range(4):
        events += [started(f"led{at}"), done(f"led{at}")]
    for at in range(9):
        events += [started(f"call{at}", mode="crystallized"), done(f"call{at}")]
    family = folded(*events, kept=3).family(signature("sum it"))

    assert family is not None
    assert {one.execution for one in family.good} == {"led1", "led2", "led3", "call6", "call7", "call8"}


def test_values_in_blobs_are_asked_for_while_their_trace_is_kept() -> None:
    step = ExecutionStep(execution="a", number=0, kind="tool", name="t", result_blob="b1", result_sha256="sha256:b1")
    families = folded(started("a"), step, done("a", output_blob="b2"), kept=1)

    assert families.blobs == {"b1", "b2"}
    families.supply({"b1": [1], "b2": "out", "b3": "nobody's"})
    trace = families.trace("a")
    assert trace is not None
    assert (families.blobs, trace.whole, trace.steps[0].result, trace.output) == (frozenset(), True, [1], "out")
    families.seen(started("b"), At(4, 0))
    families.seen(done("b"), At(5, 0))
    families.supply({})
    assert families.trace("a").kept is False  # type: ignore[union-attr]
    assert families._values == {}


def test_what_is_not_understood_is_passed_over_and_the_position_goes_on() -> None:
    families = folded(Unknown("x.y", 1, b"", "not registered"))  # type: ignore[arg-type]
    families.seen(GoalEmbedded(signature="g1-x", template="t", model="m", vector=np.ones(2, np.float32)), At(9, 3))

    assert (len(families), families.position, families.template("g1-x")) == (0, 9, "t")
    assert list(families.vectors("m")) == ["g1-x"]
    assert families.vectors("other") == {}
