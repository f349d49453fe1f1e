"""The tools that a program may name: the built-in ones, and Python functions of installed packages."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from morphogen.schemas import EncodeError, MorphogenError
from morphogen.schemas.knowledge.tools import EVERY_ACTION, TOOLS, Signature

from ..errors import ToolFailed, ToolRefused, one_line

if TYPE_CHECKING:
    from ..context import LoopContext

__all__ = ["Tool", "ToolCall", "ToolResult", "Toolbox", "tool"]

_F = TypeVar("_F", bound=Callable[..., Any])
_ACTS = frozenset({"write", "external"})
_MOST = 10**12  # of a limit: seconds, bytes, rows


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call of a tool: plain arguments with the defaults of its signature filled in, and the step's idempotency key.

    `plan` is what the tool's own `plan` said before the first attempt, which may have been another process's;
    `again` tells that an attempt before this one may have had its effect.
    """

    arguments: Mapping[str, Any]
    key: str
    context: "LoopContext"
    plan: Any = None
    again: bool = False


@dataclass(frozen=True, kw_only=True)
class ToolResult:
    """What a tool gave. `output` is the step's result; `text` is what `-> emit` reads trace lines from.

    `planned` marks a plan: nothing was done, and `output` is None. `resources` are plain numbers by name, such as `cpu_s`,
    `max_rss_bytes`, `exit_code`; `blobs` name what was too large to keep whole.
    """

    output: Any = None
    text: str = ""
    planned: bool = False
    plan: Any = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    blobs: Mapping[str, str] = field(default_factory=dict)
    duration_ns: int = 0


class Tool(Protocol):
    """What the toolbox holds under a name."""

    signature: Signature

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return what a call with these arguments does: pure, read, write or external."""
        ...

    def plan(self, call: ToolCall) -> Any:
        """Return, without acting, what a call would do, as plain values; it is recorded before the call."""
        ...

    def run(self, call: ToolCall) -> ToolResult:
        """Act. Raises ToolFailed, or ToolRefused where it will not."""
        ...


def tool(*, effect: str = "external", name: str | None = None) -> Callable[[_F], _F]:
    """Say of a Python function what it does to the world (pure, read, write, external); see docs/knowledge/loops.md."""

    def mark(function: _F) -> _F:
        function.__morphogen_tool__ = (effect, name)  # type: ignore[attr-defined]
        return function

    return mark


class Toolbox:
    """Tools by name. Raises ToolRefused for names and arguments that it does not know."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = dict(tools)

    @classmethod
    def standard(cls, extra: Mapping[str, Tool] | None = None, *, installed: bool = True) -> "Toolbox":
        """Return the built-in tools, those of installed packages, and `extra` ones over them."""
        from .files import Read, Write
        from .http import Http
        from .integrate import Integrate
        from .python import installed_tools
        from .run import Run
        from .sql import Sql
        from .sweep import Sweep

        built_in: dict[str, Tool] = {
            "tool.run": Run(),
            "tool.read": Read(),
            "tool.write": Write(),
            "tool.sql": Sql(),
            "tool.http": Http(),
            "tool.engineering_loop": Sweep(),
            "tool.dsl_integrate": Integrate(),
        }
        found: dict[str, Tool] = dict(installed_tools()) if installed else {}
        return cls({**found, **built_in, **(extra or {})})

    @property
    def signatures(self) -> dict[str, Signature]:
        """What the checker needs: the signature of every tool, and of `llm.query`."""
        return {**TOOLS, **{name: one.signature for name, one in self._tools.items()}}

    def find(self, name: str) -> Tool:
        """Return a tool. Raises ToolRefused with the nearest known name."""
        found = self._tools.get(name) or self._tools.get(f"tool.{name}")
        if found is None:
            from difflib import get_close_matches

            near = get_close_matches(name, self._tools, 1)
            raise ToolRefused(f"there is no tool {name}{f': did you mean {near[0]}?' if near else ''}")
        return found

    def prepare(
        self, name: str, arguments: Mapping[str, Any], context: "LoopContext", *, key: str | None = None
    ) -> tuple[Tool, ToolCall]:
        """Return the tool and the call, checked against its signature and with its plan."""
        found = self.find(name)
        call = ToolCall(
            arguments=checked(found.signature, arguments),
            key=context.place.key if key is None else key,
            context=context,
        )
        return found, call

    def call(
        self, name: str, arguments: Mapping[str, Any], context: "LoopContext", *, key: str | None = None
    ) -> ToolResult:
        """Plan and run in one go; in a context that is not live, what would act gives its plan."""
        found, call = self.prepare(name, arguments, context, key=key)
        return act(found, call)


def act(found: Tool, call: ToolCall) -> ToolResult:
    """Carry a call out, or give its plan where the context is not live. Raises StepFailed, or what must stop the loop."""
    if not call.context.live and found.effect(call.arguments) in _ACTS:
        return ToolResult(planned=True, plan=plan_of(found, call))
    with _failing(found):
        return found.run(call)


def plan_of(found: Tool, call: ToolCall) -> Any:
    """Return what a call would do. Raises StepFailed, or what must stop the loop."""
    with _failing(found):
        return found.plan(call)


def limit(call: ToolCall, name: str, default: float) -> float:
    """Return a limit that a call sets, or the default. Raises ToolRefused where it is no number above 0."""
    value = call.arguments.get(name)
    if value is None:
        return default
    if not 0 < value <= _MOST:
        raise ToolRefused(f"{name} must be a number above 0 and at most 1e12, got {str(value)[:40]}")
    return float(value)


@contextlib.contextmanager
def _failing(found: Tool) -> Iterator[None]:
    """Turn what the machine, or a value that no program checks, makes a tool raise into ToolFailed."""
    name = found.signature.name
    try:
        yield
    except MorphogenError as error:
        if isinstance(error, EncodeError):
            raise ToolFailed(f"{name}: {one_line(error)}") from error
        raise
    except FileNotFoundError as error:
        raise ToolFailed(f"{name}: no such file: {error.filename or error}") from error
    except OSError as error:
        raise ToolFailed(f"{name}: {error.strerror or one_line(error)}") from error
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise ToolFailed(f"{name}: {one_line(error)}") from error


def checked(signature: Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with defaults, held to the signature: programs are checked, values of templates are not."""
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in EVERY_ACTION and name not in signature.parameters:
            continue
        spec = signature.parameters.get(name)
        if spec is None:
            if not signature.open:
                known = ", ".join(signature.parameters) or "none"
                raise ToolRefused(f"{signature.name} takes no {name}: its arguments are {known}")
            values[name] = value
            continue
        if value is not None and not any(_is(value, kind.strip()) for kind in spec.type.split("|")):
            raise ToolRefused(f"{signature.name}: {name} must be {spec.type.replace('|', ' or ')}, got {_kind(value)}")
        if spec.choices and value is not None and value not in spec.choices:
            raise ToolRefused(f"{signature.name}: {name} must be one of {', '.join(spec.choices)}, got {value!r}")
        values[name] = value
    for name, spec in signature.parameters.items():
        if values.get(name) is None:
            if spec.required:
                raise ToolRefused(f"{signature.name}: {name} is unknown or missing, and it cannot do without")
            values[name] = spec.default
    return values


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "any":
            return True
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "int":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "float":
            return not isinstance(value, bool) and isinstance(value, int | float)
        case "list":
            return isinstance(value, list | tuple)
        case "map":
            return isinstance(value, dict)
    return True


def _kind(value: Any) -> str:
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a map"}
    return kinds.get(type(value), type(value).__name__)
