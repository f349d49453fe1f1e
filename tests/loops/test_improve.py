"""The improver over runs that really ran: what it proposes, what it refuses, and what it writes."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.cli.app import run as run_command
from morphogen.producers.loops import runner
from morphogen.producers.loops.errors import UnknownRun
from morphogen.producers.loops.improve import ImproveError, improve
from morphogen.producers.loops.improve import write as put
from morphogen.producers.loops.improve.history import find_runs, read_run
from morphogen.producers.loops.llm import Query, Reply
from morphogen.producers.loops.runner import Options
from morphogen.producers.loops.tools import Toolbox, tool
from morphogen.producers.loops.tools.python import PythonTool
from morphogen.schemas.improve import ProgramImproved
from morphogen.schemas.llm import LlmQueried

PROGRAM = """// how we ask
task Ask {
  // nobody reads the note
  step note: tool.read { path: "note.txt" output_var: note }

  step slow: tool.weigh { grams: 5 output_var: weight }
  // the gate
  step gate: tool.read { path: "gate.txt" output_var: gate }
  step ask: llm.query { prompt: "gate {{gate}}, weight {{weight}}?" output_var: answer }
  step second: llm.query { prompt: "and {{answer}}?" output_var: opinion }
  step save: tool.write { path: "out.txt" content: "{{answer}}" }
  evaluation { check size: tool.read { path: "out.txt" output_var: size } }
  success: file_exists("out.txt") answer == "go"
}
"""


@tool(effect="read")
def weigh(grams: int) -> int:
    """Weigh, slowly."""
    time.sleep(0.02)
    return grams * 2


class Echo:
    """A model that says the word it is asked about."""

    name = "echo"

    def ask(self, query: Query) -> Reply:
        return Reply(query.prompt.split()[1].strip(",?"), 10, 2, 5, "echo-1", 1_000_000)


class Drafting:
    """A model that writes the program it was given, changed."""

    name = "drafting"

    def __init__(self, *changes: Callable[[str], str]) -> None:
        self.changes = list(changes)
        self.asked: list[Query] = []

    def ask(self, query: Query) -> Reply:
        self.asked.append(query)
        program = query.prompt.partition("The program:\n")[2].partition("\n\nWhat its steps took:")[0]
        return Reply(json.dumps({"program": self.changes.pop(0)(program), "why": "shorter"}))


@pytest.fixture
def tools() -> Toolbox:
    return Toolbox.standard({"tool.weigh": PythonTool(weigh)}, installed=False)


@pytest.fixture
def runs(
    bus: Bus, write: Callable[..., Path], workspace: Path, tools: Toolbox, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Six live runs of a program, half of which fail at its gate."""
    path = write(PROGRAM)
    workspace.mkdir()
    (workspace / "note.txt").write_text("hello")
    monkeypatch.setattr(runner, "backend", lambda *_, **__: Echo())
    for number in range(6):
        gate, out = workspace / "gate.txt", workspace / "out.txt"
        out.unlink(missing_ok=True)
        gate.write_text("go") if number % 2 else gate.unlink(missing_ok=True)
        options = Options(live=True, workspace=workspace, backend="echo", tools=tools)
        ended = runner.start(bus, path, run=f"ask-{number}", options=options)
        assert ended.status == ("done" if number % 2 else "failed"), ended
    return path


def test_a_run_is_read_back_from_the_log_with_what_each_step_gave_and_took(
    bus: Bus, runs: Path, trimmed: Callable[[Bus], None]
) -> None:
    read = read_run(bus, "ask-1")

    assert (read.loop, read.status, read.live) == ("Ask", "done", True)
    assert [step.step for step in read.actions] == ["note", "slow", "gate", "ask", "second", "save", "size"]
    assert read.steps[1].output == 10
    assert read.steps[1].seconds >= 0.02
    assert [query.reply for query in read.queried] == ["go", "go"]
    assert find_runs(bus, ["ask-[01]", "ask-5"]) == ["ask-0", "ask-1", "ask-5"]
    assert find_runs(bus, program="elsewhere/program.mk") == [f"ask-{number}" for number in range(6)]
    assert find_runs(bus, program="other.mk") == []
    with pytest.raises(ImproveError, match="no loop run 'nope-"):
        find_runs(bus, ["nope-*"])
    with pytest.raises(UnknownRun):
        read_run(bus, "nope")
    trimmed(bus)
    assert find_runs(bus, program="elsewhere/program.mk") == [f"ask-{number}" for number in range(6)]
    assert read_run(bus, "ask-1") == read


