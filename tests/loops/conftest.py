"""Programs to run, buses to run them on, and processes that can be killed while they do."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.producers.loops.runner import Options

# Forks a child for every line it reads, so that a loop's process costs milliseconds and not a second of imports.
ZYGOTE = """
import json, os, sys
from pathlib import Path
from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.producers.loops import runner, service
import morphogen.producers.loops.tools.python, morphogen.producers.loops.tools.integrate, morphogen.producers.loops.build
import morphogen.producers.loops.tools.http, morphogen.producers.loops.tools.sql, morphogen.producers.loops.tools.sweep
from morphogen.schemas.knowledge.program import load_text
load_text("task t { step a: tool.run { cmd: \\"true\\" } }")
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("over", flush=True)
        continue
    code = 1
    try:
        os.environ.update(order["env"])
        with Bus.open(Settings.from_environ()) as bus:
            options = runner.Options(live=order["live"], workspace=Path(order["workspace"]))
            if order["resume"]:
                ended = runner.resume(bus, order["run"], options=options)
            else:
                ended = runner.start(bus, Path(order["file"]), order["name"], run=order["run"], options=options)
        code = {"done": 0, "failed": 1, "suspended": 3}[ended.status]
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\\n")
        code = 9
    finally:
        sys.stderr.flush()
        os._exit(code)
"""


@dataclass
class Zygote:
    """Starts loops in processes of their own, and kills them."""

    process: "subprocess.Popen[str]"
    home: Path

    def run(
        self,
        run: str,
        workspace: Path,
        file: Path | None = None,
        *,
        name: str | None = None,
        live: bool = True,
        kill_after: float | None = None,
        kill_when: Callable[[], bool] | None = None,
        env: dict[str, str] | None = None,
    ) -> bool:
        """Run a loop, or resume it where no file is given; return whether it was killed."""
        order = {
            "run": run, "workspace": str(workspace), "file": str(file), "name": name, "live": live, "resume": file is None,
            "env": {"MORPHOGEN_HOME": str(self.home), **(env or {})},
        }  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        killed = False
        if kill_when is not None:
            while not kill_when() and not select.select([self.process.stdout], [], [], 0.0005)[0]:
                pass
        if kill_after is not None or kill_when is not None:
            time.sleep(kill_after or 0.0)
            if not select.select([self.process.stdout], [], [], 0)[0]:
                os.kill(pid, signal.SIGKILL)  # the zygote has not reaped it: it is still this process
                killed = True
        assert self.process.stdout.readline() == "over\n"
        return killed


@pytest.fixture
def zygote(settings: Settings) -> Iterator[Zygote]:
    process = subprocess.Popen([sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield Zygote(process, settings.home)
    process.kill()
    process.communicate()


@pytest.fixture
def bus(settings: Settings) -> Iterator[Bus]:
    """A bus on a broker of its own."""
    with Bus.open(settings) as opened:
        yield opened


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """What writes a program and returns its path."""

    def write_one(text: str, name: str = "program.mk") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_one


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder for tools to work in."""
    return tmp_path / "workspace"


@pytest.fixture
def live(workspace: Path) -> Callable[..., Options]:
    """What makes the options of a live run in the workspace."""

    def make(**more: Any) -> Options:
        return Options(live=True, workspace=workspace, **more)

    return make
