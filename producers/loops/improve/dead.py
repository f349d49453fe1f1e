"""Steps that nobody needs: they change nothing, and nobody reads what they found out.

Only steps that read, compute or ask a model can be dead; one that runs a program or writes a file acts, whoever reads its
output. A step that ever failed is a check, whatever it returns, and stays.
"""

from collections.abc import Mapping, Sequence

from morphogen.schemas.knowledge.tools import Signature
from morphogen.schemas.knowledge.tree import AgentLoop, Artifact, Module, Step, Task

from .edits import remove
from .names import asks_model, mentions, only_looks, written_names
from .proposal import DEAD, Proposal
from .statistics import StepFigures


def dead_steps(
    source: str,
    module: Module,
    loop: Task | AgentLoop,
    figures: Mapping[str, StepFigures],
    signatures: Mapping[str, Signature],
) -> list[Proposal]:
    """Return a proposal for each dead step, those included that are dead once another is gone."""
    gone: list[Step] = []
    while (found := _next_dead(module, loop, gone, figures, signatures)) is not None:
        gone.append(found)
    if len(gone) == len(loop.steps):
        return []  # a program without steps says nothing: rather a wrong alarm than an empty file
    return [_proposal(source, step, figures.get(step.name, StepFigures())) for step in gone]


def _next_dead(
    module: Module,
    loop: Task | AgentLoop,
    gone: Sequence[Step],
    figures: Mapping[str, StepFigures],
    signatures: Mapping[str, Signature],
) -> Step | None:
    for step in loop.steps:
        if any(step is one for one in gone) or not only_looks(step, signatures):
            continue
        seen = figures.get(step.name)
        if seen is None or seen.failed:
            continue  # never run: nothing is known; failed: a check
        names = written_names(step) | {step.name}
        if not names & _kept_outside(module) and not mentions(module, names, without=(step, *gone)):
            return step
    return None


def _kept_outside(module: Module) -> set[str]:
    """Return the names that live on after the loop: states, and what artifacts are made of."""
    found = {state.name for system in module.systems for state in system.states}
    artifacts: list[Artifact] = [one for system in module.systems for one in system.artifacts]
    return found | {one.name for one in artifacts}


def _proposal(source: str, step: Step, seen: StepFigures) -> Proposal:
    outputs = sorted(written_names(step))
    what = f"nobody reads {' or '.join(outputs)}" if outputs else "its result is not kept"
    model = f", {seen.tokens:,} tokens" if asks_model(step) and seen.tokens else ""
    return Proposal(
        kind=DEAD,
        title=f"drop step {step.name}",
        why=f"it changes nothing and {what}; it ran {seen.runs} times, {sum(seen.seconds):.3g} s{model}, and never failed",
        edits=(remove(source, step),),
        evidence={
            "step": step.name,
            "runs": seen.runs,
            "seconds": sum(seen.seconds),
            "tokens": seen.tokens,
            "cost_usd_micros": seen.cost_usd_micros,
        },
    )
