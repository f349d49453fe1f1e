"""The two ways to measure a configuration once: run a command, or call a Python function that stays warm."""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from morphogen.schemas.knowledge import tree
from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate, expand

from ..errors import ToolFailed
from .errors import SpaceError
from .reading import Reading, TrialFailed, Yardstick, said_by, said_on
from .space import Config
from .warm import WarmWorker

if TYPE_CHECKING:
    from ..context import LoopContext
    from ..tools import ToolResult
    from .plan import Plan

_HOLE = "\ue000{}\ue001"  # stands for an expression while the words of a command line are parted
_HOLES = re.compile("\ue000([0-9]+)\ue001")


class Meter(Protocol):
    """Measures one configuration at a time; each worker has one of its own."""

    def read(self, config: Config) -> Reading:
        """Measure once. Raises TrialFailed, or what stops the whole sweep."""
        ...

    def close(self) -> None:
        """Give back what it holds, and end what still runs."""
        ...


class CommandMeter:
    """Runs a program for each measurement, by `tool.run`: workspace, timeout, process group and caps are its own."""

    def __init__(self, plan: "Plan", yardstick: Yardstick, call: "Callable[[Mapping[str, Any]], ToolResult]") -> None:
        assert plan.cmd is not None
        self._plan, self._yardstick, self._call = plan, yardstick, call

    def read(self, config: Config) -> Reading:
        """Run the command and read its output."""
        plan = self._plan
        assert plan.cmd is not None
        arguments = {"cmd": words_of(plan.cmd, plan.scope.with_names(config)), "timeout": plan.timeout}
        if plan.cwd:
            arguments["cwd"] = plan.cwd
        if plan.env:
            arguments["env"] = plan.env
        try:
            result = self._call(arguments)
        except ToolFailed as error:
            raise TrialFailed(str(error)) from error
        return self._yardstick.read(said_on(result.text), config, result.duration_ns / 1e9)

    def close(self) -> None:
        """Hold nothing: the tool ends its own processes."""


class ToolMeter:
    """Calls a Python function in a warm process."""

    def __init__(self, plan: "Plan", yardstick: Yardstick, worker: WarmWorker) -> None:
        self._plan, self._yardstick, self._worker = plan, yardstick, worker

    def read(self, config: Config) -> Reading:
        """Call the function with the configuration and the loop's own `arguments`."""
        result, seconds = self._worker.call({**self._plan.arguments, **config}, self._plan.timeout)
        return self._yardstick.read(said_by(result, self._plan.field), config, seconds)

    def close(self) -> None:
        """End the process."""
        self._worker.close()


def meter_for(plan: "Plan", context: "LoopContext", beside: Path | None, check: Callable[[], None]) -> Meter:
    """Return a meter for one worker of a sweep.

    A tool is looked for in the workspace, then `beside` the program; `check` raises where the sweep is to stop.
    """
    yardstick = Yardstick(plan.case, plan.field, plan.cases)
    if plan.tool is None:
        return CommandMeter(plan, yardstick, lambda arguments: context.call("tool.run", arguments))
    root = Path(context.workspace.root)
    path = [root] if beside is None else [root, beside]
    return ToolMeter(plan, yardstick, WarmWorker(plan.tool, path, cwd=root, glance=check))


def words_of(cmd: tree.Expr, scope: Scope) -> list[str]:
    """Return the argument vector of a command, which is a list or a line of words.

    A line is parted into words before its `{{expressions}}` are filled in, so that no value can add a word.
    Raises SpaceError where it names what is not there.
    """
    try:
        if isinstance(cmd, tree.ListExpr):
            return [expand(each, scope) for each in cmd.items]
        if isinstance(cmd, tree.Template):
            texts = [None if isinstance(part, str) else expand(part, scope) for part in cmd.parts]
            holes = [part if isinstance(part, str) else _HOLE.format(n) for n, part in enumerate(cmd.parts)]
            return [_filled(word, texts) for word in shlex.split("".join(holes))]
        value = evaluate(cmd, scope)
        return [str(each) for each in value] if isinstance(value, list) else shlex.split(str(value))
    except (EvaluateError, ValueError) as error:
        raise SpaceError(f"cmd: {error}") from error


def _filled(word: str, texts: list[str | None]) -> str:
    return _HOLES.sub(lambda match: texts[int(match[1])] or "", word)
