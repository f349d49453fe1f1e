"""Every verb, as a person types it, against a real broker.

What a verb says and leaves behind is looked at in this process: one of its own costs a second of imports. What only a
process shows (that it starts, its signals, its raw output, its last words) is looked at in one.
"""

import asyncio
import contextlib
import csv
import errno
import functools
import io
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import morphogen
from morphogen.bus.broker import Endpoint
from morphogen.bus.broker.state import process_born
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, stream_info
from morphogen.cli.app import run
from morphogen.consumers.projections.sql import query as asking
from morphogen.consumers.projections.sql.query import SqlClient


@dataclass
class Done:
    """What a command line said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


Cli = Callable[..., Done]
Ok = Callable[..., str]


def process(*arguments: str, timeout: float = 60, **env: str) -> Done:
    """Run a command line as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "morphogen.cli", *arguments],
        capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **env},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def fresh_logging() -> Iterator[None]:
    """Let the command line set its logging up as in a process of its own, so that what it logs is seen on stderr."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = kept
        root.setLevel(level)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """What runs a command line in this process; the SQL client that a question opens is closed with the test."""

    def run_one(*arguments: str | Path) -> Done:
        capsys.readouterr()
        with fresh_logging():
            code = run([*map(str, arguments)])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    yield run_one
    SqlClient.shared().close()


@pytest.fixture
def ok(cli: Cli) -> Ok:
    """What runs a command line in this process, and returns what it printed when all went well."""

    def run_one(*arguments: str | Path) -> str:
        done = cli(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_one


def record_digits() -> None:
    """Record one run to its end."""
    with morphogen.record("digits", config={"lr": 0.1}) as run:
        for step in range(20):
            run.log(loss=1 / (step + 1), step=step)


@pytest.fixture
def recorded(settings: Settings) -> Settings:
    """A log with one finished run in it."""
    record_digits()
    return settings


async def first_sequence(settings: Settings) -> int:
    conn = await connect(settings, name="test")
    try:
        return (await stream_info(conn, LOG)).first_seq
    finally:
        await conn.close()


def test_up_status_down(settings: Settings, ok: Ok) -> None:
    before = process("status")
    assert "not running" in before.stdout
    assert before.returncode == 1
    up = process("up")
    assert (up.returncode, up.stderr) == (0, "")
    assert "broker at nats://127.0.0.1:" in up.stdout  # and it goes on without the process that started it
    assert asyncio.run(first_sequence(settings)) == 1, "the streams are there"
    assert "none running" in ok("status")
    assert "broker stopped" in process("down").stdout
    assert "no broker was running" in ok("down")


def test_a_projector_in_the_background_answers_and_ends_with_sigterm(recorded: Settings, cli: Cli, ok: Ok) -> None:
    started = ok("up", "--projector")
    pid = int(started.split("projector, pid ")[1].split()[0])
    try:
        assert json.loads(ok("sql", "SELECT count(*) AS n FROM metrics", "-f", "json", "--wait")) == [{"n": 20}]
        assert f"pid {pid}" in ok("status")
        assert "rebuilt metrics" in ok("rebuild", "metrics")
        assert "all is as the log says" in ok("verify")
    finally:
        os.kill(pid, signal.SIGTERM)
    for _ in range(100):
        if "none running" in cli("status").stdout:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the projector did not end")


def test_a_projector_that_hangs_is_named(recorded: Settings, cli: Cli, ok: Ok, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = int(ok("up", "--projector").split("projector, pid ")[1].split()[0])
    impatient = functools.partial(asking.status, timeout=0.3)
    monkeypatch.setattr(asking, "status", impatient)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert f"projector  does not answer (pid {pid})" in ok("status")
        again = cli("up", "--projector")
        assert again.returncode == 1
        assert f"the projector does not answer (pid {pid})" in again.stderr
        assert f"its projector, pid {pid}, which does not answer, waits for the next one" in process("down").stdout
    finally:
        os.kill(pid, signal.SIGKILL)


def test_streams_that_are_closed_are_nobodys_files(settings: Settings) -> None:
    code = "import os, sys; [os.close(stream) for stream in range(3)]; sys.argv = ['morphogen', 'up']\n"
    code += "import morphogen.cli as cli\n"
    code += "try:\n    cli.main()\nexcept SystemExit as end:\n    sure = all(os.readlink(f'/proc/self/fd/{n}') == os.devnull for n in range(3))\n"
    code += "    os._exit(end.code or (0 if sure else 9))"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 0
    assert "none running" in process("status").stdout


def test_without_torch_every_name_can_be_shown(settings: Settings) -> None:
    code = "import sys, inspect; sys.modules['torch'] = None; import morphogen\nfrom morphogen import *\n"
    code += "inspect.getmembers(morphogen); help(morphogen)\n"
    code += "try: fuse(None)\nexcept ImportError as error: print('TOLD', error)\n"
    code += "from morphogen.cli.app import run\nsys.exit(run(['policy', 'train', '--runs', 'x']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "TOLD fuse needs torch: pip install 'morphogen[adapt]'" in done.stdout
    assert (done.returncode, done.stderr) == (1, "morphogen: Trainer needs torch: pip install 'morphogen[policy]'\n")


def test_sql_in_every_format(recorded: Settings, tmp_path: Path, ok: Ok) -> None:
    question = "SELECT step, value FROM metrics WHERE step < 3 ORDER BY step"

    table = ok("sql", question)
    assert "step" in table
    assert "0.333" in table
    assert list(csv.DictReader(io.StringIO(ok("sql", question, "--format", "csv"))))[1] == {"step": "1", "value": "0.5"}
    assert json.loads(ok("sql", question, "-f", "json"))[0] == {"step": 0, "value": 1.0}
    assert len(process("sql", question, "-f", "jsonl").stdout.splitlines()) == 3
    ok("sql", question, "-o", str(tmp_path / "rows.parquet"))
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 3
    piped = subprocess.run(
        [sys.executable, "-m", "morphogen.cli", "sql", "-", "-f", "arrow"],
        input=question.encode(),
        capture_output=True,
        check=True,
    )
    assert piped.stdout


def test_the_past_in_sql(recorded: Settings, ok: Ok) -> None:
    assert json.loads(ok("sql", "SELECT count(*) AS n FROM events", "--as-of", "1", "-f", "json")) == [{"n": 1}]
    assert json.loads(ok("sql", "SELECT status FROM runs", "--as-of", "1", "-f", "json")) == [{"status": "running"}]
    assert json.loads(ok("sql", "SELECT count(*) AS n FROM events", "--as-of", "1h ago", "-f", "json")) == [{"n": 0}]


WRONG = [
    (("sql", "selct 1"), "syntax error"),
    (("sql", "DROP TABLE metrics"), "refused"),
    (("sql", "WITH x AS (INSERT INTO metrics VALUES (1)) SELECT 1"), "refused"),
    (("sql", "SELECT * FROM nothing"), "nothing"),
    (("sql", "SELECT 1", "--as-of", "yesterday-ish"), "yesterday-ish"),
    (("replay", "--from", "soon"), "soon"),
    (("replay", "--speed", "fast"), "fast"),
    (("replay", "--from", "-99999999999w"), "calendar"),
    (("replay", "--resume", "--into", "nowhere.duckdb"), "not there to be resumed"),
    (("sql", "SELECT 1", "--timeout", "inf"), "timeout is inf"),
    (("sql", "SELECT 1", "--max-rows", "-1"), "max_rows is -1"),
    (("sql", "SELECT 1", "--as-of", "999999"), "beyond the end of the log"),
    (("dead", "show", "7"), "no dead letter"),
    (("blob", "get", "00" * 32, "x"), "blob"),
    (("schema", "no.such"), "no.such"),
    (("schema", "--import", "no_such_module"), "no_such_module"),
    (("send", "t", "n", "--arg", "novalue"), "name=value"),
    (("send", "t", "n", "-a", "x=1", "-a", "x=2"), "--arg x is given twice"),
    (("send", "t", "n", "--expires", "nan"), "nan"),
    (("send", "t", "n", "--run", "x\udcff"), r"is for run 'x\udcff', which is no text"),
    (("dead", "retry", "9" * 5000), "no dead letter"),
    (("dead", "drop", "7", "8"), "no dead letter 7"),
    (("--home", "x\udcff", "sql", "SELECT 1"), "--home holds a"),
    (("--home", "~nosuchuser/x", "status"), "~nosuchuser/x"),
    (("--home", "x" * 300, "status"), "--home"),
    (("blob", "get", "00" * 32, "."), "name a file in it"),
    (("--url", "ftp://x", "status"), "ftp://x"),
    (("--url", "a b", "status"), "'a b'"),
    (("--url", "nats://127.0.0.1:9", "sql", "SELECT 1"), "no broker"),
    (("--creds", "/no/such/file", "status"), "/no/such/file"),
    (("rebuild", "no_such_projection"), "no_such_projection"),
]


def is_one_clear_line(done: Done, says: str) -> bool:
    """Tell whether a command line failed with a line that says why, and nothing more."""
    return (
        done.returncode == 1
        and says in done.stderr
        and done.stderr.startswith("morphogen: ")
        and "Traceback" not in done.stderr
        and len(done.stderr.strip().splitlines()) <= 3
    )


@pytest.mark.parametrize(("arguments", "says"), WRONG)
def test_bad_input_gets_one_clear_line_and_a_code(
    at_lasting: Settings, arguments: tuple[str, ...], says: str, cli: Cli
) -> None:
    done = cli(*arguments)

    assert is_one_clear_line(done, says), done


def test_a_process_that_fails_says_its_line_and_ends_with_the_code(at_lasting: Settings) -> None:
    for arguments, says in (WRONG[1], WRONG[5], WRONG[-1]):
        done = process(*arguments)
        assert is_one_clear_line(done, says), done


def test_a_wrong_option_is_a_usage_error(at_lasting: Settings, cli: Cli) -> None:
    assert process("sql").returncode == 2
    assert cli("nonsense").returncode == 2
    assert cli("sql", "SELECT 1", "--format", "xml").returncode == 2


@pytest.mark.parametrize(
    "contradictory",
    [
        ("replay", "--raw", "--into", "rows.jsonl"),
        ("replay", "--resume"),
        ("replay", "--resume", "--into", "x.duckdb", "--from", "3"),
        ("replay", "--speed", "10x", "--into", "x.duckdb"),
        ("archive", "--keep", "nan"),
        ("archive", "--keep", "-1"),
        ("archive", "--upto", "-1"),
        ("tail", "-n", "-1"),
        ("replay", "--type", ""),
        ("schema", "--lock", "lock.json", "--check", "lock.json"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(
    at_lasting: Settings, contradictory: tuple[str, ...], cli: Cli
) -> None:
    done = cli(*contradictory)

    assert done.returncode == 2
    assert contradictory[1] in done.stderr


def test_an_empty_home_is_no_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    monkeypatch.setenv("MORPHOGEN_HOME", str(tmp_path / "other"))
    assert str(tmp_path / "other") in cli("--home", "", "status").stdout
    monkeypatch.delenv("MORPHOGEN_HOME")
    assert str(tmp_path / "data") in cli("--home", "", "status").stdout
    assert list(tmp_path.iterdir()) == []


def test_replay_archive_and_snapshot(recorded: Settings, tmp_path: Path, cli: Cli, ok: Ok) -> None:
    lines = [json.loads(line) for line in ok("replay", "--run", "digits", "--type", "run.*").splitlines()]
    assert [line["type"] for line in lines] == ["run.started", "run.finished"]
    assert "new messages" in ok("archive")
    kept = ok("archive", "--trim", "--keep", "0")
    assert "nothing new" in kept
    assert "forgot 0 archived messages; it keeps what is younger than 2 minutes, by which the broker" in kept
    assert "it keeps what is younger than 24 h" in ok("archive", "--trim")
    assert len(ok("replay", "--type", "metrics.scalars").splitlines()) == 20
    assert "into bus as replay" in cli("replay", "--into", "bus").stderr
    cli("replay", "--into", str(tmp_path / "then.duckdb"))
    assert (tmp_path / "then.duckdb").exists()
    written = Path(ok("snapshot", str(tmp_path / "snap"), "--format", "parquet").strip())
    assert pq.read_table(written / "metrics.parquet").num_rows == 20


def test_verify_finds_a_changed_row_and_exits_3(recorded: Settings, ok: Ok) -> None:
    import duckdb

    ok("sql", "SELECT 1")
    (path,) = recorded.projections_dir.glob("*.duckdb")
    with duckdb.connect(str(path)) as con:
        ((schema,),) = con.execute(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE 'p_metrics_%'"
        ).fetchall()
        con.execute(f"UPDATE {schema}.metrics SET value = 99 WHERE step = 7")

    done = process("verify")

    assert done.returncode == 3
    assert "metrics" in done.stdout
    assert "99" in done.stdout


def test_commands_and_dead_letters(settings: Settings, ok: Ok) -> None:
    from morphogen.bus import Bus

    deep = "[" * 5000  # JSON that no parser here goes into: a text
    given = ("--arg", "lr=0.5", "--arg", "why=because", "--arg", f"deep={deep}", "--run", "digits")
    command = ok("send", "trainer", "set_lr", *given).strip()
    seen: list[object] = []
    with Bus.open() as bus:
        with bus.serve("trainer", {"set_lr": lambda command: seen.append(command.args)}, backoff=(0.05,)):
            for _ in range(100):
                if seen:
                    break
                time.sleep(0.05)
        lost = bus.send("trainer", "unheard_of", {"a": 1}, run="digits")
        with bus.serve("trainer", {"set_lr": print}):
            for _ in range(100):
                if bus.dead.list():
                    break
                time.sleep(0.05)
    assert seen == [{"lr": 0.5, "why": "because", "deep": deep}]
    assert "unheard_of" in ok("dead", "list")
    (letter,) = [json.loads(line) for line in ok("dead", "list", "--json").splitlines()]
    assert (letter["command_id"], letter["args"]) == (lost, {"a": 1})
    assert json.loads(ok("dead", "show", lost))["name"] == "unheard_of"
    again = ok("dead", "retry", lost).strip()
    assert again not in {lost, command}
    assert "no dead letters" in ok("dead", "list")
    statuses = dict(
        json.loads(line).values()
        for line in ok("sql", "SELECT command_id, status FROM commands", "-f", "jsonl").splitlines()
    )
    assert statuses == {command: "done", lost: "retried", again: "issued"}


def test_many_letters_are_retried_or_dropped_at_once(settings: Settings, ok: Ok, cli: Cli) -> None:
    from morphogen.bus import Bus

    def numbers(*options: str) -> list[int]:
        return [json.loads(line)["number"] for line in ok("dead", "list", "--json", *options).splitlines()]

    with Bus.open() as bus:
        for number in range(9):
            bus.send("trainer" if number % 3 else "tester", "unheard_of", run=f"run{number % 2}")
        with bus.serve("trainer", {"set_lr": print}), bus.serve("tester", {"set_lr": print}):
            for _ in range(100):
                if len(bus.dead.list()) == 9:
                    break
                time.sleep(0.05)
    assert (len(numbers()), len(numbers("--target", "tester")), len(numbers("--run", "run1"))) == (9, 3, 4)
    for wrong in ((), ("1", "--all"), ("--run", "run0", "--all"), ("1", "--target", "tester")):
        assert cli("dead", "drop", *wrong).returncode == 2
    assert len(numbers()) == 9

    first, second, *_ = numbers("--target", "trainer")
    done = cli("dead", "retry", str(first), str(second), str(first))
    assert (done.returncode, len(done.stdout.split()), len(set(done.stdout.split()))) == (0, 2, 2)
    assert ok("dead", "drop", "--target", "tester", "--run", "run0") == "dropped 2 letters\n"
    assert len(numbers("--target", "tester")) == 1
    done = cli("dead", "retry", "--target", "tester")
    assert (done.returncode, done.stderr) == (0, "retried 1 letter\n")
    assert ok("dead", "drop", "--all") == "dropped 4 letters\n"
    assert numbers() == []
    assert ok("dead", "drop", "--all") == "dropped 0 letters\n"
    counts = ok("sql", "SELECT status, count(*) AS n FROM commands GROUP BY 1 ORDER BY 1", "-f", "jsonl")
    assert [tuple(json.loads(line).values()) for line in counts.splitlines()] == [
        ("dropped", 6), ("issued", 3), ("retried", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("act", ["send", "retry"])
def test_a_command_whose_id_cannot_be_printed_was_issued(
    settings: Settings, act: str, cli: Cli, ok: Ok, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphogen.bus import Bus

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    arguments: tuple[str, ...] = ("send", "trainer", "set_lr")
    if act == "retry":
        lost = ok("send", "trainer", "unheard_of").strip()
        with Bus.open() as bus, bus.serve("trainer", {"set_lr": print}):
            for _ in range(100):
                if bus.dead.list():
                    break
                time.sleep(0.05)
        arguments = ("dead", "retry", lost)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        done = cli(*arguments)

    assert is_one_clear_line(done, "the command was issued: ")
    asked = ok("sql", "SELECT command_id AS id FROM commands WHERE status = 'issued'", "-f", "jsonl")
    assert json.loads(asked)["id"] in done.stderr


@pytest.mark.parametrize(
    ("command", "closed"),
    [("know check - <&-", "input"), ("know lsp <&-", "input"), ("tail --no-follow >&-", "output")],
)
def test_a_closed_stream_that_is_needed_is_told(at_lasting: Settings, command: str, closed: str) -> None:
    shell = ["bash", "-c", f"exec {shlex.quote(sys.executable)} -m morphogen.cli {command}"]
    ended = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)

    assert is_one_clear_line(Done(ended.returncode, ended.stdout, ended.stderr), f"standard {closed} is closed")


def test_letters_that_the_terminal_lacks_are_written_as_numbers(recorded: Settings) -> None:
    done = process("sql", "SELECT chr(228) AS x", "--no-wait", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")

    assert done.returncode == 0, done.stderr
    assert r"\xe4" in done.stdout


def test_blobs_go_and_come(at_lasting: Settings, tmp_path: Path, ok: Ok) -> None:
    (tmp_path / "in").write_bytes(b"x" * 3_000_000)
    digest = ok("blob", "put", str(tmp_path / "in")).strip()
    assert process("blob", "get", digest, str(tmp_path / "out")).returncode == 0

    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_tail_shows_what_comes(recorded: Settings, ok: Ok) -> None:
    shown = ok("tail", "--no-follow", "-n", "100")
    assert "run.started" in shown
    assert "run.finished" in shown
    rows = [
        json.loads(line)
        for line in ok("tail", "--no-follow", "-n", "100", "--json", "--family", "metrics").splitlines()
    ]
    assert len(rows) == 20

    child = subprocess.Popen(
        [sys.executable, "-m", "morphogen.cli", "tail", "-n", "0"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    lines, seen = child.stdout, threading.Event()
    reader = threading.Thread(target=lambda: any("here I am" in line for line in lines) and seen.set(), daemon=True)
    reader.start()
    end = time.monotonic() + 60
    with morphogen.record("later") as run:
        while not seen.wait(0.1):  # it follows from when it is there, whenever that is
            assert time.monotonic() < end
            run.line("here I am")
    reader.join()
    child.send_signal(signal.SIGINT)
    assert child.wait(10) == 130
    child.stdout.close()


def test_tail_begins_with_the_last_messages_of_what_is_asked_for(recorded: Settings, ok: Ok) -> None:
    for number in range(3):
        with morphogen.record("other") as run:
            run.log(step=number, loss=1.0)

    def types(*options: str) -> list[str]:
        shown = ok("tail", "--no-follow", "--json", *options)
        return [json.loads(line)["type"] for line in shown.splitlines()]

    assert set(types("--run", "digits", "-n", "2")) == set(types("--run", "digits", "-n", "100")[-2:])
    assert types("--run", "digits", "--family", "metrics", "-n", "1")[-1] == "metrics.scalars"
    assert types("--family", "metrics", "-n", "2") == 2 * ["metrics.scalars"]
    assert types("--run", "digits", "-n", "0") == types("--run", "nobody") == []


def test_schema_of_ones_own_events(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from morphogen import Event\nclass Mine(Event, type='mine.thing', version=1):\n    x: int\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    document = json.loads(process("schema", "--import", "mine", **env).stdout)
    assert {"mine.thing@1", "metrics.scalars@1"} <= set(document["$defs"])

    lock = str(tmp_path / "lock.json")
    assert process("schema", "--import", "mine", "--lock", lock, **env).returncode == 0
    assert process("schema", "--import", "mine", "--check", lock, **env).returncode == 0
    (tmp_path / "mine.py").write_text(
        "from morphogen import Event\nclass Mine(Event, type='mine.thing', version=1):\n    x: float\n"
    )
    changed = process("schema", "--import", "mine", "--check", lock, **env)
    assert changed.returncode == 1
    assert "mine.thing version 1 changed" in changed.stdout
    (tmp_path / "mine.py").write_text(
        "from morphogen import Event\nclass Mine(Event, type='mine.thing', version=1):\n    x: int\n    y: int = 3\n"
    )
    assert process("schema", "--import", "mine", "--check", lock, **env).returncode == 0


def test_a_schema_check_that_checks_nothing_is_no_success(tmp_path: Path, cli: Cli, ok: Ok) -> None:
    lock = tmp_path / "lock.json"
    for nothing in ('{"name": "x", "version": "1"}', "{}", '{"no.such@1": {}}', "[" * 100_000):
        lock.write_text(nothing)
        assert is_one_clear_line(cli("schema", "--check", lock), "lock.json")

    ok("schema", "run.started", "--lock", lock)
    ok("schema", "metrics.scalars", "--check", lock)  # new since


def test_a_module_that_ends_the_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    (tmp_path / "ends_at_import.py").write_text("import sys\nsys.exit()\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert is_one_clear_line(cli("schema", "--import", "ends_at_import"), "cannot be imported: SystemExit")


def test_every_verb_has_help_and_stands_in_the_readme() -> None:
    import typer

    from morphogen.cli import verbs  # noqa: F401
    from morphogen.cli.app import app

    group = typer.main.get_command(app)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    docs = readme + "".join(path.read_text() for path in (Path(__file__).parents[2] / "docs").glob("*.md"))
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert command.help, f"{name} has no help"
        assert f"morphogen {name}" in docs, f"{name} is not in the documents"


SECRET = "nats://me:hunter2@127.0.0.1:9"


def test_no_password_of_an_address_is_shown_and_up_says_where_nobody_answers(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORPHOGEN_URL", SECRET)
    for verb in ("status", "up"):
        done = cli(verb)
        assert done.returncode == 1
        assert "nats://127.0.0.1:9" in done.stdout + done.stderr
        assert "hunter2" not in done.stdout + done.stderr
    assert "broker at" not in cli("up").stdout


def test_a_projector_in_the_background_gets_its_address_where_nobody_sees_it(
    settings: Settings, broker: Endpoint, cli: Cli
) -> None:
    url = broker.urls[0].replace("//", f"//{broker.token}@")
    done = cli("--url", url, "up", "--projector")
    assert done.returncode == 0, done.stderr
    assert str(broker.token) not in done.stdout
    pid = int(done.stdout.split("projector, pid ")[1].split()[0])
    try:
        assert str(broker.token) not in Path(f"/proc/{pid}/cmdline").read_text()
    finally:
        os.kill(pid, signal.SIGTERM)
        while process_born(pid) is not None:
            time.sleep(0.02)


def test_output_goes_behind_links_and_into_pipes(at_lasting: Settings, tmp_path: Path, ok: Ok) -> None:
    (tmp_path / "in").write_bytes(b"x" * 300_000)
    digest = ok("blob", "put", tmp_path / "in").strip()
    real, link, pipe = tmp_path / "real.csv", tmp_path / "link.csv", tmp_path / "pipe.csv"
    real.write_text("older")
    link.symlink_to(real)
    os.mkfifo(pipe)

    ok("sql", "SELECT 7 AS n", "-o", link)
    assert link.is_symlink()
    assert real.read_text().split() == ['"n"', "7"]

    for arguments, first in ((("sql", "SELECT 7 AS n", "-o", pipe), b'"n"'), (("blob", "get", digest, pipe), b"xxx")):
        got: list[bytes] = []
        reader = threading.Thread(target=lambda got=got: got.append(pipe.read_bytes()), daemon=True)
        reader.start()
        ok(*map(str, arguments))
        reader.join(10)
        assert pipe.is_fifo()
        assert got[0].startswith(first)

    streamed = process("blob", "get", digest, "/dev/stdout")
    assert (streamed.returncode, streamed.stdout) == (0, "x" * 300_000)
    with (tmp_path / "log").open("w") as log:
        log.write("before\n")
        log.flush()
        subprocess.run(
            [sys.executable, "-m", "morphogen.cli", "blob", "get", digest, "/dev/stdout"],
            stdout=log, stderr=subprocess.PIPE, check=True,
        )  # fmt: skip
    assert (tmp_path / "log").read_text() in ("x" * 300_000, "before\n" + "x" * 300_000)


def test_sync_fails_where_it_understands_nothing(settings: Settings, cli: Cli) -> None:
    stray = settings.spool_dir / "foo" / "bar"
    stray.mkdir(parents=True)

    done = cli("sync")

    assert done.returncode == 1
    assert "living" not in done.stdout
    assert str(stray) in done.stderr


def test_sql_says_what_it_misses_and_writes_in_any_encoding(recorded: Settings, tmp_path: Path, ok: Ok) -> None:
    shell = '"$@" {} ' + f"2>{tmp_path}/said"
    command = [sys.executable, "-m", "morphogen.cli", "sql"]
    for closed, rest in (("<&-", ["-"]), (">&-", ["SELECT 1"])):
        done = subprocess.run(["sh", "-c", shell.format(closed), "sh", *command, *rest], check=False)
        assert done.returncode == 1
        assert "is closed" in (tmp_path / "said").read_text()
        assert len((tmp_path / "said").read_text().splitlines()) == 1
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    spoiled = subprocess.run([*command, "-"], input=b"\xff", stderr=subprocess.PIPE, env=strict, check=False)
    assert b"not UTF-8 text" in spoiled.stderr
    letter, plain = "SELECT chr(26085) AS a", {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    assert "\\u65e5" in process("sql", letter, PYTHONIOENCODING="ascii").stdout
    done = process("sql", letter, "-f", "json", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout) == [{"a": "日"}]
    assert process("sql", letter, "-o", str(tmp_path / "t.txt"), **plain).returncode == 0
    assert "日" in (tmp_path / "t.txt").read_text(encoding="utf-8")
    assert "Decimal" not in ok("sql", "SELECT [1.5] AS d")
    assert "0 days 1.5 s" in ok("sql", "SELECT INTERVAL '1.5 s' AS i")


def test_a_reader_that_has_had_enough_is_no_failure(recorded: Settings, tmp_path: Path) -> None:
    many = ["sql", "SELECT range, repeat('x', 100) FROM range(50000)", "-f", "csv"]
    with subprocess.Popen([sys.executable, "-m", "morphogen.cli", *many], stdout=subprocess.PIPE) as asker:
        assert asker.stdout is not None
        assert asker.stdout.read(20)
        asker.stdout.close()
        assert asker.wait(60) == 0
    os.mkfifo(tmp_path / "pipe")
    asker = subprocess.Popen(
        [sys.executable, "-m", "morphogen.cli", *many, "-o", str(tmp_path / "pipe")], stderr=subprocess.PIPE, text=True
    )
    with (tmp_path / "pipe").open("rb", buffering=0) as pipe:
        assert pipe.read(20)
    _, said = asker.communicate(timeout=60)
    assert asker.returncode == 1
    assert said.strip() == f"morphogen: Broken pipe: {tmp_path / 'pipe'}"


@pytest.mark.parametrize(
    "arguments", [["rebuild"], ["snapshot"], ["loop", "run", "--run"], ["send", "t", "a", "--run"]]
)
def test_bytes_that_are_no_utf8_are_told_in_one_line(
    recorded: Settings, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "loop":
        (tmp_path / "one.mk").write_text('task One { step a: tool.write { path: "x" content: "y" } }')
        arguments = ["loop", "run", "one.mk", "--run"]
    done = cli(*arguments, "x\udcff\udcfey")

    assert done.returncode in (1, 2)
    assert "x\\udcff" in done.stderr
    assert "unexpected" not in done.stderr
