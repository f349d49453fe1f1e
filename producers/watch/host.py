"""Measure the layers whose parameters are on the CPU, inside the training thread."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .activations import HostActivations
from .dead import Floats, Units, units_of
from .flat import FlatParameters, is_ordinary
from .layers import Layer
from .loose import LooseParameters, flat_view
from .sample import Measures

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class HostMeter:
    """Turns one optimizer step over CPU layers into measures."""

    def __init__(self, layers: Sequence[Layer], trained: set[int]) -> None:
        """Plan the reading of the layers; `trained` has the ids of the parameters that the optimizer moves."""
        self.count = len(layers)
        self.activations = HostActivations(self.count)
        self._parameters: list[list[Tensor]] = [list(layer.parameters()) for layer in layers]
        self._trained = [[p for p in own if id(p) in trained] for own in self._parameters]
        self._units = [units_of(layer, own) for layer, own in zip(layers, self._trained, strict=True)]
        self._flat_layers = [
            i
            for i, own in enumerate(self._parameters)
            if own and len(self._trained[i]) == len(own) and all(is_ordinary(p) for p in own)
        ]
        self._plan()

    def _plan(self) -> None:
        front = {id(units.bias) for i in self._flat_layers if (units := self._units[i]) and units.bias is not None}
        self._flat = FlatParameters([self._parameters[i] for i in self._flat_layers], front)
        self._in_flat = np.array(self._flat_layers, dtype=np.intp)
        flat = set(self._flat_layers)
        self._loose = [(i, LooseParameters(own)) for i, own in enumerate(self._parameters) if own and i not in flat]
        self._has_weights = np.array([bool(own) for own in self._parameters])
        # Layers with a bias whose units are all alive need no look of their own.
        self._bias_first = all((units := self._units[i]) is None or units.bias is not None for i in self._flat_layers)

    def before(self, *, gradients: bool, scale: float) -> None:
        """Read what the step starts from; `scale` divides the gradients."""
        if gradients:
            self.read_gradients(scale)
        self._weights = np.zeros(self.count)
        if self._flat_layers:
            self._flat.gather_weights()
            self._weights[self._in_flat] = self._flat.squares()
        for index, loose in self._loose:
            self._weights[index] = loose.square_of_weights(keep=bool(self._trained[index]))

    def read_gradients(self, scale: float) -> None:
        """Read the gradients: norms, non-finite values, dead units."""
        self._gradients, self._bad = np.zeros(self.count), np.zeros(self.count)
        self._has_gradients: Mask | None = None
        self._dead, self._has_dead = np.zeros(self.count), np.array([u is not None for u in self._units])
        if self._flat_layers:
            self._read_flat()
        for index, loose in self._loose:
            present = [p.grad if any(p is t for t in self._trained[index]) else None for p in loose.parameters]
            self._note_gradients(index, any(g is not None for g in present))
            self._gradients[index], self._bad[index] = loose.square_of_gradients(present)
            self._count_dead(index, None)
        np.sqrt(self._gradients, out=self._gradients)
        if scale != 1.0:
            self._gradients /= scale

    def _read_flat(self) -> None:
        flat = self._flat
        gradients = [p.grad for p in flat.parameters]
        try:
            with torch.no_grad():
                flat.gather_gradients(gradients)
        except (RuntimeError, NotImplementedError, TypeError):  # a sparse or otherwise odd gradient
            self._flat_layers = []
            self._plan()
            return
        complete = True
        for gradient in gradients:
            if gradient is None:
                complete = False
                break
        squares = flat.squares()
        self._gradients[self._in_flat] = squares
        if not np.isfinite(squares).all():
            self._bad[self._in_flat] = flat.nonfinite()
        if not complete:
            for index in self._flat_layers:
                self._note_gradients(index, any(p.grad is not None for p in self._parameters[index]))
        front = flat.front
        if not (complete and self._bias_first and np.count_nonzero(front) == front.size):
            for index in self._flat_layers:
                self._count_dead(index, flat.place)

    def _note_gradients(self, index: int, there: bool) -> None:
        if self._has_gradients is None:
            self._has_gradients = self._has_weights.copy()
        self._has_gradients[index] = there

    def _count_dead(self, index: int, place: dict[int, npt.NDArray[np.float32]] | None) -> None:
        units = self._units[index]
        if units is None:
            return
        dead = units.dead(self._gradient(units.bias, place), self._weight_gradient(units, place))
        if dead is None:
            self._has_dead[index] = False
        else:
            self._dead[index] = dead / units.count

    def _weight_gradient(self, units: Units, place: dict[int, npt.NDArray[np.float32]] | None) -> Floats | None:
        flat = self._gradient(units.weight, place)
        return None if flat is None or units.weight is None else flat.reshape(units.weight.shape)

    def _gradient(self, parameter: Tensor | None, place: dict[int, npt.NDArray[np.float32]] | None) -> Floats | None:
        if parameter is None or parameter.grad is None:
            return None
        if place is not None:
            return place[id(parameter)]
        return flat_view(parameter.grad)

    def after(self) -> Measures:
        """Read what the step did, and return all measures of the step."""
        changes = np.zeros(self.count)
        if self._flat_layers:
            self._flat.subtract_weights()
            changes[self._in_flat] = self._flat.squares()
        for index, loose in self._loose:
            changes[index] = loose.square_of_change()
        mean, variance, bad, seen = self.activations.take()
        had = self._has_weights if self._has_gradients is None else self._has_gradients
        with np.errstate(all="ignore"):
            weights = np.sqrt(self._weights)
            ratio = np.sqrt(changes) / weights
        called = seen > 0
        # All gradients zero in a layer that was not seen to run: unused or dead, nobody can tell.
        dead = self._has_dead & ((self._dead < 1.0) | called)
        return {
            "grad_norm": (self._gradients, had),
            "weight_norm": (weights, self._has_weights),
            "update_ratio": (ratio, had & (self._weights != 0)),
            "activation_mean": (mean, called),
            "activation_variance": (variance, called),
            "dead_share": (self._dead, dead),
            "nonfinite": (self._bad + bad, had | called),
        }
