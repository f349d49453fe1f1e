"""Decision stumps over the trials of a sweep: one parameter, one cut, two sides that differ beyond chance.

Every cut of every parameter is tried, so many comparisons are made at once. What chance alone would give is found by dealing
the results out anew among the configurations, and keeping the largest difference of all cuts each time (Westfall and Young
1993, max-T): a cut counts where fewer than `alpha` of the deals reach it. The chance of drafting anything at all from a
sweep without any effect is therefore at most `alpha`, however many parameters it has.

The difference is a rank sum (Mann and Whitney 1947), which a few wild measurements do not move. A cut must also matter: the
medians of its sides differ by more than the noise of the repeats.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from morphogen.schemas import TrialFinished
from morphogen.schemas.evidence import wilson_lower

from ..sweep.compare import noise

if TYPE_CHECKING:
    import numpy.typing as npt

DEALS = 1999
_LEAST = 4  # trials on each side of a cut
_EFFECT = 0.02  # share by which the medians differ at least, where the repeats show no noise

Kind = Literal["better", "fails"]


@dataclass(frozen=True)
class Cut:
    """A condition on one parameter: `>=` and `<` a number that was measured, or `==` and `!=` a value."""

    parameter: str
    op: str
    value: Any

    def holds(self, config: dict[str, Any]) -> bool:
        """Tell whether a configuration is on this side."""
        given = config.get(self.parameter)
        match self.op:
            case ">=":
                return bool(given >= self.value)
            case "<":
                return bool(given < self.value)
            case "==":
                return bool(given == self.value)
        return bool(given != self.value)


@dataclass(frozen=True)
class Stump:
    """A cut that matters. `cut` is the side on which results are better, or on which configurations fail.

    `support` trials are on that side, `others` on the other. `confidence` is the share of the supporting trials that lie
    beyond the median of the others (that fail, for `fails`), `bound` its lower 95% bound (Wilson 1927). `here` and `there`
    are the medians (shares that fail), `p` is adjusted for everything that was tried.
    """

    kind: Kind
    cut: Cut
    support: int
    others: int
    confidence: float
    bound: float
    here: float
    there: float
    p: float


def stumps(
    trials: Sequence[TrialFinished], *, maximize: bool, alpha: float = 0.05, deals: int = DEALS, seed: int = 0
) -> list[Stump]:
    """Return what a sweep shows: at most one stump a parameter and kind, the surest first; none where chance suffices.

    The trials must be of one sweep, or of sweeps over the same parameters with the same metric.
    """
    good = [one for one in trials if one.state in ("measured", "pruned") and one.value is not None]
    broken = [one for one in trials if one.state in ("failed", "rejected")]
    alpha = alpha / 2 if broken else alpha  # two questions share one chance of being wrong
    found = _better(good, maximize=maximize, alpha=alpha, deals=deals, seed=seed)
    if broken:
        found += _failing(good + broken, alpha=alpha, deals=deals, seed=seed)
    return sorted(found, key=lambda one: (one.p, -abs(one.here - one.there)))


def _better(trials: Sequence[TrialFinished], *, maximize: bool, alpha: float, deals: int, seed: int) -> list[Stump]:
    values = [one.value if maximize else -one.value for one in trials if one.value is not None]
    least = max(_EFFECT, statistics.median(noise(one.values) for one in trials) if trials else 0.0)
    found: list[Stump] = []
    for cut, inside, p in _cuts(trials, values, alpha, deals, seed):
        here = [value for value, chosen in zip(values, inside, strict=True) if chosen]
        there = [value for value, chosen in zip(values, inside, strict=True) if not chosen]
        if statistics.median(here) < statistics.median(there):
            cut, here, there = _other_side(cut), there, here  # noqa: PLW2901
        a, b = statistics.median(here), statistics.median(there)
        if abs(a - b) <= least * max(abs(a), abs(b)):
            continue
        beyond = sum(value > b for value in here)
        sign = 1 if maximize else -1
        found.append(
            Stump(
                kind="better",
                cut=cut,
                support=len(here),
                others=len(there),
                confidence=beyond / len(here),
                bound=wilson_lower(beyond, len(here)),
                here=sign * a,
                there=sign * b,
                p=p,
            )
        )
    return found


def _failing(trials: Sequence[TrialFinished], *, alpha: float, deals: int, seed: int) -> list[Stump]:
    failed = [float(one.state in ("failed", "rejected")) for one in trials]
    found: list[Stump] = []
    for cut, inside, p in _cuts(trials, failed, alpha, deals, seed + 1):
        here = [value for value, chosen in zip(failed, inside, strict=True) if chosen]
        there = [value for value, chosen in zip(failed, inside, strict=True) if not chosen]
        if statistics.fmean(here) < statistics.fmean(there):
            cut, here, there = _other_side(cut), there, here  # noqa: PLW2901
        share = statistics.fmean(here)
        found.append(
            Stump(
                kind="fails",
                cut=cut,
                support=len(here),
                others=len(there),
                confidence=share,
                bound=wilson_lower(round(sum(here)), len(here)),
                here=share,
                there=statistics.fmean(there),
                p=p,
            )
        )
    return found


def _cuts(
    trials: Sequence[TrialFinished], outcomes: Sequence[float], alpha: float, deals: int, seed: int
) -> list[tuple[Cut, list[bool], float]]:
    """Return the strongest cut of each parameter that chance does not explain, with who is inside, and its p value."""
    cuts: list[Cut] = []
    sides: list[list[bool]] = []
    for name in dict.fromkeys(name for one in trials for name in one.config):
        for cut in _possible(name, [one.config.get(name) for one in trials]):
            inside = [cut.holds(one.config) for one in trials]
            if _LEAST <= sum(inside) <= len(inside) - _LEAST:
                cuts.append(cut)
                sides.append(inside)
    if not cuts or len(set(outcomes)) < 2:
        return []
    ranks = _midranks(np.asarray(outcomes, np.float64))
    matrix = np.asarray(sides, np.float64)
    counts = matrix.sum(axis=1)
    n = len(ranks)
    spread = np.sqrt(counts * (n - counts) / (n * (n - 1)) * ((ranks - ranks.mean()) ** 2).sum())
    centred = ranks - ranks.mean()
    strength = np.abs(matrix @ centred) / spread
    chance = np.random.default_rng(seed)
    dealt = np.stack([chance.permutation(centred) for _ in range(deals)], axis=1)
    largest = (np.abs(matrix @ dealt) / spread[:, None]).max(axis=0)
    chosen: dict[str, tuple[float, int]] = {}
    for index, cut in enumerate(cuts):
        if cut.parameter not in chosen or strength[index] > chosen[cut.parameter][0]:
            chosen[cut.parameter] = (float(strength[index]), index)
    found = []
    for value, index in chosen.values():
        p = (1 + int((largest >= value - 1e-9).sum())) / (1 + deals)
        if p <= alpha:
            found.append((cuts[index], sides[index], p))
    return found


def _possible(name: str, values: Sequence[Any]) -> list[Cut]:
    """Return the cuts of a parameter: between any two neighbouring numbers, or between one value and all others."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [Cut(name, ">=", value) for value in sorted(set(values))[1:]]
    distinct = list({json.dumps(value, sort_keys=True): value for value in values}.values())
    if len(distinct) < 2:
        return []
    return [Cut(name, "==", value) for value in (distinct if len(distinct) > 2 else distinct[:1])]


def _other_side(cut: Cut) -> Cut:
    return Cut(cut.parameter, {">=": "<", "<": ">=", "==": "!=", "!=": "=="}[cut.op], cut.value)


def _midranks(values: "npt.NDArray[np.float64]") -> "npt.NDArray[np.float64]":
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: npt.NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return middle[places]
