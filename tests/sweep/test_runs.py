"""Whole sweeps through the loop runner, the real log and real processes."""

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus import Bus
from morphogen.cli import app as cli
from morphogen.producers.loops import runner
from morphogen.producers.loops.errors import ProgramChanged
from morphogen.producers.loops.runner import Options, resume
from morphogen.schemas import ArtifactSaved, SweepFinished, SweepStarted, TrialStarted
from morphogen.schemas.knowledge.program import load

Runs = Any

SCHEMA = """
  trace_schema {
    variant Item {
      case Performance { speed: float }
      case Correctness { passed: boolean note: string? }
    }
  }
"""
TOOL = """
import time

def measure(a, b, seconds=0.0):
    time.sleep(seconds)
    return {"Performance": {"speed": a * 10.0 + b}, "Correctness": {"passed": True}}

def crash(a):
    import os
    if a == 2:
        os.abort()
    return a

def hang(a):
    import time
    time.sleep(60 if a == 2 else 0)
    return a

def wrong(a):
    if a == 2:
        raise ValueError("two is no good")
    print("noise on standard output")
    return {"speed": float(a)}

class Mute(Exception):
    def __str__(self):
        raise RuntimeError

def mute(a):
    if a == 2:
        raise Mute
    return a

def deep(a):
    found = []
    for _ in range(100_000 if a == 2 else 0):
        found = [found]
    return {"speed": a, "more": found}

def stray(a):
    return {"Performance": {"speed": a * 1.0}, "Correctness": {"passed": True, "note": "\\ud800" if a == 2 else "x"}}

def huge(a):
    return {"Performance": {"speed": a * 1.0}, "Correctness": {"passed": True, "note": "x" * (600_000 if a == 2 else 1)}}

def describe(findings, options):
    trials = findings["sweeps"][0]["trials"]
    return f"{options['greeting']}: {len(trials)} trials\\n"
"""


def program(body: str, extra: str = "") -> str:
    return f"system Test {{\n{SCHEMA}\n{extra}\nengineering_loop Tune {{\n{body}\n}}\n}}\n"


def by_tool(function: str, parameters: str = "parameter a: [1, 2, 3]", more: str = "") -> str:
    return (
        f'{parameters} measure {{ tool: "measured:{function}" metric: Performance.speed objective: maximize {more} }}'
    )


def test_a_command_says_what_it_measured_by_trace_lines(runs: Runs) -> None:
    script = (
        "import json, sys; a = int(sys.argv[1]); "
        "print('MORPHOGEN_TRACE', json.dumps({'case': 'Performance', 'speed': a * 1.5})); "
        "print('MORPHOGEN_TRACE', json.dumps({'case': 'Correctness', 'passed': a < 3}))"
    )
    path = runs.write(
        program(f'parameter a: [1, 2, 3] measure {{ cmd: ["python3", "-c", "{script}", "{{{{a}}}}"] metric: speed }}')
    )

    assert runs.start(path).status == "done"

    assert [(one.state, one.value) for one in runs.trials()] == [
        ("measured", 1.5),
        ("measured", 3.0),
        ("rejected", None),
    ]
    finished = runs.events()[-1]
    assert isinstance(finished, SweepFinished)
    assert finished.config == {"a": 2}
    items = runs.events(family="trace")
    assert [one.speed for one in items if hasattr(one, "speed")] == [1.5, 3.0, 4.5]
    assert [one.source for one in items if hasattr(one, "speed")] == ["Tune#1", "Tune#2", "Tune#3"]


def test_a_command_may_print_one_json_object(runs: Runs) -> None:
    path = runs.write(
        program('parameter a: [1, 2] measure { cmd: ["echo", "{\\"speed\\": {{a}}.5}"] metric: Performance.speed }')
    )

    runs.start(path)

    assert [one.value for one in runs.trials()] == [1.5, 2.5]


