"""Read the gradients and weights of parameters that are out of the ordinary, one by one.

Half precision, double, complex, sparse gradients, shards of a distributed tensor, odd strides; and those of models too
large for a second copy beside the first. Also those that no optimizer moves, whose weights are only read.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .sums import sum_of_squares

Floats = npt.NDArray[np.floating[Any]]


def flat_view(tensor: Tensor) -> Floats:
    """Return the values of a CPU tensor as a flat array: float32 or float64, without a copy where possible.

    Of a distributed tensor: this rank's shard. Of a sparse one: its coalesced values.
    """
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.is_sparse else tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    array: Floats = tensor.resolve_neg().numpy().reshape(-1)
    return array


class LooseParameters:
    """The parameters of one layer, read one at a time."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self._before: list[tuple[Tensor, Floats]] = []

    def square_of_gradients(self, gradients: list[Tensor | None]) -> tuple[float, int]:
        """Return the sum of squares and the count of non-finite values of the gradients that are there."""
        total, bad = 0.0, 0
        for gradient in gradients:
            if gradient is not None:
                flat = flat_view(gradient)
                square = sum_of_squares(flat)
                total += square
                if not np.isfinite(square):
                    bad += int(flat.size - np.count_nonzero(np.isfinite(flat)))
        return total, bad

    def square_of_weights(self, keep: bool) -> float:
        """Return the sum of squares of the weights, and keep a copy of them for `square_of_change`."""
        views = [(p, flat_view(p)) for p in self.parameters]
        self._before = [(p, np.array(view)) for p, view in views] if keep else []
        return sum(sum_of_squares(view) for _, view in views)

    def square_of_change(self) -> float | None:
        """Return the sum of squares of the weights' change since they were kept, None where they were not."""
        before, self._before = self._before, []
        return sum(sum_of_squares(np.subtract(flat_view(p), old, out=old)) for p, old in before) if before else None