def test_dead_steps_go_and_the_gate_comes_first_and_every_run_ends_as_it_did(
    bus: Bus, runs: Path, tools: Toolbox
) -> None:
    made = improve(bus, runs, tools=tools)

    assert [change.kind for change in made.changes] == ["dead_step", "dead_step", "order"]
    assert made.after.text == PROGRAM.replace(
        '  step note: tool.read { path: "note.txt" output_var: note }\n', ""
    ).replace('  step second: llm.query { prompt: "and {{answer}}?" output_var: opinion }\n', "").replace(
        """  step slow: tool.weigh { grams: 5 output_var: weight }
  // the gate
  step gate: tool.read { path: "gate.txt" output_var: gate }
""",
        """  // the gate
  step gate: tool.read { path: "gate.txt" output_var: gate }
  step slow: tool.weigh { grams: 5 output_var: weight }
""",
    )
    figures = made.figures()
    assert (figures["judged"], figures["verdict_same"], figures["changed_verdicts"]) == (6, True, 0)
    assert figures["saved_steps"] == 3 * 2 + 3 * 2  # note and second where it went well, note and slow where it failed
    assert figures["saved_tokens"] == 3 * 12
    assert figures["saved_usd"] == pytest.approx(15e-6)
    assert figures["saved_seconds"] >= 3 * 0.02
    assert runs.read_text() == PROGRAM


def test_an_accepted_change_is_in_the_file_and_in_the_log_and_leaves_nothing_to_improve(
    bus: Bus, runs: Path, tools: Toolbox
) -> None:
    runs.chmod(0o640)
    made = improve(bus, runs, tools=tools)

    put(bus, made, accepted_by="human")

    assert runs.read_text() == made.after.text
    assert runs.stat().st_mode & 0o777 == 0o640
    (event,) = [one.event for one in bus.events(family="loop") if isinstance(one.event, ProgramImproved)]
    assert (event.accepted_by, event.text, event.diff) == ("human", made.after.text, made.diff)
    assert [change["kind"] for change in event.proposal] == ["dead_step", "dead_step", "order"]
    assert event.evidence["judged"] == 6
    again = improve(bus, runs, tools=tools)
    assert (again.changes, again.runs, len(again.skipped)) == ((), (), 6)
    with pytest.raises(ImproveError, match="was changed meanwhile"):
        put(bus, made, accepted_by="human")


def test_a_draft_of_a_model_is_checked_sent_back_and_back_tested(bus: Bus, runs: Path, tools: Toolbox) -> None:
    model = Drafting(
        lambda text: text.replace('path: "out.txt" content', 'pth: "out.txt" content'),
        lambda text: text.replace("  step slow: tool.weigh { grams: 5 output_var: weight }\n", "").replace(
            "weight {{weight}}", "weight 10"
        ),
    )

    made = improve(bus, runs, tools=tools, backend=model)

    assert made.drafted_by == "drafting"
    assert made.changes[-1].why == "shorter"
    assert "tool.weigh" not in made.after.text
    assert made.figures()["verdict_same"] is True
    assert "the program does not check" in model.asked[1].prompt
    queried = [one.event for one in bus.events(family="llm") if one.frame.run == ""]
    assert [(one.step, one.fits) for one in queried if isinstance(one, LlmQueried)] == [
        ("improve", False),
        ("improve", True),
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace('answer == "go"', 'answer == "gone"'), "3 of 6 runs would have ended otherwise"),
        (lambda text: text.replace("grams: 5", "grams: 6"), "no run did what tool.weigh would do now"),
        (lambda text: text.replace("gate {{gate}}", "Gate {{gate}}"), "no model was asked what step ask would ask now"),
        (lambda text: text + "// same\n", "it would have saved nothing"),
        (lambda text: text, "it changes nothing"),
        (
            lambda text: text.replace('  step save: tool.write { path: "out.txt" content: "{{answer}}" }\n', ""),
            "other things",
        ),
    ],
)
def test_a_draft_that_changes_how_runs_end_or_saves_nothing_is_not_taken(
    bus: Bus, runs: Path, tools: Toolbox, change: Callable[[str], str], why: str
) -> None:
    made = improve(bus, runs, tools=tools, backend=Drafting(change))

    assert made.drafted_by is None
    (refused,) = [one for one in made.refused if one.proposal.kind == "draft"]
    assert why in refused.why


