"""What hovering shows: a declaration in a few lines of Markdown."""

from morphogen.schemas.knowledge.index import Entry
from morphogen.schemas.knowledge.phrases import listed, phrase, type_phrase
from morphogen.schemas.knowledge.tools import ParameterSpec
from morphogen.schemas.knowledge.tree import (
    AgentLoop,
    Artifact,
    Case,
    Constant,
    EngineeringLoop,
    Fact,
    Function,
    Hint,
    Invariant,
    Literal,
    Procedure,
    RecordedFact,
    Rule,
    ServiceLoop,
    StateDecl,
    Task,
    TypeDecl,
    View,
)
from morphogen.schemas.knowledge.types import Type
from morphogen.schemas.knowledge.units import describe_dimension
from morphogen.schemas.knowledge.wording import source, type_source

_FUNCTIONS = {
    "abs": "abs(x): the size of a number",
    "min": "min(a, b, ...): the smallest; in a fact, min(t.x) over a window: the smallest reading",
    "max": "max(a, b, ...): the largest; in a fact, max(t.x) over a window: the largest reading",
    "log2": "log2(x): binary logarithm; unknown at 0 and below",
    "log": "log(x): natural logarithm; unknown at 0 and below",
    "exp": "exp(x): e to the power of x",
    "sqrt": "sqrt(x): square root; unknown below 0",
    "floor": "floor(x): the next whole number below",
    "ceil": "ceil(x): the next whole number above",
    "round": "round(x): the nearest whole number, halves away from zero",
    "len": "len(x): how long a string or a list is",
    "is_known": "is_known(x): whether x has a value",
    "clamp": "clamp(x, low, high): x, held between two bounds",
    "number": "number(text): the number that a text is; unknown where it is none",
    "count": "count() over a window: how many items; count(x): how many of them have a known x",
    "sum": "sum(x) over a window",
    "avg": "avg(x) over a window: the mean",
    "p50": "p50(x) over a window: the median",
    "p90": "p90(x) over a window: the 90th percentile",
    "p95": "p95(x) over a window: the 95th percentile",
    "p99": "p99(x) over a window: the 99th percentile",
    "std": "std(x) over a window: the sample standard deviation",
    "first": "first(x) over a window: the oldest reading",
    "last": "last(x) over a window: the newest reading",
    "delta": "delta(x) over a window: the newest reading less the oldest",
    "slope": "slope(x) over a window: least squares, per item",
}


def function_doc(name: str) -> str:
    """Return one line on a built-in function."""
    return _FUNCTIONS.get(name, f"{name}(...): a built-in function")


def parameter_doc(name: str, spec: ParameterSpec, action: str | None) -> str:
    """Return one line on an argument."""
    kind = spec.type.replace("|", " or ") + (f" in {spec.unit}" if spec.unit else "")
    parts = [f"`{name}`: {kind}"]
    if spec.required:
        parts.append("required")
    if spec.choices:
        parts.append(f"one of {listed(list(spec.choices), 'or')}")
    if action is not None:
        parts.append(f"an argument of `{action}`")
    return ", ".join(parts) + (f". {spec.doc}" if spec.doc else "")


def type_words(type_: Type) -> str:
    """Return a type with what its unit measures."""
    unit = type_.unit
    measures = f" ({describe_dimension(unit)})" if unit is not None and unit.name and not unit.dimensionless else ""
    return f"{type_}{measures}"


def declared(entry: Entry) -> str:
    """Return a declaration in Markdown: what it is, its head, and what it says about itself."""
    lines = [f"**{entry.kind} {entry.full}**" + (" (of a used module)" if entry.foreign else "")]
    match entry.node:
        case Case(fields=fields) | TypeDecl(fields=fields):
            lines += [f"- `{one.name}: {type_source(one.type)}`" for one in fields]
        case Fact(case=case, parameter=parameter, body=body):
            lines += [f"`fact {entry.name}({parameter}: {case})`", f"true when {phrase(body, parameter)}"]
        case RecordedFact(properties=properties):
            lines += [f"- {one.key}: {_plain(one.value)}" for one in properties]
        case Rule(when=when, apply=apply, recommend=recommend):
            lines += [f"fires when {' and '.join(phrase(one) for one in when)}"]
            lines += [f"- {_plain(one)}" for one in (*apply, *recommend)]
        case Hint(suggestion=suggestion):
            lines += [f"- {_plain(one)}" for one in suggestion]
        case Invariant(asserts=asserts):
            lines += [f"must hold: {phrase(one)}" for one in asserts]
        case Function(parameters=parameters, returns=returns, body=body):
            given = ", ".join(f"{one.name}: {type_source(one.type)}" for one in parameters)
            result = f": {type_source(returns)}" if returns is not None else ""
            lines += [f"`function {entry.name}({given}){result}`", f"is {phrase(body)}"]
        case Procedure(parameters=parameters):
            lines.append(
                f"`procedure {entry.name}({', '.join(f'{one.name}: {type_source(one.type)}' for one in parameters)})`"
            )
        case Constant(value=value):
            lines.append(f"is {source(value)}")
        case StateDecl(type=type_, default=default):
            lines.append(f"{type_phrase(type_)}" + ("" if default is None else f", at first {source(default)}"))
        case View(properties=properties) | Artifact(properties=properties):
            lines += [f"- {one.key}: {_plain(one.value)}" for one in properties]
        case AgentLoop(steps=steps) | Task(steps=steps):
            lines += [f"- step {one.name}" for one in steps]
        case ServiceLoop(handlers=handlers):
            lines += [f"- on {one.event}" for one in handlers]
        case EngineeringLoop(parameters=parameters):
            lines += [f"- {one.key}: {source(one.value)}" for one in parameters]
    return "\n\n".join([lines[0], "\n".join(lines[1:])]) if len(lines) > 1 else lines[0]


def _plain(value: object) -> str:
    if isinstance(value, Literal) and isinstance(value.value, str):
        return value.value
    return source(value)  # type: ignore[arg-type]
