"""Measure the layers whose parameters are on an accelerator, without making the training stream wait.

Everything is computed by the device in a handful of fused calls, joined into one vector, and copied into pinned
memory behind the step. Nobody reads it before the event recorded after the copy has passed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from .activations import MANY, merge
from .dead import Units, units_of
from .layers import Layer, first_tensor, values_of
from .sample import Measures, measures

#: Of one output: layer, elements, mean, variance, non-finite values.
Launched = tuple[int, int, Tensor, Tensor, Tensor]


class Event(Protocol):
    """A mark in a device's stream."""

    def query(self) -> bool:
        """Say whether the device has passed the mark."""


class Link(Protocol):
    """The way from the device to the host."""

    def fetch(self, values: Tensor) -> tuple[Tensor, Event]:
        """Begin to copy; the returned host tensor is valid once the event has passed."""


class AcceleratorLink:
    """Copies into pinned memory on the device's current stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module: Any = torch.get_device_module(device)

    def fetch(self, values: Tensor) -> tuple[Tensor, Event]:
        """Begin to copy; never waits."""
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=self._device.type in ("cuda", "xpu"))
        host.copy_(values, non_blocking=True)
        event = self._module.Event()
        if hasattr(self._module, "current_stream"):
            event.record(self._module.current_stream(self._device))
        else:
            event.record()
        return host, event


@dataclass(slots=True)
class Pending:
    """The measures of one step on their way to the host."""

    meter: "DeviceMeter"
    values: Tensor  # on the device: stays alive until the copy is done
    host: Tensor
    event: Event
    step: "_Step"

    def measures(self) -> Measures | None:
        """Return the measures; None where the step was skipped for infinite gradients. Only after the event."""
        return self.meter.decode(self.host.numpy(), self.step)


class _Step:
    """What was launched for one step: device scalars in three kinds, and what each of them is."""

    def __init__(self) -> None:
        self.norms: list[Tensor] = []
        self.moments: list[Tensor] = []
        self.counts: list[Tensor] = []
        self.gradients: list[int] = []  # the layer of each gradient norm
        self.weights: list[int] = []
        self.changes: list[int] = []
        self.outputs: list[tuple[int, int]] = []  # layer and number of elements
        self.bad: list[int] = []
        self.dead: list[int] = []
        self.scaled = False
        self.checked = False


class DeviceActivations:
    """Launches the moments of each output as soon as its layer returns."""

    def __init__(self, count: int, device: torch.device) -> None:
        self._device = device
        self._forward: set[int] = set()
        self.waiting: list[tuple[int, Any]] = []  # stays empty: the device takes each output at once
        self.at_once = [True] * count
        self.launched: list[Launched] = []

    def reader(self, index: int) -> None:
        """Every output goes through `put_now` or waits."""

    def put_now(self, index: int, output: object, *, again: bool = False) -> None:
        """Launch the moments of an output; `again` as for the host's activations."""
        if again and index in self._forward:
            return
        if not again:
            self._forward.add(index)
        self._launch(index, output)

    def flush(self) -> None:
        """Nothing waits."""

    def drop(self) -> None:
        """Nothing waits."""

    def _launch(self, index: int, output: object) -> None:
        tensor = first_tensor(output)
        if tensor is None or tensor.device != self._device:
            return
        with torch.no_grad():
            tensor = values_of(tensor)
            if tensor is None or tensor.numel() == 0:
                return
            if tensor.dtype not in (torch.float32, torch.float64):
                tensor = tensor.float()
            variance, mean = torch.var_mean(tensor, correction=0)
            self.launched.append((index, tensor.numel(), mean, variance, _count_bad(tensor)))
            if len(self.launched) > MANY * len(self.at_once):
                self.launched = _joined(self.launched)

    def take(self) -> list[Launched]:
        """Return what was launched in this step, and begin the next one."""
        launched, self.launched, self._forward = self.launched, [], set()
        return launched


def _joined(launched: Sequence[Launched]) -> list[Launched]:
    """Join all outputs of each layer into one, on the device."""
    found: dict[int, Launched] = {}
    for one in launched:
        before = found.get(one[0])
        found[one[0]] = one if before is None else _both(before, one)
    return list(found.values())


def _both(first: Launched, second: Launched) -> Launched:
    index, size_before, mean_before, variance_before, bad_before = first
    _, size, mean, variance, bad = second
    share, apart = size / (size_before + size), mean - mean_before
    return (
        index,
        size_before + size,
        mean_before + apart * share,
        variance_before * (1 - share) + variance * share + apart * apart * (share * (1 - share)),
        bad_before + bad,
    )


