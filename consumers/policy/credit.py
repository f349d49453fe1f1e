"""Credit with a control: what each germination of a run was worth, where the same run without growth is known."""

import math
from collections.abc import Sequence

from .protocol import Outcome
from .reward import STANDING


def credited(outcomes: Sequence[Outcome], gained: float | None) -> dict[str, float]:
    """Return by observation what each germination was worth, given what the whole run has gained over a control.

    A control is the same run without growth: same weights, same batches. Its gain replaces the estimates that a run has
    to make by itself. The seeds that stand at the end share it: half of it equally, because what one seed does may be
    owed to another one before or behind it, and half as their counterfactual contributions are to each other. Rent and
    the other terms stay. Without a control the result is empty.
    """
    if gained is None or not math.isfinite(gained):
        return {}
    newest = {one.observation: one for one in outcomes}
    standing = {name: max(0.0, one.contribution or 0.0) for name, one in newest.items() if one.stage in STANDING}
    whole = sum(standing.values())
    shares = {
        name: 0.5 / len(standing) + 0.5 * (own / whole if whole > 0 else 1 / len(standing))
        for name, own in standing.items()
    }
    return {
        name: sum(value for term, value in one.terms.items() if term != "gain") + gained * shares.get(name, 0.0)
        for name, one in newest.items()
    }
