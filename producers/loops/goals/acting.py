"""Steps that act through declared functions: a program's own tools, and `tool.act`, whose tool a model chooses.

What a step does goes through one function, so whoever watches the functions sees it, and a step that was killed in
mid-effect keeps its idempotency key and plan when it is done again.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from morphogen.kernels.sandbox import Capabilities
from morphogen.kernels.sandbox.capabilities import FILES
from morphogen.schemas import jsonable, plain
from morphogen.schemas.knowledge.tools import ParameterSpec, Signature

from ..errors import LoopError, StepFailed, ToolFailed, ToolRefused, one_line
from ..tools.toolbox import Tool, Toolbox, ToolCall, ToolResult, checked
from ..tracing import CHECKS
from .hands import HTTP, WorkspaceFiles, as_function, holding, tools_of

ACT, GIVE_UP = "tool.act", "tool.give_up"
_SHOWN = 2000  # characters of one result that a model is shown
_LINE = 1000  # characters of an error
_LOOKS = frozenset({"pure", "read"})
_DIRECT = frozenset({"tool.engineering_loop"})  # what it does is measured and recorded by the sweep itself


class Through:
    """A tool of a program that acts through the declared function of its name."""

    def __init__(self, tool: Tool, capabilities: Capabilities) -> None:
        self.signature = tool.signature
        self._tool = tool
        self._functions = capabilities.functions

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return that of the function; what the tool itself says where there is none."""
        given = {name: value for name, value in arguments.items() if value is not None}
        declared = self._functions.get(as_function(self.signature.name, given)[0])
        return self._tool.effect(arguments) if declared is None else declared.effect

    def plan(self, call: ToolCall) -> Any:
        """Return what the tool itself says."""
        return self._tool.plan(call)

    def run(self, call: ToolCall) -> ToolResult:
        """Act through the function. Raises ToolRefused where it is not declared."""
        given = {name: value for name, value in call.arguments.items() if value is not None}
        name, arguments = as_function(self.signature.name, given)
        declared = self._functions.get(name)
        if declared is None:
            raise ToolRefused(f"{name} is not among what may be done here{_how(name)}")
        if declared.effect in _LOOKS and call.context.place.path.startswith(CHECKS):
            return self._tool.run(call)  # finding out whether it is a success is no part of the way
        with holding(call) as held:
            try:
                output = declared.function(**arguments)
            except LoopError:
                raise
            except Exception as error:
                raise ToolFailed(f"{name}: {line(error)}") from error
        if held.result is not None:
            return held.result
        return ToolResult(output=plain(output), text=output if isinstance(output, str) else "")


class Act:
    """Does what a model asks for: a declared function by name. That it fails is an answer too, and ends nothing."""

    signature = Signature(
        ACT,
        {
            "name": ParameterSpec("string", required=True, doc="A declared function, such as tool.read."),
            "arguments": ParameterSpec("map", doc="Its arguments by name."),
        },
        returns="map",
        effect="external",
        doc="Call a declared function; the result is a map of ok, result, error, and shown: a line for a model.",
    )

    def __init__(self, capabilities: Capabilities, toolbox: Toolbox) -> None:
        self._functions = capabilities.functions
        self._tools = {tool.signature.name: tool for tool in tools_of(toolbox)}

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return that of the function."""
        declared = self._functions.get(str(arguments.get("name")))
        return "pure" if declared is None else declared.effect

    def plan(self, call: ToolCall) -> Any:
        """Return what the tool would plan; for a file that grows, what it is before and after."""
        name, arguments = _asked(call)
        try:
            if name == "files.append_text":
                before = _content(call, str(arguments["path"]))
                return {"after": hashlib.sha256((before or b"") + str(arguments["text"]).encode()).hexdigest()}
            tool = self._tools.get(name)
            return None if tool is None else tool.plan(_inner(tool, call, arguments))
        except (StepFailed, KeyError, OSError, ValueError):
            return None  # it will fail, and say why, when it acts

    def run(self, call: ToolCall) -> ToolResult:
        """Return what came of it, a failure included."""
        name, arguments = _asked(call)
        declared = self._functions.get(name)
        if declared is None:
            return _failed(
                name, arguments, f"there is no tool {name!r}; known are {', '.join(sorted(self._functions))}"
            )
        if call.again and _done_already(call, name, arguments):
            return _given(name, arguments, None)
        try:
            inspect.signature(declared.function).bind(**arguments)
        except TypeError as error:
            return _failed(name, arguments, f"{name}: {error}")
        with holding(call) as held:
            try:
                value = declared.function(**arguments)
            except StepFailed as error:
                return _failed(name, arguments, line(error))
            except LoopError:
                raise
            except Exception as error:  # noqa: BLE001 - a declared function may fail in any way: the model is told
                return _failed(name, arguments, line(error))
        resources = {} if held.result is None else held.result.resources
        return _given(name, arguments, value, resources)


class GiveUp:
    """Ends the loop without success, for a reason."""

    signature = Signature(
        GIVE_UP,
        {"why": ParameterSpec("string", required=True, doc="Why the goal is not reached.")},
        effect="pure",
        doc="End without success.",
    )

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return pure."""
        return "pure"

    def plan(self, call: ToolCall) -> Any:
        """Return the reason."""
        return {"why": call.arguments["why"]}

    def run(self, call: ToolCall) -> ToolResult:
        """Raise ToolFailed with the reason."""
        raise ToolFailed(call.arguments["why"])


