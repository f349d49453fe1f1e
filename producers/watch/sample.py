"""What one measured optimizer step says about every layer, and how it is put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: One signal over some layers: its values, and which of them were measured (None: all of them).
Measure = tuple[Doubles, Mask | None]
Measures = dict[str, Measure]

SIGNALS = (
    "grad_norm",
    "weight_norm",
    "update_ratio",
    "activation_mean",
    "activation_variance",
    "dead_share",
    "nonfinite",
)


@dataclass(frozen=True, slots=True)
class LayerSample:
    """The signals of all layers at one optimizer step.

    `signals` has each name of SIGNALS: a float32 vector as long as `layers`, or None where no layer was measured.
    `missing` lists, for a signal that only some layers have, the indices that were not measured; the value
    there is 0 and says nothing. A NaN or an infinity in a vector was measured.
    """

    step: int
    time_ns: int
    layers: tuple[str, ...]
    signals: dict[str, npt.NDArray[np.float32] | None]
    missing: dict[str, list[int]]


def build_sample(
    step: int, time_ns: int, layers: tuple[str, ...], parts: Sequence[tuple[Sequence[int], Measures]]
) -> LayerSample:
    """Join the measures of disjoint sets of layers (their indices, their measures) into one sample."""
    signals: dict[str, npt.NDArray[np.float32] | None] = {}
    missing: dict[str, list[int]] = {}
    with np.errstate(all="ignore"):
        for name in SIGNALS:
            values, mask = _whole(name, len(layers), parts)
            if mask is not None:
                absent = np.flatnonzero(~mask).tolist()
                if len(absent) == len(layers):
                    signals[name] = None
                    continue
                if absent:
                    missing[name] = absent
                    values = np.where(mask, values, 0.0)
            signals[name] = values.astype(np.float32)
    return LayerSample(step, time_ns, layers, signals, missing)


def _whole(name: str, count: int, parts: Sequence[tuple[Sequence[int], Measures]]) -> Measure:
    if len(parts) == 1 and len(parts[0][0]) == count:
        return parts[0][1][name]
    values, mask = np.zeros(count), np.zeros(count, dtype=np.bool_)
    for indices, measures in parts:
        where = np.asarray(indices, dtype=np.intp)
        part, known = measures[name]
        values[where] = part
        mask[where] = True if known is None else known
    return values, mask
