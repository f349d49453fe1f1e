"""`morphogen do`, as a person types it: which way it goes, what it says of it, and how it ends."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli.app import run
from morphogen.cli.do_settings import DoError, DoSettings, micros, read_settings
from morphogen.cli.do_shown import money, said, saving, span
from morphogen.consumers.crystallizer.source import source_sha256
from morphogen.consumers.dispatch import read_state
from morphogen.consumers.executions import read_families, tool_name
from morphogen.kernels.sandbox import Sandbox, SandboxError
from morphogen.schemas import CrystalMoved, CrystalRegistered
from morphogen.schemas.crystals import Guard, Parameter
from morphogen.schemas.dispatch import DispatchDecided, DispatchFinished
from morphogen.schemas.goals import signature
from morphogen.schemas.llm import LlmQueried

from .conftest import trace_of

READ = {"tool": "files.read_text", "arguments": {"path": "shop.csv"}}
Script = Callable[..., dict[str, Any]]


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def cli(own: Settings, bus: Bus, space: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """What runs `morphogen do` in the workspace, over the module's own log."""

    def run_one(*arguments: str | Path, verb: str = "do") -> Said:
        capsys.readouterr()
        where = ("--workspace", str(space)) if verb == "do" else ()
        code = run(["--home", str(own.home), verb, *map(str, arguments), *where])
        shown = capsys.readouterr()
        return Said(code, shown.out, shown.err)

    return run_one


def scripted(options: dict[str, Any]) -> tuple[str, ...]:
    return "--backend", "script", "-o", f"file={options['file']}"


def goal(name: str) -> tuple[str, ...]:
    """A goal of a family that no other test has."""
    return f"{name}: sum the column price of shop.csv", "-p", "column=price", "-p", "path=shop.csv"


def test_what_was_learned_is_followed_the_next_time_and_each_says_what_it_cost(
    cli: Cli, bus: Bus, script: Script
) -> None:
    replies = scripted(script(READ, {"answer": 7}))

    first = cli(*goal("twice"), *replies)
    (asked, *_) = [seen.event for seen in bus.events(family="llm") if isinstance(seen.event, LlmQueried)]
    assert "files.read_text(path: str) [read] Return what a file holds, as UTF-8." in asked.prompt
    assert (first.code, first.err) == (0, "")
    answer, told = first.out.splitlines()
    assert answer == "7"
    assert told.startswith("learner: ")
    assert told.endswith("cost $0 (a script answered: no model was paid)")

    second = cli(*goal("twice"), *replies, "--json").json
    assert (second["ok"], second["mode"], second["output"], second["cost_microusd"]) == (True, "follower", 7, 0)
    assert second["saved_microusd"] == 0
    assert len(second["decided"]["alternatives"]) == 5

    third = cli(*goal("twice"), "-q")
    assert third.out == "7\n"


def test_a_dry_run_shows_every_mode_and_leaves_no_trace(cli: Cli, bus: Bus, script: Script, space: Path) -> None:
    replies = scripted(script(READ, {"answer": 7}))
    before = bus.stream_info().last_seq

    shown = cli(*goal("dry"), *replies, "--dry-run")

    assert shown.code == 0
    for mode in ("crystallized", "follower", "mixed", "learner", "orchestrator"):
        assert mode in shown.out
    assert "nothing was done" in shown.out
    decided = cli(*goal("dry"), *replies, "--dry-run", "--json", "--mode", "orchestrator").json
    assert (decided["mode"], len(decided["alternatives"])) == ("orchestrator", 5)
    assert bus.stream_info().last_seq == before
    assert [path.name for path in space.iterdir()] == ["shop.csv"]


