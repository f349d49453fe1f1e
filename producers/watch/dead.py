"""Count the output units that got no gradient at all: the exact sign of a dead unit.

A unit of a Linear or convolution layer is dead in a step when every element of the gradient of its own bias and of
its own row of weights is exactly zero. Behind a ReLU (a module or `F.relu`) that is the unit that fired for no
input of the step. The bias gradient alone decides almost always: rows are read only for the units that it leaves
open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from .layers import Layer, Rows, rows_by_unit

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one layer, and the parameters whose gradients belong to them."""

    count: int
    bias: Tensor | None
    weight: Tensor | None
    rows: Rows
    plain: bool  # the rows of the weight are the units, as they stand in memory

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
    return int(candidates.size - np.count_nonzero(rows[candidates].any(axis=1)))


class FrontUnits:
    """The units of many layers at once: their bias gradients stand at the front of one buffer.

    Layers whose weights have one shape and stand side by side in the buffer are looked at together.
    """

    def __init__(self, layers: Sequence[tuple[int, Units]], buffer: Floats, place: dict[int, slice]) -> None:
        """Plan the look at `layers` (their numbers and units); `place` says where a parameter's gradient stands."""
        spans = [place[id(units.bias)] for _, units in layers]
        self._front = buffer[: sum(span.stop - span.start for span in spans)]
        self._zero = np.zeros(len(self._front), dtype=np.bool_)
        self._runs: list[tuple[Floats, npt.NDArray[np.intp] | slice, npt.NDArray[np.intp]]] = []
        ordered = sorted(zip(layers, spans, strict=True), key=lambda item: place[id(item[0][1].weight)].start)
        while ordered:
            run = [ordered.pop(0)]
            start, stop = _span(run[0], place)
            while ordered and _span(ordered[0], place)[0] == stop and _shape(ordered[0]) == _shape(run[0]):
                stop = _span(ordered[0], place)[1]
                run.append(ordered.pop(0))
            rows = buffer[start:stop].reshape(sum(units.count for (_, units), _ in run), -1)
            front = np.concatenate([np.arange(span.start, span.stop) for _, span in run])
            straight = bool((np.diff(front) == 1).all())
            where = slice(int(front[0]), int(front[-1]) + 1) if straight else front
            owners = np.repeat([index for (index, _), _ in run], [units.count for (_, units), _ in run])
            self._runs.append((rows, where, owners.astype(np.intp)))

    def dead(self) -> dict[int, int]:
        """Count the dead units of the layers that have some."""
        np.equal(self._front, 0, self._zero)
        counts: dict[int, int] = {}
        zero = self._zero
        if zero.any():
            for rows, front, owners in self._runs:
                candidates = np.flatnonzero(zero[front])
                candidates = candidates[~rows[candidates].any(axis=1)]
                found = np.bincount(owners[candidates]).tolist()
                counts.update((owner, count) for owner, count in enumerate(found) if count)
        return counts


Placed = tuple[tuple[int, Units], slice]


def _span(placed: Placed, place: dict[int, slice]) -> tuple[int, int]:
    span = place[id(placed[0][1].weight)]
    return span.start, span.stop


def _shape(placed: Placed) -> object:
    weight = placed[0][1].weight
    return None if weight is None else weight.shape


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
    if not layer.units or module is None:
        return None
    held = {id(p) for p in parameters if p.numel()}
    bias, weight = layer.own.get("bias"), layer.own.get("weight")
    return Units(
        layer.units,
        bias if bias is not None and id(bias) in held and bias.shape == (layer.units,) else None,
        weight if weight is not None and id(weight) in held else None,
        rows_by_unit(module),
        not isinstance(module, nn.modules.conv._ConvTransposeNd),
    )
