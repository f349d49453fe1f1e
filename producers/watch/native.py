"""Measure the layers whose parameters are on the CPU by a compiled routine that reads each tensor once.

One call reads each output as its layer returns it, one the gradients and weights before the optimizer's step (and
copies the weights as it goes), one the change after it, and writes the signals into a page.
Nothing else is left to do for the samples than to take them from there.

The routine reads memory, so it looks at each tensor at each step: the type, the device, the kind and number of its
elements, that they lie side by side. Any other tensor is turned into such a one by torch, or its layer is measured by
`host.py`. The tensors are held during the call, which gives up the interpreter's lock where there is much to read.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .dead import Units, units_of
from .layers import Layer, first_tensor, values_of
from .library import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, ODD, LayerStruct, PlanStruct, UnitsStruct
from .sample import SIGNALS, LayerSample, Measures

KINDS = {torch.float32: FLOAT32, torch.float64: FLOAT64, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
LARGEST = 1 << 22  # elements of all parameters whose weights are kept beside them (16 MB)
_ROWS = 64  # steps on a page


class Moved(RuntimeError):
    """A parameter is no longer what it was when its reading was planned."""


def is_plain(tensor: Tensor) -> bool:
    """Say whether the routine can read this tensor where it stands."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and tensor.dtype in KINDS
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and (tensor.numel() == 0 or tensor.data_ptr() != 0)
    )


def has_memory(parameter: Tensor) -> bool:
    """Say whether there is something to read: a parameter may have given up its memory for some time."""
    if type(parameter) is not nn.Parameter or parameter.layout != torch.strided or parameter.numel() == 0:
        return True  # whoever made it knows where its values are
    return parameter.data_ptr() != 0


def readable(layers: Sequence[Layer]) -> list[int]:
    """Choose the layers whose parameters are all plain, the smallest first until their copies would be too large."""
    room = LARGEST
    chosen = []
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    for i in sorted(range(len(layers)), key=sizes.__getitem__):
        room -= sizes[i]
        if room < 0:
            break
        if all(is_plain(p) for p in layers[i].parameters()):
            chosen.append(i)
    return sorted(chosen)


class Page:
    """Room for the signals of some steps."""

    def __init__(self, layers: int) -> None:
        room = np.zeros((_ROWS, len(SIGNALS) + 1, layers), dtype=np.float32)
        self.values: npt.NDArray[np.float32] = room[:, :-1]
        self.bits: npt.NDArray[np.uint32] = room[:, -1].view(np.uint32)
        self._free = iter([(row, room.ctypes.data + row * room.strides[0]) for row in range(_ROWS)])

    def next(self) -> tuple[int, int] | None:
        """Return the next row and its address, None where the page is full."""
        return next(self._free, None)


class Reading(NamedTuple):
    """The signals of one step: a row of a page; `whole` where every signal of every layer was measured."""

    page: Page
    row: int
    whole: bool


class NativeActivations:
    """Reads each output of the layers 0..count-1 as soon as its layer returns it."""

    def __init__(self, native: ModuleType, state: "ctypes.Array[LayerStruct]") -> None:
        """Prepare; `state` has the place of each layer."""
        self._read = native.output
        self._state = state
        self._kept = b""  # as it was after the last forward pass of this step
        self._places = [ctypes.addressof(layer) for layer in state]
        self.waiting: list[tuple[int, Any]] = []  # stays empty
        self.at_once = [True] * len(state)

    def reader(self, index: int) -> Callable[[object], bool]:
        """Return what reads an output of a layer in a forward pass, and says whether it could: else `put_now` does."""
        return partial(self._read, self._places[index])

    def put_now(self, index: int, output: object, *, again: bool = False) -> None:
        """Read an output; `again` as for the activations of the torch path."""
        layer = self._state[index]
        before = layer.forward
        if again and before:
            return
        tensor = first_tensor(output)
        if tensor is not None and not self._read(self._places[index], tensor):
            self._read_odd(index, tensor)
        layer.forward = before or not again

    def _read_odd(self, index: int, tensor: Tensor) -> None:
        values = None if tensor.device.type != "cpu" else values_of(tensor)
        if values is not None and values.numel():
            values = (values if values.dtype in KINDS else values.float()).resolve_neg().contiguous()
            self._read(self._places[index], values)

    def flush(self) -> None:
        """Keep what the forward pass that has returned put out."""
        self._kept = bytes(self._state)

    def drop(self) -> None:
        """Forget what the forward pass that has failed put out."""
        ctypes.memmove(self._state, self._kept or bytes(ctypes.sizeof(self._state)), ctypes.sizeof(self._state))

    def begin(self) -> None:
        """Begin the next step."""
        self._kept = b""


