"""Run the tests a room at a time, each in a process of its own, several at once: `python tests/rooms.py [ROOM ...]`.

No test is spoiled by what another room left in the interpreter, and none can hold up the rest: a room that takes
longer than `LIMIT` is told to show where it hangs, and killed with all that it started. Without names, the types are
checked beside the rooms, so that no core waits for that. Real brokers and kills beside other rooms take their time: the
tests that failed, where few rooms had any, are run once more, alone, and both results are told.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
LIMIT = 1500.0  # seconds for one room
# One more than cores: a third of the time a room waits for brokers, clocks and other processes.
AT_ONCE = min(6, len(os.sched_getaffinity(0)) + 1)
AGAIN = 3  # rooms whose failures may be run again alone; more of them are no matter of load
TYPES = "types"
READY = "ready stores"  # a folder beside those of the rooms
FAILED = "failed"  # another, where pytest keeps for each room which tests failed
# By what they took last, so that no core waits long for the last room.
LONGEST = (
    "kv_worker",
    "bus",
    "sql",
    "slots",
    TYPES,
    "loops",
    "projections",
    "replay",
    "adaptation_sql",
    "blueprints",
    "crystals_life",
    "training_facts",
    "facts",
    "adaptation",
    "policy_gnn",
    "sweep",
    "kv_transport",
    "producers",
    "knowledge",
    "cli",
    "do",
    "faults",
    "kv",
    "sandbox",
    "executions_sql",
    "kv_examples",
    "docs",
    "kv_cli",
    "kv_index",
)

# The status goes through a file: it is then known whoever waits for our children, and no child holds our output open.
_SHELL = '"$@" > "$0/output" 2>&1 < /dev/null; echo $? > "$0/status.new"; mv "$0/status.new" "$0/status"'


@dataclass(frozen=True)
class Room:
    """A folder of tests that is running (or the check of types), and where its output and status go."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]
    began: float

    def status(self) -> int | None:
        """Return the exit status of pytest, None while it runs; -1 where it died without one."""
        gone = self.process.poll() is not None
        try:
            return int((self.folder / "status").read_text())
        except FileNotFoundError:
            return -1 if gone else None

    def kill(self) -> None:
        """Let pytest print the stacks of its threads, then end it and everything that it started."""
        for number in (signal.SIGABRT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            time.sleep(2)


def rooms() -> list[str]:
    """List the rooms and the check of types: those known to take longest first, the others by name."""
    found = sorted({path.parent.name for path in TESTS.glob("*/test_*.py")} | {TYPES})
    return [name for name in LONGEST if name in found] + [name for name in found if name not in LONGEST]


def start(name: str, folder: Path) -> Room:
    """Start pytest on one room, or mypy, in a process group of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "status").unlink(missing_ok=True)
    ready = folder.parent / READY
    ready.mkdir(exist_ok=True)
    known = folder.parent / FAILED / name
    only = ["--last-failed"] if known.exists() else []  # all of them where the room was killed before pytest could tell
    pytest = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:anyio", *only]
    pytest += ["-o", f"cache_dir={known}", str(TESTS / name)]
    mypy = [sys.executable, "-m", "mypy", "-p", "morphogen"]
    alone = {
        "OMP_NUM_THREADS": "1",  # else the threads of two rooms spin against each other, for several times as long
        "READY_STORES": str(ready),  # see ready_stores.py
    }
    process = subprocess.Popen(
        ["sh", "-c", _SHELL, str(folder), *(mypy if name == TYPES else pytest)],
        start_new_session=True,
        env=alone | os.environ,
    )
    return Room(name, folder, process, time.monotonic())


def main(names: list[str]) -> int:
    """Run the rooms; return 1 where one failed, also alone, and 2 for what is no room."""
    names = [Path(name).name for name in names]  # `tests/bus`, as the output calls it, is the room `bus`
    if unknown := [name for name in names if name not in rooms()]:
        print(f"there is no room {unknown[0]!r}; there are {', '.join(rooms())}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background of a shell ignore
    with tempfile.TemporaryDirectory(prefix="morphogen-rooms-") as top:
        failed = run(names or rooms(), AT_ONCE, Path(top))
        tried = [name for name in failed if name != TYPES]
        if 0 < len(tried) <= AGAIN:
            alone = run(tried, 1, Path(top))
            for name in tried:
                if name not in alone:
                    print(f"== tests/{name} passed alone; beside others it failed:\n{reasons(failed.pop(name))}")
    for name, told in failed.items():  # once more where all is over: who sees only the end of the output sees why
        print(f"== {title(name)} failed:\n{reasons(told)}")
    print("failed: " + ", ".join(map(title, failed)) if failed else "every room passed")
    return 1 if failed else 0


def run(names: list[str], at_once: int, top: Path) -> dict[str, str]:
    """Run rooms, so many at once, with what they leave under `top`; return what those that failed have printed."""
    waiting, running = list(names), list[Room]()
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(start(waiting[0], top / waiting[0]))
                del waiting[0]
            time.sleep(0.2)
            for room in list(running):
                status, seconds = room.status(), time.monotonic() - room.began
                if status is None and seconds > LIMIT:
                    room.kill()
                    status = -1
                if status is not None:
                    running.remove(room)
                    told = (room.folder / "output").read_text(errors="replace")
                    print(f"== {title(room.name)} ({seconds:.0f} s)\n{told.rstrip()}", flush=True)
                    if status != 0:
                        failed[room.name] = told if status > 0 else f"{told}\n!!! killed, or died"
    finally:
        for room in running:
            room.kill()
    return failed


def title(name: str) -> str:
    """Return what a room is called in the output."""
    return name if name == TYPES else f"tests/{name}"


def reasons(told: str) -> str:
    """Return what pytest says of its failures in short, or the last lines where it had no time for that."""
    lines = told.rstrip().splitlines()
    short = [line for line in lines if line.startswith(("FAILED", "ERROR", "E  ", "!!!"))]
    return "\n".join(line[:300] for line in (short or lines)[-25:])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
