"""The numbers of tensors of any kind: whether two hold the same ones, and where to look for one that is not finite."""

import torch
from torch import Tensor

_ROWS = {torch.sparse_csr, torch.sparse_bsr}
_COLUMNS = {torch.sparse_csc, torch.sparse_bsc}


def parts(tensor: Tensor) -> list[Tensor] | None:
    """Give plain tensors with the numbers of `tensor`: itself, or what a sparse one is made of.

    None for a kind whose numbers cannot be looked at (nested, quantized, mkldnn).
    """
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in _ROWS:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in _COLUMNS:
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
        return None
    # Floats of eight bits can be stored and converted, and nothing else.
    return [tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor]


def same(one: Tensor, other: Tensor) -> bool | None:
    """Say whether two tensors of one kind hold equal numbers (a NaN equals nothing); None where that cannot be seen."""
    mine, theirs = parts(one), parts(other)
    if mine is None or theirs is None:
        return None
    return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))
