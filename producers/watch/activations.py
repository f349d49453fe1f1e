"""Mean and variance of what each layer puts out during one optimizer step, on the CPU.

Small outputs wait in a queue until the model's forward pass returns, then outputs of one shape are measured
together. The first output of each layer is measured as soon as it is there; if something changed it in place
before the forward pass returned, that stays so. Where that begins later, the layer is missing from one step.
Nothing is held beyond the forward pass.
"""

from collections.abc import Iterable, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .flat import SERIAL
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
        self.waiting: list[tuple[int, Any]] = []  # filled by the calls of layers, inside the forward pass
        self.at_once = [True] * count  # layers whose outputs must not wait, or whose first output is yet to come
        self._unknown = set(range(count))
        self._first: list[tuple[int, Tensor]] = []
        self._spoiled: set[int] = set()
        self._forward: set[int] = set()
        self._measured: list[Output] = []
        self._rooms: dict[tuple[int, torch.Size], tuple[Tensor, Floats]] = {}
        self._room_left = _ROOM
        self._shapes: list[torch.Size] = []
        self._order: list[int] = []  # the layers that waited the last time, and how they were measured
        self._plan: list[tuple[list[int], int, list[tuple[list[int], Tensor]], Floats]] = []

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
        with np.errstate(all="ignore"):
            self._measure(index, tensor)
        if index in self._unknown and tensor is output and _may_wait(tensor):
            self._first.append((index, tensor))

    def drop(self) -> None:
        """Forget what waits: the forward pass did not return."""
        self.waiting.clear()
        self._first.clear()

    def flush(self) -> None:
        """Measure all that waits."""
        if self._first:
            for index, tensor in self._first:
                self._unknown.discard(index)
                self.at_once[index] = bool(tensor._version)
            self._first.clear()
        if not self.waiting:
            return
        order = [index for index, _ in self.waiting]
        outputs = [output for _, output in self.waiting]
        self.waiting.clear()
        self._forward.update(order)
        with torch.no_grad():
            if order != self._order or not self._measure_planned(order, outputs, check=True):
                self._order, self._plan = [], []
                self._measure_anew(order, outputs)

    def _measure_planned(self, order: list[int], outputs: list[Any], *, check: bool) -> bool:
        """Measure by the plan of the last time; False where an output is not what it was."""
        try:
            if check and (
                [output.shape for output in outputs] != self._shapes or any(output._version for output in outputs)
            ):
                return False
            for _, _, copies, _ in self._plan:
                for part, room in copies:
                    torch.stack([outputs[i] for i in part], out=room)
        except (AttributeError, RuntimeError, TypeError):
            return False
        for members, size, _, matrix in self._plan:
            for i, (mean, spread, bad) in zip(members, moments_of_rows(matrix, len(members)), strict=True):
                self._measured.append((order[i], size, mean, spread, bad))
        return True

    def _measure_anew(self, order: list[int], outputs: list[Any]) -> None:
        groups: dict[torch.Size, list[int]] = {}
        plain = True
        for i, output in enumerate(outputs):
            tensor = first_tensor(output)
            if tensor is None:
                plain = False
                continue
            if tensor._version:  # changed since its layer returned it
                self._spoiled.add(order[i])
                self.at_once[order[i]] = True
                continue
            if tensor is output and _may_wait(tensor):
                groups.setdefault(tensor.shape, []).append(i)
            else:
                plain = False
                self.at_once[order[i]] = True
                self._measure(order[i], tensor)
        plan = []
        for shape, members in groups.items():
            pieces = split(shape.numel())
            assert pieces is not None
            room, matrix = self._rooms.get((len(members), shape)) or self._make_room(len(members), shape, pieces)
            at_once = max(1, SERIAL // shape.numel())
            copies = [
                (members[first : first + at_once], room[first : first + at_once])
                for first in range(0, len(members), at_once)
            ]
            plan.append((members, shape.numel(), copies, matrix))
        self._plan = plan
        self._measure_planned(order, outputs, check=False)
        self._order = order if plain and not self._spoiled else []
        self._shapes = [output.shape for output in outputs] if self._order else []

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


def _may_wait(tensor: Tensor) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.numel() <= _SMALL
        and split(tensor.numel()) is not None
    )


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