def acting(toolbox: Toolbox, capabilities: Capabilities, extra: Mapping[str, Tool] | None = None) -> Toolbox:
    """Return a toolbox of the same names that acts through `capabilities`, with `tool.act` and `tool.give_up` beside."""
    found: dict[str, Tool] = {}
    for name in toolbox.signatures:
        if name != "llm.query":
            tool = toolbox.find(name)
            found[name] = tool if name in _DIRECT else Through(tool, capabilities)
    return Toolbox({**found, ACT: Act(capabilities, toolbox), GIVE_UP: GiveUp(), **(extra or {})})


def told(capabilities: Capabilities, names: Sequence[str], toolbox: Toolbox) -> str:
    """Return declared functions as a model is told of them, one a line: call, effect, what it does.

    What tools and files do stands in their own words, however many functions are wrapped around them.
    """
    known = {tool.signature.name: tool.signature.doc for tool in tools_of(toolbox)}
    known |= {f"files.{name}": inspect.getdoc(getattr(WorkspaceFiles, name)) or "" for name in FILES}
    lines = []
    for name in names:
        declared = capabilities.functions[name]
        try:
            signature = str(inspect.signature(declared.function)).split(" -> ")[0]
        except (TypeError, ValueError):
            signature = "(...)"
        doc = (known.get(name) or inspect.getdoc(declared.function) or "").split("\n\n")[0].replace("\n", " ")
        lines.append(f"{name}{signature} [{declared.effect}] {doc}".rstrip())
    return "\n".join(lines)


def shown(value: Any, length: int = _SHOWN) -> str:
    """Return a value as one piece of JSON, cut where it is long."""
    text = json.dumps(jsonable(value), ensure_ascii=False)
    return text if len(text) <= length else f"{text[:length]}... ({len(text) - length:,} more characters)"


def line(error: BaseException) -> str:
    """Return an error in one line."""
    if isinstance(error, FileNotFoundError):
        return f"there is no file {error.filename or ''}".rstrip()
    return one_line(error)[:_LINE]


def _asked(call: ToolCall) -> tuple[str, dict[str, Any]]:
    return str(call.arguments["name"]), dict(call.arguments.get("arguments") or {})


def _inner(tool: Tool, call: ToolCall, arguments: Mapping[str, Any]) -> ToolCall:
    return ToolCall(arguments=checked(tool.signature, arguments), key=call.key, context=call.context)


def _given(
    name: str, arguments: Mapping[str, Any], value: Any, resources: Mapping[str, Any] | None = None
) -> ToolResult:
    told_so = f"{name} {shown(arguments)} -> {shown(value)}"
    output = {"ok": True, "result": _kept(value), "error": None, "shown": told_so}
    return ToolResult(output=output, resources=resources or {})


def _failed(name: str, arguments: Mapping[str, Any], why: str) -> ToolResult:
    told_so = f"{name} {shown(arguments)} failed: {why}"
    return ToolResult(output={"ok": False, "result": None, "error": why, "shown": told_so})


def _kept(value: Any) -> Any:
    """Return a result as an event holds it: bytes stay bytes, all else plain."""
    return value if isinstance(value, bytes) else plain(value)


def _content(call: ToolCall, path: str) -> bytes | None:
    try:
        return call.context.workspace.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _done_already(call: ToolCall, name: str, arguments: Mapping[str, Any]) -> bool:
    """Tell whether an attempt that was killed had its effect; only where doing it twice would not be doing it once."""
    path = str(arguments.get("path", ""))
    if name == "files.append_text" and isinstance(call.plan, dict):
        content = _content(call, path)
        return content is not None and hashlib.sha256(content).hexdigest() == call.plan.get("after")
    return name == "files.remove" and bool(path) and not call.context.workspace.exists(path)


def _how(name: str) -> str:
    return {"tool.run": ": --allow-run lets it", HTTP: ": it changes things, and only looking is allowed"}.get(name, "")
