"""Known escapes, with the static layer off and every dangerous module imported: none escapes, each ends as an outcome."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphogen.kernels.sandbox import ALL, Capabilities, Limits, Outcome, Sandbox, UnsafeTool, Workspace
from morphogen.kernels.sandbox.capabilities import FILES
from morphogen.kernels.sandbox.grammar import check

from .canary import ALONE, ATTACKS, HOSTILE_MODULES, Canary, descendants, strangers

LIMITS = Limits(wall_seconds=0.7, cpu_seconds=1, memory_bytes=320 << 20, capability_calls=300)
PATIENCE = 20.0  # for what is not the tool's own time, on a machine however busy

# What the grammar lets through: no escapes by their text, but bombs, and uses of capabilities that the broker judges.
HARMLESS_TEXT = {
    "deep_value", "endless_iterator", "files_dotdot", "files_fill_disk", "files_hardlink", "files_too_many", "files_types",
    "hash_collisions", "huge_value", "memory_list", "memory_string", "print_flood", "regex_catastrophe",
}  # fmt: skip


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    found = Canary(tmp_path_factory.mktemp("canary"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def workspace(canary: Canary, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Make a folder in which someone has left every kind of trap."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(canary.secret)
    (folder / "chain").symlink_to("link")
    (folder / "loop").symlink_to("loop")
    (folder / "linktarget").symlink_to(canary.target)
    (folder / "linkdir").symlink_to(canary.outside)
    (folder / "linkproc").symlink_to("/proc")
    (folder / "magic").symlink_to("/proc/self/root")
    os.link(canary.secret, folder / "hard")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "socket"))
    try:
        os.mknod(folder / "zero", 0o020666, os.makedev(1, 5))
    except PermissionError:
        (folder / "zero").symlink_to("/dev/zero")
    return Workspace(folder, write=True)


@pytest.fixture(scope="module")
def sandbox(workspace: Workspace) -> Iterator[Sandbox]:
    capabilities = Capabilities(files=workspace)
    with Sandbox(LIMITS, layers=ALL, capabilities=capabilities, pool=1, modules=HOSTILE_MODULES) as found:
        found.probe()
        yield found


def judge(outcome: Outcome, canary: Canary) -> list[str]:
    return list(canary.harm(repr(outcome), allowed_links=2))


def test_there_are_more_than_sixty_attacks() -> None:
    assert len(ATTACKS) >= 60


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_escapes_with_the_static_layer_off(name: str, sandbox: Sandbox, canary: Canary) -> None:
    canary.reset()
    before = descendants(os.getpid())
    began = time.monotonic()
    outcome = sandbox.run(ATTACKS[name], {"c": canary.arguments()})
    took = time.monotonic() - began

    assert judge(outcome, canary) == []
    assert not (outcome.error and outcome.error.type in ("AssertionError", "ModuleNotFoundError")), outcome.error
    assert took < LIMITS.wall_seconds + PATIENCE
    assert set(outcome.layers_held) == ALL
    end = time.monotonic() + PATIENCE  # the next idle worker may be on its way, with whoever forks it
    while len(left := descendants(os.getpid()) - before) > 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(left) <= 1, "the next idle worker, nothing else"
    assert not {pid for pid in strangers() if Path(f"/proc/{pid}/fd/3").exists()}


def test_the_host_serves_on_after_all_of_them(sandbox: Sandbox) -> None:
    assert sandbox.run("def run():\n    return 1\n").value == 1


HARNESS = """
import json, sys
class Files: pass
space = {"__name__": "tool", "files": Files()}
source, arguments = json.loads(sys.stdin.read())
try:
    exec(compile(source, "<tool>", "exec"), space)
    print(repr(space["run"](arguments)))
except BaseException as error:
    print(repr(error))
"""


@pytest.mark.parametrize("name", ALONE)
def test_the_same_attack_does_harm_where_there_is_no_sandbox(name: str, canary: Canary, tmp_path: Path) -> None:
    canary.reset()
    job = json.dumps([ATTACKS[name], canary.arguments()])
    told = subprocess.run(
        [sys.executable, "-c", HARNESS],
        input=job,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    time.sleep(0.3 if name == "double_fork_daemon" else 0)

    assert canary.harm(told.stdout + told.stderr, canary.secret.stat().st_nlink) != [], told
    for path in (canary.marker,):
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_static_layer_alone_would_have_caught_all_but_bombs_and_requests(name: str) -> None:
    try:
        check(ATTACKS[name], tools=[f"files.{tool}" for tool in FILES])
    except UnsafeTool:
        caught = True
    else:
        caught = False

    assert caught == (name not in HARMLESS_TEXT)
