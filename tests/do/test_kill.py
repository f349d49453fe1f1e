"""A process that pursues a goal is killed in the middle of an effect: who goes on does not do it twice, nor tell it twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.producers.loops import runner
from morphogen.producers.loops.journal import read_history

from .conftest import trace_of

CHILD = """
import os, signal, sys
from pathlib import Path
from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.kernels.sandbox import Capabilities, Declared
from morphogen.producers.loops.goals import LoopLearner, capabilities_of
from morphogen.producers.loops.tools import Toolbox
from morphogen.producers.loops.workspace import Workspace
from tests.do.conftest import Goal

home, space, replies, fatal, goal = sys.argv[1:]
with Bus.open(Settings.from_environ({}, home=home)) as bus:
    real = capabilities_of(Toolbox.standard(installed=False), Workspace.open(space), bus=bus)

    def then_die(name, function):
        def act(**arguments):
            function(**arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return act

    functions = {
        name: Declared(then_die(name, one.function), one.effect) if name == fatal else one
        for name, one in real.functions.items()
    }
    learner = LoopLearner(bus=bus, workspace=Path(space), backend="script", backend_options={"file": replies})
    learner.pursue(Goal(id=goal, goal="Note it", capabilities=Capabilities(tools=functions)), None)
"""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("files.append_text", {"path": "notes.txt", "text": "once\n"}),
        ("tool.write", {"path": "notes.txt", "content": "once\n", "mode": "append"}),
        ("files.remove", {"path": "shop.csv"}),
    ],
)
def test_an_effect_that_happened_before_a_kill_is_neither_done_nor_told_twice(
    bus: Bus, space: Path, script: Callable[..., dict[str, Any]], name: str, arguments: dict[str, Any]
) -> None:
    (space / "notes.txt").write_text("before\n")
    replies = script({"tool": name, "arguments": arguments}, {"answer": "noted"})
    goal = f"kill-{name}"
    home = str(bus.conn.settings.home)

    ended = subprocess.run(
        [sys.executable, "-c", CHILD, home, str(space), replies["file"], name, goal],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=60,
    )

    assert ended.returncode == -signal.SIGKILL
    assert read_history(bus, f"{goal}-learner").state.status == "running"

    assert runner.resume(bus, f"{goal}-learner").status == "done"

    trace = trace_of(bus, f"{goal}-learner")
    assert [(step.name, step.ok) for step in trace.steps] == [("llm.query", True), (name, True), ("llm.query", True)]
    assert (trace.whole, trace.outcome, trace.output) == (True, "success", "noted")
    if name == "files.remove":
        assert not (space / "shop.csv").exists()
    else:
        assert (space / "notes.txt").read_text() == "before\nonce\n"