def test_a_value_never_becomes_another_word_of_a_command_line(runs: Runs) -> None:
    script = "import sys, json; print(json.dumps({'speed': len(sys.argv)}))"
    path = runs.write(
        program(
            f'parameter a: ["x y", "; rm -rf", "$(id)"] measure {{ cmd: "python3 -c \\"{script}\\" {{{{a}}}}" metric: speed }}'
        )
    )

    runs.start(path)

    assert [one.value for one in runs.trials()] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("function", "more", "reason"),
    [
        ("wrong", "", "ValueError: two is no good (measured.py:"),
        ("crash", "", "the process ended by SIGABRT"),
        ("hang", "timeout: 0.5", "no result within 0.5 s"),
        ("mute", "", "Mute (measured.py:"),
        ("deep", "", "what it returned is no plain data"),
        ("stray", "", "cannot encode a Correctness"),
        ("huge", "", "at most 262,144 are kept"),
    ],
)
def test_a_tool_that_breaks_fails_its_trial_and_the_sweep_goes_on(
    runs: Runs, function: str, more: str, reason: str
) -> None:
    path = runs.write(program(by_tool(function, more=more)), TOOL)

    assert runs.start(path).status == "done"

    assert [one.state for one in runs.trials()] == ["measured", "failed", "measured"]
    assert reason in (runs.trials()[1].reason or "")
    assert runs.events()[-1].config == {"a": 3}


@pytest.mark.parametrize(
    ("measure", "says"),
    [
        ('cmd: ["no-such-program-at-all"]', "there is no program 'no-such-program-at-all' to start"),
        ('cmd: ["echo", "{}"]', "the output holds no Performance.speed: print a line of JSON such as"),
        ('cmd: ["echo", "MORPHOGEN_TRACE {nonsense"]', "a MORPHOGEN_TRACE line is no JSON"),
        ('cmd: ["false"]', "exit code 1"),
        ('cmd: ["echo", "{\\"speed\\": NaN}"]', "Performance.speed is nan"),
        ('tool: "measured:missing"', "tool measured:missing: AttributeError"),
        ('tool: "nowhere:measure"', "ModuleNotFoundError"),
        ('tool: "not-installed"', "write `module:function`, or install a package"),
    ],
)
def test_what_cannot_be_measured_ends_the_run_as_failed_with_one_line(runs: Runs, measure: str, says: str) -> None:
    path = runs.write(program(f"parameter a: [1, 2] measure {{ {measure} metric: Performance.speed }}"), TOOL)

    ended = runs.start(path)

    assert ended.status == "failed"
    assert says in ended.reason
    assert "\n" not in ended.reason


def test_a_dry_run_measures_nothing_and_says_so(runs: Runs) -> None:
    path = runs.write(program(by_tool("measure", "parameter a: [1] parameter b: [2]")), TOOL)

    runs.start(path, live=False)

    assert runs.trials() == []


