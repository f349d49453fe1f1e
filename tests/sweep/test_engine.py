"""A sweep measures what it should, once, and says what is best."""

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphogen.producers.loops.errors import Interrupted
from morphogen.producers.loops.sweep.errors import NothingGood, SpaceError
from morphogen.producers.loops.sweep.plan import Plan
from morphogen.producers.loops.sweep.reading import Said, said_on
from morphogen.schemas import SweepBest, SweepFinished
from morphogen.schemas.knowledge import tree

Make = Callable[..., Plan]
Memory = Any
AB = {"a": [1, 2, 3], "b": ["x", "y"]}


def test_a_grid_is_measured_row_by_row(plan: Make, memory: Memory) -> None:
    result = memory.sweep(plan(AB), lambda c: c["a"] * 10 + (c["b"] == "y"))

    assert memory.measured == [{"a": a, "b": b} for a in (1, 2, 3) for b in ("x", "y")]
    assert result.plain()["best"] == {"a": 3, "b": "y"}
    assert result.finished.reason == "exhausted"
    assert [one.number for one in memory.finished()] == [1, 2, 3, 4, 5, 6]


def test_minimize_turns_the_order_round(plan: Make, memory: Memory) -> None:
    result = memory.sweep(plan(AB, objective="minimize"), lambda c: c["a"] * 10 + (c["b"] == "y"))

    assert result.finished.config == {"a": 1, "b": "x"}
    assert result.finished.value == 10


def test_a_failed_configuration_has_a_reason_and_no_number_and_never_wins(
    plan: Make, memory: Memory, failing: Any
) -> None:
    result = memory.sweep(
        plan(AB, objective="minimize"), lambda c: failing("it broke") if c["a"] == 1 else float(c["a"])
    )

    broken = [one for one in memory.finished() if one.state == "failed"]
    assert [(one.value, one.values, one.reason) for one in broken] == [(None, [], "it broke")] * 2
    assert result.finished.config == {"a": 2, "b": "x"}
    assert (result.finished.measured, result.finished.failed) == (4, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, None, "fast", True])
def test_what_is_no_number_is_a_failure(plan: Make, memory: Memory, value: Any) -> None:
    memory.sweep(plan({"a": [1, 2]}), lambda c: value if c["a"] == 1 else 1.0)

    assert memory.finished()[0].state == "failed"
    assert "Performance.speed is" in (memory.finished()[0].reason or "")


def test_a_configuration_that_is_not_correct_never_wins(plan: Make, memory: Memory) -> None:
    def said(config: dict[str, Any]) -> list[Said]:
        return [
            Said("Performance", {"speed": float(config["a"])}),
            Said("Correctness", {"passed": config["a"] < 3}),
        ]

    result = memory.sweep(plan({"a": [1, 2, 3]}), said)

    assert result.finished.config == {"a": 2}
    last = memory.finished()[-1]
    assert (last.state, last.value, last.reason) == ("rejected", None, "Correctness: passed is false")


def test_an_invariant_that_cannot_be_decided_rejects(plan: Make, memory: Memory, binary: Any) -> None:
    exact = tree.Invariant(
        "Exact", (binary(tree.Field(tree.Call("trace.latest", (tree.Name("Correctness"),)), "passed"), "==", True),)
    )

    def said(config: dict[str, Any]) -> list[Said]:
        speed = Said("Performance", {"speed": float(config["a"])})
        return [speed, Said("Correctness", {"passed": True})] if config["a"] < 2 else [speed]

    result = memory.sweep(plan({"a": [1, 2]}, invariants=(exact,)), said)

    assert result.finished.config == {"a": 1}
    assert memory.finished()[-1].reason == "invariant Exact cannot be decided by what was reported"


def test_constraints_exclude_before_anything_is_measured_and_are_counted(
    plan: Make, memory: Memory, binary: Any
) -> None:
    small = tree.Invariant("Fits", (binary(binary(tree.Name("a"), "*", tree.Name("b")), "<=", 4),))

    result = memory.sweep(
        plan({"a": [1, 2, 3], "b": [1, 2, 3]}, invariants=(small,), constraint=binary(tree.Name("a"), "!=", 1)),
        lambda c: float(c["a"] + c["b"]),
    )

    assert memory.measured == [{"a": 2, "b": 1}, {"a": 2, "b": 2}, {"a": 3, "b": 1}]
    assert result.finished.excluded == 6


def test_a_space_that_the_constraints_empty_is_an_error_that_says_so(plan: Make, memory: Memory, binary: Any) -> None:
    with pytest.raises(NothingGood, match=r"allow none of its configurations \(6 excluded\)"):
        memory.sweep(plan(AB, constraint=binary(tree.Name("a"), ">", 9)), lambda c: 1.0)

    assert isinstance(memory.events[-1], SweepFinished)


