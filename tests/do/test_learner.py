"""A goal pursued by an agent loop, on a real broker: what is done, what is recorded of it, what it may spend."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.consumers.dispatch import Act
from morphogen.kernels.sandbox import Capabilities, Declared, value_sha256
from morphogen.producers.loops import runner
from morphogen.producers.loops.goals import LoopLearner, Program, capabilities_of, guide_of
from morphogen.producers.loops.journal import answer, read_history
from morphogen.producers.loops.tools import Toolbox
from morphogen.producers.loops.workspace import Workspace
from morphogen.schemas.llm import LlmQueried

from .conftest import Goal, trace_of

Script = Callable[..., dict[str, Any]]
SUM, PARAMS = "Sum the column price of shop.csv", {"column": "price", "path": "shop.csv"}
READ = {"tool": "files.read_text", "arguments": {"path": "shop.csv"}}


def learner(bus: Bus, space: Path, options: dict[str, Any] | None, **more: Any) -> LoopLearner:
    backend = None if options is None else "script"
    return LoopLearner(bus=bus, workspace=space, backend=backend, backend_options=options or {}, **more)


def test_the_standard_loop_acts_answers_and_its_steps_are_those_of_an_execution(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    goal = Goal(id="sum", goal=SUM, params=PARAMS, capabilities=functions, environment={"python": "3.11"})
    write = {"tool": "tool.write", "arguments": {"path": "total.txt", "content": "7"}}

    done = learner(bus, space, script(READ, write, {"answer": 7})).pursue(goal, None)

    assert (done.ok, done.output, done.error, done.cost_microusd) == (True, 7, None, 0)
    assert (space / "total.txt").read_text() == "7"
    assert sorted(path.name for path in space.iterdir()) == ["shop.csv", "total.txt"]  # no exports
    trace = trace_of(bus, done.execution)
    assert (trace.signature, trace.mode, trace.request, trace.environment) == (
        goal.signature, "learner", "sum", {"python": "3.11"},
    )  # fmt: skip
    assert [(step.kind, step.name) for step in trace.steps] == [
        ("llm", "llm.query"), ("tool", "files.read_text"), ("llm", "llm.query"), ("tool", "tool.write"), ("llm", "llm.query"),
    ]  # fmt: skip
    assert trace.whole
    read = trace.tools[0]
    assert (read.args, read.result, read.effect) == ({"path": "shop.csv"}, "item,price\ntea,3\nmilk,4\n", "read")
    assert (read.args_sha256, read.result_sha256) == (value_sha256(read.args), value_sha256(read.result))
    assert trace.tools[1].effect == "write"
    assert {step.priced_by for step in trace.steps if step.kind == "llm"} == {"script"}
    assert (trace.outcome, trace.judged_by, trace.output, trace.cost_microusd) == ("success", "nobody", 7, 0)
    assert done.steps == 5


def test_what_was_recorded_can_be_done_again_through_the_functions(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    asked = {"tool": "tool.read", "arguments": {"path": "shop.csv", "max_bytes": 100}}
    goal = Goal(id="again", goal=SUM, params=PARAMS, capabilities=functions)

    done = learner(bus, space, script(asked, {"answer": 7})).pursue(goal, None)

    (step,) = trace_of(bus, done.execution).tools
    assert value_sha256(functions.functions[step.name].function(**step.args)) == step.result_sha256


def test_a_step_that_fails_is_shown_to_the_model_and_recorded_as_failed(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    wrong = [
        {"tool": "files.read_text", "arguments": {"path": "none.csv"}},
        {"tool": "files.read_text", "arguments": {"name": "shop.csv"}},
        {"tool": "files.write_text", "arguments": {"path": ".morphogen/policy.toml", "text": "hosts = ['x']"}},
        {"tool": "tool.http_get", "arguments": {"url": "http://127.0.0.1:9/"}},
    ]
    goal = Goal(id="wrong", goal="Read what is not there", capabilities=functions)

    done = learner(bus, space, script(*wrong, {"answer": "no"})).pursue(goal, None)

    assert done.ok
    tools = trace_of(bus, done.execution).tools
    assert [step.ok for step in tools] == [False] * 4
    assert [step.result_sha256 for step in tools] == [None] * 4
    assert not (space / ".morphogen").exists()
    last = [one.event for one in bus.events(run=done.execution, family="llm") if isinstance(one.event, LlmQueried)][-1]
    for step in tools:
        assert f"failed: {step.error}" in last.prompt
    assert "is not allowed here" in str(tools[3].error)


@pytest.mark.parametrize(
    ("replies", "why", "judge"),
    [
        ([{"give_up": "there is no such column"}], "there is no such column", "exception"),
        ([READ, READ], "there was no answer after 2 steps", "exception"),
    ],
)
def test_giving_up_is_a_failure_with_its_reason(
    bus: Bus, space: Path, functions: Capabilities, script: Script, replies: list[Any], why: str, judge: str
) -> None:
    goal = Goal(id=f"up{len(replies)}", goal=SUM, params=PARAMS, capabilities=functions)

    done = learner(bus, space, script(*replies), rounds=2).pursue(goal, None)

    assert (done.ok, done.error, done.output) == (False, why, None)
    trace = trace_of(bus, done.execution)
    assert (trace.outcome, trace.error, trace.judged_by, trace.output) == ("failure", why, judge, None)
    assert "tool.give_up" not in [step.name for step in trace.steps]


@pytest.mark.parametrize("reached", [True, False])
def test_a_judge_that_was_asked_decides(
    bus: Bus, space: Path, functions: Capabilities, script: Script, reached: bool
) -> None:
    goal = Goal(id=f"judge{reached}", goal=SUM, params=PARAMS, capabilities=functions)
    replies = script({"answer": 8}, {"reached": reached, "why": "seven"})

    done = learner(bus, space, replies, judge=True).pursue(goal, None)

    trace = trace_of(bus, done.execution)
    assert (done.ok, trace.outcome) == (reached, "success" if reached else "failure")
    assert trace.judged_by == "judge"
    assert done.error == (None if reached else "the judge says: seven")


PROGRAM = """
system Summing {
  model { state column: string = "" state path: string = "" }
  agent_loop Sum {
    step read: tool.read { path: path output_var: text }
    step total: llm.query { prompt: "Sum {{column}} of {{text}}" output_var: answer }
    step keep: tool.write { path: "sum.txt" content: answer }
    evaluation { check written: tool.read { path: "sum.txt" } }
    success: file_contains("sum.txt", "7")
  }
}
"""


def program(space: Path, text: str = PROGRAM) -> Callable[[str, str], Program]:
    path = space.parent / "program.mk"
    path.write_text(text)
    return lambda signature, template: Program(path)


def test_a_program_of_ones_own_gets_the_parameters_and_its_verdict_is_the_outcome(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    goal = Goal(id="own", goal=SUM, params=PARAMS, capabilities=functions)
    replies = script({"text": "7"})
    path = Path(replies["file"])
    path.write_text(json.dumps({"reply": [{"text": "7", "always": True, "tokens_in": 5, "tokens_out": 1}]}))

    done = learner(bus, space, replies, program_for=program(space)).pursue(goal, None)

    assert (done.ok, done.output) == (True, "7")
    trace = trace_of(bus, done.execution)
    assert (trace.outcome, trace.judged_by) == ("success", "assertion")
    assert [step.name for step in trace.steps] == [
        "tool.read",
        "llm.query",
        "tool.write",
    ]  # what checked it is not the way
    assert trace.tools[0].args == {"path": "shop.csv"}
    assert (trace.steps[1].tokens_in, trace.steps[1].tokens_out) == (5, 1)

    path.write_text(json.dumps({"reply": [{"text": "8", "always": True}]}))
    goal = Goal(id="own-wrong", goal=SUM, params=PARAMS, capabilities=functions)
    failed = learner(bus, space, replies, program_for=program(space)).pursue(goal, None)
    assert not failed.ok
    assert (trace_of(bus, failed.execution).outcome, trace_of(bus, failed.execution).judged_by) == (
        "failure",
        "assertion",
    )


def test_a_program_acts_through_the_functions_it_is_given_and_no_others(
    bus: Bus, space: Path, functions: Capabilities
) -> None:
    seen: list[dict[str, Any]] = []
    read = functions.functions["tool.read"].function

    def watched(**arguments: Any) -> Any:
        seen.append(arguments)
        return read(**arguments)

    narrow = Capabilities(tools={"tool.read": Declared(watched, "read")})
    text = 'task Run { step look: tool.read { path: "shop.csv" } step start: tool.run { cmd: "true" } }'
    goal = Goal(id="narrow", goal="Run something", capabilities=narrow)

    done = learner(bus, space, None, program_for=program(space, text)).pursue(goal, None)

    assert seen == [{"path": "shop.csv"}]
    assert done.error == "tool.run is not among what may be done here: --allow-run lets it"


def test_a_guided_loop_shows_every_model_the_course_and_keeps_the_goal(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    first = Goal(id="guide", goal=SUM, params=PARAMS, capabilities=functions)
    before = trace_of(bus, learner(bus, space, script(READ, {"answer": 7})).pursue(first, None).execution)
    (space / "inn.csv").write_text("item,cost\nbed,40\n")
    then = Goal(
        id="guided", goal="Add up cost in inn.csv", params={"what": "cost", "file": "inn.csv"}, capabilities=functions
    )

    done = learner(bus, space, script({"answer": 40})).pursue(
        then, None, mode="mixed", guide=guide_of(before.goal, before.params, before.steps, before.output)
    )

    trace = trace_of(bus, done.execution)
    assert (trace.mode, trace.goal, trace.output) == ("mixed", "Add up cost in inn.csv", 40)
    prompt = trace.steps[0].args["prompt"]
    assert 'files.read_text {"path": "shop.csv"} -> "item,price' in prompt
    assert prompt.index("Goal:\nAdd up cost in inn.csv") < prompt.index("The goal then: Sum the column price")


def test_a_model_is_told_what_a_mode_before_it_has_changed(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    sent = Act(name="tool.write", args={"path": "a.txt", "content": "a"}, effect="write", result="a.txt")
    goal = Goal(id="done", goal=SUM, params=PARAMS, capabilities=functions, done=(sent,))

    done = learner(bus, space, script({"answer": 7})).pursue(goal, None)

    prompt = trace_of(bus, done.execution).steps[0].args["prompt"]
    assert (
        'has already done this, which need not be done again:\ntool.write {"path": "a.txt", "content": "a"} -> "a.txt"'
        in prompt
    )


def test_a_budget_is_held_before_a_model_is_asked(
    bus: Bus, space: Path, functions: Capabilities, script: Script, tmp_path: Path
) -> None:
    options = {
        "base_url": "http://127.0.0.1:9/v1", "model": "m", "max_tokens": 100, "retries": 0,
        "prices": {"m": {"input": 1_000_000, "output": 1_000_000}},
    }  # fmt: skip
    dear = LoopLearner(bus=bus, workspace=space, backend="openai", backend_options=options)
    goal = Goal(id="dear", goal=SUM, params=PARAMS, capabilities=functions)

    done = dear.pursue(goal, 50)

    assert not done.ok
    assert "budget of cost_usd_micros for models: 0.000000 USD of 0.000050 USD are spent" in str(done.error)
    assert not [one for one in bus.events(run=done.execution, family="llm") if isinstance(one.event, LlmQueried)]
    assert trace_of(bus, done.execution).budget_microusd == 50
    assert dear.cap_microusd is None

    unpriced = LoopLearner(
        bus=bus, workspace=space, backend="openai", backend_options={**options, "prices": {}}
    ).pursue(Goal(id="unpriced", goal=SUM, params=PARAMS, capabilities=functions), 50)
    assert "the price of the model is unknown" in str(unpriced.error)


def test_a_loop_that_waits_is_finished_by_whoever_answers_and_resumes(
    bus: Bus, space: Path, functions: Capabilities
) -> None:
    waiting = LoopLearner(bus=bus, workspace=space, backend="suspend")
    goal = Goal(id="waits", goal=SUM, params=PARAMS, capabilities=functions)

    done = waiting.pursue(goal, None)

    assert (done.ok, done.waiting) == (False, True)
    assert "morphogen loop answer waits-learner" in str(done.error)
    assert trace_of(bus, done.execution).outcome is None
    for reply in (READ, {"answer": 7}):
        state = read_history(bus, done.execution).state
        assert state.waiting is not None
        answer(bus, done.execution, state.waiting.path, state.waiting.sha256, json.dumps(reply))
        ended = runner.resume(bus, done.execution)
    assert ended.status == "done"
    trace = trace_of(bus, done.execution)
    assert (trace.outcome, trace.output, trace.cost_microusd) == ("success", 7, 0)
    assert [step.name for step in trace.steps] == ["llm.query", "files.read_text", "llm.query"]
    assert trace.whole


def test_a_resumed_run_has_the_functions_that_it_was_begun_with_and_no_more(bus: Bus, space: Path) -> None:
    few = capabilities_of(Toolbox.standard(installed=False), Workspace.open(space), bus=bus, write=False)
    goal = Goal(id="few", goal=SUM, params=PARAMS, capabilities=few)
    done = LoopLearner(bus=bus, workspace=space, backend="suspend").pursue(goal, None)
    for reply in (
        {"tool": "files.write_text", "arguments": {"path": "a.txt", "text": "a"}},
        {"tool": "files.read_text", "arguments": {"path": "shop.csv"}},
        {"answer": 1},
    ):
        state = read_history(bus, done.execution).state
        assert state.waiting is not None
        answer(bus, done.execution, state.waiting.path, state.waiting.sha256, json.dumps(reply))
        ended = runner.resume(bus, done.execution)
        if ended.status == "done":
            break

    assert not (space / "a.txt").exists()


def test_a_large_result_lies_in_a_blob_and_comes_back_whole(
    bus: Bus, space: Path, functions: Capabilities, script: Script
) -> None:
    (space / "shop.csv").write_text("x" * 100_000)
    goal = Goal(id="large", goal=SUM, params=PARAMS, capabilities=functions)

    done = learner(bus, space, script(READ, {"answer": "y" * 20_000})).pursue(goal, None)

    trace = trace_of(bus, done.execution)
    assert trace.whole
    assert trace.tools[0].result_blob is not None
    assert trace.tools[0].result == "x" * 100_000
    assert (trace.output, done.output) == ("y" * 20_000, "y" * 20_000)


def test_no_model_and_no_program_is_said_in_a_line(bus: Bus, space: Path, functions: Capabilities) -> None:
    done = learner(bus, space, None).pursue(Goal(id="none", goal=SUM, params=PARAMS, capabilities=functions), None)

    assert (done.ok, done.error) == (False, "no model can be asked: name a backend, or a program")
