"""The loops' tools as declared functions: the same effect, the same result, in the sandbox too."""

import http.server
import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.sandbox import Capabilities, Refused, Sandbox, SandboxError
from morphogen.producers.loops.errors import LoopError, ToolFailed, ToolRefused
from morphogen.producers.loops.goals import Program, capabilities_of, guide_of, tools_named
from morphogen.producers.loops.goals.acting import acting, shown, told
from morphogen.producers.loops.goals.forms import move_form
from morphogen.producers.loops.goals.hands import as_function
from morphogen.producers.loops.llm import answer_type
from morphogen.producers.loops.tools import Toolbox, tool
from morphogen.producers.loops.tools.python import PythonTool
from morphogen.producers.loops.workspace import Workspace

STANDARD = Toolbox.standard(installed=False)


@pytest.fixture
def functions(tmp_path: Path) -> Capabilities:
    (tmp_path / "a.txt").write_text("one")
    return capabilities_of(STANDARD, Workspace.open(tmp_path))


def test_a_tool_is_a_function_of_the_same_name_with_its_arguments_and_effect(functions: Capabilities) -> None:
    read, write = functions.functions["tool.read"], functions.functions["tool.write"]

    assert read.function("a.txt") == read.function(path="a.txt", max_bytes=None) == "one"
    assert (read.effect, write.effect) == ("read", "write")
    assert write.function(path="b/c.json", content={"x": 1}) == "b/c.json"
    assert functions.functions["files.read_text"].function("b/c.json") == '{\n  "x": 1\n}\n'
    assert str(inspect.signature(read.function)) == "(path: str, max_bytes: int = None)"
    with pytest.raises(ToolFailed, match="no file none"):
        read.function(path="none")
    with pytest.raises(ToolRefused, match="mode must be one of overwrite, append"):
        write.function(path="a.txt", content="x", mode="x")
    with pytest.raises(TypeError):
        read.function()


def test_programs_are_started_only_where_that_is_allowed_and_nothing_is_written_where_it_is_not(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    assert "tool.run" not in capabilities_of(STANDARD, space).names
    runs = capabilities_of(STANDARD, space, without=()).functions["tool.run"]
    assert (runs.function(cmd=["echo", "hi"]), runs.effect) == ("hi", "external")
    looks = capabilities_of(STANDARD, space, write=False)
    assert {one.effect for one in looks.functions.values()} == {"read"}


@pytest.mark.parametrize("name", ["write_text", "append_text", "write_bytes"])
def test_the_policy_of_the_workspace_cannot_be_written(functions: Capabilities, tmp_path: Path, name: str) -> None:
    (tmp_path / ".morphogen").mkdir()
    content: Any = b"hosts = []" if name == "write_bytes" else "hosts = []"
    with pytest.raises(Refused, match="holds the workspace's policy"):
        functions.functions[f"files.{name}"].function(".morphogen/policy.toml", content)
    with pytest.raises(Refused, match="holds the workspace's policy"):
        functions.functions["files.make_folder"].function(".morphogen/deeper")
    with pytest.raises(Refused, match="holds the workspace's policy"):
        functions.functions["files.remove"].function(".morphogen/policy.toml")


def test_the_functions_work_from_inside_the_sandbox(functions: Capabilities) -> None:
    source = "def run(path):\n    text = tool.read(path=path)\n    tool.write(path='copy.txt', content=text)\n    return text\n"
    with Sandbox(capabilities=functions, pool=0) as sandbox:
        try:
            outcome = sandbox.run(source, {"path": "a.txt"})
        except SandboxError as error:
            pytest.skip(f"no sandbox here: {error}")

    assert outcome.value == "one"
    assert [(one.name, one.effect) for one in outcome.effects] == [("tool.read", "read"), ("tool.write", "write")]


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"got")

        def do_POST(self) -> None:
            self.send_response(201)
            self.end_headers()
            self.wfile.write(self.headers["Idempotency-Key"].encode())

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def test_looking_over_http_is_a_function_of_its_own(tmp_path: Path, server: str) -> None:
    (tmp_path / ".morphogen").mkdir()
    (tmp_path / ".morphogen" / "policy.toml").write_text(f'hosts = ["{server}"]')
    functions = capabilities_of(STANDARD, Workspace.open(tmp_path))
    get, send = functions.functions["tool.http_get"], functions.functions["tool.http"]

    assert (get.effect, send.effect) == ("read", "external")
    assert get.function(url=f"http://{server}/")["text"] == "got"
    keys = {send.function(url=f"http://{server}/", method="POST", json={})["text"] for _ in range(2)}
    assert len(keys) == 2  # two calls are two, and each could be sent again under its own key


