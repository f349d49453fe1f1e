"""How a use of a tool and an end are written down: arguments by name, an exception as an outcome and as one line."""

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from morphogen.schemas.settling import settled

from .errors import ExecutionError


def by_name(function: Callable[..., Any], args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by name; positional ones that cannot be told by name as `arg0`, `arg1`, ..."""
    if not args:
        return dict(named)
    try:
        bound = inspect.signature(function).bind(*args, **named)
    except (TypeError, ValueError):
        return {**{f"arg{at}": value for at, value in enumerate(args)}, **named}
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found |= {f"{name}{at}": item for at, item in enumerate(value)}
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        else:
            found[name] = value
    return found


def by_its_name(what: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return values by name as a dict of their own. Raises ExecutionError where they have no names."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise ExecutionError(f"{what} are values by name, got a {type(values).__qualname__}; give a dict")
    return dict(values)


def id_of(what: str, name: str) -> str:
    """Return an id as an event holds it. Raises ExecutionError for an object in its place."""
    if not isinstance(name, str) or not name:
        raise ExecutionError(f"{what} is an id, as text, got {settled(name)!r:.60}; an execution's stands in its `id`")
    return str(settled(name))


def score_of(score: float | None) -> float | None:
    """Return a score as an event holds it. Raises ExecutionError for NaN, an infinity and what is no number."""
    try:
        number = None if score is None else float(score)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise ExecutionError(f"a score is a finite number, got {settled(score)!r:.60}")
    return number


def outcome_of(error: BaseException) -> str:
    """Return how an execution has ended that was left by this exception."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        return "cancelled"  # a signal has ended it, such as SIGTERM
    return "failure"


def one_line(error: BaseException | str) -> str:
    """Return an error as one line of at most 1,000 characters, its type in front."""
    if isinstance(error, BaseException):
        try:
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
        except Exception:  # noqa: BLE001  an error whose text cannot be had is told by its name
            text = type(error).__name__
    else:
        text = str(error)
    return str(settled(" ".join(text.split())[:1000]))
