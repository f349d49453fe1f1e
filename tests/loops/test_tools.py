"""What tools do and refuse, one by one, against real files, processes and servers."""

import asyncio
import contextlib
import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from morphogen.bus.bus import Bus
from morphogen.consumers.projections.follow.projector import run_projector
from morphogen.consumers.projections.sql.service import serve_until_cancelled
from morphogen.producers.loops import runner
from morphogen.producers.loops.context import LoopContext, Place
from morphogen.producers.loops.errors import Interrupted, LoopError, StepFailed, ToolFailed, ToolRefused
from morphogen.producers.loops.tools import Toolbox, ToolCall, tool
from morphogen.producers.loops.tools.python import PythonTool
from morphogen.producers.loops.tools.sql import ask
from morphogen.producers.loops.workspace import Workspace
from morphogen.schemas import Metrics
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.program import load_text

PROGRAM = load_text("task t { step a: tool.run { cmd: 'true' } }")


@pytest.fixture
def context(tmp_path: Path) -> LoopContext:
    return make(tmp_path)


def make(tmp_path: Path, **more: Any) -> LoopContext:
    found = LoopContext(
        run="run",
        loop="t",
        program=PROGRAM,
        workspace=Workspace.open(tmp_path / "space"),
        tools=Toolbox.standard(installed=False),
        **{"live": True, **more},
    )
    found._place = lambda: Place("a", 1, "k" * 32)
    return found


# tool.run -------------------------------------------------------------------------------------------------------


def test_a_program_gets_its_arguments_and_no_shell(context: LoopContext) -> None:
    result = context.call("tool.run", {"cmd": "printf '%s|' 'a b' $HOME '*' ; echo"})

    assert result.output == "a b|$HOME|*|;|echo|"
    assert result.resources["exit_code"] == 0


def test_a_list_is_the_argument_vector_and_a_shell_comes_when_asked_for(context: LoopContext) -> None:
    assert context.call("tool.run", {"cmd": ["printf", "%s", "a; b"]}).output == "a; b"
    assert context.call("tool.run", {"cmd": "echo a; echo b", "shell": True}).output == "a\nb"
    with pytest.raises(ToolRefused, match="a shell takes one string"):
        context.call("tool.run", {"cmd": ["echo"], "shell": True})


def test_an_exit_code_is_a_failure_with_the_last_line_that_was_said(context: LoopContext) -> None:
    with pytest.raises(ToolFailed, match=r"ended with exit code 3: no luck$") as caught:
        context.call("tool.run", {"cmd": "echo out; echo no luck >&2; exit 3", "shell": True})

    assert caught.value.output.output == "out"  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["", "   ", "'unclosed"])
def test_a_command_that_is_none_is_refused(context: LoopContext, command: str) -> None:
    with pytest.raises(ToolRefused):
        context.call("tool.run", {"cmd": command})


def test_a_program_that_is_not_there_is_one_line(context: LoopContext) -> None:
    with pytest.raises(ToolFailed, match="there is no program 'no-such-program' to start"):
        context.call("tool.run", {"cmd": "no-such-program --now"})


def test_the_time_limit_ends_the_whole_process_group(context: LoopContext) -> None:
    began = time.monotonic()
    with pytest.raises(ToolFailed, match=r"was stopped after 0\.3 s"):
        context.call("tool.run", {"cmd": "sleep 60 & echo $! > child; sleep 60", "shell": True, "timeout": 0.3})

    assert time.monotonic() - began < 5
    child = int(context.workspace.read("child"))
    assert _gone(child)


def test_a_program_that_ignores_the_request_to_end_is_killed(context: LoopContext) -> None:
    with pytest.raises(ToolFailed, match="was stopped after"):
        context.call("tool.run", {"cmd": "trap '' TERM; sleep 60; sleep 60", "shell": True, "timeout": 0.2})


def test_being_asked_to_stop_ends_the_program(tmp_path: Path) -> None:
    context = make(tmp_path)
    asked = time.monotonic() + 0.2

    def check() -> None:
        if time.monotonic() > asked:
            raise Interrupted("stop")

    context._stopped = check
    with pytest.raises(Interrupted):
        context.call("tool.run", {"cmd": "echo $$ > me; exec sleep 60", "shell": True})
    assert _gone(int(context.workspace.read("me")))


def test_secrets_of_the_environment_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    monkeypatch.setenv("WANTED", "yes")
    policy = tmp_path / "space" / ".morphogen" / "policy.toml"
    policy.parent.mkdir(parents=True)
    policy.write_text('environment = ["WANTED"]\n')
    context = make(tmp_path)

    given = context.call("tool.run", {"cmd": "env", "env": {"COUNT": 3}}).output

    assert "secret" not in given
    assert "WANTED=yes" in given
    assert "COUNT=3\n" in f"{given}\n"
    assert f"MORPHOGEN_LOOP_KEY={'k' * 32}" in given


