"""Whether a loss is still one of a run in good health, from the losses before it alone."""

import math
from collections.abc import Sequence


def trouble(
    loss: float | None, before: Sequence[float], *, sigma: float, multiplier: float
) -> tuple[str, float | None] | None:
    """Return what is wrong with `loss` and the bound that it broke, or None.

    Not finite is always wrong. Of at least 3 losses `before`, a loss is an explosion that is both `sigma` standard
    deviations above their mean and `multiplier` times it. A loss that was not measured is no sign of anything.
    """
    if loss is None:
        return None
    if not math.isfinite(loss):
        return "nonfinite", None
    known = [value for value in before if math.isfinite(value)]
    if len(known) < 3:
        return None
    mean = math.fsum(known) / len(known)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / len(known))
    bound = max(mean + sigma * spread, mean * multiplier)
    return ("exploding", bound) if mean > 0 and loss > bound else None