def test_a_sweep_in_which_all_fail_says_what_failed_most(plan: Make, memory: Memory, failing: Any) -> None:
    with pytest.raises(NothingGood, match="none of 6 configurations measured well; 6 times: no such thing"):
        memory.sweep(plan(AB), lambda c: failing("no such thing"))

    with pytest.raises(NothingGood):  # and says it again where it is asked again
        memory.sweep(plan(AB), lambda c: 1.0)
    assert len(memory.measured) == 6


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    cuts=st.lists(st.integers(0, 8), max_size=4),
    sampler=st.sampled_from(["grid", "random", "tpe"]),
    workers=st.sampled_from([1, 2]),
)
def test_a_killed_sweep_goes_on_and_measures_every_configuration_once(
    plan: Make, cuts: list[int], sampler: str, workers: int, fresh: Any
) -> None:
    memory = fresh()
    made = plan({"a": [1, 2, 3, 4], "b": [1, 2, 3]}, sampler=tree.Name(sampler), workers=workers, startup=4)
    for cut in cuts:
        memory.fuse = cut
        try:
            memory.sweep(made, lambda c: float(c["a"] * c["b"]))
        except SystemExit:
            continue
    memory.fuse = None
    result = memory.sweep(made, lambda c: float(c["a"] * c["b"]))

    keys = [one.key for one in memory.finished()]
    assert len(keys) == len(set(keys)) == 12
    assert sorted(one.number for one in memory.finished()) == sorted({one.number for one in memory.finished()})
    assert result.finished.config == {"a": 4, "b": 3}
    assert sum(isinstance(one, SweepFinished) for one in memory.events) == 1
    if workers == 1:
        alone = fresh()
        alone.sweep(made, lambda c: float(c["a"] * c["b"]))
        assert [one.config for one in memory.finished()] == [one.config for one in alone.finished()]


def test_the_budget_bounds_the_trials_and_patience_and_target_end_a_sweep(plan: Make, fresh: Any) -> None:
    space = {"a": tree.RangeExpr(tree.Literal(1), tree.Literal(100))}
    ends = {
        "budget": plan(space, budget=7),
        "patience": plan(space, patience=5, objective="minimize"),
        "target": plan(space, target=9.0),
    }

    counts = {}
    for reason, made in ends.items():
        memory = fresh()
        assert memory.sweep(made, lambda c: float(c["a"])).finished.reason == reason
        counts[reason] = len(memory.measured)

    assert counts == {"budget": 7, "patience": 6, "target": 9}


def test_the_baseline_is_measured_first_and_the_speedup_is_against_it(plan: Make, memory: Memory) -> None:
    result = memory.sweep(plan(AB, baseline={"a": 2}), lambda c: float(c["a"]))

    assert memory.measured[0] == {"a": 2, "b": "x"}
    assert len(memory.measured) == 6
    assert result.finished.speedup == 1.5


def test_warm_up_is_thrown_away_and_the_median_of_the_repeats_counts(plan: Make, memory: Memory) -> None:
    values = iter([100.0, 1.0, 9.0, 2.0])

    memory.sweep(plan({"a": [1]}, warmup=1, repeats=3), lambda c: next(values))

    assert memory.finished()[0].values == [1.0, 9.0, 2.0]
    assert memory.finished()[0].value == 2.0


def test_interleaving_measures_the_baseline_beside_every_repeat_and_survives_drift(plan: Make, memory: Memory) -> None:
    clock = iter(range(1, 1000))

    def drifting(config: dict[str, Any]) -> float:
        return float(config["a"]) * next(clock)  # the machine speeds up all the time

    result = memory.sweep(plan({"a": [4, 3, 2]}, baseline={"a": 3}, interleave=True, repeats=6), drifting)

    assert result.finished.config == {"a": 4}
    assert result.finished.speedup == pytest.approx(4 / 3, rel=0.1)
    assert len(memory.finished()[1].paired) == 6


def test_confirming_gives_the_speedup_an_interval(plan: Make, memory: Memory) -> None:
    result = memory.sweep(plan({"a": [1, 2, 6]}, baseline={"a": 2}, confirm=8), lambda c: float(c["a"]))

    assert (result.finished.speedup, result.finished.low, result.finished.high) == (3.0, 3.0, 3.0)
    assert memory.measured[-16:].count({"a": 6}) == 8


def test_among_equals_the_cheaper_wins_and_without_a_cost_the_better_median(
    plan: Make, memory: Memory, fresh: Any
) -> None:
    noisy = {1: [10.0, 11.0, 12.0, 13.0], 2: [10.5, 11.5, 12.5, 13.5], 3: [1.0, 2.0, 3.0, 4.0]}
    taken = {key: iter(values) for key, values in noisy.items()}

    result = memory.sweep(plan({"a": [1, 2, 3]}, repeats=4), lambda c: next(taken[c["a"]]))

    assert result.finished.config == {"a": 2}
    assert [one.number for one in memory.events if isinstance(one, SweepBest)] == [1, 2]

    taken = {key: iter(values) for key, values in noisy.items()}
    again = fresh().sweep(plan({"a": [1, 2, 3]}, repeats=4, cost=tree.Name("a")), lambda c: next(taken[c["a"]]))
    assert again.finished.config == {"a": 1}


