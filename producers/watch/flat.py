"""Read the gradients and weights of ordinary parameters in a few calls over one flat buffer.

Ordinary: dense, contiguous float32 on the CPU, so that NumPy sees the parameter's memory without a copy. In a real
training loop the cost of a call on a small tensor is mostly cold caches, so the count of calls is what matters.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .sums import HIGH, LOW, count_nonfinite, row_dots, split, sum_of_squares, tally

Floats32 = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def is_ordinary(parameter: Tensor) -> bool:
    """Say whether NumPy can read this parameter in place."""
    return (
        parameter.dtype == torch.float32
        and parameter.device.type == "cpu"
        and parameter.layout == torch.strided
        and parameter.is_contiguous()
        and not hasattr(parameter, "to_local")
    )


class FlatParameters:
    """The parameters of `groups` (one list per layer) beside one float32 buffer with a place for each.

    The buffer holds the gradients first, then the weights before the step, then what the step changed.
    Parameters in `first` (by id) stand at its front, so that one look tells whether any of their gradients is zero.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], first: set[int]) -> None:
        placed = [(p, layer) for layer, group in enumerate(groups) for p in group]
        placed.sort(key=lambda item: (id(item[0]) not in first, item[0].numel(), tuple(item[0].shape)))
        self.parameters = [p for p, _ in placed]
        self.layers = len(groups)
        sizes = [p.numel() for p in self.parameters]
        stops = np.cumsum([0, *sizes])
        self._buffer = torch.zeros(int(stops[-1]))
        self._array: Floats32 = self._buffer.numpy()
        self.front: Floats32 = self._array[: sum(n for (p, _), n in zip(placed, sizes, strict=True) if id(p) in first)]
        self._parts: list[Floats32] = [self._array[a:b] for a, b in pairwise(stops)]
        self.place = {id(p): part for p, part in zip(self.parameters, self._parts, strict=True)}
        self._plan_gather(stops)
        self._plan_rows([layer for _, layer in placed], sizes, stops)
        self._pointers: list[int] = []
        self._views: list[Floats32] = []
        self._zeros: dict[int, Tensor] = {}

    def _plan_gather(self, stops: npt.NDArray[np.int64]) -> None:
        """Neighbours of one shape are gathered by one `torch.cat`, all that stand alone by one `_foreach_copy_`."""
        self._runs: list[tuple[int, int, Tensor]] = []
        self._alone: list[int] = []
        for shape, members in groupby(range(len(self.parameters)), key=lambda i: self.parameters[i].shape):
            run = list(members)
            start, stop = run[0], run[-1] + 1
            if len(run) == 1 or not shape:
                self._alone.extend(run)
            else:
                room = self._buffer[stops[start] : stops[stop]].view(len(run) * shape[0], *shape[1:])
                self._runs.append((start, stop, room))
        self._alone_places = [self._buffer[stops[i] : stops[i + 1]].view(self.parameters[i].shape) for i in self._alone]

    def _plan_rows(self, owners: list[int], sizes: list[int], stops: npt.NDArray[np.int64]) -> None:
        """Cut the buffer into matrices of equal rows, each row of one layer."""
        self._matrices: list[Floats32] = []
        self._uneven: list[tuple[Floats32, int]] = []
        row_owners: list[int] = []
        for size, members in groupby(range(len(sizes)), key=lambda i: sizes[i]):
            run = list(members)
            pieces = split(size)
            if pieces is None:
                self._uneven.extend((self._parts[i], owners[i]) for i in run if size)
                continue
            area = self._array[stops[run[0]] : stops[run[-1] + 1]]
            self._matrices.append(area.reshape(len(run) * pieces, size // pieces))
            row_owners.extend(owners[i] for i in run for _ in range(pieces))
        self._row_owners = np.array(row_owners, dtype=np.intp)

    def gather_gradients(self, gradients: list[Tensor | None]) -> None:
        """Copy the gradients, in the order of `parameters`, into the buffer; zeros where there is none."""
        tensors = [self._zero(i) if g is None else g for i, g in enumerate(gradients)]
        for start, stop, room in self._runs:
            torch.cat(tensors[start:stop], out=room)
        if self._alone:
            torch._foreach_copy_(self._alone_places, [tensors[i] for i in self._alone])

    def _zero(self, index: int) -> Tensor:
        return self._zeros.setdefault(index, torch.zeros_like(self.parameters[index], requires_grad=False))

    def gather_weights(self) -> None:
        """Copy the weights into the buffer."""
        self._look()
        np.concatenate(self._views, out=self._array)

    def subtract_weights(self) -> None:
        """Leave in the buffer what it held minus the weights as they are now."""
        self._look()
        subtract = np.subtract
        for view, part in zip(self._views, self._parts, strict=True):
            subtract(part, view, part)

    def _look(self) -> None:
        """Make the views again if a parameter's data moved (a view keeps its memory, so no address is used twice)."""
        pointers = [p.data_ptr() for p in self.parameters]
        if pointers != self._pointers:
            self._views = [p.detach().numpy().reshape(-1) for p in self.parameters]
            self._pointers = pointers

    def squares(self) -> Doubles:
        """Return, per layer, the sum of squares of what the buffer holds now."""
        rows = [row_dots(matrix) for matrix in self._matrices]
        if rows:
            values = np.concatenate(rows, dtype=np.float64)
            if not (values.min() > LOW and values.max() < HIGH):  # false for NaN as well
                self._square_again(values)
            sums = tally(self._row_owners, values, self.layers)
        else:
            sums = np.zeros(self.layers)
        for part, owner in self._uneven:
            sums[owner] += sum_of_squares(part)
        return sums

    def _square_again(self, values: Doubles) -> None:
        start = 0
        for matrix in self._matrices:
            stop = start + len(matrix)
            with np.errstate(invalid="ignore"):
                doubtful = np.flatnonzero(~((values[start:stop] > LOW) & (values[start:stop] < HIGH)))
            for row in doubtful:
                values[start + row] = sum_of_squares(matrix[row])
            start = stop

    def nonfinite(self) -> Doubles:
        """Count, per layer, the NaN and infinities that the buffer holds now."""
        counts = np.zeros(self.layers)
        start = 0
        for matrix in self._matrices:
            stop = start + len(matrix)
            bad = matrix.shape[1] - np.count_nonzero(np.isfinite(matrix), axis=1)
            np.add.at(counts, self._row_owners[start:stop], bad)
            start = stop
        for part, owner in self._uneven:
            counts[owner] += count_nonfinite(part)
        return counts
