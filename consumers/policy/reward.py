"""What a seed was worth, in one number, and why; made so that it cannot be had without helping the run.

The gain is counterfactual: the same batches with the seed and without it. It is credited up to what the whole run has
gained beyond what the host would have reached alone, less what other seeds were credited already. So none of these pays:

- making the host depend on a seed (a high contribution, and the run no better): the cap is the run's own gain;
- germinating early, to be there while the host learns by itself: the host's own trend is taken off;
- a seed that does nothing while the loss falls: its contribution is zero, and the fall is not its own;
- fossilizing many seeds that do little, or do the same: no stage pays anything, each pays rent, and all share one cap,
  in proportion to what each contributes;
- moving alpha up and down: only the last judgement of a seed pays, and every move after the first costs.

What was not measured pays nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from .limits import Weights

_WINDOW = 5  # epochs
_SHRINKS = 0.8  # from window to window at least so much: else noise is taken for a trend without end
STANDING = frozenset({"blending", "holding", "fossilized"})  # stages in which a seed takes part in the forward pass


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a seed when it is judged. None is what was not measured."""

    stage: str  # where it stands: pruned, fossilized, or where the end of the run found it
    loss_with: float | None = None
    loss_without: float | None = None
    accuracy_with: float | None = None
    accuracy_without: float | None = None
    loss_now: float | None = None  # of the whole run, at the judgement
    accuracy_now: float | None = None
    loss_alone: float | None = None  # what the host was expected to reach without growth by now, see `expected_alone`
    accuracy_alone: float | None = None
    credited: float = 0.0  # gain that other seeds were credited since the same beginning, in the unit of the gain
    rivals: float = 0.0  # contributions above zero of seeds that take part too and are not credited yet, in that unit
    params: int = 0
    host_params: int = 0
    latency_share: float | None = None  # of the host's forward pass, added by the seed
    alpha_moves: int = 0
    failures: int = 0
    rollbacks: int = 0


@dataclass(frozen=True)
class Reward:
    """The reward, its terms with their weights applied, and the gain that was credited."""

    total: float
    terms: dict[str, float]
    credited: float


def reward(judged: Judged, weights: Weights | None = None) -> Reward:
    """Return what a seed was worth. The gain is in accuracy where that was measured, else in shares of the loss."""
    weights = weights or Weights()
    gain = _gain(judged) if judged.stage in STANDING else 0.0
    terms = {
        "gain": weights.gain * gain if gain >= 0 else weights.harm * gain,
        "rent": -weights.rent * _doublings(judged.params, judged.host_params) if judged.stage in STANDING else 0.0,
        "latency": -weights.latency * math.log2(1 + max(0.0, _finite(judged.latency_share) or 0.0)),
        "churn": -weights.churn * (max(0, judged.alpha_moves - 1) + (judged.stage not in STANDING)),
        "failure": -weights.failure * judged.failures,
        "rollback": -weights.rollback * judged.rollbacks,
    }
    return Reward(total=math.fsum(terms.values()), terms=terms, credited=max(0.0, gain))


def expected_alone(
    curve: Sequence[float | None], epochs: int, *, epoch: int | None = None, higher: bool = False
) -> float | None:
    """Return what a curve would reach `epochs` after its last value, at `epoch`, if nothing were done.

    The best of three readings of its last 15 values: it stays where it is (the mean of the last 5); it goes on as it
    does against the logarithm of time; its change shrinks from 5 values to 5 values as it did last. So what a host
    learns by itself is rather over- than underrated. `higher` says that more is better, as for accuracies. None with
    fewer than 10 finite values.
    """
    last = len(curve) - 1 if epoch is None else epoch
    known = [
        (last - back, float(value))
        for back, value in enumerate(reversed(curve))
        if value is not None and math.isfinite(value)
    ][: 3 * _WINDOW]
    if len(known) < 2 * _WINDOW:
        return None
    values = [value for _, value in known]  # the newest first
    now = math.fsum(values[:_WINDOW]) / _WINDOW
    readings = (now, now + _by_logarithm(known, last + max(0, epochs)), now + _by_windows(values, max(0, epochs)))
    return max(readings) if higher else min(readings)


def _by_logarithm(known: Sequence[tuple[int, float]], then: int) -> float:
    """Return the change until epoch `then` of a line through values against log(2 + epoch), by least squares."""
    times = [math.log(2 + max(0, epoch)) for epoch, _ in known]
    centre = math.fsum(times) / len(times)
    middle = math.fsum(value for _, value in known) / len(known)
    spread = math.fsum((time - centre) ** 2 for time in times)
    if spread == 0:
        return 0.0
    slope = (
        math.fsum((time - centre) * (value - middle) for time, (_, value) in zip(times, known, strict=True)) / spread
    )
    return slope * (math.log(2 + max(0, then)) - math.fsum(times[:_WINDOW]) / _WINDOW)


def _by_windows(values: Sequence[float], epochs: int) -> float:
    """Return the change after `epochs` if from window to window it shrinks as it did last, by a fifth at least."""
    means = [math.fsum(values[at : at + _WINDOW]) / _WINDOW for at in range(0, len(values) - _WINDOW + 1, _WINDOW)]
    step = means[0] - means[1]
    ratio = _SHRINKS
    if len(means) == 3 and means[1] != means[2]:
        ratio = min(_SHRINKS, max(0.0, step / (means[1] - means[2])))
    windows = (epochs + (_WINDOW - 1) / 2) / _WINDOW  # a mean stands for the middle of its window
    return step * _geometric(ratio, windows)


def _geometric(ratio: float, windows: float) -> float:
    """Return r + r^2 + ... over `windows` terms, also for parts of one."""
    return ratio * (1 - ratio**windows) / (1 - ratio) if ratio > 0 else 0.0


def contributed(
    loss_with: float | None,
    loss_without: float | None,
    accuracy_with: float | None,
    accuracy_without: float | None,
) -> float | None:
    """Return a counterfactual contribution: in accuracy where it was measured, else as a share of the loss, else None."""
    gain = _less(accuracy_with, accuracy_without)
    return _share(loss_without, loss_with) if gain is None else gain


def _gain(judged: Judged) -> float:
    """Return the gain to be credited: the contribution, at most what the run has gained and nobody was credited yet."""
    own = contributed(judged.loss_with, judged.loss_without, judged.accuracy_with, judged.accuracy_without)
    if own is None or own <= 0:
        return own or 0.0
    if _less(judged.accuracy_with, judged.accuracy_without) is not None:
        whole = _less(judged.accuracy_now, judged.accuracy_alone)
    else:
        whole = _share(judged.loss_alone, judged.loss_now)
    if whole is None:
        return 0.0
    left = max(0.0, whole - max(0.0, judged.credited))
    return min(own, left * (own / (own + max(0.0, judged.rivals))))


def _less(one: float | None, other: float | None) -> float | None:
    one, other = _finite(one), _finite(other)
    return None if one is None or other is None else one - other


def _share(before: float | None, after: float | None) -> float | None:
    """Return by which share of `before` the loss fell, from -1 to 1."""
    fell = _less(before, after)
    if fell is None or before is None or after is None:
        return None
    scale = max(abs(before), abs(after))
    return fell / scale if scale > 0 else 0.0


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _doublings(params: int, host: int) -> float:
    return math.log2(1 + max(0, params) / max(1, host))
