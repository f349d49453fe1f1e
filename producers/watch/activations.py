"""Mean and variance of what each layer puts out during one optimizer step, on the CPU.

Small outputs wait in a queue until the model's forward pass returns, then outputs of one shape are summed together,
and what the sums mean is worked out later, for many steps at once. The first output of each layer is measured as
soon as it is there; if something changed it in place before the forward pass returned, that stays so. Where that
begins later, the layer is missing from one step. Nothing is held beyond the forward pass.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch._C import _set_grad_enabled

from .flat import SERIAL, Floats64
from .layers import first_tensor, values_of
from .sample import Activation
from .sums import CANCELLED, HIGH, LOW, Floats, moments, moments_again, row_dots, row_sums, split

_SMALL = 1 << 16  # elements of an output that may wait
_ROOM = 1 << 22  # elements that may wait in all (16 MB)
MANY = 64  # forward passes between two steps whose sums are kept apart

#: One measured output: layer, elements, mean, sum of squared distances from it, non-finite values.
Output = tuple[int, int, float, float, int]


class Plan:
    """How the outputs of one forward pass that wait are summed: by shape, in the order in which they came."""

    def __init__(self, order: list[int], outputs: list[Tensor], rooms: "Rooms") -> None:
        self.order = order
        self.shapes = [output.shape for output in outputs]
        groups: dict[torch.Size, list[int]] = {}
        for place, shape in enumerate(self.shapes):
            groups.setdefault(shape, []).append(place)
        self.copies: list[tuple[list[int], Tensor]] = []
        self.rows: list[Floats] = []  # each output in the buffer, those of one shape together
        self.layers: list[int] = []  # of each row
        matrices: list[Floats] = []
        for shape, members in groups.items():
            room, matrix = rooms.room(len(members), shape)
            at_once = max(1, SERIAL // shape.numel())
            self.copies += [
                (members[first : first + at_once], room[first : first + at_once])
                for first in range(0, len(members), at_once)
            ]
            self.rows += list(matrix)
            matrices.append(matrix)
            self.layers += [order[place] for place in members]
        self.sizes = [row.size for row in self.rows]
        pieces = [split(size) or 1 for size in self.sizes]
        stops = np.cumsum([0, *pieces]).tolist()
        # The sums of all rows, then their squares, in one array; rows that are too long are cut into pieces.
        self._sums = np.zeros((2, stops[-1]), dtype=np.float32)
        self._matrices: list[tuple[Floats, Floats, Floats]] = []
        first = 0
        for matrix in matrices:
            start, stop = stops[first], stops[first + len(matrix)]
            cut = matrix.reshape(stop - start, -1)
            self._matrices.append((cut, self._sums[0, start:stop], self._sums[1, start:stop]))
            first += len(matrix)
        self._starts = stops[:-1] if stops[-1] > len(pieces) else None
        self.once = len(set(order)) == len(order)

    def copy(self, outputs: list[Any]) -> bool:
        """Copy the outputs; say whether each is what it was when the plan was made."""
        single = torch.float32
        for output, shape in zip(outputs, self.shapes, strict=True):
            if output._version or output.dtype is not single or output.shape != shape:
                return False
        stack = torch.stack
        for members, room in self.copies:
            stack([outputs[place] for place in members], out=room)
        return True

    def sums(self) -> "Sums":
        """Sum what was copied."""
        for matrix, totals, squares in self._matrices:
            row_sums(matrix, totals)
            row_dots(matrix, squares)
        both = self._sums
        if self._starts is not None:
            both = np.add.reduceat(both, self._starts, axis=1, dtype=np.float64)
        totals, squares = both.tolist()
        again = [
            (place, moments_again(self.rows[place]))
            for place, (total, square, size) in enumerate(zip(totals, squares, self.sizes, strict=True))
            if not (LOW < square < HIGH and square - total * total / size > CANCELLED * square)
        ]
        return Sums(self, totals, squares, again)


@dataclass(slots=True)
class Sums:
    """The sums of what one forward pass put out; `again` has the moments of outputs that sums do not tell."""

    plan: Plan
    totals: list[float]
    squares: list[float]
    again: list[tuple[int, tuple[float, float, int]]]

    def outputs(self) -> list[Output]:
        """Return each output by itself."""
        plan, redone = self.plan, dict(self.again)
        found = []
        for place, (layer, size) in enumerate(zip(plan.layers, plan.sizes, strict=True)):
            mean = self.totals[place] / size
            moments = redone.get(place) or (mean, self.squares[place] - self.totals[place] * mean, 0)
            found.append((layer, size, *moments))
        return found


@dataclass(slots=True)
class Seen:
    """What the layers put out in one step."""

    sums: list[Sums] = field(default_factory=list)
    measured: list[Output] = field(default_factory=list)
    spoiled: set[int] = field(default_factory=set)

    def outputs(self) -> list[Output]:
        """Return each output by itself."""
        return [*(output for sums in self.sums for output in sums.outputs()), *self.measured]

    def fold(self) -> None:
        """Keep one output of each layer in place of all."""
        self.sums, self.measured = [], joined(self.outputs())


class Rooms:
    """Buffers for outputs, kept for the next step: making views costs as much as copying."""

    def __init__(self) -> None:
        self._rooms: dict[tuple[int, torch.Size], tuple[Tensor, Floats]] = {}
        self._left = _ROOM

    def room(self, rows: int, shape: torch.Size) -> tuple[Tensor, Floats]:
        """Return a buffer for so many outputs of one shape, and the same with a row for each."""
        kept = self._rooms.get((rows, shape))
        if kept is not None:
            return kept
        self._left -= rows * shape.numel()
        if self._left < 0:  # shapes vary: begin again with what is needed now
            self._rooms.clear()
            self._left = _ROOM - rows * shape.numel()
        buffer = torch.zeros(rows, *shape)
        room = self._rooms[rows, shape] = buffer, buffer.numpy().reshape(rows, -1)
        return room


class HostActivations:
    """Collects the outputs of the layers 0..count-1 of one step."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.waiting: list[tuple[int, Any]] = []  # filled by the calls of layers, inside the forward pass
        self.at_once = [True] * count  # layers whose outputs must not wait, or whose first output is yet to come
        self._unknown = set(range(count))
        self._first: dict[int, Tensor] = {}  # the newest output of each layer that is not known
        self._forward: set[int] = set()
        self._seen = Seen()
        self._rooms = Rooms()
        self._plan: Plan | None = None  # of the last forward pass
        self._copied = False  # the plan's rooms hold outputs that are not yet summed

    def reader(self, index: int) -> None:
        """Every output goes through `put_now` or waits."""

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
        if index in self._unknown and tensor is output and _may_wait(tensor):
            self._first[index] = tensor

    def drop(self) -> None:
        """Forget what waits: the forward pass did not return."""
        self.waiting.clear()
        self._first.clear()

    def flush(self) -> None:
        """Take all that waits."""
        if self._first:
            for index, tensor in self._first.items():
                self._unknown.discard(index)
                self.at_once[index] = bool(tensor._version)
            self._first.clear()
        if not self.waiting:
            return
        order = [index for index, _ in self.waiting]
        outputs = [output for _, output in self.waiting]
        self.waiting.clear()
        self._forward.update(order)
        if self._copied:
            with np.errstate(all="ignore"):
                self._settle()  # its room is needed
        _set_grad_enabled(False)  # it was enabled, or nothing would wait
        try:
            if self._plan is None or order != self._plan.order or not self._copy(self._plan, outputs):
                self._begin_anew(order, outputs)
        finally:
            _set_grad_enabled(True)

    def _copy(self, plan: Plan, outputs: list[Any]) -> bool:
        try:
            self._copied = plan.copy(outputs)
        except (AttributeError, RuntimeError, TypeError):  # no tensors, or odd ones
            return False
        return self._copied

    def _settle(self) -> None:
        """Sum what was copied the last time."""
        if self._copied and self._plan is not None:
            self._copied = False
            self._seen.sums.append(self._plan.sums())
            if len(self._seen.sums) > MANY:
                self._seen.fold()

    def _begin_anew(self, order: list[int], outputs: list[Any]) -> None:
        """Make a plan for those that may wait, and measure the others."""
        self._plan = None
        ordinary: list[int] = []
        for place, output in enumerate(outputs):
            tensor = first_tensor(output)
            if tensor is None:
                self.at_once[order[place]] = True
            elif tensor._version:  # changed since its layer returned it
                self._seen.spoiled.add(order[place])
                self.at_once[order[place]] = True
            elif tensor is output and _may_wait(tensor) and values_of(tensor) is not None:
                ordinary.append(place)
            else:
                self.at_once[order[place]] = True
                self._measure(order[place], tensor)
        if ordinary:
            kept = [outputs[place] for place in ordinary]
            plan = Plan([order[place] for place in ordinary], kept, self._rooms)
            if self._copy(plan, kept):
                self._plan = plan

    def _measure(self, index: int, tensor: Tensor) -> None:
        values = None if tensor.device.type != "cpu" else values_of(tensor)
        if values is None or values.numel() == 0:
            return
        if values.dtype not in (torch.float32, torch.float64):
            values = values.float()
        mean, spread, bad = moments(values.resolve_neg().numpy().ravel("K"))
        seen = self._seen
        seen.measured.append((index, values.numel(), mean, spread, bad))
        if len(seen.measured) > MANY * max(1, self.count):
            seen.fold()

    def take(self) -> Seen:
        """Return what was seen of each layer, and begin the next step. NumPy's warnings are the caller's to silence."""
        self.flush()
        self._settle()
        seen, self._seen = self._seen, Seen()
        self._forward = set()
        return seen


