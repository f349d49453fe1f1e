"""What the tables say of executions is what the fold says of the same events, however they came."""

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from morphogen.consumers.executions import Families, wilson_lower
from morphogen.consumers.projections.builtin.wilson import wilson_sql
from morphogen.schemas.executions import (
    ExecutionFeedback,
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
    GoalEmbedded,
)
from morphogen.schemas.goals import signature, template

from .conftest import VIEWS, Log

Ask = Callable[..., list[dict[str, Any]]]
Fold = Callable[..., Any]
TRIALS = ("success", "failure", "timeout")


def started(execution: str, goal: str = "sum it", mode: str = "learner", **fields: Any) -> ExecutionStarted:
    return ExecutionStarted(
        execution=execution, goal=goal, template=template(goal), signature=signature(goal), norm_version=1, mode=mode,
        **fields,
    )  # fmt: skip


def families(log: Log) -> Families:
    found = Families()
    for event, at in log.events:
        found.seen(event, at)
    return found


def test_wilson_in_sql_is_wilson_in_python(fold: Fold, ask: Ask) -> None:
    grid = [(s, n) for n in (0, 1, 2, 5, 7, 20, 1000, 10**9) for s in {0, 1, n // 2, n - 1, n} if 0 <= s <= n]
    cells = ", ".join(f"({s}, {n})" for s, n in grid)

    rows = ask(fold(Log()), f"SELECT s, n, {wilson_sql('s', 'n')} AS bound FROM (VALUES {cells}) t(s, n)")

    assert len(rows) == len(grid)
    for row in rows:
        assert math.isclose(row["bound"], wilson_lower(row["s"], row["n"]), rel_tol=1e-12, abs_tol=1e-15)
    assert ask(fold(Log()), f"SELECT {wilson_sql('3', '2')} AS bound") == [{"bound": None}]


def test_an_execution_is_one_row_with_its_steps_and_its_newest_judgement(log: Log, fold: Fold, ask: Ask) -> None:
    log.write(started("x", "Sum {a}", params={"a": [1, None]}, environment={"python": "3.11"}, budget_microusd=9))
    log.write(
        ExecutionStep(execution="x", number=0, kind="tool", name="files.read_text", args={"path": "a"}, result="1",
                      effect="read", duration_ns=5),
        ExecutionStep(execution="x", number=1, kind="llm", name="llm.query", ok=False, error="busy", tokens_in=3),
        ExecutionStep(execution="x", number=1, kind="llm", name="llm.query", result="1", tokens_in=3, tokens_out=1,
                      cost_microusd=7, model="m", priced_by="prices"),
    )  # fmt: skip
    log.write(ExecutionFinished(execution="x", outcome="success", judged_by="assertion", output={"sum": 1}, steps=2,
                                duration_ns=99, cost_microusd=7))  # fmt: skip
    log.write(ExecutionFeedback(execution="x", outcome="failure", note="wrong"))
    store = fold(log)

    (row,) = ask(store, "SELECT * FROM executions")
    assert (row["status"], row["outcome"], row["judged_by"], row["note"]) == ("failure", "failure", "user", "wrong")
    assert (row["steps"], row["questions"], row["tokens_in"], row["tokens_out"]) == (2, 1, 3, 1)
    assert (row["duration_ns"], row["cost_microusd"], row["budget_microusd"]) == (99, 7, 9)
    assert row["params"] == {"a": [1, None]}
    assert row["output"] == {"sum": 1}
    steps = ask(store, "SELECT number, ok, result, priced_by FROM execution_steps ORDER BY number")
    assert [(step["number"], step["ok"], step["result"], step["priced_by"]) for step in steps] == [
        (0, True, "1", None),
        (1, True, "1", "prices"),
    ]
    assert ask(store, "SELECT status FROM executions", as_of=3) == [{"status": "success"}]
    assert ask(store, "SELECT status, outcome FROM executions", as_of=2) == [{"status": "unfinished", "outcome": None}]


def test_vectors_are_searched_in_sql(log: Log, fold: Fold, ask: Ask) -> None:
    for name, vector in {"g1-a": [1, 0], "g1-b": [0, 1], "g1-c": [0.6, 0.8]}.items():
        log.write(GoalEmbedded(signature=name, template=name, model="m", vector=np.array(vector, np.float32)))
    log.write(GoalEmbedded(signature="g1-a", template="t", model="m", vector=np.array([0, -1], np.float32)))

    rows = ask(
        fold(log),
        """SELECT signature, array_cosine_similarity(vector::FLOAT[2], [0, 1]::FLOAT[2]) AS near
           FROM goal_embeddings WHERE model = 'm' ORDER BY near DESC""",
    )

    assert [(row["signature"], round(row["near"], 3)) for row in rows] == [("g1-b", 1), ("g1-c", 0.8), ("g1-a", -1)]


def test_hostile_values_break_nothing(log: Log, fold: Fold, ask: Ask) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    big = 2**64 - 1
    log.write(
        started("x", params={"nan": math.nan, "inf": -math.inf, "big": big, "b": b"\x00\xff", "deep": deep, "": ""}),
        ExecutionStep(execution="x", number=big, kind="?", name="a\x00b", args={"1": 1}, result={1: "a", "1": "b"},
                      effect="?", duration_ns=-5, tokens_in=big, tokens_out=big, cost_microusd=big),
        ExecutionStep(execution="x", number=-1, kind="llm", name="", tokens_in=big),
        ExecutionFinished(execution="x", outcome="perhaps", score=math.nan, output=math.inf, steps=big, duration_ns=big,
                          cost_microusd=-(2**63)),
        ExecutionFinished(execution="never begun", outcome="success"),
        ExecutionFeedback(execution="nobody", outcome="success"),
        ExecutionStep(execution="never begun", number=0, kind="tool", name="t"),
    )  # fmt: skip
    log.write(("execution.started", 1, {"execution": 5}), ("execution.step", 1, []), ("execution.finished", 9, {}))
    log.write(
        (
            "execution.started",
            1,
            {"execution": "z", "goal": "g", "template": "g", "signature": "-", "norm_version": 2**40},
        )
    )
    store = fold(log)

    for view in VIEWS:
        ask(store, f"SELECT * FROM {view}")
    rows = {row["execution"]: row for row in ask(store, "SELECT * FROM executions")}
    assert rows.keys() == {"x", "z"}
    assert (rows["x"]["status"], rows["x"]["steps"], rows["z"]["norm_version"]) == ("perhaps", 2, 2**31 - 1)
    families = {row["signature"]: row for row in ask(store, "SELECT * FROM execution_families")}
    assert (families[signature("sum it")]["uses"], families[signature("sum it")]["cancelled"]) == (0, 1)
    assert families["-"]["tool"] == "tool_"


IDS = st.sampled_from(["a", "b", "c"])
COSTS = st.none() | st.integers(0, 10**6)
EVENTS = st.one_of(
    st.builds(started, IDS, st.sampled_from(["sum it", "Read {p}"]), st.sampled_from(["learner", "follower", "crystallized"])),
    st.builds(ExecutionStep, execution=IDS, number=st.integers(0, 2), kind=st.sampled_from(["tool", "llm"]),
              name=st.sampled_from(["t", "u"]), tokens_in=COSTS),
    st.builds(ExecutionFinished, execution=IDS, outcome=st.sampled_from([*TRIALS, "cancelled"]),
              judged_by=st.sampled_from(["nobody", "assertion"]), duration_ns=st.integers(0, 10**9), cost_microusd=COSTS),
    st.builds(ExecutionFeedback, execution=IDS, outcome=st.sampled_from(["success", "failure"])),
)  # fmt: skip
FRAMES = st.lists(st.lists(EVENTS, min_size=1, max_size=4), min_size=1, max_size=10)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=FRAMES, cut=st.integers(1, 5))
def test_tables_and_fold_agree_whatever_comes_in_whatever_order(
    frames: list[list[Any]], cut: int, fold: Fold, ask: Ask
) -> None:
    log = Log()
    for frame in frames:
        log.write(*frame)
    known = families(log)
    store = fold(log, cuts=range(cut, len(frames), cut))

    rows = {row["signature"]: row for row in ask(store, "SELECT * FROM execution_families")}
    assert rows.keys() == {family.signature for family in known}
    for family in known:
        row = rows[family.signature]
        assert (row["uses"], row["successes"], row["judged"], row["cancelled"], row["unfinished"]) == (
            family.uses, family.successes, family.judged, family.cancelled, family.unfinished,
        )  # fmt: skip
        assert (row["tool"], row["template"], row["goal"]) == (family.tool, family.template, family.goal)
        assert row["success"] == pytest.approx(family.success)
        assert row["wilson_lower"] == pytest.approx(family.lower)
        assert row["learner_microusd"] == pytest.approx(family.learner_microusd)
        assert row["learner_ns"] == pytest.approx(family.learner_ns)
    modes = {(row["signature"], row["mode"]): row for row in ask(store, "SELECT * FROM execution_modes")}
    assert modes.keys() == {(family.signature, mode) for family in known for mode in family.modes}
    for (name, mode), tally in {
        (each.signature, mode): one for each in known for mode, one in each.modes.items()
    }.items():
        row = modes[name, mode]
        assert (row["uses"], row["successes"]) == (tally.uses, tally.successes)
        assert (row["mean_microusd"], row["wilson_lower"]) == pytest.approx((tally.mean_microusd, tally.lower))
    for row in ask(store, "SELECT * FROM executions"):
        trace = known.trace(row["execution"])
        assert trace is not None
        assert (row["outcome"], row["steps"], row["cost_microusd"], row["mode"], (row["seq"], row["idx"])) == (
            trace.outcome, len(trace.steps), trace.cost_microusd, trace.mode, trace.at[:2],
        )  # fmt: skip


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=FRAMES, cut=st.integers(1, 3))
def test_tables_made_bit_by_bit_equal_tables_made_at_once(frames: list[list[Any]], cut: int, fold: Fold) -> None:
    log = Log()
    for frame in frames:
        log.write(*frame)
    whole, bits = fold(log), fold(log, cuts=range(cut, len(frames), cut))

    for name in (
        "executions",
        "execution_steps",
        "execution_families",
        "execution_modes",
        "crystallization_candidates",
    ):
        assert whole.content_hash(name) == bits.content_hash(name), name


def test_a_family_of_thousands_keeps_its_counts_and_its_newest_traces(fold: Fold, ask: Ask) -> None:
    log = Log()
    for chunk in _chunks(4000, 500):
        log.write(*[event for n in chunk for event in (
            started(str(n)), ExecutionStep(execution=str(n), number=0, kind="tool", name="t", result=n),
            ExecutionFinished(execution=str(n), outcome="success", cost_microusd=n),
        )])  # fmt: skip
    known = families(log)

    family = known.family(signature("sum it"))

    assert family is not None
    assert (family.uses, len(family.good), family.good[-1].execution) == (4000, 200, "3999")
    assert [row["uses"] for row in ask(fold(log), "SELECT uses FROM execution_families")] == [4000]


def _chunks(count: int, size: int) -> list[range]:
    return [range(at, min(at + size, count)) for at in range(0, count, size)]
