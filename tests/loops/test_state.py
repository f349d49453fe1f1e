"""The state is a fold: whatever is cut when, who reads the log stands where the one stood that wrote it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.producers.loops.context import LoopContext
from morphogen.producers.loops.errors import Fenced
from morphogen.producers.loops.journal import Journal
from morphogen.producers.loops.live import Live
from morphogen.producers.loops.memory import Memory
from morphogen.producers.loops.runner import run_loop
from morphogen.producers.loops.state import State, encoded
from morphogen.producers.loops.tools import Toolbox, ToolCall, ToolResult
from morphogen.producers.loops.workspace import Workspace
from morphogen.schemas import LoopAssigned, LoopResumed, LoopStarted, encode
from morphogen.schemas.knowledge.program import Program, load_text
from morphogen.schemas.knowledge.tools import TOOLS, ParameterSpec, Signature

TOUCH = Signature(
    "tool.touch", {"value": ParameterSpec("any"), "fail": ParameterSpec("boolean", default=False)}, "any", "write"
)
SIGNATURES = {**TOOLS, "tool.touch": TOUCH}


class Killed(BaseException):
    """The process is gone."""


class Touch:
    """A tool whose effect is an entry under its key; it dies before or after the effect of a given call."""

    signature = TOUCH

    def __init__(self, world: dict[str, Any], die_at: int | None = None, after: bool = False) -> None:
        self.world = world
        self.calls = 0
        self.die_at = die_at
        self.after = after

    def effect(self, arguments: Any) -> str:
        return "write"

    def plan(self, call: ToolCall) -> Any:
        return None

    def run(self, call: ToolCall) -> ToolResult:
        self.calls += 1
        dies = self.calls == self.die_at
        if dies and not self.after:
            raise Killed
        self.world[call.key] = call.arguments["value"]
        if dies:
            raise Killed
        return ToolResult(output=call.arguments["value"])


class Mortal(Memory):
    """A log that the process does not outlive: it dies before or after a given message is stored."""

    def __init__(self, frames: list[bytes], die_at: int | None, after: bool) -> None:
        super().__init__()
        self.frames = frames
        self.writes = 0
        self.die_at = die_at
        self.after = after

    def append(self, data: bytes, identity: str, after: int) -> int:
        self.writes += 1
        if self.writes == self.die_at and not self.after:
            raise Killed
        seq = super().append(data, identity, after)
        if self.writes == self.die_at:
            raise Killed
        return seq


def drive(program: Program, journal: Journal, touch: Touch, folder: Path) -> State:
    workspace = Workspace.open(folder)
    context = LoopContext(
        run=journal.run, loop="T", program=program, workspace=workspace, tools=Toolbox({"tool.touch": touch}), live=True
    )
    live = Live(program, journal, context, system=None)
    run_loop(live, program.find_loop("T"), 0)
    workspace.close()
    return journal.state


NAMES = ("a", "b", "c")
VALUES = st.one_of(st.integers(-5, 5).map(str), st.sampled_from(NAMES), st.sampled_from(["a + 1", "b * 2", "c - a"]))
CONDITIONS = st.sampled_from(["a > b", "b == 2", "true", "not (c < 0)", "a + b > c"])


def statements(depth: int) -> Any:
    assign = st.builds(lambda name, value: f"{name} = {value}", st.sampled_from(NAMES), VALUES)
    touch = st.builds(lambda name, value: f"{name} = tool.touch {{ value: {value} }}", st.sampled_from(NAMES), VALUES)
    call = st.builds(lambda name, value: f"{name} = bump({value})", st.sampled_from(NAMES), VALUES)
    emit = st.builds(lambda value: f"emit tick {{ value: {value} }}", VALUES)
    leaf = st.one_of(assign, touch, touch, emit, call)
    if depth == 0:
        return leaf
    inner = st.lists(statements(depth - 1), min_size=1, max_size=3).map(" ".join)
    branch = st.builds(lambda test, one, other: f"if {test} {{ {one} }} else {{ {other} }}", CONDITIONS, inner, inner)
    rounds = st.builds(
        lambda items, body: f"for i in {items} {{ {body} }}", st.sampled_from(["[1, 2]", "[]", "[a, b, 3]"]), inner
    )
    return st.one_of(leaf, leaf, branch, rounds)


PROGRAMS = st.lists(st.lists(statements(2), min_size=1, max_size=4), min_size=1, max_size=4).map(
    lambda steps: (
        "system S {\n  procedure bump(n: int) { m = tool.touch { value: n + 1 } return m }\n  task T {\n"
        "    step begin { a = 1 b = 2 c = 3 }\n"
        + "".join(f"    step s{number} {{ {' '.join(body)} }}\n" for number, body in enumerate(steps))
        + "  }\n  service_loop Waits { on tick(value) { x = value } }\n}\n"
    )
)


def comparable(state: State) -> Any:
    """What must be the same whatever happened on the way."""
    return encode(
        [
            state.status,
            state.variables,
            {path: [one.ok, one.output, one.variable] for path, one in state.outcomes.items()},
            state.decisions,
            state.recorded,
            state.lanes,
            [[item.type, item.body, item.path] for item in state.trace],
            state.steps,
            list(state.pending),
        ]
    )


@settings(max_examples=60)
@given(text=PROGRAMS, cuts=st.lists(st.tuples(st.booleans(), st.integers(1, 12), st.booleans()), max_size=4))
def test_a_loop_cut_anywhere_ends_as_one_that_was_not_and_the_fold_is_its_state(
    text: str, cuts: list[tuple[bool, int, bool]], tmp_path_factory: Any
) -> None:
    program = load_text(text, tools=SIGNATURES)
    started = LoopStarted(loop="T", kind="task", program="p", sha256=program.sha256, live=True)
    folder = tmp_path_factory.mktemp("w")
    whole: dict[str, Any] = {}
    straight = drive(program, Memory().begin("run", started), Touch(whole), folder)

    frames: list[bytes] = []
    world: dict[str, Any] = {}
    calls = 0
    for in_tool, at, after in [*cuts, (False, 0, False)]:
        store = Mortal(frames, None if in_tool or not at else at, after)
        touch = Touch(world, at if in_tool else None, after)
        journal: Journal | None = None
        try:
            journal = store.begin("run", started) if not frames else store.lead("run")
            if journal.state.status != "running":
                break
            drive(program, journal, touch, folder)
        except Killed:
            calls += touch.calls
            if journal is not None and journal.waiting == 0:
                assert encoded(store.history("run").state) == encoded(journal.state)
            continue
        calls += touch.calls
        assert encoded(store.history("run").state) == encoded(journal.state)
        break

    assert comparable(memory_of(frames).history("run").state) == comparable(straight)
    assert world == whole
    assert len(world) <= calls <= len(world) + len(cuts)


def memory_of(frames: list[bytes]) -> Memory:
    memory = Memory()
    memory.frames = frames
    return memory


def test_a_process_that_was_overtaken_is_fenced_at_its_next_message() -> None:
    store = Memory()
    first = store.begin("run", LoopStarted(loop="T", kind="task", program="p", sha256="x"))
    second = store.lead("run")
    second.commit(LoopResumed(attempt=2, sha256="x"))

    with pytest.raises(Fenced, match="taken over by another process"):
        first.commit(LoopAssigned(path="a", name="a", value=1))
    with pytest.raises(Fenced):
        first.commit()
    second.commit(LoopAssigned(path="a", name="a", value=2))
    assert store.history("run").state.variables == {"a": 2}
