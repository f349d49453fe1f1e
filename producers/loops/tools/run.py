"""`tool.run`: a program, started from an argument vector, in the workspace.

No shell unless it is asked for; an environment that names what it lets through; a limit of time for the whole process
group; output kept up to a cap with the rest in a blob; what it used of the machine recorded.
"""

import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from morphogen.schemas.knowledge.tools import TOOLS, Signature

from ..errors import ToolFailed, ToolRefused
from .process import run_process
from .toolbox import ToolCall, ToolResult, limit

PASSED_ON = (
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "MKL_NUM_THREADS",
    "MORPHOGEN_HOME", "MORPHOGEN_URL", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "PYTHONPATH",
    "SHELL", "TERM", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV",
)  # fmt: skip
"""Environment variables that a program gets; all else may hold a secret. A workspace's policy may name more."""
MAX_OUTPUT = 256 * 1024  # bytes of each stream that are kept in the log
_STDERR = 16 * 1024  # characters of standard error, from its end, that stand beside the result
_FROM_TEXT = 4 << 20  # bytes of standard output in which trace lines are looked for


class Run:
    """Starts programs."""

    signature: Signature = TOOLS["tool.run"]

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return external: nobody knows what a program does."""
        return "external"

    def plan(self, call: ToolCall) -> Any:
        """Return the argument vector, and where it would start. Raises ToolRefused for what could not be started."""
        _limits(call)
        _environment(call)
        return {"argv": vector(call.arguments), "cwd": str(_folder(call)), "shell": bool(call.arguments.get("shell"))}

    def run(self, call: ToolCall) -> ToolResult:
        """Start it and wait. Raises ToolFailed for an exit code other than 0, with the end of what it said."""
        arguments, context = call.arguments, call.context
        argv, cwd = vector(arguments), _folder(call)
        environment = _environment(call)
        timeout, cap = _limits(call)
        if not arguments.get("shell") and shutil.which(argv[0], path=_search_path(environment, cwd)) is None:
            raise ToolFailed(f"tool.run: there is no program {argv[0]!r} to start: install it, or check the path")
        stdin = arguments.get("stdin")
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
            if stdin is not None:
                given.write(str(stdin).encode())
                given.seek(0)
            ended = run_process(
                argv, cwd=cwd, env=environment, stdin=given if stdin is not None else None, out=out, err=err,
                timeout=timeout, check=context.check,
            )  # fmt: skip
            blobs: dict[str, str] = {}
            text = _text(out, _FROM_TEXT)
            shown = _kept(out, cap, "stdout", call, blobs)
            errors = _kept(err, cap, "stderr", call, blobs)
        resources = {
            "exit_code": ended.code,
            "cpu_s": round(ended.cpu_s, 6),
            "max_rss_bytes": ended.max_rss_bytes,
            **({"stderr": errors[-_STDERR:]} if errors else {}),
        }
        result = ToolResult(
            output=shown.removesuffix("\n"), text=text, resources=resources, blobs=blobs, duration_ns=ended.wall_ns
        )
        if ended.reason is not None or ended.code != 0:
            why = ended.reason or f"ended with {_code(ended.code)}"
            last = _last_line(errors) or _last_line(shown)
            raise ToolFailed(f"{_shown(argv)} {why}{f': {last}' if last else ''}", result)
        return result


def vector(arguments: Mapping[str, Any]) -> list[str]:
    """Return the argument vector of a command: a list as it is, a string split as a shell splits words, or a shell's."""
    command = arguments["cmd"]
    if isinstance(command, list | tuple):
        argv = [part if isinstance(part, str) else _word(part) for part in command]
        if arguments.get("shell"):
            raise ToolRefused("tool.run: a shell takes one string, not a list")
    elif arguments.get("shell"):
        argv = ["/bin/sh", "-c", command]
    else:
        try:
            argv = shlex.split(command)
        except ValueError as error:
            raise ToolRefused(f"tool.run: {command!r} cannot be split into arguments: {error}") from error
    if not argv or not argv[0]:
        raise ToolRefused("tool.run: the command is empty")
    if any("\0" in part for part in argv):
        raise ToolRefused("tool.run: cmd holds a NUL character, which no program can be given")
    return argv


def _limits(call: ToolCall) -> tuple[float | None, int]:
    """Return the time in seconds, None without end, and the bytes of each stream that are kept."""
    timeout = None if call.arguments.get("timeout") is None else limit(call, "timeout", 0.0)
    return timeout, int(limit(call, "max_output", MAX_OUTPUT))


def _folder(call: ToolCall) -> Path:
    try:
        return call.context.workspace.folder(call.arguments.get("cwd") or ".")
    except (FileNotFoundError, NotADirectoryError):
        raise ToolRefused(f"tool.run: there is no folder {call.arguments['cwd']} in the workspace") from None


def _environment(call: ToolCall) -> dict[str, str]:
    allowed = {*PASSED_ON, *call.context.workspace.policy.environment}
    passed = {name: value for name, value in os.environ.items() if name in allowed or name.startswith("LC_")}
    given = call.arguments.get("env") or {}
    added = {str(name): value if isinstance(value, str) else _word(value) for name, value in given.items()}
    for name, value in added.items():
        if not name or "=" in name or "\0" in f"{name}{value}":
            raise ToolRefused(
                f"tool.run: env cannot hold {name!r}: a name is not empty and has no =, and neither has a NUL"
            )
    return {
        **passed,
        **added,
        "MORPHOGEN_LOOP_RUN": call.context.run,
        "MORPHOGEN_LOOP_KEY": call.key,
    }


def _search_path(environment: Mapping[str, str], cwd: Path) -> str:
    return os.pathsep.join(
        str(cwd / part) if part else str(cwd) for part in environment.get("PATH", "").split(os.pathsep)
    )


def _word(value: Any) -> str:
    from morphogen.schemas.knowledge.evaluate import show

    return show(value)


def _text(stream: IO[bytes], limit: int) -> str:
    stream.seek(0)
    return stream.read(limit).decode("utf-8", "replace")


def _kept(stream: IO[bytes], cap: int, name: str, call: ToolCall, blobs: dict[str, str]) -> str:
    """Return a stream's text; of a longer one its two ends around a marker, and the whole of it in a blob."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size <= cap:
        return stream.read().decode("utf-8", "replace")
    where = ""
    if call.context.bus is not None:
        blobs[name] = call.context.bus.blobs.put(stream.read())
        where = f"; all of it is blob {blobs[name]}"
    stream.seek(0)
    first = stream.read(cap - cap // 4)
    stream.seek(size - cap // 4)
    last = stream.read()
    marker = f"\n[... {size - len(first) - len(last):,} of {size:,} bytes left out{where} ...]\n"
    return first.decode("utf-8", "replace") + marker + last.decode("utf-8", "replace")


def _code(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _shown(argv: Sequence[str]) -> str:
    line = shlex.join(argv)
    return line if len(line) <= 80 else f"{line[:77]}..."


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else ""
