"""What the values in a package may be: those that a recording holds, nested no deeper than a program needs.

A package is written by a stranger. What is refused here would else be met where a table is folded, a hash is taken or a line
is shown.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from morphogen.consumers.executions import Step, Trace
from morphogen.kernels.sandbox import value_sha256
from morphogen.schemas import Event
from morphogen.schemas.crystals import Parameter
from morphogen.schemas.executions import EFFECTS, KINDS
from morphogen.schemas.settling import DEEPEST

_DEEPEST_EVENT = 100  # lists, mappings and parts in each other, in an event of a tool's making
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")


def too_deep(events: Iterable[Event]) -> str | None:
    """Say which event is nested too deep; None where none is."""
    for event in events:
        if _deeper(event, _DEEPEST_EVENT):
            return f"its {event.type} is nested deeper than {_DEEPEST_EVENT}"
    return None


def _deeper(value: Any, most: int) -> bool:
    waiting = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, msgspec.Struct):
            inside: Iterable[Any] = (getattr(one, name) for name in one.__struct_fields__)
        elif isinstance(one, Mapping):
            inside = (*one.keys(), *one.values())
        elif isinstance(one, list | tuple | set | frozenset):
            inside = one
        else:
            continue
        if depth > most:
            return True
        waiting += [(item, depth + 1) for item in inside]
    return False


def odd_maker(maker: str) -> str | None:
    """Say why a text names no maker; None where it does."""
    return None if _WORD.fullmatch(maker) else f"its maker {maker[:40]!r} is no name"


def odd_parameter(one: Parameter) -> str | None:
    """Say what is wrong with a parameter's range; None where nothing is."""
    bounds = [bound for bound in (one.minimum, one.maximum) if bound is not None]
    if len(bounds) == 1 or not all(math.isfinite(bound) for bound in bounds):
        return f"the range of the parameter {one.name[:40]!r} has not two ends"
    return None


def odd_trace(trace: Trace) -> str | None:
    """Say what of an execution no recorder writes; None where there is nothing."""
    where = f"the execution {trace.execution[:40]!r}"
    if not recordable(dict(trace.params)) or not recordable(trace.output):
        return f"{where} holds a value that is never recorded"
    return next((f"{where}: {why}" for step in trace.steps if (why := _odd_step(step)) is not None), None)


def _odd_step(step: Step) -> str | None:
    if step.kind not in KINDS or step.effect not in EFFECTS:
        return f"step {step.number} is of kind {step.kind[:20]!r} and of effect {step.effect[:20]!r}"
    if not recordable(dict(step.args)) or not recordable(step.result):
        return f"step {step.number} holds a value that is never recorded"
    return None


def recordable(value: Any) -> bool:
    """Tell whether a value is one that a recording can hold, and a tool be given."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, dict | list) and depth > DEEPEST:
            return False
        if isinstance(one, dict):
            if not all(type(key) in {str, int} for key in one):
                return False
            waiting += [(item, depth + 1) for item in (*one, *one.values())]
        elif isinstance(one, list):
            waiting += [(item, depth + 1) for item in one]
        elif type(one) not in _SCALARS or not _of_utf8_or_64_bits(one):
            return False
    return True


def _of_utf8_or_64_bits(value: Any) -> bool:
    try:
        value_sha256(value)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True
