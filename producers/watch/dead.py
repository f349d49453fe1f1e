"""Count the output units that got no gradient at all: the exact sign of a dead unit.

A unit of a Linear or convolution layer is dead in a step when every element of the gradient of its own bias and of
its own row of weights is exactly zero. Behind a ReLU (a module or `F.relu`) that is the unit that fired for no
input of the step. The bias gradient alone decides almost always; rows are read only for the units it leaves open.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .layers import Layer, Rows, rows_by_unit

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one layer, and the parameters whose gradients belong to them."""

    count: int
    bias: Tensor | None
    weight: Tensor | None
    rows: Rows

    def dead(self, bias: Floats | None, weight: Floats | None) -> int | None:
        """Count the dead units, given the gradients; None without any gradient."""
        if bias is None:
            if weight is None:
                return None
            rows = self.rows(weight)
            probe = rows.dot(_probe(rows.shape[1]).astype(rows.dtype, copy=False))  # zero rows give exactly zero
            return _count_zero_rows(rows, np.flatnonzero(probe == 0))
        open_units = np.flatnonzero(bias == 0)
        if weight is None or not open_units.size:
            return int(open_units.size)
        return _count_zero_rows(self.rows(weight), open_units)


def _count_zero_rows(rows: Floats, candidates: npt.NDArray[np.intp]) -> int:
    return sum(1 for index in candidates.tolist() if not rows[index].any())


def _probe(size: int) -> npt.NDArray[np.float32]:
    if size not in _PROBES:
        if len(_PROBES) > 256:
            _PROBES.clear()
        _PROBES[size] = np.random.default_rng(size).uniform(0.5, 1.5, size).astype(np.float32)
    return _PROBES[size]


_PROBES: dict[int, npt.NDArray[np.float32]] = {}


def units_of(layer: Layer, parameters: list[Tensor]) -> Units | None:
    """Find the units of a layer, None where it has none that can be called dead."""
    module = layer.module()
    if layer.units is None or module is None:
        return None
    held = {id(p) for p in parameters}
    bias, weight = layer.own.get("bias"), layer.own.get("weight")
    return Units(
        layer.units,
        bias if bias is not None and id(bias) in held and bias.shape == (layer.units,) else None,
        weight if weight is not None and id(weight) in held else None,
        rows_by_unit(module),
    )