def test_without_a_model_or_a_program_it_says_what_is_missing(cli: Cli) -> None:
    done = cli(*goal("nobody"))

    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "name a model by --backend, or a program by --with" in done.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("  ",), "the goal is empty"),
        (("g", "-p", "column"), "--param takes name=value, got 'column'"),
        (("g", "-p", "a=1", "-p", "a=2"), "--param a is given twice"),
        (("g", "--budget", "much"), "--budget takes dollars"),
        (("g \udcff",), "which is no character"),
        (("g", "-p", 'a="\\ud800"'), "which is no character"),
        (("g", "--backend", "none-such"), "no backend 'none-such'"),
        (("g", "--config", "/none/do.toml"), "there is no file of settings /none/do.toml"),
        (("g", "--loop", "x"), "--loop names a loop of a program"),
        (("g", "--with", "/none/p.mk"), "/none/p.mk"),
    ],
)
def test_what_is_written_wrongly_is_a_line_and_exit_code_2(cli: Cli, arguments: tuple[str, ...], line: str) -> None:
    done = cli(*arguments)

    assert (done.code, done.out) == (2, "")
    assert line in done.err
    assert "Traceback" not in done.err


def test_no_broker_is_one_line(capsys: pytest.CaptureFixture[str], space: Path) -> None:
    code = run(["--url", "nats://127.0.0.1:9", "do", "anything", "--workspace", str(space)])

    shown = capsys.readouterr()
    assert (code, shown.out, shown.err.count("\n")) == (1, "", 1)


def test_a_budget_is_held_before_any_mode_spends(cli: Cli, bus: Bus, own: Settings, tmp_path: Path) -> None:
    settings = tmp_path / "do.toml"
    settings.write_text(
        'backend = "openai"\n'
        'backend_options = { base_url = "http://127.0.0.1:9/v1", model = "dear", max_tokens = 1000, retries = 0 }\n'
    )
    unpriced = cli(*goal("budget"), "--config", settings, "--budget", "0.000001", "--json").json
    assert unpriced["ok"] is False
    assert "the price of the model is unknown" in json.dumps(unpriced)

    (own.home / "prices.toml").write_text('["dear"]\ninput = 1000000\noutput = 1000000\n')
    done = cli(*goal("budget"), "--config", settings, "--budget", "$0.0005", "--json")

    assert done.code == 1
    assert "0.000000 USD of 0.000500 USD are spent" in json.dumps(done.json)
    asked = [seen for seen in bus.events(family="llm") if isinstance(seen.event, LlmQueried)]
    assert not [seen for seen in asked if seen.frame.run.startswith((unpriced["request"], done.json["request"]))]


def test_what_a_paid_model_cost_is_counted_by_the_written_prices_and_saved_the_next_time(
    cli: Cli, own: Settings, bus: Bus, endpoint: tuple[str, list[str]]
) -> None:
    url, replies = endpoint
    replies += [json.dumps(READ), "no move", json.dumps({"answer": 7})]  # the second is sent back, and paid for
    (own.home / "prices.toml").write_text('["paid"]\ninput = 1000000\noutput = 10000000\n')
    model = ("--backend", "openai", "-o", f"base_url={url}", "-o", "model=paid", "-o", "max_tokens=50")

    first = cli(*goal("paid"), *model, "--budget", "0.1", "--mode", "learner")

    assert first.out.startswith("7\nlearner: ")
    assert first.out.endswith("cost $0.0006\n")  # three times 100 at $1 and 10 at $10 a million
    second = cli(*goal("paid"), *model, "--json").json
    assert (second["mode"], second["cost_microusd"], second["saved_microusd"]) == ("follower", 0, 600)
    assert "saved $0.0006" in cli(*goal("paid")).out
    steps = trace_of(bus, second["decided"]["execution"]).steps
    assert [(step.cost_microusd, step.priced_by) for step in steps if step.kind == "llm"] == [(200, "prices")] * 3


