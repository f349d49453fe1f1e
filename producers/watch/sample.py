"""What one measured optimizer step says about every layer, and how it is put together.

The numbers of the layers are kept in plain lists: for tens of layers a loop in Python is cheaper than a chain of
NumPy calls, and None says "not measured" where NaN cannot (a NaN may have been measured).
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

#: Of one signal: the value of each layer, None where it was not measured.
Values = Sequence[float | None]
Measures = dict[str, Values]

#: Of one layer's outputs: mean, variance, number of non-finite values.
Activation = tuple[float, float, float]

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

    grad_norm: L2 norm of the gradients of the layer's own parameters, as the optimizer's step found them.
    weight_norm: L2 norm of its parameters before the step (those that made the gradients and activations).
    update_ratio: L2 norm of their change by the step over weight_norm; missing where that is 0, or without gradients.
    activation_mean, activation_variance: over all elements of all outputs that the layer gave since the step before,
        in training and with gradients enabled (population variance; of several tensors in an output the first).
    dead_share: share of a Linear's or convolution's output units whose bias and weight gradients are exactly zero;
        missing for other layers, without gradients, and where all are zero in a layer that was not seen to run.
    nonfinite: how many NaN and infinities its gradients and outputs had.
    """

    step: int
    time_ns: int
    layers: tuple[str, ...]
    signals: dict[str, npt.NDArray[np.float32] | None]
    missing: dict[str, list[int]]

    def __sizeof__(self) -> int:
        """Return about how many bytes are held by the numbers and what is around them."""
        return 2048 + 8 * len(self.layers) * (len(self.missing) + len(SIGNALS))


def measures(
    gradients: Values,
    bad: Sequence[float],
    weights: Values,
    changes: Sequence[float],
    activations: Sequence[Activation | None],
    dead: Values,
) -> Measures:
    """Derive the signals from what was read, all lists in the order of the layers.

    `gradients`, `weights` and `changes` are squares of norms; `bad` counts the gradients' non-finite values.
    """
    sqrt = math.sqrt
    ratios: list[float | None] = []
    counts: list[float | None] = []
    shares: list[float | None] = []
    for gradient, spoiled, weight, change, seen, share in zip(
        gradients, bad, weights, changes, activations, dead, strict=True
    ):
        # Nothing moved a layer without gradients, and a change of nothing has no ratio.
        ratios.append(sqrt(change) / sqrt(weight) if gradient is not None and weight else None)
        if seen is not None:
            counts.append(spoiled + seen[2])
            shares.append(share)
        else:
            counts.append(None if gradient is None else spoiled)
            # All gradients zero in a layer that was not seen to run: unused or dead, nobody can tell.
            shares.append(None if share == 1.0 else share)
    return {
        "grad_norm": [None if g is None else sqrt(g) for g in gradients],
        "weight_norm": [None if w is None else sqrt(w) for w in weights],
        "update_ratio": ratios,
        "activation_mean": [None if a is None else a[0] for a in activations],
        "activation_variance": [None if a is None else a[1] for a in activations],
        "dead_share": shares,
        "nonfinite": counts,
    }


@dataclass(frozen=True, slots=True)
class Columns:
    """The signals of many steps: of each its values and which of them were measured, a row a step, a column a layer."""

    signals: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]

    def measures(self, step: int) -> Measures:
        """Return the signals of one step."""
        return {
            name: [
                value if there else None for value, there in zip(values[step].tolist(), has[step].tolist(), strict=True)
            ]
            for name, (values, has) in self.signals.items()
        }

    def samples(self, layers: tuple[str, ...], steps: Sequence[tuple[int, int]]) -> list[LayerSample]:
        """Return the sample of each step; `steps` has their numbers and times."""
        with np.errstate(all="ignore"):
            table = np.stack([np.where(has, values, 0.0) for values, has in self.signals.values()], axis=1)
            rounded = table.astype(np.float32)
        there = np.stack([has for _, has in self.signals.values()], axis=1)
        whole: list[list[bool]] = np.all(there, axis=2).tolist()
        samples = []
        for row, (number, time_ns) in enumerate(steps):
            signals: dict[str, npt.NDArray[np.float32] | None] = dict(zip(self.signals, rounded[row], strict=True))
            missing: dict[str, list[int]] = {}
            if not all(whole[row]):
                for at, name in enumerate(self.signals):
                    if not whole[row][at]:
                        absent = np.flatnonzero(~there[row, at]).tolist()
                        if len(absent) == len(layers):
                            signals[name] = None
                        else:
                            missing[name] = absent
            samples.append(LayerSample(number, time_ns, layers, signals, missing))
        return samples


def build_sample(
    step: int, time_ns: int, layers: tuple[str, ...], parts: Sequence[tuple[Sequence[int], Measures]]
) -> LayerSample:
    """Join the measures of disjoint sets of layers (their indices, their measures) into one sample."""
    signals: dict[str, npt.NDArray[np.float32] | None] = {}
    missing: dict[str, list[int]] = {}
    count = len(layers)
    # An array rounds to float32 and, unlike NumPy, makes infinity of what is too large without a warning.
    columns = array("f")
    for name in SIGNALS:
        values = _whole(name, count, parts)
        absent = values.count(None)
        if absent == 0:
            columns.extend(cast(Sequence[float], values))
        elif absent == count:
            signals[name] = None
        else:
            missing[name] = [i for i, value in enumerate(values) if value is None]
            columns.extend([0.0 if value is None else value for value in values])
    table = iter(np.frombuffer(columns, dtype=np.float32).reshape(-1, count)) if columns else iter(())
    signals = {name: None if name in signals else next(table) for name in SIGNALS}
    return LayerSample(step, time_ns, layers, signals, missing)


def _whole(name: str, count: int, parts: Sequence[tuple[Sequence[int], Measures]]) -> Values:
    if len(parts) == 1 and len(parts[0][0]) == count:
        return parts[0][1][name]
    whole: list[float | None] = [None] * count
    for indices, part in parts:
        for index, value in zip(indices, part[name], strict=True):
            whole[index] = value
    return whole
