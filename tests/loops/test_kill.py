"""SIGKILL at any moment: the loop ends as one that was never killed, and no effect happens twice."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from morphogen.bus import broker as brokers
from morphogen.bus.bus import Bus
from morphogen.producers.loops.errors import UnknownRun
from morphogen.producers.loops.journal import answer, read_history

from .conftest import Zygote

RUNS = 4  # each killed twice


def program(steps: int = 30) -> str:
    """Steps with effects of three kinds: files written, files appended to, and a program that is no use to run twice."""
    lines = ["task Thirty {"]
    for number in range(steps):
        match number % 3:
            case 0:
                lines.append(f'  step s{number}: tool.write {{ path: "f{number}.txt" content: "{number}" }}')
            case 1:
                lines.append(f'  step s{number}: tool.write {{ path: "log.txt" content: "{number}\\n" mode: append }}')
            case 2:
                lines.append(
                    f'  step s{number}: tool.run {{ cmd: "echo {number} >> effects.txt; echo {number * number}" shell: true '
                    f'on_interrupt: check check: "grep -qx {number} effects.txt" output_var: v{number} }}'
                )
    lines.append('  success: file_exists("log.txt")')
    return "\n".join([*lines, "}"])


def artifacts(workspace: Path) -> dict[str, str]:
    own = {"metrics.json", "trace.json"}
    return {path.name: path.read_text() for path in sorted(workspace.iterdir()) if path.name not in own}


def outcome(bus: Bus, run: str) -> Any:
    state = read_history(bus, run).state
    # A step that a check found done has no output of its own: nobody saw what the killed process was told.
    steps = {path: one.ok for path, one in state.outcomes.items()}
    return state.status, steps, state.decisions, state.steps, sorted(state.variables), state.lanes


def effects(workspace: Path) -> list[str]:
    return (workspace / "effects.txt").read_text().split()


def test_a_loop_killed_again_and_again_ends_as_one_that_was_not(
    zygote: Zygote, bus: Bus, write: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write(program())
    zygote.run("straight", tmp_path / "straight", path)
    dice = random.Random(7)
    killed = 0
    for number in range(RUNS):
        run, folder = f"killed-{number}", tmp_path / f"killed-{number}"
        # Anywhere on the way, and once more while it is being resumed; a moment after an effect or in the middle of one.
        one, other = sorted(dice.sample(range(1, 30), 2))
        began, again = partial(done_beyond, folder, one), partial(done_beyond, folder, other)
        killed += zygote.run(run, folder, path, kill_when=began, kill_after=dice.uniform(0, 0.004))
        assert begun(bus, run)
        killed += zygote.run(run, folder, kill_when=again, kill_after=dice.uniform(0, 0.004))
        zygote.run(run, folder)

        assert outcome(bus, run) == outcome(bus, "straight")
        assert artifacts(folder) == artifacts(tmp_path / "straight")
        assert effects(folder) == effects(tmp_path / "straight")
    assert killed == 2 * RUNS


def done_beyond(folder: Path, number: int) -> bool:
    """Tell whether at least so many of the thirty effects are there."""
    if not folder.exists():
        return False
    lines = sum(
        (folder / name).read_text().count("\n") for name in ("log.txt", "effects.txt") if (folder / name).exists()
    )
    return lines + len(list(folder.glob("f*.txt"))) >= number


def begun(bus: Bus, run: str) -> bool:
    """Tell whether the process lived long enough to begin the run."""
    try:
        read_history(bus, run)
    except UnknownRun:
        return False
    return True


def test_another_machine_with_its_own_folders_goes_on_from_the_log_alone(
    zygote: Zygote, bus: Bus, write: Callable[[str], Path], tmp_path: Path, settings: Any
) -> None:
    """The other machine shares the bus and nothing else: no program file, no workspace, another data folder."""
    path = write('task Moves { step a: tool.run { cmd: "echo 1" output_var: x } step b: llm.query { prompt: "{{x}}?" output_var: y }'
                 ' step c: tool.write { path: "out.txt" content: "{{x}} {{y}}" } }')  # fmt: skip
    zygote.run("moves", tmp_path / "here", path)
    path.unlink()
    state = read_history(bus, "moves").state
    assert state.status == "suspended"
    assert state.waiting is not None
    answer(bus, "moves", state.waiting.path, state.waiting.sha256, "42")

    endpoint = brokers.ensure(settings)
    other = {
        "MORPHOGEN_HOME": str(tmp_path / "other home"),
        "MORPHOGEN_URL": endpoint.urls[0],
        "MORPHOGEN_TOKEN": endpoint.token or "",
    }
    zygote.run("moves", tmp_path / "there", env=other)

    assert read_history(bus, "moves").state.status == "done"
    assert (tmp_path / "there" / "out.txt").read_text() == "1 42"
    assert not (tmp_path / "here" / "out.txt").exists()