def test_a_hopeless_trial_is_given_up_before_its_last_repeat(plan: Make, memory: Memory) -> None:
    memory.sweep(plan({"a": [10, 1, 9]}, repeats=5, prune=0.5), lambda c: float(c["a"]))

    assert [(one.state, len(one.values)) for one in memory.finished()] == [
        ("measured", 5),
        ("pruned", 1),
        ("measured", 5),
    ]


def test_an_item_that_does_not_fit_its_case_fails_its_trial_alone(plan: Make, memory: Memory) -> None:
    def said(config: dict[str, Any]) -> list[Said]:
        extra = {"unfit": 1} if config["a"] == 2 else {}
        return [Said("Performance", {"speed": float(config["a"]), **extra})]

    result = memory.sweep(plan({"a": [1, 2]}), said)

    assert result.finished.config == {"a": 1}
    assert memory.finished()[1].reason == "field 'unfit' is not declared"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["repeats", "warmup"])
def test_a_sweep_that_is_asked_to_stop_does_so_within_a_trial(
    plan: Make, memory: Memory, kind: str, workers: int
) -> None:
    asked = threading.Event()

    def check() -> None:
        if asked.is_set():
            raise Interrupted("asked")

    def measured(config: dict[str, Any]) -> float:
        asked.set()
        return 1.0

    with pytest.raises(Interrupted):
        memory.sweep(plan({"a": [1]}, workers=workers, **{kind: 10_000}), measured, check=check)

    assert len(memory.measured) < 10_000
    assert memory.finished() == []


@pytest.mark.parametrize(
    "output",
    [
        '{"speed": ' + "[" * 100_000,
        "MORPHOGEN_TRACE " + "[" * 100_000,
        'MORPHOGEN_TRACE {"case": "\\ud800", "speed": 1}',
        '{"speed": 1' + "0" * 400 + "}",
        '{"speed": ' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_an_output_that_no_log_can_hold_fails_its_trial_alone(plan: Make, memory: Memory, output: str) -> None:
    result = memory.sweep(
        plan({"a": [1, 2]}), lambda c: said_on(output) if c["a"] == 1 else [Said("Performance", {"speed": 1.0})]
    )

    failed, measured = memory.finished()
    assert (failed.state, measured.state) == ("failed", "measured")
    failed.encode()
    assert len(failed.reason or "") <= 2000
    assert result.plain()["best"] == {"a": 2}


def test_two_workers_measure_everything_once(plan: Make, memory: Memory) -> None:
    memory.sweep(plan({"a": list(range(40))}, workers=2), lambda c: float(c["a"]))

    assert sorted(c["a"] for c in memory.measured) == list(range(40))


@pytest.mark.parametrize(
    ("parameters", "wrong", "says"),
    [
        ({}, {}, "nothing to vary"),
        ({"a": []}, {}, "parameter a has no values"),
        ({"a": [1, 1]}, {}, "parameter a lists a value twice"),
        (AB, {"budgett": 3}, "did you mean `budget`"),
        (AB, {"sampler": tree.Name("annealing")}, "one of grid, random, tpe"),
        (AB, {"repeats": 0}, "a number of at least 1, not 0"),
        (AB, {"repeats": 1.5}, "a whole number"),
        (AB, {"repeats": 100_000}, "a number of at most 10,000"),
        (AB, {"repeats": math.nan}, "a number of at least 1"),
        (AB, {"timeout": math.inf}, "a number of at least 0"),
        (AB, {"metric": "Performance.spede"}, "case Performance has no field spede"),
        (AB, {"metric": "Perf.speed"}, "no case is called Perf"),
        (AB, {"baseline": {"c": 1}}, "baseline names c"),
        (AB, {"interleave": True}, "write `baseline:"),
        (AB, {"timeout": tree.Literal(3, "GB")}, "a time such as `30 s`"),
        (AB, {"cmd": "x", "tool": "a:b"}, "one of them"),
        ({"a": tree.RangeExpr(tree.Literal(2), tree.Literal(1))}, {}, r"range\[2, 1\] is empty"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_before_anything_runs(
    plan: Make, memory: Memory, parameters: dict[str, Any], wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(SpaceError, match=says):
        memory.sweep(plan(parameters, **wrong), lambda c: 1.0)

    assert memory.events == []


def test_a_grid_over_a_continuous_range_asks_for_a_step(plan: Make, memory: Memory) -> None:
    with pytest.raises(SpaceError, match=r"write range\[0, 1, STEP\]"):
        memory.sweep(plan({"a": tree.RangeExpr(tree.Literal(0.0), tree.Literal(1.0))}), lambda c: 1.0)


def test_times_are_read_in_any_unit(plan: Make) -> None:
    assert plan(AB, timeout=tree.Literal(250, "ms")).timeout == 0.25
    assert plan(AB, time=tree.Literal(2, "min")).time == 120
