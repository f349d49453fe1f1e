"""Generalised advantages where decisions are not equally far apart (Schulman et al. 2015, over a semi-Markov process).

TorchRL's estimator takes one discount for all steps. Here a run has epochs in which nothing could be chosen, which are
no steps; so discounts are powers of the epochs in between. With steps one epoch apart both are equal (and tested so).
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .encode import Floats, Indices


def advantages(
    epochs: "Indices", paid: "Floats", values: "Floats", *, discount: float, trace: float
) -> "tuple[Floats, Floats]":
    """Return the advantage of each step and the value that it should have had, float32 (steps,).

    `epochs` (steps,) rise; the run ends with the last step, and what comes after it is worth nothing.
    """
    found = np.zeros(len(paid), np.float64)
    following, value = 0.0, 0.0
    for at in range(len(paid) - 1, -1, -1):
        apart = float(epochs[at + 1] - epochs[at]) if at + 1 < len(paid) else 1.0
        surprise = paid[at] + discount**apart * value - values[at]
        following = surprise + (discount * trace) ** apart * following
        found[at], value = following, float(values[at])
    return found.astype(np.float32), (found + values).astype(np.float32)
