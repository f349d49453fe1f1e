"""The loops' tools as declared functions: what a recorded course, a followed one and a crystallized tool all act through.

`tool.read(path="a.csv")` does what the step `tool.read { path: "a.csv" }` does and returns what the step would have
given. Beside the tools stand the files of the workspace (`files.read_text` and the like). A function has one effect, so GET
requests, which only look, have a name of their own: `tool.http_get`.
"""

import inspect
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from morphogen.kernels.sandbox import Capabilities, Declared
from morphogen.kernels.sandbox import Workspace as Files
from morphogen.kernels.sandbox.errors import Refused
from morphogen.schemas import plain
from morphogen.schemas.knowledge.tools import TOOLS, Signature

from ..context import LoopContext
from ..tools.toolbox import Tool, Toolbox, ToolCall, ToolResult, act, checked
from ..workspace import RESERVED, Workspace

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

RUN, HTTP, HTTP_GET = "tool.run", "tool.http", "tool.http_get"
_OF_A_PROGRAM = frozenset({"llm.query", "tool.engineering_loop"})  # they need the program that names them
_LARGEST = 1 << 20  # bytes of a file that `files` reads or writes


class WorkspaceFiles(Files):
    """The files of a workspace, without the folder that says what the workspace allows."""

    def write_bytes(self, path: str, data: bytes) -> None:
        """Put a file in place, whole or not at all."""
        _refuse_reserved(path)
        super().write_bytes(path, data)

    def remove(self, path: str) -> None:
        """Remove one regular file."""
        _refuse_reserved(path)
        super().remove(path)

    def make_folder(self, path: str) -> None:
        """Make a folder, where there is none yet."""
        _refuse_reserved(path)
        super().make_folder(path)


class HttpGet:
    """One GET request: looks, and changes nothing. It is `tool.http` with the method left out."""

    signature = Signature(
        HTTP_GET,
        {name: TOOLS[HTTP].parameters[name] for name in ("url", "headers", "timeout", "max_output")},
        returns="map",
        effect="read",
        doc="Send one GET request; the result is a map of status, headers and text.",
    )

    def __init__(self, http: Tool) -> None:
        self._http = http

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return read."""
        return "read"

    def plan(self, call: ToolCall) -> Any:
        """Return the address."""
        return {"method": "GET", "url": call.arguments["url"]}

    def run(self, call: ToolCall) -> ToolResult:
        """Return status, headers and text; raises as `tool.http` does."""
        asked = checked(self._http.signature, {**call.arguments, "method": "GET"})
        return self._http.run(replace(call, arguments=asked))


@dataclass
class Held:
    """A step of a loop that acts through a function: its key and plan go in, the tool's whole result comes out."""

    call: ToolCall
    result: ToolResult | None = None


_HELD: ContextVar[Held | None] = ContextVar("morphogen_step", default=None)


@contextmanager
def holding(call: ToolCall) -> Iterator[Held]:
    """Let the function that is called inside act for this step: with its idempotency key, plan and context."""
    held = Held(call)
    token = _HELD.set(held)
    try:
        yield held
    finally:
        _HELD.reset(token)


class Hand:
    """A tool of the loops as a plain function of named arguments. Raises what the tool raises."""

    def __init__(self, tool: Tool, context: LoopContext) -> None:
        self._tool = tool
        self._context = context
        self.__name__ = tool.signature.name
        self.__doc__ = tool.signature.doc
        self.__signature__ = python_signature(tool.signature)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Act, and return the result as plain values; what is not given has the tool's own default."""
        bound = self.__signature__.bind(*args, **kwargs).arguments
        given = {**bound.pop("more", {}), **bound}
        arguments = checked(self._tool.signature, given)
        held = _HELD.get()
        if held is None:
            call = ToolCall(arguments=arguments, key=secrets.token_hex(16), context=self._context)
        else:
            call = replace(held.call, arguments=arguments)
        result = act(self._tool, call)
        if held is not None:
            held.result = result
        return plain(result.output)


def capabilities_of(
    toolbox: Toolbox,
    workspace: Workspace,
    *,
    bus: "Bus | None" = None,
    without: Collection[str] = (RUN,),
    write: bool = True,
) -> Capabilities:
    """Return the tools of a toolbox, but for those in `without`, and the files of the workspace.

    `tool.run` is left out unless `without` says otherwise: a model that may start any program needs no other tool. With
    `write=False` only what looks is there.
    """
    from morphogen.schemas.knowledge.program import Program
    from morphogen.schemas.knowledge.tree import Module

    nothing = Program(Module(), "", "", "")  # a function belongs to no program, and reading one would take a second
    context = LoopContext(run="", loop="", program=nothing, workspace=workspace, tools=toolbox, live=True, bus=bus)
    found: dict[str, Declared] = {}
    for tool in tools_of(toolbox):
        effect = tool.signature.effect
        if tool.signature.name not in without and (write or effect in {"pure", "read"}):
            found[tool.signature.name] = Declared(Hand(tool, context), effect)
    return Capabilities(files=WorkspaceFiles(workspace.root, write=write, max_bytes=_LARGEST), tools=found)


def tools_of(toolbox: Toolbox) -> list[Tool]:
    """Return the tools that can act without a program, each with one effect, by name."""
    named = {name: toolbox.find(name) for name in sorted(toolbox.signatures) if name not in _OF_A_PROGRAM}
    if HTTP in named and HTTP_GET not in named:
        named[HTTP_GET] = HttpGet(named[HTTP])
    return [named[name] for name in sorted(named)]


def as_function(action: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the declared function, and its arguments, that a step of a program stands for."""
    asked = dict(arguments)
    if (
        action == HTTP
        and asked.get("method") in {None, "GET"}
        and asked.get("body") is None
        and asked.get("json") is None
    ):
        return HTTP_GET, {name: value for name, value in asked.items() if name in HttpGet.signature.parameters}
    return action, asked


def python_signature(signature: Signature) -> inspect.Signature:
    """Return a tool's signature as that of a Python function: the required ones first, then those with a default."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = [
        inspect.Parameter(name, kind, annotation=_annotation(spec.type))
        for name, spec in signature.parameters.items()
        if spec.required
    ]
    optional = [
        inspect.Parameter(name, kind, default=spec.default, annotation=_annotation(spec.type))
        for name, spec in signature.parameters.items()
        if not spec.required
    ]
    more = [inspect.Parameter("more", inspect.Parameter.VAR_KEYWORD)] if signature.open else []
    return inspect.Signature([*required, *optional, *more])


def _annotation(kinds: str) -> Any:
    found: Any = None
    for kind in kinds.split("|"):
        one = _ANNOTATIONS.get(kind.strip(), Any)
        if one is Any:
            return Any
        found = one if found is None else found | one
    return found


_ANNOTATIONS: dict[str, Any] = {"string": str, "int": int, "float": float, "boolean": bool, "list": list, "map": dict}


def _refuse_reserved(path: str) -> None:
    if path.split("/", maxsplit=1)[0] == RESERVED:
        raise Refused(f"{path!r} cannot be changed: {RESERVED} holds the workspace's policy")
