"""What dispatch itself does, told as executions: a tool that was called, a course that was followed. Pure: events out."""

from collections.abc import Mapping
from typing import Any

from morphogen.kernels.sandbox import value_sha256
from morphogen.schemas import plain
from morphogen.schemas.executions import ExecutionFinished, ExecutionStarted, ExecutionStep
from morphogen.schemas.goals import NORM_VERSION

from .errors import DispatchError
from .protocol import Act, Request


def started(execution: str, request: Request, mode: str, budget_microusd: int | None) -> ExecutionStarted:
    """Return the event that begins an execution for a request."""
    return ExecutionStarted(
        execution=execution, goal=request.goal, template=request.template, signature=request.signature,
        norm_version=NORM_VERSION, params=request.params, environment=dict(request.environment),
        environment_sha256=value_sha256(dict(request.environment)), mode=mode, request=request.id,
        budget_microusd=budget_microusd,
    )  # fmt: skip


def step(execution: str, number: int, act: Act) -> ExecutionStep:
    """Return the event of one act; it asked no model, so it cost nothing."""
    args, result = _held(act.args), _held(act.result)
    return ExecutionStep(
        execution=execution, number=number, kind="tool", name=act.name, args=args, args_sha256=value_sha256(args),
        result=result if act.ok else None, result_sha256=value_sha256(result) if act.ok else None, effect=act.effect,
        ok=act.ok, error=None if act.error is None else line(act.error), duration_ns=act.duration_ns, cost_microusd=0,
    )  # fmt: skip


def finished(
    execution: str, *, ok: bool, output: Any, error: str | None, steps: int, duration_ns: int, cancelled: bool = False
) -> ExecutionFinished:
    """Return the event that ends an execution. Nobody has judged a success; a failure was an error."""
    value = _held(output) if ok else None
    return ExecutionFinished(
        execution=execution, outcome="cancelled" if cancelled else "success" if ok else "failure",
        judged_by="nobody" if ok or cancelled else "exception", output=value,
        output_sha256=value_sha256(value) if ok else None, steps=steps, duration_ns=duration_ns, cost_microusd=0,
        error=None if error is None else line(error),
    )  # fmt: skip


def _held(value: Any) -> Any:
    """Return a value as an event can hold it, and a tool could be given it."""
    try:
        value_sha256(value)
    except (TypeError, OverflowError, ValueError, RecursionError):
        return _readable(plain(value))
    return value


def _readable(value: Any) -> Any:
    """Return plain values with what no event can hold taken out of their texts."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {text(str(key)): _readable(item) for key, item in value.items()}
    return value


def text(said: str) -> str:
    """Return a text that an event can hold: lone surrogates become `?`."""
    return said.encode("utf-8", "replace").decode()


def line(said: str) -> str:
    """Return an error in one line of at most 1,000 characters."""
    return text(" ".join(said.split()))[:1000]


def environment_of(given: Mapping[str, object]) -> dict[str, str]:
    """Return what a course may depend on as an execution records it: text by name. Raises DispatchError where it has no names."""
    if not isinstance(given, Mapping):
        raise DispatchError(f"an environment is values by name, got a {type(given).__qualname__}: give a dict")
    return {text(str(name)): text(str(value)) for name, value in given.items()}


def as_event(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as an event can hold them."""
    return {text(str(name)): _held(value) for name, value in params.items()}