def test_a_get_of_a_program_stands_for_the_function_that_only_looks() -> None:
    assert as_function("tool.http", {"url": "u", "method": "GET"}) == ("tool.http_get", {"url": "u"})
    assert as_function("tool.http", {"url": "u"}) == ("tool.http_get", {"url": "u"})
    for arguments in ({"url": "u", "method": "POST"}, {"url": "u", "json": {}}, {"url": "u", "body": "b"}):
        assert as_function("tool.http", arguments) == ("tool.http", arguments)
    assert as_function("tool.read", {"path": "a"}) == ("tool.read", {"path": "a"})


def test_a_python_tool_is_one_too(tmp_path: Path) -> None:
    @tool(effect="pure")
    def double(number: int, *, times: int = 1) -> int:
        """Double a number."""
        return int(number * 2**times)

    box = Toolbox.standard({"tool.double": PythonTool(double)}, installed=False)
    functions = capabilities_of(box, Workspace.open(tmp_path))
    assert functions.functions["tool.double"].function(number=3, times=2) == 12
    assert told(functions, ["tool.double"], box) == "tool.double(number: int, times: int = 1) [pure] Double a number."


def test_a_program_names_its_tools_and_must_reach_an_end(tmp_path: Path) -> None:
    file = tmp_path / "a.mk"
    file.write_text('system S { procedure p() { x = tool.run { cmd: "true" } }\n task T { step a: tool.read { path: "x" } } '
                    'service_loop L { on order(id) { tool.write { path: "y" content: "z" } } } }')  # fmt: skip
    assert tools_named(Program(file, "T"), STANDARD) == {"tool.run", "tool.read", "tool.write"}
    with pytest.raises(LoopError, match="L is no task or agent loop"):
        tools_named(Program(file, "L"), STANDARD)
    assert {"tool.act", "tool.give_up"} <= set(acting(STANDARD, Capabilities()).signatures)


@pytest.mark.parametrize(
    ("move", "fits"),
    [
        ({"tool": "tool.read", "arguments": {"path": "a"}}, True),
        ({"answer": [1, 2]}, True),
        ({"plan": "look", "give_up": "no"}, True),
        ({"plan": "look"}, False),
        ({"tool": "tool.none"}, False),
        ({"answer": None}, False),
        ({"answer": 1, "else": 2}, False),
    ],
)
def test_a_move_is_a_known_tool_an_answer_or_giving_up(move: dict[str, Any], fits: bool) -> None:
    import json

    _, fault = answer_type(move_form(["tool.read"]), {}).read(json.dumps(move))
    assert (fault is None) is fits


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(VALUES, st.integers(1, 100))
def test_whatever_a_tool_gives_can_be_shown_within_its_length(value: Any, length: int) -> None:
    text = shown(value, length)
    assert len(text) <= length + 40
    assert "\n" not in text


class _Step:
    def __init__(self, number: int) -> None:
        self.kind, self.name, self.args = "tool", "tool.read", {"path": f"{number}.txt" * 50}
        self.result, self.ok, self.error = "x" * 5000, number % 2 == 0, "gone"


@given(st.integers(0, 60))
def test_a_course_of_any_length_is_an_example_of_bounded_length_that_keeps_its_ends(steps: int) -> None:
    text = guide_of("Read", {"n": steps}, [_Step(number) for number in range(steps)], "y" * 5000)
    assert len(text) < 12_000
    if steps:
        assert "\n1. tool.read" in text
        assert f"\n{steps}. tool.read" in text
    assert text.index("The goal then: Read") < text.index("Its answer:")
