"""Mean and variance of what each layer puts out during one optimizer step, on the CPU.

Small outputs wait in a queue until the model's forward pass returns, then outputs of one shape are measured
together. An output that something changed in place in the meantime cannot be measured any more: its layer is
missing from that step, and from then on measured as soon as it returns. Nothing is held beyond the forward pass.
"""

from collections.abc import Iterable, Set
from typing import Any

import torch
from torch import Tensor

from .layers import first_tensor
from .sample import Activation
from .sums import Floats, moments, moments_of_rows, split

_SMALL = 1 << 16  # elements of an output that may wait
_ROOM = 1 << 22  # elements that may wait in all (16 MB)

#: One measured output: layer, elements, mean, sum of squared distances from it, non-finite values.
Output = tuple[int, int, float, float, int]


class HostActivations:
    """Collects the outputs of the layers 0..count-1 of one step."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._queue: list[tuple[int, Tensor]] = []
        self._waiting = 0
        self._at_once: set[int] = set()
        self._spoiled: set[int] = set()
        self._forward: set[int] = set()
        self._measured: list[Output] = []
        self._rooms: dict[tuple[int, torch.Size], tuple[Tensor, Floats]] = {}
        self._room_left = _ROOM

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
            if pieces is None or not all(_plain(tensor) for _, tensor in items):
                for index, tensor in items:
                    self._measure(index, tensor)
            else:
                self._measure_together(shape, pieces, items)

    def _measure_together(self, shape: torch.Size, pieces: int, items: list[tuple[int, Tensor]]) -> None:
        rows = len(items)
        room = self._rooms.get((rows, shape)) or self._make_room(rows, shape, pieces)
        with torch.no_grad():
            torch.stack([tensor for _, tensor in items], out=room[0])
        size = shape.numel()
        for (index, _), (mean, spread, bad) in zip(items, moments_of_rows(room[1], rows), strict=True):
            self._measured.append((index, size, mean, spread, bad))

    def _make_room(self, rows: int, shape: torch.Size, pieces: int) -> tuple[Tensor, Floats]:
        """Keep a buffer for the next step's outputs of this shape: making views costs as much as copying."""
        self._room_left -= rows * shape.numel()
        if self._room_left < 0:  # shapes vary: begin again with what is needed now
            self._rooms.clear()
            self._room_left = _ROOM - rows * shape.numel()
        buffer = torch.zeros(rows, *shape)
        room = buffer, buffer.numpy().reshape(rows * pieces, -1)
        self._rooms[rows, shape] = room
        return room

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
        self._measured.append((index, tensor.numel(), mean, spread, bad))

    def take(self) -> list[Activation | None]:
        """Return what was measured of each layer, and begin the next step."""
        self.flush()
        measured, self._measured = self._measured, []
        spoiled, self._spoiled = self._spoiled, set()
        self._forward = set()
        return merge(measured, spoiled, self.count)


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and type(tensor) is Tensor


def merge(measured: Iterable[Output], spoiled: Set[int], count: int) -> list[Activation | None]:
    """Join the moments of all outputs of each layer; None for a layer without any, or one of `spoiled`."""
    sums: list[tuple[int, float, float, int] | None] = [None] * count
    for index, size, mean, spread, bad in measured:
        before = sums[index]
        if before is None:
            sums[index] = (size, mean, spread, bad)
        else:
            size_before, mean_before, spread_before, bad_before = before
            both = size_before + size
            apart = mean - mean_before
            sums[index] = (
                both,
                mean_before + apart * (size / both),
                spread_before + spread + apart * apart * (size_before * size / both),
                bad_before + bad,
            )
    for index in spoiled:
        sums[index] = None
    return [None if x is None else (x[1], x[2] / x[0], x[3]) for x in sums]