def test_long_output_is_kept_at_both_ends_and_whole_in_a_blob(tmp_path: Path, bus: Bus) -> None:
    context = make(tmp_path, bus=bus)
    script = "import sys; sys.stdout.write('a' * 5000 + 'b' * 5000)"

    result = context.call("tool.run", {"cmd": [sys.executable, "-c", script], "max_output": 1000})

    assert result.output.startswith("a" * 700)
    assert result.output.endswith("b" * 200)
    assert "9,000 of 10,000 bytes left out" in result.output
    assert bus.blobs.get(result.blobs["stdout"]) == b"a" * 5000 + b"b" * 5000


def test_what_a_program_used_is_recorded(context: LoopContext) -> None:
    script = (
        "import time; x = bytearray(200_000_000); t = time.process_time()\nwhile time.process_time() < t + 0.1: pass"
    )

    result = context.call("tool.run", {"cmd": [sys.executable, "-c", script]})

    assert result.resources["cpu_s"] >= 0.1
    assert result.resources["max_rss_bytes"] > 200_000_000
    assert result.duration_ns > 100_000_000


def test_a_dry_run_starts_nothing_and_its_plan_is_no_result(tmp_path: Path) -> None:
    context = make(tmp_path, live=False)

    run = context.call("tool.run", {"cmd": "touch made"})
    write = context.call("tool.write", {"path": "made", "content": "x"})

    assert run.planned
    assert run.output is None
    assert run.plan["argv"] == ["touch", "made"]
    assert write.planned
    assert not context.workspace.exists("made")


def test_a_folder_outside_is_no_place_to_start_in(context: LoopContext) -> None:
    with pytest.raises(ToolRefused):
        context.call("tool.run", {"cmd": "true", "cwd": ".."})
    with pytest.raises(ToolRefused, match="there is no folder"):
        context.call("tool.run", {"cmd": "true", "cwd": "nowhere"})


def test_arguments_are_held_to_the_signature(context: LoopContext) -> None:
    with pytest.raises(ToolRefused, match="takes no cdw"):
        context.call("tool.run", {"cmd": "true", "cdw": "."})
    with pytest.raises(ToolRefused, match="cmd must be string or list, got a number"):
        context.call("tool.run", {"cmd": 3})
    with pytest.raises(ToolRefused, match="cmd is unknown or missing"):
        context.call("tool.run", {"cmd": None})
    with pytest.raises(ToolRefused, match=r"there is no tool tool\.rum: did you mean tool\.run\?"):
        context.call("tool.rum", {})


# tool.read and tool.write ---------------------------------------------------------------------------------------


def test_what_was_written_is_read(context: LoopContext) -> None:
    assert context.call("tool.write", {"path": "a.txt", "content": "höi\n"}).output == "a.txt"
    context.call("tool.write", {"path": "a.txt", "content": "more", "mode": "append"})

    assert context.call("tool.read", {"path": "a.txt"}).output == "höi\nmore"
    context.call("tool.write", {"path": "a.json", "content": {"x": [1, None, float("nan")]}})
    assert json.loads(context.workspace.read("a.json")) == {"x": [1, None, "NaN"]}
    with pytest.raises(ToolFailed, match=r"has no file b\.txt"):
        context.call("tool.read", {"path": "b.txt"})
    with pytest.raises(ToolRefused, match="at most 3 are read"):
        context.call("tool.read", {"path": "a.txt", "max_bytes": 3})


def test_an_append_that_happened_before_the_process_was_killed_is_not_done_again(context: LoopContext) -> None:
    context.workspace.write("log", b"one\n")
    found, call = context.tools.prepare("tool.write", {"path": "log", "content": "two\n", "mode": "append"}, context)
    plan = found.plan(call)
    found.run(call)

    again = ToolCall(arguments=call.arguments, key=call.key, context=context, plan=plan, again=True)
    found.run(again)
    assert context.workspace.read("log") == b"one\ntwo\n"

    context.workspace.write("log", b"one\ntwo\nthree\n")
    with pytest.raises(ToolFailed, match="somebody else changed it"):
        found.run(again)


# tool.http ------------------------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Does not care for callers that hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class Site(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(1.0)
        code = 404 if self.path == "/missing" else 302 if self.path == "/away" else 200
        body = b"x" * 5000 if self.path == "/large" else b"hello"
        self.send_response(code)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        if code == 302:
            self.send_header("Location", "http://example.com/")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"got": json.loads(body), "key": self.headers["Idempotency-Key"]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def online(tmp_path: Path) -> LoopContext:
    policy = tmp_path / "space" / ".morphogen" / "policy.toml"
    policy.parent.mkdir(parents=True)
    policy.write_text('hosts = ["127.0.0.1"]\n')
    return make(tmp_path)


