"""One program from its start to its end, in a process group of its own that ends with it, by force where it must."""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from ..errors import ToolFailed

_CAPTURED = 1 << 30  # bytes of output after which a program is stopped
_GRACE = 2.0  # seconds between the request to end and the end
_LOOK = 0.05  # seconds between looks at the stop button


@dataclass(frozen=True)
class Ended:
    """How a process ended and what it used."""

    code: int
    reason: str | None
    wall_ns: int
    cpu_s: float
    max_rss_bytes: int | None


def run_process(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: IO[bytes] | None,
    out: IO[bytes],
    err: IO[bytes],
    timeout: float | None,
    check: Callable[[], None],
) -> Ended:
    """Run a program to its end, in a process group of its own that ends with it, by force where it must.

    `check` is called every so often and may raise: the group is ended then, and the error passed on.
    """
    began = time.monotonic_ns()
    process = subprocess.Popen(
        [*_with_parent(), *argv],
        cwd=cwd,
        env=dict(env),
        stdin=stdin if stdin is not None else subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
    )
    reason: str | None = None
    memory = _Memory(process.pid)
    try:
        usage = _wait(process, None if timeout is None else began + int(timeout * 1e9), check, (out, err), memory)
        if usage is None:
            reason = f"was stopped after {timeout:g} s" if timeout is not None else "was stopped"
            usage = _end_group(process)
        elif isinstance(usage, str):
            reason = usage
            usage = _end_group(process)
    except BaseException:
        _end_group(process)
        raise
    wall_ns = time.monotonic_ns() - began
    return Ended(
        process.returncode, reason, wall_ns, usage.ru_utime + usage.ru_stime, memory.most(usage.ru_maxrss * 1024)
    )


class _Memory:
    """The most memory that a process had. What the kernel reports at its end also counts this process, which it was
    forked from: below our own size that says nothing, and what was seen on the way does.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen = 0
        self._own = _high_water("self") or 0

    def look(self) -> None:
        """Note how much it has had so far."""
        self._seen = max(self._seen, _high_water(str(self._pid)) or 0)

    def most(self, reported: int) -> int | None:
        """Return the most in bytes, None where nobody knows."""
        return reported if reported > self._own else self._seen or None


def _high_water(pid: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _wait(
    process: "subprocess.Popen[bytes]",
    until_ns: int | None,
    check: Callable[[], None],
    streams: Sequence[IO[bytes]],
    memory: "_Memory",
) -> Any:
    """Return what the process used once it has ended, None at the deadline, or the reason why it has to be stopped."""
    pidfd = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            while True:
                patience = _LOOK if until_ns is None else min(_LOOK, max(0.0, (until_ns - time.monotonic_ns()) / 1e9))
                if selector.select(patience):
                    return _reaped(process)
                memory.look()
                check()
                if any(os.fstat(stream.fileno()).st_size > _CAPTURED for stream in streams):
                    return f"was stopped: more than {_CAPTURED >> 20} MiB of output"
                if until_ns is not None and time.monotonic_ns() >= until_ns:
                    return None
    finally:
        os.close(pidfd)


def _reaped(process: "subprocess.Popen[bytes]") -> Any:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _end_group(process: "subprocess.Popen[bytes]") -> Any:
    """Ask the group to end, and kill what is left of it."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        end = time.monotonic() + patience
        while process.returncode is None and time.monotonic() < end:
            found, status, usage = os.wait4(process.pid, os.WNOHANG)
            if found:
                process.returncode = os.waitstatus_to_exitcode(status)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # those that it started and that did not listen
                return usage
            time.sleep(0.01)
    raise ToolFailed(f"process {process.pid} cannot be ended: see what it waits for")


@cache
def _with_parent() -> tuple[str, ...]:
    """Return the words that make a program end with this process, killed or not: an orphan would go on having effects."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    words = (setpriv, "--pdeathsig", "KILL", "--")
    works = subprocess.run([*words, setpriv, "--version"], capture_output=True, check=False).returncode == 0
    return words if works else ()  # some systems have one that cannot
