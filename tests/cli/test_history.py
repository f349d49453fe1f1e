"""What the verbs that go over the log again say to people and to pipes, on a terminal and without one."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import morphogen
from morphogen.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli.app import run
from morphogen.consumers.projections.sql.query import SqlClient

MORPHOGEN = f"{sys.executable} -m morphogen.cli"


@pytest.fixture
def recorded(settings: Settings) -> Settings:
    """A log with one finished run in it."""
    with morphogen.record("digits") as run:
        for step in range(20):
            run.log(loss=1 / (step + 1), step=step)
    return settings


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """What runs a command line in this process, and returns its code and all that it said."""

    def run_one(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = run([*map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run_one


def on_a_terminal(command: str, *, interrupt_when: Callable[[], bool] | None = None) -> tuple[int, str]:
    """Run a shell command whose input, output and errors are a terminal; return its code and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", command])
    shown = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if interrupt_when is not None and interrupt_when():
            os.write(terminal, b"\x03")
            interrupt_when = None
        if not select.select([terminal], [], [], 0.05)[0]:
            continue
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_what_is_sent_elsewhere_than_the_terminal_gets_there(recorded: Settings, tmp_path: Path) -> None:
    code, shown = on_a_terminal(f"{MORPHOGEN} replay > {tmp_path}/all.jsonl; {MORPHOGEN} replay | head -n 3")

    assert code == 0
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) >= 22
    assert shown.count('{"seq"') == 3


def test_lines_on_the_terminal_itself_are_whole(recorded: Settings) -> None:
    code, shown = on_a_terminal(f"stty cols 40; {MORPHOGEN} replay --type 'run.*' --speed 0.9x")

    assert code == 0
    rows = [line for line in shown.splitlines() if line.startswith("{")]
    assert len(rows) == 2
    assert all(row.endswith("}") for row in rows)


def test_ctrl_c_says_where_to_go_on_and_what_is_kept(recorded: Settings, tmp_path: Path) -> None:
    part = tmp_path / "slow.jsonl.part"
    slow = f"exec {MORPHOGEN} replay --speed 0.0001x --into {tmp_path}/slow.jsonl"
    started: list[float] = []

    def a_while_later() -> bool:
        if part.exists():
            started.append(time.monotonic())
        return bool(started) and time.monotonic() - started[0] > 0.5

    code, shown = on_a_terminal(slow, interrupt_when=a_while_later)

    assert code == 130
    (saved,) = tmp_path.iterdir()
    assert saved.name.startswith("slow.upto-")
    assert f"what came is in {saved}; go on with --from" in shown


@pytest.mark.parametrize(("verb", "says"), [("verify", "nothing was changed"), ("rebuild", "--resume")])
def test_ctrl_c_is_told(
    recorded: Settings, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., tuple[int, str]], verb: str, says: str
) -> None:
    def pressed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    monkeypatch.setattr("morphogen.consumers.projections.store.Store.commit", pressed)
    monkeypatch.setattr(f"morphogen.replay.{verb}.extent", pressed)

    code, said = cli(verb)

    assert code == 130
    assert "morphogen: interrupted" in said
    assert says in said


@pytest.mark.parametrize("raw", ["", " --raw"])
def test_a_closed_output_is_one_line(recorded: Settings, raw: str) -> None:
    done = subprocess.run(f"{MORPHOGEN} replay{raw} >&-", shell=True, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("morphogen: standard output is closed")
    assert len(done.stderr.splitlines()) == 1


def test_archive_says_what_it_repaired(recorded: Settings, cli: Callable[..., tuple[int, str]]) -> None:
    assert cli("archive", "--trim", "--keep", "1e300")[0] == 0
    path = next(recorded.archive_dir.glob("**/*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])

    code, said = cli("archive", "--repair")

    assert code == 0
    assert "wrote damaged files again, in the segments that begin at 1" in said


@pytest.mark.parametrize("point", ["9999-12-31", "9999-12-31T23:59:59.999999", "2300-01-01"])
def test_times_that_no_clock_has_are_before_or_after_all(
    recorded: Settings, cli: Callable[..., tuple[int, str]], point: str
) -> None:
    assert "events in" in cli("replay", "--to", point)[1]
    assert "no events" in cli("replay", "--from", point)[1]
    assert "events in" in cli("replay", "--from", "0001-01-01", "--to", point)[1]


def test_the_archive_is_read_without_a_broker(recorded: Settings, cli: Callable[..., tuple[int, str]]) -> None:
    assert cli("archive")[0] == 0
    everything = cli("replay")[1]
    assert cli("down")[0] == 0

    assert cli("replay", "--offline") == (0, everything)
    assert "holds no log nope" in cli("replay", "--offline", "--log", "nope")[1]
    assert cli("replay", "--offline", "--into", "bus")[0] == 2
    assert cli("replay", "--log", "nope")[0] == 2


def test_bodies_that_no_archive_holds_are_told_and_the_verb_fails(
    settings: Settings, cli: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    with morphogen.record("wide") as run:
        run.line("x" * 600_000)
    assert cli("archive")[0] == 0
    code, said = cli("tail", "--no-follow", "-n", "10", "--family", "log")
    assert (code, "log.line {" in said, "x" * 100 in said) == (0, True, True)
    assert len(cli("replay", "--type", "log.line")[1]) > 600_000
    assert cli("replay", "--into", tmp_path / "whole.duckdb")[0] == 0

    code, said = cli("replay", "--offline", "--into", tmp_path / "alone.duckdb")
    assert code == 1
    assert (
        "morphogen: 1 event lies in a blob, which an archive does not hold: no table made now has what it says" in said
    )
    code, said = cli("replay", "--offline", "--type", "log.line")
    assert (code, "the line names the blob instead" in said) == (1, True)

    sha256 = said.split('"$blob":"')[1].split('"')[0]
    with Bus.open(settings) as bus:
        bus.blobs.delete(sha256)
    code, said = cli("rebuild")
    assert (code, "1 event lies in a blob, gone or damaged" in said) == (0, True)
    assert "(in a blob that is gone)" in cli("tail", "--no-follow", "-n", "10", "--family", "log")[1]
    assert cli("verify")[0] == 3


def test_down_says_that_a_projector_goes_on(recorded: Settings, cli: Callable[..., tuple[int, str]]) -> None:
    pid = int(cli("up", "--projector")[1].split("projector, pid ")[1].split()[0])
    SqlClient.shared().close()
    try:
        code, said = cli("down")
        assert code == 0
        assert "broker stopped" in said
        assert f"projector, pid {pid} on" in said
    finally:
        os.kill(pid, signal.SIGTERM)