def test_a_request_goes_to_hosts_that_the_policy_names_and_to_no_other(
    site: str, online: LoopContext, tmp_path: Path
) -> None:
    found = online.call("tool.http", {"url": site})
    posted = online.call("tool.http", {"url": site, "method": "POST", "json": {"a": 1}})

    assert found.output["status"] == 200
    assert found.output["text"] == "hello"
    assert json.loads(posted.output["text"]) == {"got": {"a": 1}, "key": "k" * 32}
    with pytest.raises(ToolRefused, match=r"example\.com is not allowed here: put hosts"):
        online.call("tool.http", {"url": "http://example.com/"})
    with pytest.raises(ToolRefused, match="not allowed"):
        make(tmp_path / "other").call("tool.http", {"url": site})
    with pytest.raises(ToolRefused, match="no http or https"):
        online.call("tool.http", {"url": "file:///etc/passwd"})


def test_what_goes_wrong_with_a_request_is_one_line(site: str, online: LoopContext) -> None:
    with pytest.raises(ToolFailed, match="answered 404"):
        online.call("tool.http", {"url": f"{site}/missing"})
    with pytest.raises(ToolFailed, match="larger than 1,000 bytes"):
        online.call("tool.http", {"url": f"{site}/large", "max_output": 1000})
    with pytest.raises(ToolFailed, match="timed out"):
        online.call("tool.http", {"url": f"{site}/slow", "timeout": 0.2})
    with pytest.raises(ToolFailed):
        online.call("tool.http", {"url": "http://127.0.0.1:1/"})
    assert online.call("tool.http", {"url": f"{site}/away"}).output["status"] == 302  # and nobody goes there


# Python tools ---------------------------------------------------------------------------------------------------


@tool(effect="read")
def word_count(path: str, at_least: int = 1, unit: Literal["words", "lines"] = "words", *, call: ToolCall) -> int:
    """Count the words of a file of the workspace."""
    data = call.context.workspace.read(path)
    return max(at_least, len(data.split() if unit == "words" else data.splitlines()))


def test_the_annotations_of_a_function_are_its_signature_and_programs_are_held_to_it(context: LoopContext) -> None:
    box = Toolbox({"tool.word_count": PythonTool(word_count)})
    signature = box.signatures["tool.word_count"]

    assert signature.effect == "read"
    assert signature.returns == "int"
    assert signature.parameters["path"].required
    assert signature.parameters["unit"].choices == ("words", "lines")
    program = "task t {{ step a: tool.word_count {{ {} output_var: n }} success: n > 1 }}"
    load_text(program.format('path: "a.txt"'), tools=box.signatures)
    for wrong in ("", "path: 3", 'path: "a" depth: 2', 'path: "a" unit: "bytes"'):
        with pytest.raises(KnowledgeError):
            load_text(program.format(wrong), tools=box.signatures)
    context.workspace.write("a.txt", b"one two three")
    assert box.call("tool.word_count", {"path": "a.txt"}, context).output == 3
    with pytest.raises(ToolFailed, match="No such file"):
        box.call("tool.word_count", {"path": "b.txt"}, context)


def test_what_a_function_raises_is_one_line_and_what_the_language_cannot_say_is_refused(context: LoopContext) -> None:
    def breaks(x: int) -> None:
        raise ValueError("no\nluck")

    with pytest.raises(ToolFailed, match=r"tool\.breaks: ValueError: no luck$"):
        Toolbox({"tool.breaks": PythonTool(breaks)}).call("tool.breaks", {"x": 1}, context)

    def takes_bytes(x: bytes) -> None:
        """Take what the language has not."""

    with pytest.raises(ToolRefused, match="has no counterpart"):
        PythonTool(takes_bytes)


# tool.dsl_integrate ---------------------------------------------------------------------------------------------

KNOWN = """
system K {
  trace_schema { variant T { case P { x: float } } }
  knowledge {
    fact low(t: T.P) { return t.x < 1 }
    hint "Old" { trigger: "always" suggestion: "wait" }
  }
}
"""


def test_knowledge_is_merged_and_what_does_not_check_changes_nothing(context: LoopContext) -> None:
    context.workspace.write("k.mk", KNOWN.encode())
    added = 'Sure!\n```\nfact high(t: T.P) { return t.x > 9 }\nhint "Old" { trigger: "always" suggestion: "go" }\n```\nDone.'

    result = context.call("tool.dsl_integrate", {"source": added, "into": "k.mk"})

    text = context.workspace.read("k.mk").decode()
    program = load_text(text)
    assert result.output == {"path": "k.mk", "changed": True}
    assert set(program.facts) == {"K.low", "K.high"}
    assert '"go"' in text
    assert '"wait"' not in text
    for wrong in ("fact broken(t: T.P) { return t.nothing > 1 }", "fact {", "not knowledge at all"):
        with pytest.raises(ToolFailed, match="stays as it is"):
            context.call("tool.dsl_integrate", {"source": wrong, "into": "k.mk"})
    assert context.workspace.read("k.mk").decode() == text
    assert context.call("tool.dsl_integrate", {"source": added, "into": "k.mk"}).output["changed"] is False