def _may_wait(tensor: Tensor) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and tensor.numel() <= _SMALL
        and split(tensor.numel()) is not None
    )


@dataclass(slots=True)
class Table:
    """Activations of many steps: a row for each step, a column for each layer."""

    mean: Floats64
    variance: Floats64
    bad: Floats64
    seen: npt.NDArray[np.bool_]


def tabulate(steps: Sequence[Seen], count: int) -> Table:
    """Work out what was seen in these steps of the layers 0..count-1."""
    shape = len(steps), count
    table = Table(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.bool_))
    alike: dict[int, list[int]] = {}
    for step, seen in enumerate(steps):
        if len(seen.sums) == 1 and seen.sums[0].plan.once and not seen.measured and not seen.spoiled:
            alike.setdefault(id(seen.sums[0].plan), []).append(step)
            continue
        for layer, activation in enumerate(merge(seen.outputs(), seen.spoiled, count)):
            if activation is not None:
                table.seen[step, layer] = True
                table.mean[step, layer], table.variance[step, layer], table.bad[step, layer] = activation
    for members in alike.values():
        plan = steps[members[0]].sums[0].plan
        sizes = np.array(plan.sizes)
        totals = np.array([steps[step].sums[0].totals for step in members])
        squares = np.array([steps[step].sums[0].squares for step in members])
        where = np.ix_(members, plan.layers)
        table.seen[where] = True
        table.mean[where] = mean = totals / sizes
        table.variance[where] = (squares - totals * mean) / sizes
        for step in members:
            for place, (mean_again, spread, bad) in steps[step].sums[0].again:
                layer = plan.layers[place]
                table.mean[step, layer], table.variance[step, layer] = mean_again, spread / plan.sizes[place]
                table.bad[step, layer] = bad
    return table


def merge(measured: Iterable[Output], spoiled: Set[int], count: int) -> list[Activation | None]:
    """Join the moments of all outputs of each layer; None for a layer without any, or one of `spoiled`."""
    found: list[Activation | None] = [None] * count
    for index, size, mean, spread, bad in joined(measured):
        if index not in spoiled:
            found[index] = (mean, spread / size, bad)
    return found


def joined(measured: Iterable[Output]) -> list[Output]:
    """Join all outputs of each layer into one."""
    sums: dict[int, Output] = {}
    for output in measured:
        index, size, mean, spread, bad = output
        before = sums.get(index)
        if before is None:
            sums[index] = output
        else:
            _, size_before, mean_before, spread_before, bad_before = before
            both = size_before + size
            apart = mean - mean_before
            sums[index] = (
                index,
                both,
                mean_before + apart * (size / both),
                spread_before + spread + apart * apart * (size_before * size / both),
                bad_before + bad,
            )
    return list(sums.values())
