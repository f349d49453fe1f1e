"""What a likeness is worth: from recorded outcomes to the probability that a mode reaches its goal. Pure and deterministic.

Two questions are kept apart. *Is the matched family the right one?* is answered by Platt's method (Platt 1999, "Probabilistic
outputs for support vector machines"): a logistic curve over the similarity, fitted to outcomes of near matches, with a few
pseudo-outcomes so that it is defined where nothing was recorded. *Does this mode succeed for a family?* is answered by the mean of
a Beta posterior over the family's own outcomes in that mode.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

PRIOR: tuple[tuple[float, float, float], ...] = (
    (0.50, 0.02, 4.0),
    (0.70, 0.20, 4.0),
    (0.80, 0.50, 4.0),
    (0.90, 0.75, 4.0),
    (1.00, 0.85, 4.0),
)
"""Pseudo-outcomes: (similarity, probability, weight in trials). Words in another order have a likeness of 1, hence no more than 0.85 there."""

_STEPS, _STEP_MAX, _CLOSE = 60, 4.0, 1e-10


@dataclass(frozen=True)
class Tally:
    """Outcomes of one kind: how many were seen, how many were good."""

    trials: int = 0
    successes: int = 0

    def plus(self, good: bool) -> "Tally":
        """Return the tally with one more outcome."""
        return Tally(self.trials + 1, self.successes + good)

    def minus(self, good: bool) -> "Tally":
        """Return the tally with one outcome taken back."""
        return Tally(max(0, self.trials - 1), max(0, self.successes - good))


def belief(tally: Tally, prior: float, weight: float) -> float:
    """Return the mean of the Beta posterior: `prior` believed as strongly as `weight` trials, then the tally."""
    return (prior * weight + tally.successes) / (weight + tally.trials)


@dataclass(frozen=True)
class Curve:
    """A logistic curve over similarity; `slope` is never below 0: more alike is never worth less."""

    intercept: float
    slope: float

    def __call__(self, similarity: float) -> float:
        """Return the probability that a family of this similarity is the right one."""
        return _logistic(self.intercept + self.slope * similarity)


def fit(outcomes: Iterable[tuple[float, bool]], prior: Iterable[tuple[float, float, float]] = PRIOR) -> Curve:
    """Fit a curve to (similarity, whether it was right), with the pseudo-outcomes of `prior`.

    Newton's method on the penalised likelihood; outcomes are summed by similarity first, so their order does not matter.
    Similarities that are no number are left out.
    """
    seen: dict[float, list[float]] = {}
    for similarity, chance, weight in prior:
        cell = seen.setdefault(round(similarity, 6), [0.0, 0.0])
        cell[0] += weight
        cell[1] += weight * chance
    for similarity, right in outcomes:
        if math.isfinite(similarity):
            cell = seen.setdefault(round(min(max(similarity, -1.0), 1.0), 6), [0.0, 0.0])
            cell[0] += 1.0
            cell[1] += float(right)
    points = [(at, weight, good) for at, (weight, good) in sorted(seen.items())]
    intercept, slope = _newton(points)
    if slope < 0.0:
        total, good = sum(weight for _, weight, _ in points), sum(good for _, _, good in points)
        return Curve(_logit(good / total), 0.0)
    return Curve(intercept, slope)


def _newton(points: list[tuple[float, float, float]]) -> tuple[float, float]:
    a, b = 0.0, 0.0
    for _ in range(_STEPS):
        ga = gb = haa = hab = hbb = 0.0
        for at, weight, good in points:
            chance = _logistic(a + b * at)
            error, curvature = good - weight * chance, weight * chance * (1.0 - chance)
            ga, gb = ga + error, gb + error * at
            haa, hab, hbb = haa + curvature, hab + curvature * at, hbb + curvature * at * at
        haa, hbb = haa + 1e-9, hbb + 1e-9  # where all points lie at one similarity
        determinant = haa * hbb - hab * hab
        if determinant <= 0.0:
            break
        da, db = (hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant
        scale = min(1.0, _STEP_MAX / max(abs(da), abs(db), 1e-300))
        a, b = a + scale * da, b + scale * db
        if abs(da) + abs(db) < _CLOSE:
            break
    return a, b


def _logistic(x: float) -> float:
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-min(x, 700.0)))
    return 1.0 - 1.0 / (1.0 + math.exp(max(x, -700.0)))


def _logit(p: float) -> float:
    p = min(max(p, 1e-9), 1.0 - 1e-9)
    return math.log(p / (1.0 - p))
