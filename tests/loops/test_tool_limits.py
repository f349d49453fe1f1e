"""What no tool takes is refused before anything starts, and what a tool raises is a line."""

import math
from pathlib import Path
from typing import Any

import pytest

from morphogen.producers.loops.errors import ToolFailed, ToolRefused, one_line
from morphogen.producers.loops.tools import Toolbox, ToolCall
from morphogen.producers.loops.tools.python import PythonTool
from morphogen.producers.loops.tools.toolbox import act, plan_of
from morphogen.producers.loops.workspace import Workspace
from morphogen.schemas.knowledge.tools import Signature

from .test_tools import make


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("tool.run", {"cmd": ["a\0b"]}, "cmd holds a NUL character"),
        ("tool.run", {"cmd": "env", "env": {"A": "x\0y"}}, "env cannot hold 'A'"),
        ("tool.run", {"cmd": "env", "env": {"A=B": "x"}}, "env cannot hold 'A=B'"),
        ("tool.run", {"cmd": "env", "timeout": 0}, "timeout must be a number above 0"),
        ("tool.run", {"cmd": "env", "timeout": -1.5}, "timeout must be a number above 0 and at most 1e12, got -1.5"),
        ("tool.run", {"cmd": "env", "timeout": math.nan}, "timeout must be"),
        ("tool.run", {"cmd": "env", "timeout": math.inf}, "timeout must be"),
        ("tool.run", {"cmd": "env", "timeout": 1e300}, "timeout must be"),
        ("tool.run", {"cmd": "env", "timeout": 10**400}, "timeout must be"),
        ("tool.run", {"cmd": "env", "max_output": -5}, "max_output must be"),
        ("tool.read", {"path": "a", "max_bytes": -5}, "max_bytes must be"),
        ("tool.http", {"url": "http://127.0.0.1:1", "timeout": -1}, "timeout must be"),
        ("tool.http", {"url": "http://127.0.0.1:1", "max_output": 0}, "max_output must be"),
    ],
)
def test_a_limit_or_an_environment_that_means_nothing_is_refused_before_anything_starts(
    tmp_path: Path, name: str, arguments: dict[str, Any], says: str
) -> None:
    context = make(tmp_path)
    context.workspace.export(".morphogen/policy.toml", b'hosts = ["127.0.0.1"]')
    context.workspace.policy = Workspace.open(context.workspace.root).policy

    with pytest.raises(ToolRefused, match=says):
        context.call(name, arguments)
    if name == "tool.run":
        with pytest.raises(ToolRefused, match=says):
            make(tmp_path, live=False).call(name, arguments)


@pytest.mark.parametrize(
    "error", [ValueError("no\nway \ud800"), OverflowError("large"), TypeError("kind"), OSError(36, "name")]
)
def test_what_a_tool_of_another_package_raises_fails_its_step_by_a_line(tmp_path: Path, error: Exception) -> None:
    class Odd:
        signature = Signature("tool.odd", {}, effect="write")

        def effect(self, arguments: Any) -> str:
            return "write"

        def plan(self, call: ToolCall) -> Any:
            raise error

        def run(self, call: ToolCall) -> Any:
            raise error

    context = make(tmp_path)
    _, call = context.tools.prepare("tool.read", {"path": "a"}, context)
    for does in (act, plan_of):
        with pytest.raises(ToolFailed) as caught:
            does(Odd(), call)
        assert str(caught.value).startswith("tool.odd: ")
        assert "\n" not in one_line(caught.value)
        one_line(caught.value).encode()


def test_an_exception_whose_own_text_fails_is_told_by_its_name(tmp_path: Path) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def odd() -> None:
        raise Mute

    with pytest.raises(ToolFailed, match="Mute"):
        Toolbox({"tool.odd": PythonTool(odd)}).call("tool.odd", {}, make(tmp_path))
