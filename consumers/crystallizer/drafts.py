"""From executions to what a maker takes, and from what it gives to the event of a draft. Pure."""

from collections.abc import Sequence
from typing import Any

from morphogen.consumers.executions import Trace
from morphogen.kernels.synthesis import Drafted, Example, ToolStep
from morphogen.kernels.synthesis.program import to_data
from morphogen.schemas import CrystalDrafted
from morphogen.schemas.crystals import Parameter

from .annotations import infer
from .drafting import called_in
from .source import source_sha256

SYNTHESIS, MODEL = "synthesis", "llm"
_SHOWN = 5  # recorded values of a parameter that an event shows


def example(trace: Trace) -> Example:
    """Return an execution as synthesis takes it: its uses of tools; what models said is to be computed."""
    steps = tuple(
        ToolStep(name=one.name, args=dict(one.args), result=one.result, ok=one.ok, error=one.error)
        for one in trace.tools
    )
    return Example(params=dict(trace.params), steps=steps, output=trace.output)


def effects_of(traces: Sequence[Trace]) -> dict[str, str]:
    """Return the functions that executions use, and what each does to the world."""
    return {step.name: step.effect for one in traces for step in one.tools}


def drafted_by_synthesis(attempt: str, found: Drafted) -> CrystalDrafted:
    """Return the event of a text that synthesis found."""
    return CrystalDrafted(
        attempt=attempt,
        source=found.source,
        source_sha256=found.source_sha256,
        program=to_data(found.program),
        params=list(found.params),
        returns=found.returns,
        capabilities=list(found.capabilities),
        maker=SYNTHESIS,
        doubts=[one.text for one in found.doubts],
        cost_microusd=0,
    )


def drafted_by_model(
    attempt: str, source: str, made: Sequence[Trace], tools: Sequence[str], model: str, spent: int | None
) -> CrystalDrafted:
    """Return the event of a text that a model wrote: its parameters are typed by what was recorded."""
    return CrystalDrafted(
        attempt=attempt,
        source=source,
        source_sha256=source_sha256(source),
        params=parameters(made),
        returns=str(infer(one.output for one in made)),
        capabilities=called_in(source, tools),
        maker=MODEL,
        model=model,
        cost_microusd=spent,
    )


def parameters(traces: Sequence[Trace]) -> list[Parameter]:
    """Return the parameters of executions: their types, a few values, and the range of numbers or lengths."""
    names = sorted({name for one in traces for name in one.params})
    return [_parameter(name, [one.params[name] for one in traces if name in one.params]) for name in names]


def _parameter(name: str, values: Sequence[Any]) -> Parameter:
    distinct: list[Any] = []
    for value in values:
        if value not in distinct and len(repr(value)) <= 200:
            distinct.append(value)
    sizes = [
        float(value) if isinstance(value, int | float) else float(len(value))
        for value in values
        if isinstance(value, int | float | str | bytes | list | dict) and not isinstance(value, bool)
    ]
    return Parameter(
        name=name,
        type=str(infer(values)),
        seen=tuple(distinct[:_SHOWN]),
        minimum=min(sizes, default=None),
        maximum=max(sizes, default=None),
    )
