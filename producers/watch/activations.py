"""Mean and variance of what each layer puts out during one optimizer step, on the CPU.

Small outputs wait in a queue until the model's forward pass returns, then outputs of one shape are measured
together. An output that something changed in place in the meantime cannot be measured any more: its layer is
missing from that step, and from then on measured as soon as it returns. Nothing is held beyond the forward pass.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .layers import first_tensor
from .sums import moments, moments_of_rows, split, tally

_SMALL = 1 << 16  # elements of an output that may wait
_ROOM = 1 << 22  # elements that may wait in all (16 MB)

Entry = tuple[int, int, float, float, int]  # layer, elements, mean, sum of squared distances, non-finite values


class HostActivations:
    """Collects the outputs of the layers 0..count-1 of one step."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._queue: list[tuple[int, Tensor]] = []
        self._waiting = 0
        self._at_once: set[int] = set()
        self._spoiled: set[int] = set()
        self._forward: set[int] = set()
        self._entries: list[Entry] = []
        self._scratch = torch.zeros(0)

    def put(self, index: int, output: object) -> None:
        """Take an output that stays as it is until `flush`, unless it is changed in place."""
        tensor = output if type(output) is Tensor else first_tensor(output)
        if tensor is None:
            return
        size = tensor.numel()
        if size > _SMALL or index in self._at_once:
            self._forward.add(index)
            self._measure(index, tensor)
            return
        self._queue.append((index, tensor))
        self._waiting += size
        if self._waiting > _ROOM:
            self.flush()

    def put_now(self, index: int, output: object, *, again: bool = False) -> None:
        """Take an output and measure it before anything else happens to it.

        `again` says that the call happens inside a backward pass, where activation checkpointing runs layers a
        second time: it counts only if the first time was not seen (it ran without gradients).
        """
        tensor = first_tensor(output)
        if tensor is None or (again and index in self._forward):
            return
        if not again:
            self._forward.add(index)
        self._measure(index, tensor)

    def drop(self) -> None:
        """Forget what waits: the forward pass did not return."""
        self._queue, self._waiting = [], 0

    def flush(self) -> None:
        """Measure all that waits."""
        queue, self._queue, self._waiting = self._queue, [], 0
        groups: dict[Any, list[tuple[int, Tensor]]] = {}
        for item in queue:
            tensor = item[1]
            self._forward.add(item[0])
            if tensor._version:
                self._at_once.add(item[0])
                self._spoiled.add(item[0])
            else:
                groups.setdefault(tensor.shape, []).append(item)
        for shape, items in groups.items():
            pieces = split(shape.numel())
            if len(items) == 1 or pieces is None or not all(_plain(tensor) for _, tensor in items):
                for index, tensor in items:
                    self._measure(index, tensor)
            else:
                self._measure_together(shape, pieces, items)

    def _measure_together(self, shape: torch.Size, pieces: int, items: list[tuple[int, Tensor]]) -> None:
        rows, size = len(items), shape.numel()
        if self._scratch.numel() < rows * size:
            self._scratch = torch.zeros(rows * size)
        area = self._scratch[: rows * size]
        with torch.no_grad():
            torch.stack([tensor for _, tensor in items], out=area.view(rows, *shape))
        means, spreads, bad = moments_of_rows(area.numpy().reshape(rows * pieces, -1), rows)
        self._entries.extend(
            (items[i][0], size, mean, spread, count)
            for i, (mean, spread, count) in enumerate(zip(means.tolist(), spreads.tolist(), bad.tolist(), strict=True))
        )

    def _measure(self, index: int, tensor: Tensor) -> None:
        if tensor.device.type != "cpu" or tensor.layout != torch.strided or not tensor.is_floating_point():
            return
        tensor = tensor.detach()
        if hasattr(tensor, "to_local"):
            tensor = tensor.to_local()
        if tensor.numel() == 0:
            return
        if tensor.dtype not in (torch.float32, torch.float64):
            tensor = tensor.float()
        mean, spread, bad = moments(tensor.numpy().ravel("K"))
        self._entries.append((index, tensor.numel(), mean, spread, bad))

    def take(self) -> tuple[npt.NDArray[np.float64], ...]:
        """Return mean, variance, non-finite count and "measured" (1 or 0) per layer, and begin the next step."""
        self.flush()
        entries, self._entries = self._entries, []
        spoiled, self._spoiled = self._spoiled, set()
        self._forward = set()
        with np.errstate(all="ignore"):
            return merge(entries, spoiled, self.count)


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and type(tensor) is Tensor


def merge(entries: list[Entry], spoiled: set[int], count: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Join the moments of all outputs of each layer: mean, variance, non-finite count, measured or not."""
    table = np.array(entries, dtype=np.float64).reshape(-1, 5)
    owners = table[:, 0].astype(np.intp)
    sizes = table[:, 1]
    totals = tally(owners, sizes, count)
    known = (totals > 0).astype(np.float64)
    safe = np.maximum(totals, 1.0)
    if len(entries) == len(set(owners.tolist())):
        mean = tally(owners, table[:, 2], count)
        spread = tally(owners, table[:, 3], count)
    else:
        mean = tally(owners, table[:, 2] * (sizes / safe[owners]), count)
        apart = table[:, 2] - mean[owners]
        spread = tally(owners, table[:, 3] + sizes * apart * apart, count)
    bad = tally(owners, table[:, 4], count)
    for index in spoiled:
        known[index] = 0.0
    return mean, spread / safe, bad, known
