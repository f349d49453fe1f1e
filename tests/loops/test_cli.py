"""`morphogen loop`, as a person types it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli.app import run
from morphogen.consumers.projections.sql.query import SqlClient
from morphogen.schemas import Signal


@pytest.fixture(autouse=True)
def questions(settings: Settings) -> Iterator[None]:
    """Let go of the SQL client that a question of this process opens."""
    yield
    SqlClient.shared(settings).close()


EXAMPLES = Path(__file__).parents[2] / "examples" / "knowledge"


@dataclass
class Done:
    """What a command line said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """What runs a command line in this process: a process of its own costs a second."""

    def run_one(*arguments: str | Path) -> Done:
        capsys.readouterr()
        code = run([*map(str, arguments)])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run_one


def test_the_hello_example_suspends_is_answered_and_ends(
    settings: Settings, tmp_path: Path, cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    hello, space = EXAMPLES / "hello.mk", tmp_path / "space"

    begun = cli("loop", "run", hello, "--live", "--workspace", space, "--run", "hello")
    assert begun.returncode == 3
    assert "Who shall be greeted on Linux?" in begun.stdout
    assert "answer it with:   morphogen loop answer hello --text" in begun.stderr
    assert cli("loop", "resume", "hello").returncode == 3
    answer = tmp_path / "answer.txt"
    answer.write_text("world")
    assert cli("loop", "answer", "hello", "--file", answer).returncode == 0
    ended = cli("loop", "resume", "hello")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "done: hello, 4 steps, lines 1\n"
    assert (space / "greeting.txt").read_text() == "Hello, world, on Linux.\n"
    rows = cli("sql", "SELECT number, path, action, status, output FROM loop_steps ORDER BY number", "-f", "json")
    assert [row["status"] for row in json.loads(rows.stdout)] == ["done"] * 4
    asked = cli("sql", "SELECT run, status, success, steps, processes, metrics.lines FROM loops", "-f", "jsonl")
    assert json.loads(asked.stdout) == {
        "run": "hello", "status": "done", "success": True, "steps": 4, "processes": 2, "lines": 1.0,
    }  # fmt: skip
    metrics = cli("sql", "SELECT name, value FROM metrics WHERE run = 'hello' ORDER BY name", "-f", "jsonl")
    assert [json.loads(line) for line in metrics.stdout.splitlines()] == [
        {"name": "lines", "value": 1.0}, {"name": "success", "value": 1.0},
    ]  # fmt: skip
    monkeypatch.setenv("COLUMNS", "20")
    assert [line for line in cli("loop", "list").stdout.splitlines() if "hello" in line and "done" in line]
    listed = json.loads(cli("loop", "list", "--json").stdout)
    assert (listed["run"], listed["status"], listed["attempts"]) == ("hello", "done", 2)
    shown = json.loads(cli("loop", "show", "hello", "--json").stdout)
    assert shown["variables"]["who"] == "world"
    assert "greet" in cli("loop", "show", "hello").stdout
    traced = [json.loads(line)["type"] for line in cli("loop", "trace", "hello", "--json").stdout.splitlines()]
    assert traced[0] == "loop.started"
    assert traced[-1] == "loop.finished"
    assert "suspended" in cli("loop", "trace", "hello").stdout


def test_an_answer_may_come_from_an_editor_and_the_run_go_on_at_once(
    settings: Settings, tmp_path: Path, cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\ngrep -q "# Who shall be greeted" "$1" && echo "editor" > "$1"\n')
    editor.chmod(0o755)
    cli("loop", "run", EXAMPLES / "hello.mk", "--live", "--workspace", tmp_path / "s", "--run", "e")

    monkeypatch.setenv("VISUAL", str(editor))
    done = cli("loop", "answer", "e", "--editor", "--resume")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / "greeting.txt").read_text() == "Hello, editor, on Linux.\n"


def test_the_other_examples_run(settings: Settings, tmp_path: Path, cli: Callable[..., Done]) -> None:
    done = cli("loop", "run", EXAMPLES / "sysadmin.mk", "--live", "--workspace", tmp_path / "s", "--set", "keep_days=7")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / "report.md").read_text().startswith("# Scratch folder\nBefore: 0 files. Removed: 0.")
    broken = cli(
        "loop", "run", EXAMPLES / "sysadmin.mk", "--live", "--workspace", tmp_path / "s", "--set", "keep_days=0"
    )
    assert broken.returncode == 1
    assert "invariant Housekeeping.Harmless is false: keep_days >= 1" in broken.stderr


