"""A sweep: which configurations were measured, what each gave, and which is the best so far.

A configuration is a map from parameter to value; `key` is a hash of it, the same on every machine. A trial is one
configuration being measured; the log holds exactly one `sweep.trial_finished` for each configuration of a sweep.
"""

from typing import Any

import msgspec

from .event import Event


class SweepStarted(Event, type="sweep.started", version=1):
    """A sweep begins: over what space, how it samples, and what it wants."""

    sweep: str
    parameters: dict[str, Any]
    sampler: str
    metric: str
    objective: str  # maximize | minimize
    seed: int = 0
    budget: int | None = None
    repeats: int = 1
    warmup: int = 0
    workers: int = 1
    size: int | None = None  # configurations of the whole grid, before constraints; None where a range is continuous
    baseline: dict[str, Any] | None = None


class TrialStarted(Event, type="sweep.trial_started", version=1):
    """A configuration is about to be measured. It is said again where a kill lost the measurement."""

    sweep: str
    number: int
    key: str
    config: dict[str, Any]
    baseline: bool = False


class TrialFinished(Event, type="sweep.trial_finished", version=1):
    """What became of a configuration.

    `state` is measured, pruned (given up after the repeats that are here), rejected (an invariant does not hold) or
    failed; only a measured one can win. `value` is the median of `values`, None where there is no number to trust.
    """

    sweep: str
    number: int
    key: str
    config: dict[str, Any]
    state: str
    value: float | None = None
    values: list[float] = msgspec.field(default_factory=list)
    paired: list[float] = msgspec.field(default_factory=list)  # the baseline, measured in turn with each of `values`
    reason: str | None = None
    baseline: bool = False
    cost: float | None = None
    seconds: float = 0.0  # from start to end
    measured: float = 0.0  # seconds of them inside the measured program
    origin: str = "measured"
    host: str | None = None


class SweepBest(Event, type="sweep.best", version=1):
    """The best so far is another one: its median, the interval of that median and the interval's level."""

    sweep: str
    number: int
    key: str
    config: dict[str, Any]
    value: float
    low: float
    high: float
    level: float
    previous: int | None = None
    speedup: float | None = None  # over the baseline, above 1 is better


class SweepFinished(Event, type="sweep.finished", version=1):
    """A sweep ended: why, what it did, and what won. `best` is None where no configuration was good."""

    sweep: str
    reason: str  # exhausted | budget | time | patience | target
    trials: int
    measured: int
    failed: int
    rejected: int
    pruned: int
    excluded: int
    best: int | None = None
    config: dict[str, Any] | None = None
    value: float | None = None
    speedup: float | None = None
    low: float | None = None  # the interval of the speedup, where best and baseline were compared in turn
    high: float | None = None
