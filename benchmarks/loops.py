"""Measure what a durable step costs, beside the same loop journaled to SQLite, and kill loops at random moments.

Such as: python benchmarks/loops.py --steps 300 --rounds 3 --kills 50 --json loops.json

Both journals sync to disk before a step may act: the log by `sync_interval: always`, SQLite by WAL with
synchronous=FULL. The interpreter and the steps are the same; only where the journal writes differs.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from morphogen.bus import broker
from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.producers.loops import runner
from morphogen.producers.loops.context import LoopContext
from morphogen.producers.loops.errors import UnknownRun
from morphogen.producers.loops.journal import History, Journal, read_history
from morphogen.producers.loops.live import Live
from morphogen.producers.loops.memory import Memory
from morphogen.producers.loops.state import State
from morphogen.producers.loops.tools import Toolbox
from morphogen.producers.loops.tools.python import PythonTool
from morphogen.producers.loops.tools.toolbox import tool
from morphogen.producers.loops.workspace import Workspace
from morphogen.schemas import LoopStarted
from morphogen.schemas.knowledge.program import Program, load_text


class Ticks:
    """A tool that does nothing but look at the clock: what lies between two calls is what a step costs."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def tick(self, number: int) -> int:
        """Return the number."""
        self.seen.append(time.perf_counter_ns())
        return number

    def tools(self) -> Toolbox:
        """Return a toolbox with `tool.tick` alone."""
        return Toolbox({"tool.tick": PythonTool(tool(effect="external", name="tool.tick")(_plain(self.tick)))})

    def costs(self) -> list[float]:
        """Return what each step cost, in milliseconds."""
        return [(after - before) / 1e6 for before, after in zip(self.seen, self.seen[1:], strict=False)]


class InSqlite(Memory):
    """A journal's frames as rows of a table, each committed before the step acts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE frames (seq INTEGER PRIMARY KEY, data BLOB)")

    def append(self, data: bytes, identity: str, after: int) -> int:
        """Insert a frame in a transaction of its own."""
        seq = super().append(data, identity, after)
        self._db.execute("INSERT INTO frames VALUES (?, ?)", (seq, data))
        return seq


def _plain(method: Callable[[int], int]) -> Callable[..., int]:
    def tick(number: int) -> int:
        """Look at the clock."""
        return method(number)

    return tick


def ticking(steps: int) -> tuple[Program, Ticks]:
    """Return a program of so many steps, and its clock."""
    ticks = Ticks()
    lines = [
        f"  step s{number}: tool.tick {{ number: {number} output_var: v{number % 10} }}" for number in range(steps)
    ]
    text = "\n".join(["task Ticks {", *lines, "}"])
    return load_text(text, tools=ticks.tools().signatures), ticks


def drive(journal: Journal, program: Program, tools: Toolbox, folder: Path) -> None:
    """Run the program over a journal."""
    workspace = Workspace.open(folder)
    context = LoopContext(
        run=journal.run, loop="Ticks", program=program, workspace=workspace, tools=tools, live=True, bus=None
    )
    runner.run_loop(Live(program, journal, context, system=None), program.find_loop("Ticks"), time.monotonic_ns())
    workspace.close()


def overhead(bus: Bus, folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Return the cost of a step in the log and in SQLite, in turns."""
    ours: list[float] = []
    theirs: list[float] = []
    started = LoopStarted(loop="Ticks", kind="task", program="ticks.mk", sha256="0" * 64, live=True)
    for number in range(rounds):
        program, ticks = ticking(steps)
        journal = Journal.begin(bus, f"ticks-{number}", started)
        drive(journal, program, ticks.tools(), folder / "workspace")
        journal.close()
        ours += ticks.costs()
        program, ticks = ticking(steps)
        journal = Journal(InSqlite(folder / f"journal-{number}.db"), History(f"ticks-{number}"))
        journal.commit(started)
        drive(journal, program, ticks.tools(), folder / "workspace")
        theirs += ticks.costs()
    found = {"steps": len(ours), **_spread("log", ours), **_spread("sqlite", theirs)}
    return {**found, "ratio": found["log_median_ms"] / found["sqlite_median_ms"]}


def _spread(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"{name}_median_ms": statistics.median(values), f"{name}_p99_ms": ordered[int(len(ordered) * 0.99)]}


def thirty() -> str:
    """Return a loop of 30 steps: files written, files appended to, and programs that are no use to run twice."""
    lines = ["task Thirty {"]
    for number in range(30):
        match number % 3:
            case 0:
                lines.append(f'  step s{number}: tool.write {{ path: "f{number}.txt" content: "{number}" }}')
            case 1:
                lines.append(f'  step s{number}: tool.write {{ path: "log.txt" content: "{number}\\n" mode: append }}')
            case 2:
                lines.append(
                    f'  step s{number}: tool.run {{ cmd: "echo {number} >> effects.txt" shell: true '
                    f'on_interrupt: check check: "grep -qx {number} effects.txt" }}'
                )
    return "\n".join([*lines, '  success: file_exists("log.txt")', "}"])


