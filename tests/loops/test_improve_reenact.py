"""A recorded run, run again over what it recorded, ends as it ended: with every construct of the language."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.producers.loops import runner
from morphogen.producers.loops.improve.history import read_run
from morphogen.producers.loops.improve.recorded import NotRecorded, Records
from morphogen.producers.loops.improve.reenact import enact
from morphogen.producers.loops.tools import Toolbox
from morphogen.schemas.knowledge.program import load, load_text
from morphogen.schemas.knowledge.tree import AgentLoop, Task

TRACE = "trace_schema { variant T { case Perf { name: string, speed: float } } } knowledge { fact fast(t: T.Perf) { return t.speed > 2 } }"
PROGRAMS = {
    "branches and rounds": """system S { TRACE
      model { state best: float = 0 }
      agent_loop L {
        step go {
          for size in [1, 2, 3] {
            said = tool.run { cmd: "echo {{size * 1.5}}" }
            emit Perf { name: "n{{size}}", speed: size * 1.5 }
            if fast(trace.latest(Perf)) { best = best + size  tool.write { path: "fast-{{size}}.txt" content: said } } else { best = best + 0.5 }
          }
        }
        success: best == 5.5 file_exists("fast-2.txt") !file_exists("fast-1.txt")
      } }""",
    "trace lines of a program": """system S { TRACE
      agent_loop L {
        step measure: tool.run { cmd: ["printf", "MORPHOGEN_TRACE {\\"case\\": \\"Perf\\", \\"name\\": \\"a\\", \\"speed\\": 3}\\n"] } -> emit Perf
        step keep { if fast(trace.latest(Perf)) { tool.write { path: "out.txt" content: "fast" } } }
        success: file_contains("out.txt", "fast")
      } }""",
    "failures that are gone on after": """task L {
        step gone: tool.read { path: "nowhere" on_failure: continue output_var: gone }
        step wrong: tool.run { cmd: "false" on_failure: continue retries: 2 }
        step right: tool.run { cmd: "echo 7" output_var: seven }
        evaluation { check number: tool.run { cmd: "echo {{seven}}" } check broken: tool.run { cmd: "false" } }
        success: metric("number") == 7 !passed("broken")
      }""",
    "a failure that ends it": 'task L { step a: tool.run { cmd: "echo 1" } step b: tool.run { cmd: "false" } step c: tool.run { cmd: "echo 2" } }',
    "success that is none": 'task L { step a: tool.run { cmd: "echo 1" output_var: x } success: x == "2" }',
    "procedures": """system S {
      procedure twice(word: string) { said = tool.run { cmd: "echo {{word}} {{word}}" } return said }
      agent_loop L { step go { both = twice("ho") if both == "ho ho" { tool.write { path: "out.txt" content: both } } } success: file_exists("out.txt") }
    }""",
    "an early return": 'task L { step a { x = tool.run { cmd: "echo 1" } if x == "1" { return } tool.run { cmd: "echo 2" } } step b: tool.run { cmd: "echo 3" } }',
    "a large output": """task L {
        step big: tool.run { cmd: ["python3", "-S", "-c", "print('x' * 100000)"] output_var: big }
        step keep: tool.write { path: "big.txt" content: big }
        success: len(big) == 100000
      }""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_run_is_reenacted_as_it_was(
    name: str, bus: Bus, write: Callable[..., Path], workspace: Path, live: Callable[..., Any]
) -> None:
    path = write(PROGRAMS[name].replace("TRACE\n", f"{TRACE}\n"))
    ended = runner.start(bus, path, run="r", options=live())
    program = load(path, tools=Toolbox.standard().signatures)
    loop = program.find_loop("L")
    assert isinstance(loop, Task | AgentLoop)
    run = read_run(bus, "r")

    again = enact(program, loop, run, Records([run], Toolbox.standard().signatures, bus), bus)

    assert ended.verdict is not None
    assert (again.status, again.success) == (ended.status, ended.verdict.success), ended.reason
    assert again.borrowed == 0
    acts = [(step.action, step.arguments_sha256) for step in run.actions if step.effect in {"write", "external"}]
    assert again.acts == acts


def test_what_was_set_on_the_command_line_counts_again(
    bus: Bus, write: Callable[..., Path], live: Callable[..., Any]
) -> None:
    path = write(
        'system S { model { state n: int = 1 } agent_loop L { step a: tool.run { cmd: "echo {{n}}" output_var: x } success: x == "5" } }'
    )
    assert runner.start(bus, path, run="r", options=live(parameters={"n": 5})).status == "done"
    program, run = load(path), read_run(bus, "r")
    loop = program.find_loop("L")
    assert isinstance(loop, AgentLoop)

    assert enact(program, loop, run, Records([run], Toolbox.standard().signatures, bus), bus).success is True


def test_what_was_never_done_cannot_be_told(bus: Bus, write: Callable[..., Path], live: Callable[..., Any]) -> None:
    text = 'task L { step a: tool.run { cmd: "echo 1" output_var: x } success: x == "1" }'
    runner.start(bus, write(text), run="r", options=live())
    run = read_run(bus, "r")
    changed = load_text(text.replace("echo 1", "echo 2"))
    loop = changed.find_loop("L")
    assert isinstance(loop, Task)

    with pytest.raises(NotRecorded, match=r"no run did what tool\.run would do now"):
        enact(changed, loop, run, Records([run], Toolbox.standard().signatures, bus), bus)
