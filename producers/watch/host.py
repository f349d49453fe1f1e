"""Measure the layers whose parameters are on the CPU, inside the training thread.

A step is only read there: sums of squares and counts, kept in a `Reading`. What they mean is worked out by
`measures` and `samples` a little later, for many readings at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch._C import _set_grad_enabled

from .activations import HostActivations, Seen, tabulate
from .dead import Floats, FrontUnits, Units, units_of
from .flat import FlatParameters, is_ordinary
from .layers import Layer
from .loose import LooseParameters, flat_view
from .sample import Columns, LayerSample, Measures

LARGEST_FLAT = 1 << 22  # elements of all parameters that are read through one buffer (16 MB)


class Plan:
    """Which layers are read through one buffer, which parameter by parameter, and where their units are."""

    def __init__(
        self, parameters: Sequence[Sequence[Tensor]], units: Sequence[Units | None], flat_layers: Sequence[int]
    ) -> None:
        # Layers whose dead units can be found together: a bias and rows of weights, both with gradients.
        together: dict[int, tuple[int, Units]] = {}  # by the bias: of layers that share one, the first
        for i in flat_layers:
            unit = units[i]
            if unit is not None and unit.bias is not None and unit.weight is not None and unit.plain:
                together.setdefault(id(unit.bias), (i, unit))
        self.layers = list(flat_layers)
        self.flat = FlatParameters([parameters[i] for i in flat_layers], set(together))
        self.front = FrontUnits(list(together.values()), self.flat.gradients, self.flat.place)
        self.in_front = [i for i, _ in together.values()]
        self.apart = [i for i in flat_layers if units[i] is not None and i not in self.in_front]
        flat = set(flat_layers)
        self.loose = [(i, LooseParameters(list(own))) for i, own in enumerate(parameters) if own and i not in flat]


@dataclass(slots=True)
class Oddities:
    """What few steps have, by the number of the layer. Squares are of norms."""

    without: list[int] = field(default_factory=list)  # layers in the buffer of which no parameter had a gradient
    bad: dict[int, float] = field(default_factory=dict)  # non-finite gradients
    dead: dict[int, float | None] = field(default_factory=dict)  # shares of dead units of layers not looked at together
    gradients: dict[int, float] = field(default_factory=dict)  # of layers that are read one by one
    weights: dict[int, float] = field(default_factory=dict)
    changes: dict[int, float] = field(default_factory=dict)


class Reading:
    """What was read of one step: squares of norms of rows of the plan's buffer, and all else."""

    __slots__ = ("changes", "complete", "dead", "gradients", "odd", "plan", "scale", "seen", "weights")

    def __init__(self, plan: Plan, complete: bool | None, scale: float) -> None:
        self.plan = plan
        self.complete = complete  # every parameter in the buffer had a gradient; None where none was looked at there
        self.scale = scale
        self.gradients: list[float] | None = None
        self.weights: list[float] | None = None
        self.changes: list[float] | None = None
        self.dead: dict[int, int] = _NONE  # dead units of layers that were looked at together
        self.seen: Seen
        self.odd: Oddities | None = None

    def oddities(self) -> Oddities:
        """Return the place for what few steps have."""
        if self.odd is None:
            self.odd = Oddities()
        return self.odd


_NONE: dict[int, int] = {}


