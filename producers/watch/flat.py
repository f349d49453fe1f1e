"""Read the gradients and weights of ordinary parameters in a few calls over one flat buffer.

Ordinary: dense, contiguous float32 on the CPU, so that NumPy sees the parameter's memory without a copy. In a real
training loop the cost of a call on a small tensor is mostly cold caches, so the count of calls is what matters.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import is_

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .sums import HIGH, LOW, count_nonfinite, row_dots, split, sum_of_squares

Floats32 = npt.NDArray[np.float32]


def is_ordinary(parameter: Tensor) -> bool:
    """Say whether NumPy can read this parameter in place."""
    return (
        parameter.dtype == torch.float32
        and parameter.device.type == "cpu"
        and parameter.layout == torch.strided
        and parameter.is_contiguous()
        and not hasattr(parameter, "to_local")
    )


SERIAL = 32_000  # elements that torch still copies in the calling thread: waking its pool costs more than it gains


class FlatParameters:
    """The parameters of `groups` (one list per layer) beside one float32 buffer with a place for each.

    The buffer holds the gradients first, then the weights before the step, then what the step changed.
    Parameters in `first` (by id) stand at its front.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], first: set[int]) -> None:
        placed = [(p, layer) for layer, group in enumerate(groups) for p in group]
        placed.sort(key=lambda item: (id(item[0]) not in first, item[0].numel(), tuple(item[0].shape)))
        self.parameters = [p for p, _ in placed]
        self.layers = len(groups)
        sizes = [p.numel() for p in self.parameters]
        stops = np.cumsum([0, *sizes])
        self._buffer = torch.zeros(int(stops[-1]))
        self.array: Floats32 = self._buffer.numpy()
        self._parts: list[Floats32] = [self.array[a:b] for a, b in pairwise(stops)]
        spans = [slice(int(a), int(b)) for a, b in pairwise(stops)]
        self.place = {id(p): span for p, span in zip(self.parameters, spans, strict=True)}
        self._plan_gather(stops)
        self._plan_rows([layer for _, layer in placed], sizes, stops)
        self._pointers: list[int] = []
        self._views: list[Floats32] = []
        self._zeros: dict[int, Tensor] = {}

    def _plan_gather(self, stops: npt.NDArray[np.int64]) -> None:
        """Neighbours of one shape are gathered by one `torch.cat`, scalars by one `_foreach_copy_`."""
        self._runs: list[tuple[int, int, Tensor]] = []
        self._alone: list[int] = []
        for shape, members in groupby(range(len(self.parameters)), key=lambda i: self.parameters[i].shape):
            run = list(members)
            if not shape:
                self._alone.extend(run)
                continue
            at_once = max(1, SERIAL // max(1, shape.numel()))
            for first in range(0, len(run), at_once):
                part = run[first : first + at_once]
                start, stop = part[0], part[-1] + 1
                room = self._buffer[stops[start] : stops[stop]].view(len(part) * shape[0], *shape[1:])
                self._runs.append((start, stop, room))
        self._alone_places = [self._buffer[stops[i] : stops[i + 1]].view(self.parameters[i].shape) for i in self._alone]

    def _plan_rows(self, owners: list[int], sizes: list[int], stops: npt.NDArray[np.int64]) -> None:
        """Cut the buffer into matrices of equal rows, each row of one layer."""
        self._matrices: list[tuple[Floats32, list[int]]] = []
        self._uneven: list[tuple[Floats32, int]] = []
        for size, members in groupby(range(len(sizes)), key=lambda i: sizes[i]):
            run = list(members)
            pieces = split(size)
            if pieces is None:
                self._uneven.extend((self._parts[i], owners[i]) for i in run if size)
                continue
            area = self.array[stops[run[0]] : stops[run[-1] + 1]]
            rows = area.reshape(len(run) * pieces, size // pieces)
            self._matrices.append((rows, [owners[i] for i in run for _ in range(pieces)]))

    def gather_gradients(self, gradients: list[Tensor | None]) -> bool:
        """Copy the gradients, in the order of `parameters`, into the buffer; say whether all were there.

        A gradient that is not there counts as zeros.
        """
        tensors = [self._zero(i) if g is None else g for i, g in enumerate(gradients)]
        self._gather(tensors)
        return all(map(is_, tensors, gradients))

    def _gather(self, tensors: list[Tensor]) -> None:
        for start, stop, room in self._runs:
            torch.cat(tensors[start:stop], out=room)
        if self._alone:
            torch._foreach_copy_(self._alone_places, [tensors[i] for i in self._alone])

    def _zero(self, index: int) -> Tensor:
        return self._zeros.setdefault(index, torch.zeros_like(self.parameters[index], requires_grad=False))

    def gather_weights(self) -> None:
        """Copy the weights into the buffer."""
        self._look()
        np.concatenate(self._views, out=self.array)

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

    def squares(self) -> list[float]:
        """Return, per layer, the sum of squares of what the buffer holds now."""
        sums = [0.0] * self.layers
        for matrix, owners in self._matrices:
            for row, (owner, square) in enumerate(zip(owners, row_dots(matrix).tolist(), strict=True)):
                sums[owner] += square if LOW < square < HIGH else sum_of_squares(matrix[row])
        for part, owner in self._uneven:
            sums[owner] += sum_of_squares(part)
        return sums

    def nonfinite(self) -> list[float]:
        """Count, per layer, the NaN and infinities that the buffer holds now."""
        counts = [0.0] * self.layers
        for matrix, owners in self._matrices:
            for owner, row in zip(owners, matrix, strict=True):
                counts[owner] += count_nonfinite(row)
        for part, owner in self._uneven:
            counts[owner] += count_nonfinite(part)
        return counts