def test_a_service_ends_cleanly_with_ctrl_c_and_goes_on(
    settings: Settings, tmp_path: Path, cli: Callable[..., Done]
) -> None:
    command = [sys.executable, "-m", "morphogen.cli", "loop"]
    place = ["--live", "--workspace", str(tmp_path / "s"), "--run", "shop"]
    for number, arguments in enumerate((["run", str(EXAMPLES / "service.mk"), "Invoices", *place], ["resume", "shop"])):
        service = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with Bus.open(settings) as bus:
            end = time.monotonic() + 20
            while time.monotonic() < end and not (tmp_path / "s" / f"invoice-{number}.txt").exists():
                event = Signal(name="order", values={"id": number, "amount": 2.5})
                bus.emit(event, run="client", msg_id=f"order-{number}-{time.monotonic_ns()}")
                time.sleep(0.3)
        service.send_signal(signal.SIGINT)
        _, said = service.communicate(timeout=20)
        assert (service.returncode, "Traceback" in said) == (0, False), said
        assert "`morphogen loop resume shop` goes on" in said
    assert (tmp_path / "s" / "invoice-1.txt").read_text() == "order 1: 2.5\n"


def test_a_second_sigterm_ends_a_run_that_waits_for_its_program(settings: Settings, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "morphogen.cli", "loop", "run", str(tmp_path / "pipe")]
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    end = time.monotonic() + 20
    while waiting.poll() is None and time.monotonic() < end:
        waiting.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    waiting.kill()
    assert (waiting.returncode, "Traceback" in waiting.communicate()[1]) == (130, False)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "nowhere.mk"], 2, "nowhere.mk"),
        (["run", "broken.mk"], 2, "error["),
        (["run", "good.mk", "other"], 2, "other"),
        (["run", "good.mk", "--set", "novalue"], 2, "--set takes name=value"),
        (["run", "good.mk", "--live", "--backend", "parrot"], 2, "no backend 'parrot'"),
        (["run", "good.mk", "--workspace", "good.mk"], 1, "is a file: name a folder"),
        (["resume", "nobody"], 2, "the log holds no loop run 'nobody'"),
        (["answer", "nobody", "--text", "x"], 2, "the log holds no loop run 'nobody'"),
        (["answer", "nobody"], 2, "give the answer by one of"),
        (["run", "good.mk", "--set", "nosuch=3"], 2, "the program says nowhere `nosuch`"),
        (["run", "good.mk", "--set", "x=" + "[" * 20_000], 2, "the program says nowhere `x`"),
        (["run", "good.mk", "--set", "x=" + "9" * 400], 2, "--set x: cannot encode"),
        (["run", "good.mk", "--set", "x=\udcff"], 2, "--set x: cannot encode"),
    ],
)
def test_what_is_wrong_is_a_line_and_a_code_and_never_a_traceback(
    settings: Settings, tmp_path: Path, cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, said: str,
) -> None:  # fmt: skip
    (tmp_path / "good.mk").write_text('task t { step a: tool.write { path: "a" content: "1" } }')
    (tmp_path / "broken.mk").write_text("task t { step a: tool.rum { } }")
    monkeypatch.chdir(tmp_path)

    done = cli("loop", *arguments)

    assert done.returncode == code, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "editor", "said"),
    [
        (["--file", "bad.txt"], "", "the answer is no text: bad.txt: byte 1 is no UTF-8"),
        (["--file", "."], "", "the answer cannot be read: .: Is a directory"),
        (["--file", "long.txt"], "", "longer than 256 KiB"),
        (["--file", "/dev/zero"], "", "longer than 256 KiB"),
        (["--text", "\udcff"], "", "is no character: write UTF-8"),
        (["--editor"], '"', "cannot be split into words: No closing quotation; set EDITOR"),
        (["--editor"], " ", "the editor is empty: set EDITOR"),
        (["--editor"], "cp bad.txt", "left no text of UTF-8"),
    ],
)
def test_an_answer_that_is_none_is_told_and_the_run_goes_on_waiting(
    settings: Settings, tmp_path: Path, cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], editor: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISUAL", editor)
    (tmp_path / "bad.txt").write_bytes(b"a\xff")
    (tmp_path / "long.txt").write_text("x" * 300_000)
    (tmp_path / "q.mk").write_text('task t { step q: llm.query { prompt: "?" } }')
    cli("loop", "run", "q.mk", "--live", "--workspace", "s", "--run", "q")

    done = cli("loop", "answer", "q", *arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert cli("loop", "answer", "q", "--text", "fine", "--resume").returncode == 0


def test_without_a_broker_there_is_one_line(
    home: Path, tmp_path: Path, cli: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "good.mk"
    program.write_text('task t { step a: tool.write { path: "a" content: "1" } }')
    monkeypatch.setenv("MORPHOGEN_URL", "nats://127.0.0.1:1")

    done = cli("loop", "run", program)

    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no broker answers" in done.stderr
