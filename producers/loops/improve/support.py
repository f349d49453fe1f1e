"""How well measurements support the values of an axis: how often each was tried, and how near it came to the best.

*Near* is the noise of the measurements: the pooled relative spread of repeated measurements, as the error of a median,
times three for the difference of two medians, plus what the best of many noisy numbers gains by chance, and never less
than 5%. Without repeats the noise is not known, and *near* is 10%.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.schemas import TrialFinished

from .history import RecordedSweep

SUPPORT = 5  # configurations with a value that must have been measured before it may go
REPEATS = 3  # measurements of it in all
LEAST, UNKNOWN_NOISE = 0.05, 0.10  # shares of the best value
_MEDIAN = 1.2533  # standard error of a median over that of a mean, for normal noise
_Z = 3.0


@dataclass(frozen=True, slots=True)
class Support:
    """What was seen of one value: configurations that were measured, that failed, and the best share of the best."""

    value: Any
    measured: int
    failed: int
    repeats: int
    good: int
    nearest: float | None  # distance of its best configuration from the best of all, as a share of that

    @property
    def tried(self) -> int:
        """Configurations with this value that came to an end."""
        return self.measured + self.failed


@dataclass(frozen=True, slots=True)
class Judged:
    """An axis under the measurements of all sweeps."""

    parameter: str
    supports: tuple[Support, ...]
    bound: float  # share of the best within which a configuration counts as good
    noise: float | None  # relative standard deviation of one measurement
    needed: int

    def hopeless(self) -> list[Support]:
        """Return the values that may go."""
        return [
            one
            for one in self.supports
            if one.good == 0 and one.tried >= self.needed and (one.measured == 0 or one.repeats >= REPEATS)
        ]


def noise_of(trials: Iterable[TrialFinished]) -> float | None:
    """Return the relative standard deviation of one measurement, pooled over repeated ones; None without repeats."""
    total, weight = 0.0, 0
    for trial in trials:
        values = [value for value in trial.values if math.isfinite(value)]
        middle = statistics.median(values) if values else 0.0
        if len(values) >= 2 and middle != 0:
            total += sum((value / middle - 1) ** 2 for value in values)
            weight += len(values) - 1
    return math.sqrt(total / weight) if weight else None


def bound_of(trials: Sequence[TrialFinished]) -> tuple[float, float | None]:
    """Return the share of the best within which a configuration counts as good, and the noise behind it."""
    noise = noise_of(trials)
    if noise is None:
        return UNKNOWN_NOISE, None
    repeats = min((len(trial.values) for trial in trials if trial.values), default=1)
    error = _MEDIAN * noise / math.sqrt(max(1, repeats))
    chance = math.sqrt(2 * math.log(max(2, len(trials))))
    return max(LEAST, (_Z * math.sqrt(2) + chance) * error), noise


def judge_axis(parameter: str, sweeps: Sequence[RecordedSweep]) -> Judged | None:
    """Judge every value of a parameter that was tried; None where nothing was measured."""
    tally: dict[str, dict[str, Any]] = {}
    bounds: list[float] = []
    noises: list[float] = []
    others: set[str] = set()
    for sweep in sweeps:
        trials = [trial for trial in sweep.trials if trial.origin == "measured" and parameter in trial.config]
        good = [trial for trial in trials if trial.state == "measured" and _finite(trial.value)]
        if not good:
            continue
        maximize = sweep.started.objective == "maximize"
        best = (max if maximize else min)(trial.value for trial in good)  # type: ignore[type-var]
        bound, noise = bound_of(good)
        bounds.append(bound)
        noises += [] if noise is None else [noise]
        for trial in trials:
            others.add(_rest(trial, parameter))
            value = trial.config[parameter]
            one = tally.setdefault(
                _key(value), {"value": value, "measured": 0, "failed": 0, "repeats": 0, "good": 0, "near": None}
            )
            if trial.state in {"failed", "rejected"} or not _finite(trial.value):
                one["failed"] += 1
                continue
            one["measured"] += 1
            one["repeats"] += max(1, len(trial.values))
            away = _distance(trial.value, best, maximize)
            one["near"] = away if one["near"] is None else min(one["near"], away)
            one["good"] += trial.state == "measured" and away <= bound
    if not tally:
        return None
    supports = tuple(
        Support(one["value"], one["measured"], one["failed"], one["repeats"], one["good"], one["near"])
        for one in tally.values()
    )
    return Judged(parameter, supports, max(bounds), max(noises) if noises else None, min(SUPPORT, len(others)))


def _distance(value: float | None, best: float | None, maximize: bool) -> float:
    assert value is not None
    assert best is not None
    behind = best - value if maximize else value - best
    return behind / abs(best) if best else (0.0 if behind == 0 else math.inf)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _key(value: Any) -> str:
    return f"{type(value).__name__ if isinstance(value, bool | str) else 'number'}:{value}"


def _rest(trial: TrialFinished, parameter: str) -> str:
    return repr(sorted((name, value) for name, value in trial.config.items() if name != parameter))