def test_a_new_module_is_written_formatted(context: LoopContext) -> None:
    context.call("tool.dsl_integrate", {"source": KNOWN, "into": "new/k.mk"})

    assert set(load_text(context.workspace.read("new/k.mk").decode()).facts) == {"K.low"}


@pytest.mark.parametrize("way", ["{outside}", "../../{name}", "other.mk"])
def test_a_new_module_uses_no_file_outside_of_the_workspace(context: LoopContext, tmp_path: Path, way: str) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("hunter2 = 1")
    context.workspace.write("new/other.mk", f'use "{outside}"\n'.encode())
    used = way.format(outside=outside, name=outside.name)

    with pytest.raises(ToolRefused, match="workspace") as caught:
        context.call("tool.dsl_integrate", {"source": f'use "{used}"\n{KNOWN}', "into": "new/k.mk"})

    assert "hunter2" not in str(caught.value)
    assert not context.workspace.exists("new/k.mk")


def test_a_new_module_uses_modules_beside_it_and_the_library(context: LoopContext) -> None:
    context.workspace.write("shared/base.mk", b"system Base { const LIMIT = 9 }")
    context.workspace.write("new/there.mk", b"system There { const LIMIT = 8 }")
    source = f'use "../shared/base.mk"\nuse "there.mk"\nuse std.training\n{KNOWN}'

    context.call("tool.dsl_integrate", {"source": source, "into": "new/k.mk"})

    assert context.workspace.exists("new/k.mk")


def _gone(pid: int) -> bool:
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.02)
    return False


# tool.sql -------------------------------------------------------------------------------------------------------


def test_a_step_asks_the_tables_and_sees_what_the_log_holds_now(
    bus: Bus, tmp_path: Path, write: Callable[[str], Path], live: Callable[..., Any]
) -> None:
    context = make(tmp_path, bus=bus)
    with pytest.raises(ToolFailed, match="no projector answers: start one with `morphogen up --projector`"):
        context.call("tool.sql", {"query": "SELECT 1"})
    with projecting(bus):
        bus.emit(Metrics(values={"loss": 0.5}), run="train", msg_id="m")

        rows = context.call("tool.sql", {"query": "SELECT run, name, value FROM metrics"}).output
        assert rows == [{"run": "train", "name": "loss", "value": 0.5}]
        with pytest.raises(ToolFailed, match=r"tool\.sql: .*nothing"):
            context.call("tool.sql", {"query": "SELECT nothing FROM metrics"})
        path = write(
            'task t { step a: tool.sql { query: "SELECT count(*) AS n FROM loop_steps" output_var: rows } success: rows[0].n == 1 }'
        )
        assert runner.start(bus, path, run="asks", options=live()).status == "done"


def test_a_run_that_no_projector_answers_stops_where_it_stands_and_is_gone_on_with(
    bus: Bus, write: Callable[[str], Path], live: Callable[..., Any]
) -> None:
    path = write("""
task t {
  step first: tool.run { cmd: "echo once >> first.txt" shell: true }
  step maybe: tool.sql { query: "SELECT 1 AS n" on_failure: continue }
  step asks: tool.sql { query: "SELECT 2 AS n" output_var: rows retries: 1 }
  evaluation { check there: tool.run { cmd: ["sh", "-c", "wc -l < first.txt"] } }
  success: rows[0].n == 2 metric("there") == 1
}
""")
    with pytest.raises(LoopError, match="`morphogen up --projector`, then `morphogen loop resume r`") as stopped:
        runner.start(bus, path, run="r", options=live())
    assert not isinstance(stopped.value, StepFailed)
    with pytest.raises(LoopError, match="no projector answers"):
        runner.resume(bus, "r", options=live())
    with projecting(bus):
        ended = runner.resume(bus, "r", options=live())

    assert (ended.status, ended.reason) == ("done", "")


@contextlib.contextmanager
def projecting(bus: Bus) -> Iterator[None]:
    """Run a projector, with its SQL service, beside the test."""
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()
    work = run_projector(bus.conn.settings, stop=stop, serve=serve_until_cancelled)
    thread = threading.Thread(target=loop.run_until_complete, args=(work,))
    thread.start()
    end = time.monotonic() + 20
    try:
        while time.monotonic() < end:
            with contextlib.suppress(ToolFailed):
                ask(bus, "SELECT 1")
                break
            time.sleep(0.05)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
