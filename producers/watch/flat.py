"""Read the gradients and weights of ordinary parameters in a few calls over one flat buffer.

Ordinary: dense, contiguous float32 on the CPU. In a real training loop the cost of a call on a small tensor is mostly
cold caches, so what matters is how few calls there are and how few kinds of them, those of a kind one after the other.
What comes out are sums of squares of rows of the buffer; `by_layer` adds them up later, for many steps.
"""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .sums import HIGH, LOW, count_nonfinite, row_dots, split, sum_of_squares

Floats32 = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]


def is_ordinary(parameter: Tensor) -> bool:
    """Say whether this parameter can be read through the buffer."""
    return (
        parameter.dtype == torch.float32
        and parameter.device.type == "cpu"
        and parameter.layout == torch.strided
        and parameter.is_contiguous()
        and not hasattr(parameter, "to_local")
        and (parameter.numel() == 0 or split(parameter.numel()) is not None)
    )


SERIAL = 32_000  # elements that torch still copies in the calling thread: waking its pool costs more than it gains


class Gather:
    """Copies tensors of known shapes into a buffer: neighbours of one shape by one `torch.cat`."""

    def __init__(self, like: Sequence[Tensor], buffer: Tensor, stops: Sequence[int]) -> None:
        self.places = [buffer[a:b].view(each.shape) for each, (a, b) in zip(like, pairwise(stops), strict=True)]
        self._runs: list[tuple[int, int, Tensor, torch.Size]] = []
        self._alone: list[int] = []
        for shape, members in groupby(range(len(like)), key=lambda i: like[i].shape):
            run = list(members)
            if not shape:
                self._alone.extend(run)  # a scalar cannot be joined to others
                continue
            at_once = max(1, SERIAL // max(1, shape.numel()))
            for first in range(0, len(run), at_once):
                part = run[first : first + at_once]
                room = buffer[stops[part[0]] : stops[part[-1] + 1]].view(len(part) * shape[0], *shape[1:])
                self._runs.append((part[0], part[-1] + 1, room, room.shape))

    def copy(self, tensors: list[Tensor]) -> None:
        """Copy them all, in the order in which they were planned."""
        cat = torch.cat
        for start, stop, room, shape in self._runs:
            cat(tensors[start:stop], out=room)
            if room.shape != shape:
                raise RuntimeError("a parameter has another shape than before")
        if self._alone:
            torch._foreach_copy_([self.places[i] for i in self._alone], [tensors[i] for i in self._alone])


class FlatParameters:
    """The parameters of `groups` (one list per layer) beside two float32 buffers with a place for each.

    One holds the gradients, the other the weights before the step and then what the step changed.
    Parameters in `first` (by id) stand at the front.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], first: set[int]) -> None:
        placed = [(p, layer) for layer, group in enumerate(groups) for p in group]
        placed.sort(key=lambda item: (id(item[0]) not in first, item[0].numel(), tuple(item[0].shape)))
        self.parameters = [p for p, _ in placed]
        self.layers = len(groups)
        sizes = [p.numel() for p in self.parameters]
        stops = np.cumsum([0, *sizes]).tolist()
        buffers = torch.zeros(2, stops[-1])
        arrays: Floats32 = buffers.numpy()
        self.gradients: Floats32 = arrays[0]
        self.place = {id(p): slice(a, b) for p, (a, b) in zip(self.parameters, pairwise(stops), strict=True)}
        self._gradients = Gather(self.parameters, buffers[0], stops)
        self._weights = Gather(self.parameters, buffers[1], stops)
        self._plan_rows([layer for _, layer in placed], sizes, stops, arrays)
        self._zeros: dict[int, Tensor] = {}

    def _plan_rows(self, owners: list[int], sizes: list[int], stops: list[int], arrays: Floats32) -> None:
        """Cut the buffers into matrices of equal rows, each row of one layer."""
        self._owners: list[int] = []
        matrices: list[Floats32] = []
        for size, members in groupby(range(len(sizes)), key=lambda i: sizes[i]):
            run = list(members)
            pieces = split(size)
            if pieces is not None:  # of no elements, or see `is_ordinary`
                area = arrays[:, stops[run[0]] : stops[run[-1] + 1]]
                matrices.append(area.reshape(2, len(run) * pieces, size // pieces))
                self._owners += [owners[i] for i in run for _ in range(pieces)]
        self._rows = [[row for matrix in matrices for row in matrix[side]] for side in (0, 1)]
        self._sums = np.zeros((2, len(self._owners)), dtype=np.float32)
        ends = np.cumsum([0, *(matrix.shape[1] for matrix in matrices)]).tolist()
        self._matrices = [(matrix, self._sums[:, a:b]) for matrix, (a, b) in zip(matrices, pairwise(ends), strict=True)]
        self._halves = [[(matrix[side], sums[side]) for matrix, sums in self._matrices] for side in (0, 1)]
        order = np.argsort(self._owners, kind="stable")
        self._order = None if np.array_equal(order, np.arange(len(order))) else order
        self._has_rows, self._starts = np.unique(np.array(self._owners, dtype=np.intp)[order], return_index=True)

    def gather_gradients(self) -> bool:
        """Copy the gradients into their buffer; say whether every parameter had one. Those that are not there are zeros.

        Raises what torch raises for one that cannot be copied.
        """
        gradients = [p.grad for p in self.parameters]
        try:
            self._gradients.copy(gradients)  # type: ignore[arg-type]
        except TypeError:  # one is not there
            present = [g is not None for g in gradients]
            if all(present):
                raise
            self._gradients.copy([self._zero(i) if g is None else g for i, g in enumerate(gradients)])
            return False
        return True

    def _zero(self, index: int) -> Tensor:
        return self._zeros.setdefault(index, torch.zeros_like(self.parameters[index], requires_grad=False))

    def gather_weights(self) -> None:
        """Copy the weights into their buffer."""
        self._weights.copy(self.parameters)

    def squares(self) -> tuple[list[float], list[float]]:
        """Return the sum of squares of each row of the gradients and of the weights, for `by_layer`."""
        for matrix, sums in self._matrices:
            row_dots(matrix, sums)
        gradients, weights = self._sums.tolist()
        return self._settled(gradients, 0), self._settled(weights, 1)

    def squares_of_change(self) -> list[float]:
        """Subtract the weights as they are now from their buffer, and return what `squares` would of the difference."""
        torch._foreach_sub_(self._weights.places, self.parameters)
        for matrix, sums in self._halves[1]:
            row_dots(matrix, sums)
        return self._settled(self._sums[1].tolist(), 1)

    def _settled(self, sums: list[float], side: int) -> list[float]:
        """Sum again in float64 what left the range in which a float32 sum can be trusted."""
        if sums and not (min(sums) > LOW and sum(sums) < HIGH):  # the sum, because it shows a NaN
            for i, square in enumerate(sums):
                if not LOW < square < HIGH:
                    sums[i] = sum_of_squares(self._rows[side][i])
        return sums

    def nonfinite(self, squares: list[float]) -> list[float]:
        """Count, per layer, the NaN and infinities of the gradients, given their squares."""
        counts = [0.0] * self.layers
        for owner, row, square in zip(self._owners, self._rows[0], squares, strict=True):
            if not square < math.inf:
                counts[owner] += count_nonfinite(row)
        return counts

    def by_layer(self, steps: list[list[float]]) -> Floats64:
        """Add up the sums of squares of each layer: a row for each step, a column for each layer."""
        totals = np.zeros((len(steps), self.layers))
        if self._owners:
            squares = np.array(steps, dtype=np.float64)
            if self._order is not None:
                squares = squares[:, self._order]
            totals[:, self._has_rows] = np.add.reduceat(squares, self._starts, axis=1)
        return totals
