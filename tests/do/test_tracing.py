"""What a run's events tell of an execution: each step once, in order, whatever is killed between which commits."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.kernels.sandbox import value_sha256
from morphogen.producers.loops.journal import Journal
from morphogen.producers.loops.llm import Budget, tighter
from morphogen.producers.loops.memory import Memory
from morphogen.producers.loops.state import State
from morphogen.producers.loops.tracing import cost_of, judged_by
from morphogen.schemas import (
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
    LoopDecided,
    LoopFinished,
    LoopRecorded,
    LoopStarted,
    LoopVerdict,
    StepFinished,
    StepStarted,
    decode_event,
)
from morphogen.schemas.llm import LlmQueried

RUN = "r"
STARTED = ExecutionStarted(execution="e", goal="g", template="g", signature="g1-0", norm_version=1)
COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("tool"), st.booleans(), st.integers(0, 5)),
        st.tuples(st.just("llm"), st.booleans(), st.none() | st.integers(0, 1000)),
        st.tuples(st.just("block"), st.booleans(), st.just(0)),
        st.tuples(st.just("commit"), st.just(True), st.just(0)),
        st.tuples(st.just("kill"), st.just(True), st.just(0)),
    ),
    max_size=25,
)


def begin() -> tuple[Memory, Journal]:
    memory = Memory()
    journal = memory.begin(RUN, LoopStarted(loop="l", kind="agent", program="p", sha256="0", live=True))
    journal.commit(LoopRecorded(path="run", events=journal.carried(STARTED)))
    return memory, journal


def told(memory: Memory) -> list[Any]:
    return [decode_event(one.type, one.version, one.body) for one in memory.copies.get("execution", [])]


@settings(max_examples=60)
@given(COMMANDS)
def test_every_step_that_is_in_the_log_is_told_once_and_in_order(commands: list[tuple[str, bool, Any]]) -> None:
    memory, journal = begin()
    kept: list[tuple[str, Any]] = []
    fresh: list[tuple[str, Any]] = []
    for at, (what, ok, value) in enumerate(commands):
        if what == "kill":
            journal, fresh = memory.lead(RUN), []
        elif what == "commit":
            journal.commit()
            kept, fresh = kept + fresh, []
        elif what == "llm":
            asked = LlmQueried(
                step="s", backend="b", prompt_sha256="0", prompt="p", prompt_bytes=1, reply="r" if ok else None,
                cost_usd_micros=value,
            )  # fmt: skip
            journal.add(LoopRecorded(path=f"s{at}", events=journal.carried(asked)))
            fresh.append(("llm", value))
        else:
            action = "tool.read" if what == "tool" else ""
            journal.add(StepStarted(path=f"s{at}", step="s", number=at, action=action, arguments={"path": value}))
            journal.add(StepFinished(path=f"s{at}", ok=ok, output=value, error=None if ok else "no"))
            if what == "tool":
                fresh.append(("tool", value if ok else None))
    journal.add(LoopVerdict(success=True))
    journal.commit(LoopFinished(status="done", duration_ns=7, steps=1))
    kept += fresh

    started, *steps, finished = told(memory)

    assert started == STARTED
    assert [(one.number, one.kind) for one in steps] == list(enumerate(kind for kind, _ in kept))
    for one, (kind, value) in zip(steps, kept, strict=True):
        assert (one.cost_microusd if kind == "llm" else one.result) == value
        assert one.args_sha256 == value_sha256(one.args)
    costs = [value for kind, value in kept if kind == "llm"]
    assert isinstance(finished, ExecutionFinished)
    assert (finished.steps, finished.duration_ns) == (len(kept), 7)
    assert finished.cost_microusd == (None if None in costs else sum(costs))
    assert memory.history(RUN).state.traced == journal.state.traced


def test_a_run_that_pursues_no_goal_tells_of_no_execution() -> None:
    memory = Memory()
    journal = memory.begin(RUN, LoopStarted(loop="l", kind="agent", program="p", sha256="0", live=True))
    journal.add(StepStarted(path="a", step="a", number=1, action="tool.read"), StepFinished(path="a", ok=True))
    journal.commit(LoopFinished(status="done"))

    assert memory.copies == {}


@pytest.mark.parametrize(
    ("path", "action", "planned"),
    [("a", "", False), ("a", "llm.query", False), ("a", "tool.give_up", False), ("evaluation.c", "tool.read", False), ("a", "tool.read", True)],
)  # fmt: skip
def test_what_is_no_step_of_the_way_is_not_told(path: str, action: str, planned: bool) -> None:
    memory, journal = begin()
    journal.add(StepStarted(path=path, step="a", number=1, action=action))
    journal.commit(StepFinished(path=path, ok=True, planned=planned))

    assert told(memory) == [STARTED]


def test_what_the_loop_returned_is_the_answer_and_what_a_procedure_returned_is_not() -> None:
    memory, journal = begin()
    journal.add(
        LoopDecided(path="a.1>square.2", kind="return", value=4), LoopDecided(path="a.2", kind="return", value=5)
    )
    journal.add(LoopVerdict(success=True))
    journal.commit(LoopFinished(status="done"))

    (_, finished) = told(memory)
    assert (finished.output, finished.output_sha256, finished.judged_by) == (5, value_sha256(5), "nobody")


def test_a_use_of_a_function_is_told_under_its_own_name_with_what_it_gave() -> None:
    memory, journal = begin()
    arguments = {"name": "files.exists", "arguments": {"path": "a"}}
    for at, output in enumerate(
        (
            {"ok": True, "result": False, "error": None, "shown": ""},
            {"ok": False, "result": None, "error": "no", "shown": ""},
        )
    ):
        journal.add(
            StepStarted(path=f"a{at}", step="a", number=1, action="tool.act", arguments=arguments, effect="read")
        )
        journal.add(StepFinished(path=f"a{at}", ok=True, output=output, duration_ns=3))
    journal.commit()

    good, bad = told(memory)[1:]
    assert isinstance(good, ExecutionStep)
    assert (good.name, good.args, good.effect, good.result, good.ok) == (
        "files.exists",
        {"path": "a"},
        "read",
        False,
        True,
    )
    assert (bad.ok, bad.error, bad.result_sha256) == (False, "no", None)


@pytest.mark.parametrize(
    ("verdict", "variables", "judge"),
    [
        (LoopVerdict(success=True, conditions=[{"condition": "x", "value": True}]), {}, "assertion"),
        (LoopVerdict(success=True, checks={"c": {"value": 1, "passed": True}}), {}, "assertion"),
        (LoopVerdict(success=False, conditions=[{"error": "boom"}]), {}, "exception"),
        (LoopVerdict(success=True), {}, "nobody"),
        (LoopVerdict(success=True), {"judged_by": "user"}, "user"),
        (LoopVerdict(success=True), {"judged_by": "me"}, "nobody"),
        (None, {}, "exception"),
    ],
)
def test_who_judged_is_told_truly(verdict: LoopVerdict | None, variables: dict[str, Any], judge: str) -> None:
    state = State(verdict=verdict, variables=variables)
    assert judged_by(state) == judge
    assert cost_of(state) is None


LIMITS = st.none() | st.integers(0, 100)


@given(LIMITS, LIMITS, LIMITS, LIMITS)
def test_of_two_budgets_the_lower_limits_hold(a: int | None, b: int | None, c: int | None, d: int | None) -> None:
    both = tighter(Budget(calls=a, cost_usd_micros=b, on_breach="suspend"), Budget(calls=c, cost_usd_micros=d))
    assert both is not None
    assert both.on_breach == "suspend"
    for held, one, other in ((both.calls, a, c), (both.cost_usd_micros, b, d)):
        limits = [limit for limit in (one, other) if limit is not None]
        assert held == (min(limits) if limits else None)
    assert tighter(None, both) == tighter(both, None) == both
    assert tighter(None, None) is None