def test_a_sweep_that_is_killed_three_times_measures_every_configuration_once(runs: Runs) -> None:
    more = "arguments: { seconds: 0.02 }"
    path = runs.write(program(by_tool("measure", "parameter a: range[1, 8] parameter b: range[1, 10]", more)), TOOL)

    for number, trials in enumerate((8, 30, 55)):
        start = ["run", str(path), "--live", "--workspace", str(runs.folder), "--run", "r"]
        process = runs.process(*(start if number == 0 else ["resume", "r"]))
        runs.wait_for(trials, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    ended = resume(runs.bus, "r", options=Options())

    assert ended.status == "done"
    counts = Counter(one.key for one in runs.trials())
    assert len(counts) == 80
    assert set(counts.values()) == {1}
    assert len([one for one in runs.events() if isinstance(one, SweepStarted)]) == 1
    assert runs.events()[-1].config == {"a": 8, "b": 10}
    again = Counter(one.key for one in runs.events() if isinstance(one, TrialStarted))
    assert sum(again.values()) >= 80
    items = Counter(one.source for one in runs.events(family="trace") if hasattr(one, "speed"))
    assert set(items.values()) == {1}


def test_an_interrupted_sweep_says_so_and_goes_on(runs: Runs) -> None:
    more = "arguments: { seconds: 0.05 }"
    path = runs.write(program(by_tool("measure", "parameter a: range[1, 5] parameter b: range[1, 6]", more)), TOOL)
    process = runs.process("run", str(path), "--live", "--workspace", str(runs.folder), "--run", "r")
    runs.wait_for(5, process)

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    before = len(runs.trials())
    assert before < 30
    assert resume(runs.bus, "r", options=Options()).status == "done"
    assert len({one.key for one in runs.trials()}) == len(runs.trials()) == 30


def test_no_worker_outlives_its_sweep(runs: Runs) -> None:
    path = runs.write(program(by_tool("hang", "parameter a: [2]", "timeout: 30")), TOOL)
    process = runs.process("run", str(path), "--live", "--workspace", str(runs.folder), "--run", "r")
    while not any(isinstance(one, TrialStarted) for one in runs.events()):
        time.sleep(0.02)
    listed = ["ps", "-o", "pid=", "--ppid", str(process.pid)]
    children: list[str] = []
    while not children:
        children = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.split()

    process.send_signal(signal.SIGKILL)
    process.communicate()

    for _ in range(200):
        alive = [child for child in children if Path(f"/proc/{child}").exists()]
        states = [Path(f"/proc/{child}/stat").read_text().split()[2] for child in alive]
        if all(state == "Z" for state in states):
            return
        time.sleep(0.05)
    pytest.fail(f"still running: {alive}")


def test_a_changed_space_is_refused_at_resume(runs: Runs) -> None:
    more = "arguments: { seconds: 1.5 }"
    path = runs.write(program(by_tool("measure", "parameter a: [1, 2, 3] parameter b: [1]", more)), TOOL)
    process = runs.process("run", str(path), "--live", "--workspace", str(runs.folder), "--run", "r")
    runs.wait_for(1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    path.write_text(path.read_text().replace("[1, 2, 3]", "[1, 2, 3, 4]"))

    with pytest.raises(ProgramChanged):
        resume(runs.bus, "r", options=Options())
    assert len(runs.trials()) < 3


def test_artifacts_are_built_from_what_was_measured(runs: Runs) -> None:
    extra = """
      knowledge {
        fact is_fast(t: Item.Performance) { return t.speed > 15 }
        rule "Take more of a" { when: is_fast apply: "raise a" }
      }
      build {
        artifact "out/report.md" { generator: report title: "What | was found" input: trace.all }
        artifact "trials.csv" { input: Tune }
        artifact "items.md" { generator: table input: trace.all(Performance) }
        artifact "all.json" { generator: json input: trace.all }
        artifact "speed.png" { generator: plot input: trace.all(Performance) y: speed }
        artifact "hello.txt" { generator: "python:measured:describe" greeting: "Hello" }
        artifact "knowledge.txt" { content: knowledge }
      }
    """
    space = "parameter a: [1, 2] parameter b: [3, 4]"
    path = runs.write(program(by_tool("measure", space), extra), TOOL)

    ended = runs.start(path)

    assert ended.status == "done", ended.reason
    report = (runs.folder / "out" / "report.md").read_text()
    assert "# What | was found" in report
    assert "| Performance.speed | 24 |" in report
    assert "is_fast" in report
    assert "raise a" in report
    assert "![Tune: best](report.Tune.best.png)" in report
    for picture in ("out/report.Tune.best.png", "out/report.Tune.parameters.png", "speed.png"):
        assert (runs.folder / picture).read_bytes().startswith(b"\x89PNG")
    assert (runs.folder / "trials.csv").read_text().splitlines()[1].startswith("1,measured,1,3,13.0,")
    assert len(json.loads((runs.folder / "all.json").read_text())["sweeps"][0]["trials"]) == 4
    assert (runs.folder / "hello.txt").read_text() == "Hello: 4 trials\n"
    assert "fact is_fast" in (runs.folder / "knowledge.txt").read_text()
    assert (runs.folder / "items.md").read_text().count("\n") == 6
    saved = [one for one in runs.events(family="artifact") if isinstance(one, ArtifactSaved)]
    assert len(saved) == 9
    assert all(one.sha256 and one.size for one in saved)


def test_an_artifact_that_cannot_be_made_fails_the_run_by_name(runs: Runs) -> None:
    extra = 'build { artifact "x.png" { generator: plot input: trace.all(Performance) y: colour } }'
    path = runs.write(program(by_tool("measure", "parameter a: [1] parameter b: [1]"), extra), TOOL)

    ended = runs.start(path)

    assert ended.status == "failed"
    assert "artifact x.png: a plot of colour: no trace item has a number there" in ended.reason


def test_lifted_knowledge_grounds_the_next_optimisation(runs: Runs) -> None:
    lifted = """
      system Earlier {
        trace_schema { variant Lifted { case Configuration { a: int speed: float? } } }
        knowledge {
          fact a_at_least_3(t: Lifted.Configuration) { return t.a >= 3 }
          rule "Prefer a >= 3" { when: a_at_least_3 apply: "a is 3 or 4" parameter a: [3, 4] }
        }
      }
    """
    runs.write(lifted, TOOL, name="lifted.mk")
    body = by_tool("wrong", "parameter a: [1, 2, 3, 4]") + " narrow: true"
    path = runs.write('use "lifted.mk"\n' + program(body), TOOL)

    assert runs.start(path).status == "done"

    assert [one.config for one in runs.trials()] == [{"a": 3}, {"a": 4}]
    fired = [one for one in runs.events(family="loop") if type(one).__name__ == "LoopRuleFired"]
    assert [one.rule for one in fired] == ["Earlier.Prefer a >= 3"]


def test_lift_writes_a_module_from_what_runs_measured_also_behind_a_trim(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], trimmed: Callable[[Bus], None]
) -> None:
    tool = "def measure(a, b):\n    return (30.0 if a >= 5 else 10.0) + (a * 7 + b * 3) % 5 / 10\n"
    body = by_tool("measure", "parameter a: range[1, 8] parameter b: [1, 2, 3, 4]") + " sampler: random"
    runs.start(runs.write(program(body), tool))
    target = tmp_path / "lifted.mk"

    assert cli.run(["know", "lift", "r", "-o", str(target)]) == 0

    assert "1 fact from 32 trials" in capsys.readouterr().err
    lifted = load(target)
    assert list(lifted.facts) == ["TuneLifted.a_at_least_5"]
    assert "parameter a: [5, 6, 7, 8]" in target.read_text()
    trimmed(runs.bus)
    assert cli.run(["know", "lift", "r"]) == 0
    assert capsys.readouterr().out == target.read_text()
    assert cli.run(["know", "lift", "nobody"]) == 1
    assert "no sweep with trials in nobody" in capsys.readouterr().err
    assert cli.run(["know", "lift", ""]) == 2
    assert "a run's name is empty" in capsys.readouterr().err


@pytest.mark.parametrize("how", ['tool: "measured:wrong"', 'cmd: ["echo", "{\\"speed\\": {{a}}}"]'])
def test_two_workers_measure_every_configuration_once(runs: Runs, how: str) -> None:
    body = f"parameter a: range[10, 29] measure {{ {how} metric: Performance.speed }} workers: 2"
    path = runs.write(program(body), TOOL)

    assert runs.start(path).status == "done"

    assert sorted(one.config["a"] for one in runs.trials()) == list(range(10, 30))
    assert {one.state for one in runs.trials()} == {"measured"}
    assert runs.events()[-1].config == {"a": 29}


def test_a_value_that_was_not_measured_never_wins(runs: Runs) -> None:
    tool = 'def measure(a):\n    return {"speed": 9.0 * a, "origin": "simulated" if a > 1 else "measured"}\n'
    runs.start(runs.write(program(by_tool("measure", "parameter a: [1, 2]")), tool))

    assert runs.events()[-1].config == {"a": 1}
    assert runs.trials()[1].reason == "Performance.speed is simulated, and only what was measured counts"


def test_an_agent_sweeps_as_one_of_its_steps(runs: Runs) -> None:
    agent = """
      agent_loop Work {
        step rough: tool.engineering_loop { name: "Tune" parameters: { a: [1, 3] } output_var: first }
        step fine: tool.engineering_loop { name: "Tune" output_var: second }
        step note: tool.write { path: "best.txt" content: "{{first.best.a}} {{second.best.a}} {{second.measured}}" }
      }
    """
    path = runs.write(program(by_tool("wrong")).rstrip().removesuffix("}") + agent + "}\n", TOOL)

    ended = runner.start(runs.bus, path, "Work", run="r", options=Options(live=True, workspace=runs.folder))

    assert ended.status == "done", ended.reason
    assert (runs.folder / "best.txt").read_text() == "3 3 2"
    assert {one.sweep for one in runs.trials()} == {"Tune", "Tune@fine"}


def test_steps_stand_around_the_sweep_and_the_command_says_what_it_found(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "around.mk"
    program.write_text("""
    system Around {
      trace_schema { variant T { case Seen { score: float } } }
      engineering_loop Tune {
        step before: tool.write { path: "order.txt", content: "before\\n" }
        parameter A: [1, 2, 3]
        measure {
          cmd: ["sh", "-c", "test -f order.txt && echo 'MORPHOGEN_TRACE {\\"case\\": \\"Seen\\", \\"score\\": {{A}}}'"]
          metric: Seen.score
          objective: maximize
        }
        step after: tool.write { path: "best.txt", content: "{{result.metric}}" }
      }
    }
    """)

    assert cli.run(["loop", "run", str(program), "--live", "--workspace", str(tmp_path), "--run", "around"]) == 0

    assert "best of 3 trials: 3 with A=3" in capsys.readouterr().out
    assert (tmp_path / "best.txt").read_text() == "3"
