"""A child process that stays warm between measurements, and is replaced when it hangs or dies."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from . import worker
from .errors import MeasureError
from .reading import TrialFailed

GROUP = "morphogen.tools"
_START = 120.0  # seconds for the module's own import; numba and torch are slow on a cold disk
_GLANCE = 0.1  # seconds between looks at whether the loop was asked to stop
_TAIL = 300  # characters of standard error that a reason quotes


class WarmWorker:
    """Calls `module:function` in a process of its own, which is started at the first call."""

    def __init__(self, target: str, path: Sequence[Path], *, cwd: Path, glance: Callable[[], None]) -> None:
        self._target = target
        self._module, self._function = _resolved(target)
        self._path, self._cwd, self._glance = [str(each) for each in path], cwd, glance
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None

    def call(self, arguments: Mapping[str, Any], timeout: float) -> tuple[Any, float]:
        """Return what the function returns, and the seconds it took.

        Raises TrialFailed where it raised, hung or died, MeasureError where it cannot be had at all.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            worker.send(process.stdin, dict(arguments))  # type: ignore[arg-type]
            answer = self._answer(process, timeout)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise TrialFailed(self._death(process))
        if "error" in answer:
            raise TrialFailed(answer["error"])
        return answer["result"], answer["seconds"]

    def close(self) -> None:
        """End the process and all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._errors is not None:
            self._errors.close()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        # -P: the folder of worker.py stays off the path, where its neighbours would hide modules of the user's.
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._cwd,
            start_new_session=True,
        )
        assert process.stdin is not None
        worker.send(process.stdin, {"path": self._path, "module": self._module, "function": self._function})  # type: ignore[arg-type]
        try:
            answer = self._answer(process, _START)
        except TrialFailed:
            answer = {"error": f"its import took longer than {_START:g} s"}
        if answer is None:
            answer = {"error": self._death(process)}
        if "error" in answer:
            self.close()
            raise MeasureError(f"tool {self._target}: {answer['error']}; it is looked for in {', '.join(self._path)}")
        return process

    def _answer(self, process: "subprocess.Popen[bytes]", timeout: float) -> Any:
        """Return the next message, None where the process ended; a process that takes too long is killed."""
        assert process.stdout is not None
        end = time.monotonic() + timeout
        while True:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, min(_GLANCE, end - time.monotonic())))
            if ready:
                return worker.receive(process.stdout)  # type: ignore[arg-type]
            self._glance()
            if time.monotonic() >= end:
                self.close()
                raise TrialFailed(f"no result within {timeout:g} s")

    def _death(self, process: "subprocess.Popen[bytes]") -> str:
        code = process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _TAIL))
        said = " ".join(self._errors.read().decode(errors="replace").split())
        self.close()
        return f"the process ended {how}" + (f": {said}" if said else "")


def _resolved(target: str) -> tuple[str, str]:
    """Return module and function of `module:function`, or of an installed tool of that name."""
    if ":" not in target:
        found = next(iter(metadata.entry_points(group=GROUP, name=target)), None)
        if found is None:
            raise MeasureError(
                f"tool {target}: write `module:function`, or install a package with that name under {GROUP!r}"
            )
        target = found.value
    module, _, function = target.partition(":")
    if not module or not function.isidentifier():
        raise MeasureError(f"tool {target}: write `module:function`")
    return module, function
