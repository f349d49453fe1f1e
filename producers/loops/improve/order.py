"""Fail early and cheaply: among steps that only look and do not need each other, those that fail often and fast come first.

For checks that stop the loop, the least expected time has the order of seconds over failure rate, smallest first (the
classical rule for sequential tests). Only neighbours move, so that nothing is read before or after something else was done.
"""

import math
from collections.abc import Mapping, Sequence

from morphogen.schemas.knowledge.tools import Signature
from morphogen.schemas.knowledge.tree import Action, AgentLoop, Literal, Name, Step, Task

from .edits import reorder
from .names import independent, nodes, only_looks
from .proposal import ORDER, Proposal
from .statistics import StepFigures


def reordered_steps(
    source: str, loop: Task | AgentLoop, figures: Mapping[str, StepFigures], signatures: Mapping[str, Signature]
) -> list[Proposal]:
    """Return a proposal for each group of neighbours whose order costs time in runs that fail."""
    found = []
    for group in _groups(loop.steps, signatures):
        best = best_order(group, figures)
        before, after = expected_seconds(group, figures), expected_seconds(best, figures)
        if after < before and any(one is not other for one, other in zip(group, best, strict=True)):
            found.append(_proposal(source, group, best, figures, before, after))
    return found


def best_order(group: Sequence[Step], figures: Mapping[str, StepFigures]) -> list[Step]:
    """Return the steps with the smallest ratio of seconds to failure rate first, none before one that it needs."""
    left = list(group)
    order: list[Step] = []
    while left:
        free = [step for index, step in enumerate(left) if all(independent(earlier, step) for earlier in left[:index])]
        chosen = min(free, key=lambda step: _ratio(step, figures))  # the first of equals: nothing moves without reason
        order.append(chosen)
        left = [step for step in left if step is not chosen]
    return order


def expected_seconds(order: Sequence[Step], figures: Mapping[str, StepFigures]) -> float:
    """Return the mean seconds that steps take in this order, each stopping the rest with its failure rate."""
    total, alive = 0.0, 1.0
    for step in order:
        seen = figures.get(step.name, StepFigures())
        total += alive * (seen.median or 0.0)
        alive *= 1.0 - (0.0 if goes_on(step) else seen.failure_rate)
    return total


def goes_on(step: Step) -> bool:
    """Tell whether the loop goes on when any action of the step fails."""
    for one in nodes(step):
        if isinstance(one, Action):
            word = next((argument.value for argument in one.arguments if argument.key == "on_failure"), None)
            text = word.name if isinstance(word, Name) else word.value if isinstance(word, Literal) else None
            if text == "continue":
                return True
    return False


def _groups(steps: Sequence[Step], signatures: Mapping[str, Signature]) -> list[list[Step]]:
    groups: list[list[Step]] = [[]]
    for step in steps:
        if only_looks(step, signatures):
            groups[-1].append(step)
        else:
            groups.append([])
    return [group for group in groups if len(group) > 1]


def _ratio(step: Step, figures: Mapping[str, StepFigures]) -> float:
    seen = figures.get(step.name)
    if seen is None or seen.median is None or goes_on(step) or not seen.failed:
        return math.inf
    return seen.median / seen.failure_rate


def _proposal(
    source: str,
    before: Sequence[Step],
    after: Sequence[Step],
    figures: Mapping[str, StepFigures],
    cost_before: float,
    cost_after: float,
) -> Proposal:
    shown = []
    for step in after:
        seen = figures.get(step.name, StepFigures())
        shown.append(f"{step.name} ({seen.median or 0:.3g} s, failed {seen.failed} of {seen.runs})")
    return Proposal(
        kind=ORDER,
        title=f"order {', '.join(step.name for step in after)}",
        why=f"what fails often and fast comes first: {', '.join(shown)}; expected {cost_before:.3g} s become {cost_after:.3g} s",
        edits=tuple(reorder(source, before, after)),
        evidence={
            "before": [step.name for step in before],
            "after": [step.name for step in after],
            "expected_seconds_before": cost_before,
            "expected_seconds_after": cost_after,
            "steps": {
                step.name: {
                    "runs": figures.get(step.name, StepFigures()).runs,
                    "failed": figures.get(step.name, StepFigures()).failed,
                    "median_seconds": figures.get(step.name, StepFigures()).median,
                }
                for step in after
            },
        },
    )
