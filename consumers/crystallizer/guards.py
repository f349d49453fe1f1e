"""Guards: what must hold for a tool to be called, derived from the recordings that it was proven on.

- `type`: each parameter is there, of the recorded type, and no other.
- `precondition`: parameters stay in the domain that was recorded (`preconditions`).
- `environment`: what was the same in every recording is the same now.
- `world`: what the tools answered alike in every recording, they answer now (`world`); known only while the tool runs.

The first three are checked before anything is run; all are pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import value_sha256
from morphogen.schemas.crystals import Guard, Parameter

from . import preconditions, world
from .annotations import NotAType, fits, infer, parse

KINDS = ("type", "environment", "precondition", "world")


def derive_guards(
    params: Sequence[Parameter], traces: Sequence[Trace], capabilities: Sequence[str] | frozenset[str]
) -> list[Guard]:
    """Return the guards of a tool: of its parameters, and of the capabilities that it uses, from recorded executions."""
    out: list[Guard] = []
    columns: dict[str, list[Any]] = {}
    for one in params:
        values = [trace.params[one.name] for trace in traces if one.name in trace.params]
        kind = str(infer(values)) if values else one.type
        optional = 0 < len(values) < len(traces)
        out.append(Guard(kind="type", subject=one.name, expected=f"{kind}?" if optional else kind))
        found = preconditions.domain(one.name, values)
        if found is not None:
            out.append(found)
        if values and not optional:
            columns[one.name] = values
    out += preconditions.relations(columns)
    out += _environment([trace.environment for trace in traces])
    courses = [(trace.params, trace.tools) for trace in traces]
    return out + world.derive(courses, frozenset(capabilities))


def _environment(seen: Sequence[Mapping[str, str]]) -> list[Guard]:
    if not seen:
        return []
    first = seen[0]
    same = sorted(key for key in first if all(one.get(key) == first[key] for one in seen))
    return [Guard(kind="environment", subject=key, expected=first[key]) for key in same]


def missed(
    guards: Sequence[Guard], params: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Guard, str] | None:
    """Return the first guard that does not hold before a call, and why; None where all do. Those of the world come later."""
    types = {one.subject: one for one in guards if one.kind == "type"}
    for name in sorted(set(params) - set(types)):
        return Guard(kind="type", subject=name), f"there is no parameter {name!r}"
    for name, value in params.items():
        if not _crosses(value):
            return Guard(kind="type", subject=name), f"{type(value).__name__} is no value that can be recorded"
    for one in guards:
        why = _why(one, params, environment)
        if why is not None:
            return one, why
    return None


def _why(one: Guard, params: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    match one.kind:
        case "type":
            return _of_type(one, params)
        case "precondition":
            if one.subject not in params:
                return None  # an optional one that is not given; its type guard has let it pass
            return preconditions.broken(one.expected, params[one.subject], params)
        case "environment":
            found = environment.get(one.subject)
            return None if found == one.expected else f"{one.subject} is {found!r} and was {one.expected!r}"
        case "world":
            return None
        case _:
            return f"a guard of kind {one.kind!r} is not known here"


def _of_type(one: Guard, params: Mapping[str, Any]) -> str | None:
    expected = str(one.expected)
    if one.subject not in params:
        return None if expected.endswith("?") else "it is not given"
    try:
        kind = parse(expected.removesuffix("?"))
    except NotAType as error:
        return str(error)
    return None if fits(kind, params[one.subject]) else f"{type(params[one.subject]).__name__} is not {kind}"


def _crosses(value: Any) -> bool:
    try:
        value_sha256(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True


def malformed(guard: Guard) -> str | None:
    """Say why a guard is none, as a damaged or hostile log may hold it; None where it can be checked."""
    expected = guard.expected
    match guard.kind:
        case "type":
            try:
                parse(str(expected).removesuffix("?"))
            except NotAType as error:
                return str(error)
        case "precondition":
            return preconditions.malformed(expected)
        case "environment":
            return None if isinstance(expected, str) else "the environment is text"
        case "world":
            return world.malformed(expected)
        case _:
            return f"a guard of kind {guard.kind[:40]!r} is not known here"
    return None


def name_of(guard: Guard) -> str:
    """Return the name by which misses are counted: kind and subject."""
    return f"{guard.kind} {guard.subject}"
