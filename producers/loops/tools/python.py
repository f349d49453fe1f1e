"""Tools that are Python functions: of installed packages, by entry points of group `morphogen.tools`.

    @tool(effect="read")
    def word_count(path: str, at_least: int = 1, *, call: ToolCall) -> int:
        \"\"\"Count the words of a file of the workspace.\"\"\"
        return len(call.context.workspace.read(path).split())

The annotations are the signature: `morphogen know check` holds programs to them. A parameter named `call` is given the ToolCall.
"""

import inspect
import time
import types
import typing
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from morphogen.schemas import plain
from morphogen.schemas.knowledge.tools import Effect, ParameterSpec, Signature

from ..errors import LoopError, ToolFailed, ToolRefused, one_line
from .toolbox import Tool, ToolCall, ToolResult

GROUP = "morphogen.tools"
_KINDS: dict[Any, str] = {
    str: "string", int: "int", float: "float", bool: "boolean", list: "list", tuple: "list", dict: "map", Any: "any",
    type(None): "any", inspect.Parameter.empty: "any", object: "any",
}  # fmt: skip
_EFFECTS = ("pure", "read", "write", "external")


class PythonTool:
    """A function as a tool. Raises ToolRefused where its annotations say no signature."""

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        effect, given = getattr(function, "__morphogen_tool__", ("external", None))
        self.signature = signature_of(function, name or given or f"tool.{function.__name__}", effect)
        self._function = function
        self._takes_call = "call" in inspect.signature(function).parameters

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return what the function was declared to do."""
        return self.signature.effect

    def plan(self, call: ToolCall) -> Any:
        """Return the arguments."""
        return {"arguments": dict(call.arguments)}

    def run(self, call: ToolCall) -> ToolResult:
        """Call it. What it raises becomes ToolFailed, one line."""
        extra = {"call": call} if self._takes_call else {}
        began = time.monotonic_ns()
        given = {name: value for name, value in call.arguments.items() if value is not None or name in self._optional}
        try:
            output = self._function(**given, **extra)
        except LoopError:
            raise
        except Exception as error:
            line = one_line(error)
            name = type(error).__name__
            raise ToolFailed(f"{self.signature.name}: {name}{f': {line}' if line != name else ''}") from error
        if isinstance(output, ToolResult):
            return output
        value = plain(output)
        return ToolResult(
            output=value, text=value if isinstance(value, str) else "", duration_ns=time.monotonic_ns() - began
        )

    @property
    def _optional(self) -> set[str]:
        return {name for name, spec in self.signature.parameters.items() if not spec.required}


def signature_of(function: Callable[..., Any], name: str, effect: str) -> Signature:
    """Return the signature that annotations and defaults say. Raises ToolRefused for what the language has no word for."""
    if effect not in _EFFECTS:
        raise ToolRefused(f"tool {name}: effect must be one of {', '.join(_EFFECTS)}, got {effect!r}")
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:
        raise ToolRefused(f"tool {name}: its annotations cannot be read: {error}") from error
    parameters: dict[str, ParameterSpec] = {}
    is_open = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
            continue
        if parameter.name == "call":
            continue
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL}:
            raise ToolRefused(f"tool {name}: arguments are given by name, so {parameter.name} cannot be positional")
        required = parameter.default is parameter.empty
        parameters[parameter.name] = ParameterSpec(
            type=_kind(hints.get(parameter.name, parameter.empty), name),
            required=required,
            default=None if required else parameter.default,
            choices=_choices(hints.get(parameter.name)),
        )
    doc = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    return Signature(
        name,
        parameters,
        returns=_kind(hints.get("return", Any), name),
        effect=typing.cast(Effect, effect),
        open=is_open,
        doc=doc,
    )


def installed_tools() -> dict[str, Tool]:
    """Return the tools of installed packages by name: `tool.<entry point>`. Raises ToolRefused for one that cannot be had."""
    found: dict[str, Tool] = {}
    for point in metadata.entry_points(group=GROUP):
        name = point.name if point.name.startswith("tool.") else f"tool.{point.name}"
        try:
            function = point.load()
        except (Exception, SystemExit) as error:
            raise ToolRefused(
                f"tool {name} ({point.value}) cannot be loaded: {type(error).__name__}: {one_line(error)}; mend or uninstall its package"
            ) from error
        found[name] = function if _is_tool(function) else PythonTool(function, name)
    return found


def _is_tool(value: Any) -> bool:
    return isinstance(getattr(value, "signature", None), Signature) and callable(getattr(value, "run", None))


def _kind(hint: Any, name: str) -> str:
    if hint in _KINDS:
        return _KINDS[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        kinds = [_kind(one, name) for one in inner if one is not type(None)]
        return "any" if "any" in kinds else "|".join(dict.fromkeys(kinds))
    if origin is typing.Literal:
        return "|".join(dict.fromkeys(_KINDS.get(type(one), "any") for one in inner))
    if origin in {list, tuple}:
        return "list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "map"
    if isinstance(hint, type) and issubclass(hint, ToolResult):
        return "any"
    raise ToolRefused(f"tool {name}: {hint!r} has no counterpart; use str, int, float, bool, list, dict, Literal, Any")


def _choices(hint: Any) -> tuple[str, ...]:
    inner = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    return tuple(inner) if inner and all(isinstance(one, str) for one in inner) else ()