def test_a_loop_that_waits_ends_with_code_3_and_is_finished_by_an_answer(cli: Cli, bus: Bus) -> None:
    done = cli(*goal("waits"), "--backend", "suspend")

    assert done.code == 3
    waiting = done.err.split("morphogen loop answer ")[1].split()[0]
    answered = cli("answer", waiting, "--text", '{"answer": 7}', "--resume", verb="loop")
    assert answered.code == 0
    assert (trace_of(bus, waiting).outcome, trace_of(bus, waiting).output) == ("success", 7)


PROGRAM = """
system Sums {
  model { state column: string = "" state path: string = "" }
  agent_loop Sum {
    step total: tool.run { cmd: ["awk", "-F,", "NR > 1 { s += $2 } END { print s }", path] output_var: answer }
    success: answer == "7"
  }
  agent_loop Other { step a: tool.read { path: path output_var: answer } }
}
"""


def test_a_program_of_ones_own_pursues_the_goal_and_its_conditions_judge(cli: Cli, bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "sums.mk"
    file.write_text(PROGRAM)

    done = cli(*goal("program"), "--with", file, "--loop", "Sum", "--mode", "learner", "--json").json

    assert (done["ok"], done["output"], done["mode"], done["cost_microusd"]) == (True, "7", "learner", 0)
    trace = trace_of(bus, done["execution"])
    assert (trace.judged_by, [step.name for step in trace.steps]) == ("assertion", ["tool.run"])
    assert trace.params == {"column": "price", "path": "shop.csv"}
    refused = cli(*goal("program2"), "--with", file)
    assert refused.code == 2
    file.write_text("task T { step a: tool.none { } }")
    broken = cli(*goal("program2"), "--with", file)
    assert broken.code == 2
    assert "K401" in broken.err


def test_the_settings_name_programs_by_family_models_and_thresholds(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "sums.mk").write_text(PROGRAM)
    settings = tmp_path / "do.toml"
    settings.write_text(
        '[[program]]\ngoal = "settings: sum the column {column} of {path}"\nfile = "sums.mk"\nname = "Sum"\n'
        "[thresholds]\nfollower = 0.999\ncrystallized = 0.999\n[environment]\nstage = 'test'\n"
    )

    assert cli(*goal("settings"), "--config", settings, "--json").json["output"] == "7"
    again = cli(*goal("settings"), "--config", settings, "--dry-run", "--json").json
    assert again["thresholds"]["follower"] == 0.999
    assert next(one for one in again["alternatives"] if one["mode"] == "follower")["taken"] is False
    assert cli("something else", "--config", settings).code == 1


def test_parts_of_a_goal_are_dispatched_each_for_itself_as_its_children(cli: Cli, bus: Bus, script: Script) -> None:
    parts = {
        "parts": [
            {"goal": "Part: read shop.csv", "params": {"path": "shop.csv"}},
            {"goal": "Part: read shop.csv", "params": {"path": "shop.csv"}},
        ]
    }
    replies = script(
        (parts, {"step": "split"}), ({"answer": "two"}, {"step": "join.1"}), (READ, {"call": 1, "always": True}),
        ({"answer": "one"}, {"call": 2, "always": True}),
    )  # fmt: skip

    done = cli("Read it twice", *scripted(replies), "--mode", "orchestrator", "--json").json

    assert (done["ok"], done["output"], done["mode"]) == (True, "two", "orchestrator")
    whole = trace_of(bus, done["execution"])
    assert [step.result for step in whole.tools] == ["one", "one"]
    family = read_families(bus).family(signature("Part: read shop.csv", {"path": "shop.csv"}))
    assert family is not None
    assert [(trace.mode, trace.parent) for trace in family.traces] == [
        ("learner", done["execution"]), ("follower", done["execution"]),
    ]  # fmt: skip


def test_a_mode_that_fails_gives_way_and_says_so(cli: Cli, script: Script, space: Path) -> None:
    replies = scripted(script(READ, {"answer": 7}))
    assert cli(*goal("falls"), *replies).code == 0
    (space / "shop.csv").unlink()

    done = cli(*goal("falls"), *replies)

    assert done.code == 0  # the script says 7, whatever it reads
    lines = done.out.splitlines()
    assert lines[1].startswith("fell back from follower to mixed")
    assert "shop.csv" in lines[1]
    assert lines[-1].startswith("mixed: ")


def test_what_a_mode_that_fails_has_done_is_told_to_the_next_one_and_not_done_twice(
    cli: Cli, bus: Bus, script: Script, space: Path
) -> None:
    note = {"tool": "tool.write", "arguments": {"path": "log.txt", "content": "noted\n", "mode": "append"}}
    replies = scripted(script(note, READ, {"answer": 7}))
    assert cli(*goal("effects"), *replies).code == 0
    (space / "shop.csv").rename(space / "gone.csv")

    done = cli(*goal("effects"), *replies, "--json").json

    fell = done["fell_back"][0]
    assert (fell["mode"], fell["to"]) == ("follower", "mixed")
    assert "tool.write" in fell["done"][0]
    assert (space / "log.txt").read_text() == "noted\nnoted\n"  # once by the first request, once by this one
    asked = next(step for step in trace_of(bus, done["execution"]).steps if step.kind == "llm")
    assert "has already done this, which need not be done again:\ntool.write" in asked.args["prompt"]


def test_with_read_only_nothing_is_changed(cli: Cli, script: Script, space: Path) -> None:
    write = {"tool": "files.write_text", "arguments": {"path": "shop.csv", "text": ""}}
    give_up = {"give_up": "it cannot be changed"}
    replies = script(write, give_up, give_up, give_up)

    assert cli("Empty the shop", *scripted(replies), "--read-only").code == 1
    assert (space / "shop.csv").read_text() == "item,price\ntea,3\nmilk,4\n"


SOURCE = '''"""Sum a column."""


def run(column: str, path: str) -> int:
    """Sum a column of a table."""
    rows = [line.split(",") for line in files.read_text(path=path).strip().split("\\n")]
    at = rows[0].index(column)
    return sum(int(row[at]) for row in rows[1:])
'''


def test_a_crystallized_tool_is_called_also_behind_a_trim_and_a_missed_guard_gives_way(
    cli: Cli, bus: Bus, script: Script, space: Path, trimmed: Callable[[Bus], None]
) -> None:
    try:
        with Sandbox(pool=0) as sandbox:
            sandbox.run("def run():\n    return 1\n", {})
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    family = signature(goal("tool")[0], {"column": "price", "path": "shop.csv"})
    made = CrystalRegistered(
        tool=tool_name(family), number=1, signature=family, attempt="a1", source=SOURCE,
        source_sha256=source_sha256(SOURCE), params=[Parameter(name="column", type="str"), Parameter(name="path", type="str")],
        returns="int", guards=[Guard(kind="type", subject=name, expected="str") for name in ("column", "path")],
        capabilities=["files.read_text"], effects=["read"],
    )  # fmt: skip
    bus.emit(made, msg_id=f"{family}-1")
    moved = CrystalMoved(tool=made.tool, number=1, was="shadow", now="active", reason="a test", trials=5, successes=5)
    bus.emit(moved, msg_id=f"{family}-2")
    replies = scripted(script(READ, {"answer": 7}))
    assert cli(*goal("tool"), *replies, "--mode", "learner").code == 0

    (space / "shop.csv").write_text("item,price\ntea,30\nmilk,4\n")
    done = cli(*goal("tool"), *replies)
    assert done.out.startswith(f"34\ncrystallized ({made.tool} version 1): ")
    trimmed(bus)
    assert cli(*goal("tool"), *replies).out.startswith(f"34\ncrystallized ({made.tool} version 1): ")
    assert "saved $0" in done.out

    other = cli("tool: sum the column 1 of shop.csv", "-p", "column=1", "-p", "path=shop.csv", *replies)
    assert "fell back from crystallized to" in other.out
    assert "(guard type column)" in other.out


@pytest.mark.parametrize(("text", "amount"), [("0.05", 50_000), ("$1", 1_000_000), (" $0.000001 ", 1), ("0", 0)])
def test_dollars_are_read_exactly(text: str, amount: int) -> None:
    assert micros(text) == amount


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "1e12", "five"])
def test_what_is_no_amount_of_dollars_is_refused(text: str) -> None:
    with pytest.raises(DoError, match="takes dollars"):
        micros(text)