def test_dry_runs_suspended_runs_and_runs_of_another_text_tell_nothing(
    bus: Bus, write: Callable[..., Path], workspace: Path
) -> None:
    path = write('task T { step a: tool.read { path: "a" output_var: x } step b: tool.run { cmd: "true" } }')
    workspace.mkdir()
    (workspace / "a").write_text("1")
    runner.start(bus, path, run="dry", options=Options(workspace=workspace))
    path.write_text(path.read_text() + "\n")
    runner.start(bus, path, run="other", options=Options(live=True, workspace=workspace))
    path.write_text(path.read_text().rstrip("\n"))

    made = improve(bus, path)

    assert made.changes == ()
    assert made.skipped == {"other": "it ran another text of the program"}
    (test,) = made.test.runs
    assert test.unknown == "it was not live: nothing was really done"
    assert [one.why for one in made.refused] == [
        "no recorded run can tell how it would have ended: it was not live: nothing was really done"
    ]


class Command:
    """Runs a command line in this process and keeps what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = run_command(arguments)
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def morphogen(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def plain_runs(bus: Bus, write: Callable[..., Path], workspace: Path) -> Path:
    """Two live runs of a program with a step that nobody needs."""
    path = write(
        'task T {\n  step a: tool.read { path: "a" output_var: x }\n  step b: tool.run { cmd: "echo 1" output_var: y }\n'
        '  success: y == "1"\n}\n'
    )
    workspace.mkdir()
    (workspace / "a").write_text("1")
    for name in ("one", "two"):
        assert runner.start(bus, path, run=name, options=Options(live=True, workspace=workspace)).status == "done"
    return path


def test_the_command_shows_a_diff_and_writes_nothing_until_told(plain_runs: Path, morphogen: Command) -> None:
    before = plain_runs.read_text()

    code, out, err = morphogen("loop", "improve", str(plain_runs))
    assert (code, err) == (0, "")
    assert '-  step a: tool.read { path: "a" output_var: x }' in out
    assert "back-test over 2 of 2 runs: every verdict the same, 2 steps" in out
    assert "nothing is written: --write accepts it" in out
    assert plain_runs.read_text() == before

    code, out, _ = morphogen("loop", "improve", str(plain_runs), "--accept-if", "saved_seconds > 3600")
    assert (code, "not written" in out) == (0, True)
    assert plain_runs.read_text() == before

    code, _, err = morphogen("loop", "improve", str(plain_runs), "--accept-if", "saved_second > 1")
    assert code == 1
    assert "there is no saved_second" in err

    code, _, err = morphogen("loop", "improve", str(plain_runs), "--write", "--accept-if", "verdict_same")
    assert code == 2

    policy = "verdict_same && saved_steps > 0"
    code, out, _ = morphogen("loop", "improve", str(plain_runs), "--runs", "t*", "--accept-if", policy, "--json")
    told: dict[str, Any] = json.loads(out)
    assert code == 0
    assert told["accepted_by"] == f"policy: {policy}"
    assert told["backtest"]["saved_steps"] == 1
    assert "step a" not in plain_runs.read_text()

    code, out, _ = morphogen("loop", "improve", str(plain_runs))
    none = "no proposal: the log holds no run of this text of program.mk (2 of others)\n"
    assert (code, out) == (0, none)


def test_the_command_writes_what_a_person_accepts(plain_runs: Path, morphogen: Command) -> None:
    code, out, _ = morphogen("loop", "improve", str(plain_runs), "--write")

    assert code == 0
    assert f"written to {plain_runs}, accepted by human" in out
    assert plain_runs.read_text() == (
        'task T {\n  step b: tool.run { cmd: "echo 1" output_var: y }\n  success: y == "1"\n}\n'
    )


def test_the_command_tells_a_broken_program_and_an_unknown_run_in_a_line(
    plain_runs: Path, write: Callable[..., Path], morphogen: Command
) -> None:
    broken, _, said = morphogen("loop", "improve", str(write("task T { step }", "broken.mk")))
    unknown, _, line = morphogen("loop", "improve", str(plain_runs), "--runs", "nope")

    assert broken == 2
    assert "broken.mk:1:" in said
    assert (unknown, "no loop run 'nope'" in line) == (1, True)