def _local(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor


def _count_bad(tensor: Tensor) -> Tensor:
    return torch.count_nonzero(tensor - tensor)  # 0 for a finite value, NaN (which counts) for any other


class DeviceMeter:
    """Turns one optimizer step over the layers of one device into pending measures."""

    def __init__(self, layers: Sequence[Layer], trained: set[int], device: torch.device, link: Link) -> None:
        self.count = len(layers)
        self.activations = DeviceActivations(self.count, device)
        self._link = link
        self._wide = torch.float32 if device.type == "mps" else torch.float64
        self._parameters: list[list[Tensor]] = [list(layer.parameters()) for layer in layers]
        self._trained = [[p for p in own if id(p) in trained] for own in self._parameters]
        self._units = [units_of(layer, own) for layer, own in zip(layers, self._trained, strict=True)]
        self._step = _Step()
        self._kept: list[tuple[int, Tensor, Tensor]] = []

    def forget(self) -> None:
        """Begin the next step without having asked for this one."""
        self.activations.take()

    @torch.no_grad()
    def before(self, *, gradients: bool, scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Launch what is read before the step."""
        self._step = _Step()
        if gradients:
            self.read_gradients(scale, found_inf)
        owned = [(i, _local(p)) for i, own in enumerate(self._parameters) for p in own]
        self._step.weights = [i for i, _ in owned]
        self._weight_norms = self._norms([p for _, p in owned])
        self._kept = [(i, p, _local(p).clone()) for i, own in enumerate(self._trained) for p in own]

    @torch.no_grad()
    def read_gradients(self, scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Launch norms, non-finite counts and dead units of the gradients."""
        step = self._step
        present = [
            (i, g)
            for i, own in enumerate(self._trained)
            for p in own
            if p.grad is not None and (g := _dense(p.grad)) is not None
        ]
        step.gradients = [i for i, _ in present]
        step.norms += self._norms([g for _, g in present])
        for index, gradient in present:
            step.bad.append(index)
            step.counts.append(_count_bad(gradient))
        for index, units in enumerate(self._units):
            flags = None if units is None else _zero_units(units)
            if flags is not None:
                step.dead.append(index)
                step.counts.append(torch.count_nonzero(flags))
        if found_inf is not None:
            step.checked = True
            step.norms.append(found_inf.detach().reshape(()).to(self._wide))
        if scale is not None:
            step.scaled = True
            step.norms.append(scale.detach().reshape(()).to(self._wide))

    def _norms(self, tensors: list[Tensor]) -> list[Tensor]:
        if not tensors:
            return []
        return list(torch._foreach_norm(tensors, 2, self._wide))

    @torch.no_grad()
    def after(self) -> Pending | None:
        """Launch what is read after the step, and the copy of everything. None where nothing was measured."""
        step, self._step = self._step, _Step()
        step.norms += self._weight_norms
        step.changes = [i for i, _, _ in self._kept]
        step.norms += self._norms(self._changes())
        for index, size, mean, variance, bad in self.activations.take():
            step.outputs.append((index, size))
            step.moments += [mean.to(self._wide), variance.to(self._wide)]
            step.counts.append(bad)
        kinds = [torch.stack(values).to(self._wide) for values in (step.norms, step.moments, step.counts) if values]
        if not kinds:
            return None
        values = torch.cat(kinds)
        host, event = self._link.fetch(values)
        return Pending(self, values, host, event, step)

    def _changes(self) -> list[Tensor]:
        kept, self._kept = self._kept, []
        changes = []
        for _, parameter, old in kept:
            now = _local(parameter)
            # Half precision would round the difference itself.
            changes.append(now - old if now.dtype in (torch.float32, torch.float64) else now.float() - old.float())
        return changes

    def decode(self, values: npt.NDArray[Any], step: _Step) -> Measures | None:
        """Turn the numbers that arrived into measures."""
        numbers = iter(values.tolist())

        def add_up(owners: Sequence[int], *, squared: bool) -> list[float | None]:
            sums: list[float | None] = [None] * self.count
            for owner in owners:
                number = next(numbers)
                sums[owner] = (sums[owner] or 0.0) + (number * number if squared else number)
            return sums

        gradients = add_up(step.gradients, squared=True)
        if step.checked and next(numbers) != 0:
            return None
        if step.scaled:
            scale = next(numbers)
            gradients = [None if g is None else g / (scale * scale) for g in gradients]
        weights, changes = add_up(step.weights, squared=True), add_up(step.changes, squared=True)
        pairs = [(next(numbers), next(numbers)) for _ in step.outputs]
        bad, dead = add_up(step.bad, squared=False), add_up(step.dead, squared=False)
        outputs = [
            (index, size, mean, variance * size, int(next(numbers)))
            for (index, size), (mean, variance) in zip(step.outputs, pairs, strict=True)
        ]
        return measures(
            gradients,
            [count or 0.0 for count in bad],
            weights,
            [change or 0.0 for change in changes],
            merge(outputs, set(), self.count),
            [
                None if count is None or units is None else count / units.count
                for count, units in zip(dead, self._units, strict=True)
            ],
        )


def _dense(gradient: Tensor) -> Tensor | None:
    """Return the values of a gradient; None for a sparse one, which cannot be joined without waiting."""
    gradient = _local(gradient)
    if gradient.layout == torch.strided:
        return gradient
    return gradient.values().detach() if gradient.is_sparse and gradient.is_coalesced() else None


def _zero_units(units: Units) -> Tensor | None:
    """Flag the units whose gradients are exactly zero, None without any gradient."""
    flags = None
    bias = None if units.bias is None else units.bias.grad
    weight = None if units.weight is None else units.weight.grad
    if weight is not None:
        flags = torch.linalg.vector_norm(units.rows(_local(weight)), float("inf"), dim=1) == 0
    if bias is not None:
        zero = _local(bias) == 0
        flags = zero if flags is None else flags & zero
    return flags
