"""How a sweep stands: a fold over its trials, pure and the same in every process.

Among trials that measured well, the leader has the best median. All that are not worse than the leader beyond noise tie
with it, and of those the best is the cheapest, where the program says what a configuration costs; then the one with the best
median; then the earliest.
"""

import statistics
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from morphogen.schemas import SweepBest, TrialFinished

from .compare import compare, interval, ratios
from .sampler import Scored


@dataclass
class Standing:
    """Trials so far by key, the best of them, and what a stopping rule asks for."""

    sweep: str
    maximize: bool
    paired: bool = False  # whether trials are compared by their ratios to a baseline measured in turn
    alpha: float = 0.05
    trials: dict[str, TrialFinished] = field(default_factory=dict)
    baseline: TrialFinished | None = None
    best: TrialFinished | None = None
    leader: TrialFinished | None = None
    since_best: int = 0
    scored: list[Scored] = field(default_factory=list)  # what samplers learn: greater is better, None is no good
    _tied: dict[str, TrialFinished] = field(default_factory=dict)
    _tops: list[tuple[float, str]] = field(default_factory=list)  # the best repeat of each measured trial, in order

    def add(self, trial: TrialFinished) -> SweepBest | None:
        """Count a trial; return the event that says so where the best is now another one."""
        if trial.key in self.trials:
            return None
        self.trials[trial.key] = trial
        usable = trial.state in ("measured", "pruned") and trial.value is not None
        self.scored.append(Scored(trial.config, self._median(trial) if usable else None))
        if trial.baseline:
            self.baseline = trial
        self.since_best += 1
        if trial.state != "measured" or trial.value is None:
            return None
        insort(self._tops, (max(self.samples(trial)), trial.key))
        if self.leader is None or self._median(trial) > self._median(self.leader):
            self.leader = trial
            # Only those whose best repeat reaches the leader's worst can be its equals.
            reach = bisect_left(self._tops, (min(self.samples(trial)), ""))
            others = [self.trials[key] for _, key in self._tops[reach:]]
            self._tied = {one.key: one for one in others if self._ties(one)}
        elif self._ties(trial):
            self._tied[trial.key] = trial
        best = min(self._tied.values(), key=lambda one: (one.cost or 0.0, -self._median(one), one.number))
        if self.best is not None and best.key == self.best.key:
            return None
        previous, self.best, self.since_best = self.best, best, 0
        return self._event(best, previous)

    def speedup(self, trial: TrialFinished) -> float | None:
        """Return how many times better a trial is than the baseline; None where there is none, or no ratio."""
        in_turn = ratios(trial.values, trial.paired, maximize=self.maximize)
        if in_turn:
            return statistics.median(in_turn)
        base = self.baseline.value if self.baseline else None
        found = ratios([trial.value or 0.0], [base or 0.0], maximize=self.maximize)
        return found[0] if found else None

    def hits(self, target: float | None) -> bool:
        """Tell whether the best has reached the target."""
        if target is None or self.best is None or self.best.value is None:
            return False
        return self.best.value >= target if self.maximize else self.best.value <= target

    def count(self, *states: str) -> int:
        """Return how many trials ended in one of these states."""
        return sum(one.state in states for one in self.trials.values())

    def samples(self, trial: TrialFinished) -> Sequence[float]:
        """Return what stands for a trial in comparisons, greater is better: ratios to the baseline, else values."""
        if self.paired:
            return ratios(trial.values, trial.paired, maximize=self.maximize) or [1.0]  # the baseline against itself
        return trial.values if self.maximize else [-value for value in trial.values]

    def _median(self, trial: TrialFinished) -> float:
        return statistics.median(self.samples(trial))

    def _ties(self, trial: TrialFinished) -> bool:
        assert self.leader is not None
        return compare(self.samples(trial), self.samples(self.leader), alpha=self.alpha) != "worse"

    def _event(self, best: TrialFinished, previous: TrialFinished | None) -> SweepBest:
        bounds = interval(best.values)
        return SweepBest(
            sweep=self.sweep,
            number=best.number,
            key=best.key,
            config=best.config,
            value=bounds.median,
            low=bounds.low,
            high=bounds.high,
            level=bounds.level,
            previous=None if previous is None else previous.number,
            speedup=self.speedup(best),
        )


def fold(
    sweep: str, trials: Iterable[TrialFinished], *, maximize: bool, paired: bool = False, alpha: float = 0.05
) -> Standing:
    """Return how a sweep stands after these trials, in the order of the log."""
    standing = Standing(sweep, maximize, paired, alpha)
    for trial in trials:
        standing.add(trial)
    return standing
