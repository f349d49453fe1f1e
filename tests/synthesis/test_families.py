"""Honest tasks, recorded with noise, become programs that do the same on executions that were never shown."""

from typing import Any

import pytest

from morphogen.kernels.sandbox import Capabilities, Declared, check
from morphogen.kernels.synthesis import Drafted, Tape, run_program, synthesize

from .families import HONEST, TOOLS, Family, record

MADE: dict[str, Drafted] = {}


def made(family: Family) -> Drafted:
    if family.__name__ not in MADE:
        found = synthesize(record(family, 14, "shown"), tools=TOOLS, goal=f"do {family.__name__}")
        assert isinstance(found, Drafted), found
        MADE[family.__name__] = found
    return MADE[family.__name__]


@pytest.mark.parametrize("family", HONEST, ids=lambda family: family.__name__)
def test_a_program_does_what_held_out_executions_did(family: Family) -> None:
    found = made(family)
    for example in record(family, 8, "held out"):
        tape = Tape(example.steps, TOOLS)
        trace = run_program(found.program, example.params, tape.call)
        tape.finish()
        assert trace.value == example.output


@pytest.mark.parametrize("family", HONEST, ids=lambda family: family.__name__)
def test_its_text_means_the_same_and_is_within_the_grammar(family: Family) -> None:
    found = made(family)
    checked = check(found.source, entry="run", tools=found.capabilities)
    for example in record(family, 4, "as text"):
        assert set(checked.functions["run"]) == set(example.params)
        tape = Tape(example.steps, TOOLS)
        space: dict[str, Any] = {"ToolError": OSError}
        for tool in found.capabilities:
            group, _, name = tool.partition(".")
            space.setdefault(group, _Group()).put(name, tool, tape)
        exec(compile(found.source, "<tool>", "exec"), space)
        assert space["run"](**example.params) == example.output
        tape.finish()


def test_a_tool_runs_in_the_sandbox(sandbox: Any) -> None:
    family = next(one for one in HONEST if one.__name__ == "rename")
    found = made(family)
    (example,) = record(family, 1, "in the sandbox")
    tape = Tape(example.steps, TOOLS)
    tools = {
        name: Declared(lambda _name=name, **args: tape.call(_name, args), TOOLS[name])  # type: ignore[arg-type]
        for name in found.capabilities
    }
    outcome = sandbox.run(found.source, example.params, capabilities=Capabilities(tools=tools))
    assert outcome.value == example.output, outcome
    tape.finish()


class _Group:
    def put(self, name: str, tool: str, tape: Tape) -> None:
        setattr(self, name, lambda **args: tape.call(tool, args))
