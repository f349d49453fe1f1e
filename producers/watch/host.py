"""Measure the layers whose parameters are on the CPU, inside the training thread."""

import math
from collections.abc import Sequence

from torch import Tensor

from .activations import HostActivations
from .dead import Floats, FrontUnits, Units, units_of
from .flat import FlatParameters, is_ordinary
from .layers import Layer
from .loose import LooseParameters, flat_view
from .sample import Measures, measures


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
        # Layers whose dead units can be found together: a bias and rows of weights, both with gradients.
        together: dict[int, tuple[int, Units]] = {}  # by the bias: of layers that share one, the first
        for i in self._flat_layers:
            units = self._units[i]
            if units is not None and units.bias is not None and units.weight is not None and units.plain:
                together.setdefault(id(units.bias), (i, units))
        self._flat = FlatParameters([self._parameters[i] for i in self._flat_layers], set(together))
        self._front = FrontUnits(list(together.values()), self._flat.array, self._flat.place)
        self._in_front = [i for i, _ in together.values()]
        self._unit_counts = [0 if units is None else units.count for units in self._units]
        flat = set(self._flat_layers)
        self._apart = [i for i in self._flat_layers if self._units[i] is not None and i not in self._in_front]
        self._loose = [(i, LooseParameters(own)) for i, own in enumerate(self._parameters) if own and i not in flat]

    def before(self, *, gradients: bool, scale: float) -> None:
        """Read what the step starts from; `scale` divides the gradients."""
        if gradients:
            self.read_gradients(scale)
        self._weights: list[float | None] = [None] * self.count
        if self._flat_layers:
            self._flat.gather_weights()
            for index, square in zip(self._flat_layers, self._flat.squares(), strict=True):
                self._weights[index] = square
        for index, loose in self._loose:
            self._weights[index] = loose.square_of_weights(keep=bool(self._trained[index]))

    def read_gradients(self, scale: float) -> None:
        """Read the gradients: norms, non-finite values, dead units."""
        self._gradients: list[float | None] = [None] * self.count
        self._bad = [0.0] * self.count
        self._dead: list[float | None] = [None] * self.count
        if self._flat_layers:
            self._read_flat()
        for index, loose in self._loose:
            trained = {id(p) for p in self._trained[index]}
            present = [p.grad if id(p) in trained else None for p in loose.parameters]
            if any(g is not None for g in present):
                self._gradients[index], self._bad[index] = loose.square_of_gradients(present)
            self._look_at_units(index, None)
        if scale != 1.0:
            self._gradients = [None if g is None else g / (scale * scale) for g in self._gradients]

    def _read_flat(self) -> None:
        flat = self._flat
        gradients = [p.grad for p in flat.parameters]
        try:
            complete = flat.gather_gradients(gradients)
        except (RuntimeError, NotImplementedError, TypeError):  # a sparse or otherwise odd gradient
            self._flat_layers = []
            self._plan()
            return
        squares = flat.squares()
        finite = True
        for index, square in zip(self._flat_layers, squares, strict=True):
            self._gradients[index] = square
            finite = finite and square < math.inf  # false for NaN
        if not finite:
            for index, count in zip(self._flat_layers, flat.nonfinite(), strict=True):
                self._bad[index] = count
        if not complete:
            for index in self._flat_layers:
                if all(p.grad is None for p in self._parameters[index]):
                    self._gradients[index] = None
                self._look_at_units(index, flat)
            return
        for index in self._in_front:
            self._dead[index] = 0.0
        for index, count in self._front.dead().items():
            self._dead[index] = count / self._unit_counts[index]
        for index in self._apart:
            self._look_at_units(index, flat)

    def _look_at_units(self, index: int, flat: FlatParameters | None) -> None:
        units = self._units[index]
        if units is not None:
            dead = units.dead(self._gradient(units.bias, flat), self._weight_gradient(units, flat))
            self._dead[index] = None if dead is None else dead / units.count

    def _weight_gradient(self, units: Units, flat: FlatParameters | None) -> Floats | None:
        values = self._gradient(units.weight, flat)
        return None if values is None or units.weight is None else values.reshape(units.weight.shape)

    def _gradient(self, parameter: Tensor | None, flat: FlatParameters | None) -> Floats | None:
        if parameter is None or parameter.grad is None:
            return None
        if flat is not None:
            return flat.array[flat.place[id(parameter)]]
        return flat_view(parameter.grad)

    def after(self) -> Measures:
        """Read what the step did, and return all measures of the step."""
        changes = [0.0] * self.count
        if self._flat_layers:
            self._flat.subtract_weights()
            for index, square in zip(self._flat_layers, self._flat.squares(), strict=True):
                changes[index] = square
        for index, loose in self._loose:
            changes[index] = loose.square_of_change()
        return measures(self._gradients, self._bad, self._weights, changes, self.activations.take(), self._dead)
