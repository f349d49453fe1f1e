"""One configuration, measured: warm-up, repeats, the baseline in turn, invariants, and what became of it."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from morphogen.schemas import TrialFinished
from morphogen.schemas.knowledge.aggregates import Item
from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.evaluate import evaluate

from ..errors import one_line
from .meters import Meter
from .plan import Plan
from .reading import Reading, Said, TrialFailed
from .space import Config, key_of

_CORRECT = "Correctness"  # the case that says by its field `passed` whether a result may count


@dataclass(frozen=True)
class Trial:
    """A configuration to measure: its number in the sweep, and what it is compared with while it runs."""

    number: int
    config: Config
    baseline: bool = False
    best: tuple[float, ...] = ()  # what the best so far has, greater is better, for pruning

    @property
    def key(self) -> str:
        """The hash of the configuration."""
        return key_of(self.config)


@dataclass(frozen=True)
class Outcome:
    """What became of a trial, and the trace items that it gave."""

    finished: TrialFinished
    items: tuple[Said, ...]


def measure(
    plan: Plan, trial: Trial, meter: Meter, *, host: str | None = None, clock: Callable[[], float] = time.perf_counter,
    check: Callable[[], None] = lambda: None,
) -> Outcome:  # fmt: skip
    """Measure a configuration; whatever goes wrong with it is its outcome, never a number.

    `check` is called before each measurement, and what it raises ends this one.
    """
    began = clock()
    readings: list[Reading] = []
    paired: list[Reading] = []
    spent: list[float] = []
    state, reason = "measured", None

    def once(config: Config, *, judged: bool) -> Reading:
        check()
        started = clock()
        try:
            reading = meter.read(config)
        finally:
            spent.append(clock() - started)
        spent[-1] = min(spent[-1], reading.seconds)
        if judged and (broken := violation(plan, config, reading.items)) is not None:
            readings.append(reading)
            raise _Rejected(broken)
        return reading

    try:
        in_turn = plan.interleave and not trial.baseline
        for _ in range(plan.warmup):
            once(trial.config, judged=False)
        for repeat in range(plan.repeats):
            # Who goes first changes from pair to pair, so that neither always finds the machine as the other left it.
            if in_turn and repeat % 2 == 0:
                paired.append(once(plan.baseline, judged=False))
            readings.append(once(trial.config, judged=True))
            if in_turn and repeat % 2 == 1:
                paired.append(once(plan.baseline, judged=False))
            if repeat + 1 < plan.repeats and hopeless(plan, readings, paired, trial.best):
                state, reason = "pruned", f"worse than the best in all of {repeat + 1} repeats"
                break
    except _Rejected as error:
        state, reason = "rejected", one_line(error)
    except (TrialFailed, RecursionError) as error:  # what it printed may be nested deeply
        state, reason = "failed", one_line(error)
    good = state in ("measured", "pruned")
    values = [reading.value for reading in readings] if good else []
    if good and plan.interleave and min([*values, *(reading.value for reading in paired)]) <= 0:
        good, state, reason, values = False, "failed", "a comparison by ratios needs a metric above 0", []
    finished = TrialFinished(
        sweep=plan.name,
        number=trial.number,
        key=trial.key,
        config=trial.config,
        state=state,
        value=statistics.median(values) if values else None,
        values=values,
        paired=[reading.value for reading in paired] if good else [],
        reason=reason,
        baseline=trial.baseline,
        cost=plan.cost_of(trial.config),
        seconds=clock() - began,
        measured=sum(spent),
        host=host,
    )
    return Outcome(finished, tuple(item for reading in readings for item in reading.items))


def hopeless(plan: Plan, readings: Sequence[Reading], paired: Sequence[Reading], best: Sequence[float]) -> bool:
    """Tell whether every repeat so far is worse than the worst of the best's by the share that `prune:` names."""
    if plan.prune is None or not best:
        return False
    mine = [reading.value for reading in readings]
    if plan.interleave:
        mine = [
            a / b.value if plan.maximize else b.value / a for a, b in zip(mine, paired, strict=False) if a and b.value
        ]
    elif not plan.maximize:
        mine = [-value for value in mine]
    if not mine:
        return False
    bar = min(best)
    margin: float = plan.prune * abs(bar)
    return max(mine) < bar - margin


def violation(plan: Plan, config: Config, items: Sequence[Said]) -> str | None:
    """Return the invariant that these results break, None where all hold.

    An invariant must be exactly true: one that cannot be decided, because what it speaks of was not reported, is broken.
    """
    for one in items:
        if one.case == _CORRECT and one.values.get("passed") is False:
            return f"{_CORRECT}: passed is false"
    if not plan.invariants:
        return None
    full = plan.scope.case_names
    trace = [Item(full.get(one.case or "", one.case or ""), one.values, origin=one.origin) for one in items]
    scope = replace(plan.scope.with_names(config), items=trace)
    for rule in plan.invariants:
        try:
            held = evaluate(rule.test, scope)
        except EvaluateError as error:
            return f"invariant {rule.name}: {error}"
        if held is not True:
            return f"invariant {rule.name} {'does not hold' if held is False else 'cannot be decided by what was reported'}"
    return None


class _Rejected(Exception):
    """An invariant does not hold of a result."""