def child(settings: Settings, file: Path, run: str, workspace: Path) -> int:
    """Begin the run, or go on with it, in a process of its own; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with Bus.open(settings) as bus:
            options = runner.Options(live=True, workspace=workspace)
            try:
                ended = runner.resume(bus, run, options=options)
            except UnknownRun:
                ended = runner.start(bus, file, run=run, options=options)
        code = 0 if ended.status == "done" else 1
    except BaseException as error:  # noqa: BLE001  a child says what is wrong and ends
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def finish(settings: Settings, file: Path, run: str, workspace: Path) -> None:
    """Run to the end."""
    _, status = os.waitpid(child(settings, file, run, workspace), 0)
    if status:
        raise SystemExit(f"run {run} did not come to its end")


def kills(settings: Settings, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill `count` loops at a random moment each, and resume them; compare with one that was left alone."""
    file = folder / "thirty.mk"
    file.write_text(thirty())
    finish(settings, file, "straight", folder / "straight")
    wanted = _left(folder / "straight")
    dice = random.Random(seed)
    same = doubled = killed = 0
    states: list[State] = []
    points: list[int] = []
    for number in range(count):
        run, workspace = f"killed-{number}", folder / f"killed-{number}"
        # Uniform over the effects, and then anywhere in the few milliseconds that a step takes.
        target, pid = dice.randint(0, 29), child(settings, file, run, workspace)
        while _effects(workspace) < target and not os.waitpid(pid, os.WNOHANG)[0]:
            time.sleep(0.0005)
        time.sleep(dice.uniform(0.0, 0.006))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status)
        points.append(_effects(workspace))
        finish(settings, file, run, workspace)
        left = _left(workspace)
        effects = left.get("effects.txt", "").split()
        doubled += len(effects) - len(set(effects))
        same += left == wanted
    with Bus.open(settings) as bus:
        states = [read_history(bus, f"killed-{number}").state for number in range(count)]
        straight = read_history(bus, "straight").state
    alike = sum(_story(state) == _story(straight) for state in states)
    return {
        "kills": count,
        "killed_alive": killed,
        "same_artifacts": same,
        "same_state": alike,
        "effects_doubled": doubled,
        "effects_at_the_kill": sorted(points),
    }


def _effects(workspace: Path) -> int:
    """Return how many of the thirty effects are there."""
    lines = sum(
        (workspace / name).read_text().count("\n") for name in ("log.txt", "effects.txt") if (workspace / name).exists()
    )
    return lines + len(list(workspace.glob("f*.txt")))


def _left(workspace: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in workspace.glob("*.txt")}


def _story(state: State) -> Any:
    steps = {path: one.ok for path, one in state.outcomes.items()}
    return state.status, steps, state.decisions, state.steps, state.variables, state.lanes


def main(options: argparse.Namespace) -> dict[str, Any]:
    """Measure on a broker of its own, with a sync to disk before every acknowledgement."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(home=folder / "home")
        try:
            broker.ensure(settings)
            # Kills first: children are forked from a process that has no threads yet.
            killed = kills(settings, folder, options.kills, options.seed) if options.kills else {}
            with Bus.open(settings) as bus:
                cost = overhead(bus, folder, options.steps, options.rounds)
        finally:
            broker.down(settings)
    return {"overhead": cost, "resume": killed}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    figures = main(given)
    cost = figures["overhead"]
    print(f"{'a step, fsync on':28}{'median ms':>10}{'p99 ms':>10}")
    print(f"{'morphogen':28}{cost['log_median_ms']:10.2f}{cost['log_p99_ms']:10.2f}")
    print(f"{'sqlite, WAL, FULL':28}{cost['sqlite_median_ms']:10.2f}{cost['sqlite_p99_ms']:10.2f}")
    print(f"{'ratio':28}{cost['ratio']:9.1f}x")
    if resumed := figures["resume"]:
        print(
            f"killed at {resumed['kills']} random moments ({resumed['killed_alive']} alive, after {resumed['effects_at_the_kill'][0]} to "
            f"{resumed['effects_at_the_kill'][-1]} of 30 effects): "
            f"{resumed['same_artifacts']} of {resumed['kills']} left the same artifacts, {resumed['same_state']} of "
            f"{resumed['kills']} the same state, {resumed['effects_doubled']} effects doubled"
        )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))
