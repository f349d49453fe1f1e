"""Whether a run has stalled, from the losses of its epochs alone."""

import math
from collections.abc import Sequence


def plateau(losses: Sequence[float | None], *, window: int = 5, threshold: float = 0.02) -> bool:
    """Return whether the mean loss of the last `window` epochs is less than `threshold` (a share) below the window before.

    False as long as two whole windows are not measured; a window with a loss that is None or not finite is not.
    """
    if window < 1 or len(losses) < 2 * window:
        return False
    recent = [loss for loss in losses[-2 * window :] if loss is not None and math.isfinite(loss)]
    if len(recent) < 2 * window:
        return False
    before, now = sum(recent[:window]) / window, sum(recent[window:]) / window
    return before - now < threshold * abs(before)