class HostMeter:
    """Turns optimizer steps over CPU layers into readings, and readings into numbers."""

    def __init__(self, layers: Sequence[Layer], trained: set[int]) -> None:
        """Plan the reading of the layers; `trained` has the ids of the parameters that the optimizer moves."""
        self.count = len(layers)
        self.activations = HostActivations(self.count)
        self._parameters: list[list[Tensor]] = [list(layer.parameters()) for layer in layers]
        self._trained = [[p for p in own if id(p) in trained] for own in self._parameters]
        self._units = [units_of(layer, own) for layer, own in zip(layers, self._trained, strict=True)]
        ordinary = [
            i
            for i, own in enumerate(self._parameters)
            if own and len(self._trained[i]) == len(own) and all(is_ordinary(p) for p in own)
        ]
        self._plan = self._planned(ordinary)

    def _planned(self, ordinary: list[int]) -> Plan:
        room = LARGEST_FLAT
        flat = []
        for i in sorted(ordinary, key=lambda i: sum(p.numel() for p in self._parameters[i])):
            room -= sum(p.numel() for p in self._parameters[i])
            if room < 0:
                break
            flat.append(i)
        return Plan(self._parameters, self._units, sorted(flat))

    # ------------------------------------------------------------------ in the training step

    def before(self, *, gradients: bool, scale: float) -> None:
        """Copy what the step starts from, the gradients as well if they are there; `scale` divides them."""
        enabled = torch.is_grad_enabled()
        _set_grad_enabled(False)  # torch.no_grad() costs several times as much
        try:
            taken = self._take_gradients() if gradients else None
            self._reading = reading = Reading(self._plan, taken, scale)
            plan = reading.plan
            if plan.layers:
                plan.flat.gather_weights()
            for index, loose in plan.loose:
                reading.oddities().weights[index] = loose.square_of_weights(keep=bool(self._trained[index]))
            if gradients:
                self._read_loose_gradients(reading)
        finally:
            _set_grad_enabled(enabled)

    def _take_gradients(self) -> bool | None:
        """Copy the gradients; say whether all were there, None where they have to be read one by one."""
        if self._plan.layers:
            try:
                return self._plan.flat.gather_gradients()
            except (RuntimeError, NotImplementedError, TypeError):  # a sparse or otherwise odd gradient
                self._plan = self._planned([])
        return None

    def after(self, *, gradients: bool) -> Reading:
        """Read all that was copied, what the step did, and the gradients where `before` could not."""
        reading = self._reading
        plan = reading.plan
        enabled = torch.is_grad_enabled()
        _set_grad_enabled(False)
        try:
            with np.errstate(all="ignore"):
                if gradients:
                    reading.complete = self._take_gradients()
                if plan.layers:
                    self._read_flat(reading, plan)
                for index, loose in plan.loose:
                    change = loose.square_of_change()
                    if change is not None:
                        reading.oddities().changes[index] = change
                if gradients:
                    self._read_loose_gradients(reading)
                reading.seen = self.activations.take()
        finally:
            _set_grad_enabled(enabled)
        return reading

    def _read_flat(self, reading: Reading, plan: Plan) -> None:
        flat = plan.flat
        squares, reading.weights = flat.squares()
        if reading.complete is not None:
            reading.gradients = squares
            if not sum(squares) < math.inf:
                counts = flat.nonfinite(squares)
                reading.oddities().bad.update((plan.layers[i], count) for i, count in enumerate(counts) if count)
            if reading.complete:
                reading.dead = plan.front.dead()
                for index in plan.apart:
                    self._look_at_units(reading, index, flat)
            else:
                for index in plan.layers:
                    if all(p.grad is None for p in self._parameters[index]):
                        reading.oddities().without.append(index)
                    self._look_at_units(reading, index, flat)
        reading.changes = flat.squares_of_change()

    def _read_loose_gradients(self, reading: Reading) -> None:
        for index, loose in self._plan.loose:
            trained = {id(p) for p in self._trained[index]}
            present = [p.grad if id(p) in trained else None for p in loose.parameters]
            if any(g is not None for g in present):
                odd = reading.oddities()
                odd.gradients[index], bad = loose.square_of_gradients(present)
                if bad:
                    odd.bad[index] = bad
            self._look_at_units(reading, index, None)

    def _look_at_units(self, reading: Reading, index: int, flat: FlatParameters | None) -> None:
        units = self._units[index]
        if units is not None:
            dead = units.dead(self._gradient(units.bias, flat), self._weight_gradient(units, flat))
            reading.oddities().dead[index] = None if dead is None else dead / units.count

    def _weight_gradient(self, units: Units, flat: FlatParameters | None) -> Floats | None:
        values = self._gradient(units.weight, flat)
        return None if values is None or units.weight is None else values.reshape(units.weight.shape)

    def _gradient(self, parameter: Tensor | None, flat: FlatParameters | None) -> Floats | None:
        if parameter is None or parameter.grad is None:
            return None
        if flat is not None:
            return flat.gradients[flat.place[id(parameter)]]
        return flat_view(parameter.grad)

    def forget(self) -> None:
        """Begin the next step without having asked for this one."""
        with np.errstate(all="ignore"):
            self.activations.take()

    # ------------------------------------------------------------------ later

    def samples(
        self, layers: tuple[str, ...], steps: Sequence[tuple[int, int]], readings: Sequence[Reading]
    ) -> list[LayerSample]:
        """Return the samples of these readings; `steps` has their numbers and times."""
        return self.columns(readings).samples(layers, steps)

    def columns(self, readings: Sequence[Reading]) -> Columns:
        """Work out the signals of many steps."""
        count = self.count
        shape = len(readings), count
        with np.errstate(all="ignore"):
            squares = {kind: np.zeros(shape) for kind in ("gradients", "weights", "changes")}
            has = {kind: np.zeros(shape, dtype=np.bool_) for kind in squares}
            dead, has_dead, bad = np.zeros(shape), np.zeros(shape, dtype=np.bool_), np.zeros(shape)
            for plan, first, last in _runs(readings):
                part = readings[first:last]
                for kind, there in (
                    ("gradients", [r.gradients for r in part]),
                    ("weights", [r.weights for r in part]),
                    ("changes", [r.changes for r in part]),
                ):
                    steps = [step for step, rows in enumerate(there) if rows is not None]
                    if steps:
                        where = np.ix_([first + step for step in steps], plan.layers)
                        squares[kind][where] = plan.flat.by_layer([there[step] for step in steps])  # type: ignore[misc]
                        has[kind][where] = True
                whole = [first + step for step, r in enumerate(part) if r.gradients is not None and r.complete]
                has_dead[np.ix_(whole, plan.in_front)] = True
            for step, reading in enumerate(readings):
                for layer, units in reading.dead.items():
                    dead[step, layer] = units / self._units[layer].count  # type: ignore[union-attr]
                odd = reading.odd
                if odd is not None:
                    for kind, loose in (
                        ("gradients", odd.gradients),
                        ("weights", odd.weights),
                        ("changes", odd.changes),
                    ):
                        for layer, square in loose.items():
                            squares[kind][step, layer], has[kind][step, layer] = square, True
                    has["gradients"][step, odd.without] = False
                    for layer, spoiled in odd.bad.items():
                        bad[step, layer] = spoiled
                    for layer, share in odd.dead.items():
                        dead[step, layer], has_dead[step, layer] = share or 0.0, share is not None
                if reading.scale != 1.0:
                    squares["gradients"][step] /= reading.scale * reading.scale
            norms = {kind: np.sqrt(square) for kind, square in squares.items()}
            outputs = tabulate([reading.seen for reading in readings], count)
            gradients, seen = has["gradients"], outputs.seen
            # Nothing moved a layer without gradients, and a change of nothing has no ratio.
            moved = gradients & has["changes"] & has["weights"] & (squares["weights"] != 0)
            # All gradients zero in a layer that was not seen to run: unused or dead, nobody can tell.
            known = has_dead & (seen | (dead != 1.0))
            return Columns(
                {
                    "grad_norm": (norms["gradients"], gradients),
                    "weight_norm": (norms["weights"], has["weights"]),
                    "update_ratio": (np.divide(norms["changes"], norms["weights"]), moved),
                    "activation_mean": (outputs.mean, seen),
                    "activation_variance": (outputs.variance, seen),
                    "dead_share": (dead, known),
                    "nonfinite": (bad + outputs.bad, seen | gradients),
                }
            )

    def measures(self, reading: Reading) -> Measures:
        """Work out the signals of one step, to be joined with those of other devices."""
        return self.columns([reading]).measures(0)


def _runs(readings: Sequence[Reading]) -> list[tuple[Plan, int, int]]:
    """Find the stretches of readings that were made by one plan with layers in its buffer."""
    runs = []
    first = 0
    for _, group in groupby(readings, key=lambda reading: id(reading.plan)):
        last = first + sum(1 for _ in group)
        if readings[first].plan.layers:
            runs.append((readings[first].plan, first, last))
        first = last
    return runs