class NativeMeter:
    """Turns optimizer steps over plain CPU layers into rows of a page, and rows into samples."""

    def __init__(self, native: ModuleType, layers: Sequence[Layer], trained: set[int]) -> None:
        """Plan the reading of `layers`; `trained` has the ids of the parameters that the optimizer moves."""
        self.count = len(layers)
        self._native = native
        placed = [(p, i) for i, layer in enumerate(layers) for p in layer.parameters()]
        placed.sort(key=lambda item: id(item[0]) not in trained)
        self._parameters: list[Tensor] = [p for p, _ in placed]
        sizes = [p.numel() for p in self._parameters]
        kinds = [KINDS[p.dtype] for p in self._parameters]
        moved = {layer for p, layer in placed if id(p) in trained}
        self._copies = [torch.empty_like(p, requires_grad=False) if i in moved else None for p, i in placed]
        self._integers = [np.array(numbers, dtype=np.int64) for numbers in (sizes, kinds, [i for _, i in placed])]
        copies = [0 if copy is None else copy.data_ptr() for copy in self._copies]
        self._places = [np.zeros(len(placed), dtype=np.uint64), np.array(copies, dtype=np.uint64)]
        self._room = np.zeros((2, len(placed)), dtype=np.int64)
        at = {id(p): place for place, (p, _) in enumerate(placed)}
        units = [
            _units(i, found, layer, at)
            for i, layer in enumerate(layers)
            if (found := units_of(layer, [p for p in layer.parameters() if id(p) in trained])) is not None
        ]
        self._units = (UnitsStruct * len(units))(*units)
        self._state = (LayerStruct * self.count)()
        self._plan = PlanStruct(
            self.count,
            len(placed),
            sum(id(p) in trained for p in self._parameters),
            len(units),
            *(array.ctypes.data for array in (*self._integers, *self._places)),
            ctypes.addressof(self._units),
            ctypes.addressof(self._state),
            self._room[0].ctypes.data,
            self._room[1].ctypes.data,
        )
        self._address = ctypes.addressof(self._plan)
        self.activations = NativeActivations(native, self._state)
        self._page = Page(self.count)

    # ------------------------------------------------------------------ in the training step

    def before(self, *, gradients: bool, scale: float) -> None:
        """Read what the step starts from, the gradients as well if they are there; `scale` divides them."""
        self._scale = scale
        found = self._native.before(self._address, self._parameters, gradients)
        if found == ODD:
            found = self._native.before(self._address, self._parameters, self._prepared())
        if found:
            raise Moved("a parameter is not what it was")

    def after(self, *, gradients: bool) -> Reading:
        """Read what the step did, and the gradients where `before` could not."""
        row = self._page.next()
        if row is None:
            self._page = Page(self.count)
            row = self._page.next()
            assert row is not None
        number, record = row
        found = self._native.after(self._address, self._parameters, gradients, self._scale, record)
        if found == ODD:
            found = self._native.after(self._address, self._parameters, self._prepared(), self._scale, record)
        if found < 0:
            raise Moved("a parameter is not what it was")
        self.activations.begin()
        return Reading(self._page, number, bool(found))

    def _prepared(self) -> list[Tensor | None]:
        """Return the gradients as the routine can read them."""
        return [None if p.grad is None else _plain(p.grad, p) for p in self._parameters[: self._plan.trained]]

    def forget(self) -> None:
        """Begin the next step without having asked for this one."""
        self._native.forget(self._address)
        self.activations.begin()

    # ------------------------------------------------------------------ later

    def samples(
        self, layers: tuple[str, ...], steps: Sequence[tuple[int, int]], readings: Sequence[Reading]
    ) -> list[LayerSample]:
        """Return the samples of these readings; `steps` has their numbers and times."""
        return [
            _sample(layers, number, time_ns, reading)
            for (number, time_ns), reading in zip(steps, readings, strict=True)
        ]

    def measures(self, reading: Reading) -> Measures:
        """Return the signals of one step, to be joined with those of other layers."""
        bits = reading.page.bits[reading.row].tolist()
        rows = reading.page.values[reading.row].tolist()
        return {
            name: [value if has >> signal & 1 else None for value, has in zip(values, bits, strict=True)]
            for signal, (name, values) in enumerate(zip(SIGNALS, rows, strict=True))
        }


def _sample(layers: tuple[str, ...], number: int, time_ns: int, reading: Reading) -> LayerSample:
    page, row, whole = reading
    signals: dict[str, npt.NDArray[np.float32] | None] = dict(zip(SIGNALS, page.values[row], strict=True))
    missing: dict[str, list[int]] = {}
    if not whole:
        for signal, name in enumerate(SIGNALS):
            absent = np.flatnonzero((page.bits[row] >> signal & 1) == 0).tolist()
            if len(absent) == len(layers):
                signals[name] = None
            elif absent:
                missing[name] = absent
    return LayerSample(number, time_ns, layers, signals, missing)


def _plain(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return a gradient as the routine can read it."""
    gradient = gradient.detach()
    if hasattr(gradient, "to_local"):
        gradient = gradient.to_local()
    if gradient.layout != torch.strided:
        gradient = gradient.to_dense()
    if gradient.numel() != parameter.numel() or gradient.is_complex():
        raise Moved("a gradient has another shape or type than its parameter")
    if gradient.dtype not in KINDS:
        gradient = gradient.float()
    plain = gradient.as_subclass(Tensor).resolve_neg().contiguous()
    return plain if is_plain(plain) else plain.clone()


def _units(layer: int, units: Units, owner: Layer, at: dict[int, int]) -> UnitsStruct:
    group = blocks = 1
    run = 1 if units.weight is None else units.weight.numel() // units.count
    if not units.plain and units.weight is not None:
        module = owner.module()
        assert isinstance(module, nn.modules.conv._ConvNd)
        group, blocks = units.count // module.groups, units.weight.shape[0] // module.groups
        run //= blocks
    bias, weight = (-1 if p is None else at[id(p)] for p in (units.bias, units.weight))
    return UnitsStruct(layer, units.count, bias, weight, group, blocks, run)
