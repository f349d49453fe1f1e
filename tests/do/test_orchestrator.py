"""A goal in parts: split by a model, each part dispatched, joined by a model; one budget for all of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from morphogen.bus.bus import Bus
from morphogen.kernels.sandbox import Capabilities
from morphogen.producers.loops.goals import LoopLearner, LoopOrchestrator, Part, PartAsked
from morphogen.producers.loops.goals.orchestrator import left
from morphogen.schemas.executions import ExecutionStarted, ExecutionStep

from .conftest import Goal, trace_of

Script = Callable[..., dict[str, Any]]
PARTS = {"parts": [{"goal": "Count the items of shop.csv", "params": {"path": "shop.csv"}}, {"goal": "Say hello"}]}


def orchestrator(
    bus: Bus, space: Path, options: dict[str, Any], parts: list[Part], **more: Any
) -> tuple[LoopOrchestrator, list[Any]]:
    asked: list[Any] = []

    def dispatch(part: PartAsked) -> Part:
        asked.append((part.goal, part.params, part.budget_microusd, part.parent))
        return parts[len(asked) - 1]

    learner = LoopLearner(bus=bus, workspace=space, backend="script", backend_options=options)
    return LoopOrchestrator(learner=learner, dispatch=dispatch, **more), asked


def test_the_parts_are_dispatched_in_order_and_joined_and_their_cost_is_the_goals(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    replies = script(PARTS, {"answer": {"items": 2, "said": "hello"}})
    parts = [
        Part(ok=True, mode="crystallized", output=2, cost_microusd=0, execution="a"),
        Part(ok=True, mode="learner", output="hello", cost_microusd=30, execution="b"),
    ]
    whole, asked = orchestrator(bus, space, replies, parts)
    goal = Goal(id="whole", goal="Look at the shop and greet", capabilities=functions)

    done = whole.pursue(goal, 100)

    assert (done.ok, done.output, done.cost_microusd) == (True, {"items": 2, "said": "hello"}, 30)
    assert asked == [
        ("Count the items of shop.csv", {"path": "shop.csv"}, 100, "whole-orchestrator"),
        ("Say hello", {}, 100, "whole-orchestrator"),
    ]
    trace = trace_of(bus, done.execution)
    assert [step.name for step in trace.steps] == ["llm.query", "tool.dispatch", "tool.dispatch", "llm.query"]
    assert (trace.mode, trace.cost_microusd, trace.outcome) == ("orchestrator", 30, "success")
    assert [step.cost_microusd for step in trace.tools] == [0, 30]
    assert 'Count the items of shop.csv {"path": "shop.csv"} -> 2' in trace.steps[-1].args["prompt"]


def test_a_part_that_fails_is_told_and_the_answer_is_the_models(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    replies = script(PARTS, {"give_up": "there is no shop"})
    parts = [Part(ok=False, mode="learner", error="no such file"), Part(ok=True, mode="learner", output="hello")]
    whole, _ = orchestrator(bus, space, replies, parts)

    done = whole.pursue(Goal(id="half", goal="Look at the shop and greet", capabilities=functions), None)

    assert (done.ok, done.error, done.cost_microusd) == (False, "there is no shop", None)
    trace = trace_of(bus, done.execution)
    assert [step.ok for step in trace.tools] == [False, True]
    assert "failed: no such file" in trace.steps[-1].args["prompt"]


def test_too_many_parts_and_none_are_refused(bus: Bus, space: Path, functions: Capabilities, script: Script) -> None:
    for name, parts in (("many", PARTS), ("none", {"parts": []})):
        whole, asked = orchestrator(bus, space, script(parts, name=name), [], most=1)
        done = whole.pursue(Goal(id=name, goal="Do a lot", capabilities=functions), None)
        assert not done.ok
        assert "parts" in str(done.error)
        assert asked == []


def test_what_is_left_counts_what_was_spent_and_nothing_is_left_where_nobody_knows() -> None:
    def step(number: int, cost: int | None, kind: str = "llm") -> ExecutionStep:
        return ExecutionStep(execution="e", number=number, kind=kind, name="llm.query", cost_microusd=cost)

    started = ExecutionStarted(
        execution="e", goal="g", template="g", signature="g1-0", norm_version=1, budget_microusd=100
    )
    assert left([started]) == 100
    assert left([started, step(0, 30), step(1, None, "tool"), step(2, 10, "tool")]) == 60
    assert left([started, step(0, 300)]) == 0
    assert left([started, step(0, None)]) == 0
    assert left([]) is None