def test_amounts_and_times_are_said_in_their_unit() -> None:
    assert [money(one) for one in (0, 1, 50_000, 1_500_000, -250)] == ["$0", "$0.000001", "$0.05", "$1.50", "-$0.00025"]
    assert [span(one) for one in (0, 999, 1_500, 12_345_678, 3_000_000_000, 4_000_000_000_000)] == [
        "0 ns", "999 ns", "1.5 us", "12.3 ms", "3 s", "4000 s",
    ]  # fmt: skip
    assert (said("a"), said({"a": 1})) == ("a", '{\n  "a": 1\n}')


def test_what_was_saved_and_what_was_lost_are_told_apart() -> None:
    assert saving(2000, 5_000_000) == "saved $0.002 and 5 ms against the learner's mean"
    assert saving(2000, -5_000_000) == "saved $0.002, took 5 ms more than the learner's mean"
    assert saving(None, None).startswith("what it saved is not known")
    assert saving(None, 7) == "saved 7 ns against the learner's mean"


def test_ctrl_c_stops_the_loop_between_effects_and_no_other_mode_is_tried(
    bus: Bus, own: Settings, space: Path, tmp_path: Path
) -> None:
    file = tmp_path / "long.mk"
    file.write_text('task Long { step wait: tool.run { cmd: "touch begun; sleep 60" shell: true } }')
    command = [sys.executable, "-m", "morphogen.cli", "--home", str(own.home), "do", "wait long", "--with", str(file)]
    with subprocess.Popen([*command, "--workspace", str(space)], stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 30
        while not (space / "begun").exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in err
    last = [seen.event for seen in bus.events(family="dispatch")][-2:]
    assert [type(event) for event in last] == [DispatchDecided, DispatchFinished]  # and nothing fell back
    assert "it was stopped" in str(last[1].error)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "backend = 1",
        "nonsense = 1",
        "[[program]]\ngoal = 'x'",
        "= ",
        "[thresholds]\nnone = 1",
        "rounds = -1",
        "rounds = 0",
        f"rounds = {10**30}",
    ],
)
def test_settings_that_cannot_be_understood_are_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "do.toml"
    path.write_text(text)
    with pytest.raises(DoError) as caught:
        read_settings(path, named=True)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("option", ["--dry-run", "--read-only"])
def test_who_only_looks_makes_no_folder(cli: Cli, space: Path, option: str) -> None:
    space.rename(space.with_name("elsewhere"))

    refused = cli("look", option)

    assert (refused.code, space.exists()) == (2, False)
    assert "there is no folder" in refused.err


def test_settings_may_be_left_out(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "none.toml", named=False) == DoSettings()


def test_a_request_that_was_killed_is_told_at_the_next_start_and_only_there(
    cli: Cli, bus: Bus, own: Settings, space: Path, tmp_path: Path
) -> None:
    file = tmp_path / "killed.mk"
    file.write_text('task Killed { step wait: tool.run { cmd: "touch begun; sleep 60" shell: true } }')
    command = [sys.executable, "-m", "morphogen.cli", "--home", str(own.home), "do", "be killed", "--with", str(file)]
    with subprocess.Popen([*command, "--workspace", str(space)]) as process:
        until = time.monotonic() + 30
        while not (space / "begun").exists() and time.monotonic() < until:
            time.sleep(0.02)
        process.kill()

    assert "an earlier request was not finished: be killed" in cli("anything").err
    assert "not finished" not in cli("anything").err
    assert not read_state(bus).unfinished
