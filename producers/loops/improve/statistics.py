"""What recorded runs say of one step: how often it ran, failed, how long it took, and what it asked of models."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .history import RecordedRun


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The figures of a step, over all runs in which it came to its end."""

    runs: int = 0
    failed: int = 0
    seconds: tuple[float, ...] = ()
    tokens: int = 0
    cost_usd_micros: int = 0

    @property
    def median(self) -> float | None:
        """Median seconds, None where it never ran."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def failure_rate(self) -> float:
        """Share of runs in which it failed."""
        return self.failed / self.runs if self.runs else 0.0


def figures(runs: Sequence[RecordedRun]) -> Mapping[str, StepFigures]:
    """Return the figures of every step by its name. A step is as long as its actions, and fails where one does."""
    tally: dict[str, list[tuple[float, bool, int, int]]] = {}
    for run in runs:
        spent: dict[str, list[int]] = {}
        for query in run.queried:
            one = spent.setdefault(_top(query.step, run), [0, 0])
            one[0] += (query.tokens_in or 0) + (query.tokens_out or 0)
            one[1] += query.cost_usd_micros or 0
        for name in {step.step for step in run.steps}:
            mine = [step for step in run.steps if step.step == name]
            actions = [step for step in mine if step.action]
            if any(step.planned for step in mine):
                continue
            seconds = sum(step.seconds for step in actions)
            failed = any(not step.ok for step in {step.path: step for step in mine}.values())  # the last attempt counts
            tokens, cost = spent.get(name, [0, 0])
            tally.setdefault(name, []).append((seconds, failed, tokens, cost))
    return {
        name: StepFigures(
            len(seen),
            sum(one[1] for one in seen),
            tuple(one[0] for one in seen),
            sum(one[2] for one in seen),
            sum(one[3] for one in seen),
        )
        for name, seen in tally.items()
    }


def _top(path: str, run: RecordedRun) -> str:
    """Return the name of the step that a path is inside of."""
    return next((step.step for step in run.steps if step.path == path), path.partition(".")[0])
