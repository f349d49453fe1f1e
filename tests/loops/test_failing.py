"""What a step is given and what comes back may be anything: that step fails, and nothing else does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.producers.loops import runner
from morphogen.producers.loops.errors import BadValue, LoopError
from morphogen.producers.loops.journal import answer, read_history
from morphogen.producers.loops.runner import Options
from morphogen.producers.loops.tools import Toolbox
from morphogen.producers.loops.tools.python import PythonTool
from morphogen.producers.loops.tools.toolbox import ToolResult

Live = Callable[..., Options]
Write = Callable[[str], Path]

LONG = "L" * 300
STEPS = {
    "folder": 'tool.write { path: "." content: "x" }',
    "below a file": 'tool.write { path: "a.txt/b.txt" content: "x" }',
    "long": f'tool.write {{ path: "{LONG}" content: "x" }}',
    "long read": f'tool.read {{ path: "{LONG}" }}',
    "cwd": f'tool.run {{ cmd: "true" cwd: "{LONG}" }}',
    "retries": 'tool.run { cmd: "false" retries: -1 }',
    "timeout": 'tool.run { cmd: "true" timeout: -1 s }',
    "output": 'tool.run { cmd: "true" max_output: -5 B }',
    "env": 'tool.run { cmd: "true" env: { "A=B": "x" } }',
    "deep": 'tool.run { cmd: ["cat", "deep.txt"] } -> emit T.Perf',
    "surrogate": 'tool.run { cmd: ["cat", "surrogate.txt"] } -> emit T.Perf',
    "huge": 'tool.run { cmd: ["cat", "huge.txt"] } -> emit T.Perf',
    "mute": "tool.mute {}",
    "stray": "tool.stray {}",
    "unkept": "tool.unkept {}",
    "question": 'llm.query { prompt: "{{big}}" }',
}


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def mute() -> None:
    """Raise what cannot be shown."""
    raise Mute


def stray() -> None:
    """Raise what the log cannot hold."""
    raise ValueError("\ud800")


def unkept() -> ToolResult:
    """Return what the log cannot hold."""
    return ToolResult(output=1, resources={"lines": 10**30})


TOOLS = Toolbox.standard({f"tool.{one.__name__}": PythonTool(one) for one in (mute, stray, unkept)}, installed=False)


def goes_on(step: str) -> str:
    head, _, rest = step.rpartition("}")
    return f"{head} on_failure: continue }}{rest}"


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_step_that_may_fail_does_and_the_loop_goes_on(
    bus: Bus, write: Write, live: Live, workspace: Path, step: str
) -> None:
    workspace.mkdir()
    (workspace / "a.txt").write_text("x")
    (workspace / "deep.txt").write_text("MORPHOGEN_TRACE " + "[" * 100_000)
    (workspace / "surrogate.txt").write_text('MORPHOGEN_TRACE {"case": "Perf", "name": "\\ud800"}')
    (workspace / "huge.txt").write_text(f'MORPHOGEN_TRACE {{"case": "Perf", "name": "{"x" * 600_000}"}}')
    path = write(
        f"""system S {{
          trace_schema {{ variant T {{ case Perf {{ name: string }} }} }}
          agent_loop L {{ step big: tool.read {{ path: "huge.txt" output_var: big }} step a: {goes_on(step)} step z: tool.write {{ path: "z.txt" content: "z" }} }} }}"""
    )

    ended = runner.start(bus, path, run="f", options=live(tools=TOOLS))

    assert ended.status == "done", ended.reason
    assert (workspace / "z.txt").exists()
    failed = read_history(bus, "f").state.outcomes["a"]
    assert not failed.ok
    assert failed.error
    assert "\n" not in failed.error
    if "retries" in step:
        assert failed.error == "retries must be a whole number from 0, got -1"


def test_a_condition_over_a_path_that_no_system_takes_does_not_hold(bus: Bus, write: Write, live: Live) -> None:
    path = write(
        f'task t {{ step a: tool.run {{ cmd: "true" }} success: file_exists("{LONG}") file_contains(".", "x") }}'
    )

    ended = runner.start(bus, path, run="c", options=live())

    assert ended.status == "failed"
    assert "not a success" in ended.reason


def test_a_plan_of_any_size_is_kept_and_the_step_runs(bus: Bus, write: Write, live: Live) -> None:
    def count(text: str) -> int:
        return len(text)

    path = write('task t { step a: tool.count { text: "' + "x" * 600_000 + '" output_var: n } }')
    tools = Toolbox.standard({"tool.count": PythonTool(count)}, installed=False)

    assert runner.start(bus, path, run="p", options=live(tools=tools)).status == "done"
    assert read_history(bus, "p").state.variables["n"] == 600_000


def test_a_check_that_cannot_be_made_fails_its_step(zygote: Any, bus: Bus, write: Write, tmp_path: Path) -> None:
    path = write('task t { step a: tool.run { cmd: "touch ran; sleep 30" shell: true on_failure: continue'
                 """ check: "'unclosed" } step b: tool.write { path: "b" content: "b" } }""")  # fmt: skip
    folder = tmp_path / "w"
    assert zygote.run("k", folder, path, kill_when=(folder / "ran").exists, kill_after=0.1)

    assert runner.resume(bus, "k", options=Options()).status == "done"
    assert "check: " in str(read_history(bus, "k").state.outcomes["a"].error)
    assert (folder / "b").exists()


def test_a_step_that_is_given_up_obeys_what_it_says_of_failures(
    zygote: Any, bus: Bus, write: Write, tmp_path: Path
) -> None:
    path = write('task t { step a: tool.run { cmd: "touch ran; sleep 30" shell: true on_failure: continue }'
                 ' step b: tool.write { path: "b" content: "b" } }')  # fmt: skip
    folder = tmp_path / "w"
    assert zygote.run("g", folder, path, kill_when=(folder / "ran").exists, kill_after=0.1)
    asked = runner.resume(bus, "g", options=Options())
    assert asked.waiting is not None
    answer(bus, "g", "a", asked.waiting.sha256, "fail")

    ended = runner.resume(bus, "g", options=Options())

    assert ended.status == "done"
    assert (folder / "b").exists()
    given_up = read_history(bus, "g").state.outcomes["a"]
    assert not given_up.ok
    assert given_up.error == "step a: it was interrupted, and the answer was to give it up"


REVIEW = """
system R {
  model { type Verdict matches { score: float, reasons: [string] } }
  agent_loop J { step judge: llm.query { prompt: "?" returns: "Verdict" output_var: v } step k: tool.write { path: "k" content: v } }
}
"""


def test_an_answer_that_cannot_be_kept_is_sent_back_and_the_next_one_counts(
    bus: Bus, write: Write, live: Live, workspace: Path
) -> None:
    ended = runner.start(bus, write(REVIEW), run="q", options=live())
    for text in (f'{{"score": 1{"0" * 400}, "reasons": []}}', '{"score": 1, "reasons": ["\\ud800"]}'):
        assert ended.waiting is not None
        answer(bus, "q", ended.waiting.path, ended.waiting.sha256, text)
        ended = runner.resume(bus, "q", options=Options())
        assert ended.status == "suspended"
        assert "the last answer did not fit" in ended.reason
    assert ended.waiting is not None

    with pytest.raises(LoopError, match="at most 262,144 are taken"):
        answer(bus, "q", ended.waiting.path, ended.waiting.sha256, "x" * 300_000)
    with pytest.raises(LoopError, match="is no character"):
        answer(bus, "q", ended.waiting.path, ended.waiting.sha256, "\udcff")
    answer(bus, "q", ended.waiting.path, ended.waiting.sha256, '{"score": 1, "reasons": []}')

    assert runner.resume(bus, "q", options=Options()).status == "done"
    assert json.loads((workspace / "k").read_text())["score"] == 1


VALUES = """
system V {
  model { state x: float = 1.0 state n: int = 1 state s: string = "" state l: list = [] }
  agent_loop A { step one { y = x + n } step two: tool.write { path: "o" content: "{{s}} {{y}}" } }
}
"""


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"x": "abc"}, 'state `x` cannot begin so: it is string ("abc"); it must be float'),
        ({"x": float("nan")}, "state `x` cannot begin so"),
        ({"n": 1.5}, "it must be int"),
        ({"s": 5}, "a text is written s='\"5\"'"),
        ({"nosuch": 3}, "the program says nowhere `nosuch`"),
    ],
)
def test_a_run_is_begun_with_values_that_its_states_can_have(
    bus: Bus, write: Write, live: Live, workspace: Path, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadValue) as caught:
        runner.start(bus, write(VALUES), run="v", options=live(parameters=values))
    assert says in str(caught.value)
    assert not workspace.exists()

    fitting = {"x": 2, "n": 3, "s": "text", "l": [1], "y": 0}
    assert runner.start(bus, write(VALUES), run="v", options=live(parameters=fitting)).status == "done"
    assert (workspace / "o").read_text() == "text 5"
