"""The health of the layers over one epoch: bounded in memory, and the same whatever order the samples come in."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from morphogen.schemas import SIGNALS, LayerHealth, vector

if TYPE_CHECKING:
    from .protocol import Floats

SAMPLES = 128  # that a bin keeps; of more, those at the multiples of a power of two are kept


@dataclass(frozen=True)
class Sample:
    """The layers at one optimizer step: float32 of shape (layers, signals), NaN where nothing was measured."""

    step: int
    layers: tuple[str, ...]
    values: "Floats"

    @classmethod
    @np.errstate(over="ignore")  # what float32 cannot hold is infinite
    def of(cls, event: LayerHealth, step: int) -> "Sample":
        """Read an event. Positions that it lists as missing become NaN."""
        layers = event.layers.values
        values = np.full((len(layers), len(SIGNALS)), np.nan, np.float32)
        for column, signal in enumerate(SIGNALS):
            measured = getattr(event, signal)
            if measured is not None:
                measured = vector(measured)[: len(layers)]
                values[: len(measured), column] = measured
                values[[at for at in event.missing.get(signal, ()) if 0 <= at < len(layers)], column] = np.nan
        return cls(step, layers, values)


@dataclass(frozen=True)
class Bin:
    """Samples as a chain, newest first: a longer bin shares what it has with the shorter one."""

    stride: int = 1
    count: int = 0
    sample: Sample | None = None
    before: "Bin | None" = None

    def takes(self, step: int) -> bool:
        """Tell whether a sample of this step would be kept."""
        return step % self.stride == 0

    def add(self, sample: Sample) -> "Bin":
        """Return the bin with one sample more, thinned where it would hold too many."""
        if not self.takes(sample.step):
            return self
        longer = Bin(self.stride, self.count + 1, sample, self)
        if longer.count <= SAMPLES:
            return longer
        return _bin(longer.samples(), self.stride * 2)

    def samples(self) -> list[Sample]:
        """Return the samples by step."""
        found: list[Sample] = []
        at: Bin | None = self
        while at is not None:
            if at.sample is not None:
                found.append(at.sample)
            at = at.before
        found.reverse()
        found.sort(key=lambda sample: sample.step)
        return found

    def split(self, boundary: int | None) -> "tuple[Bin, Bin]":
        """Return the samples up to step `boundary`, and those after it; all and none where there is no boundary."""
        samples = self.samples()
        if boundary is None or not samples or samples[-1].step <= boundary:
            return self, EMPTY
        within = [sample for sample in samples if sample.step <= boundary]
        return _bin(within, self.stride), _bin(samples[len(within) :], self.stride)

    def layers(self) -> tuple[str, ...] | None:
        """Return the layers of the sample of the highest step, None where there is none."""
        samples = self.samples()
        return samples[-1].layers if samples else None

    def mean(self, layers: tuple[str, ...]) -> "Floats":
        """Return the means over the samples for these layers; infinities count, what was not measured does not."""
        samples = self.samples()
        if not samples:
            return np.full((len(layers), len(SIGNALS)), np.nan, np.float32)
        stack = np.stack([aligned(sample.values, sample.layers, layers) for sample in samples]).astype(np.float64)
        measured = ~np.isnan(stack)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            mean: Floats = (np.where(measured, stack, 0.0).sum(axis=0) / measured.sum(axis=0)).astype(np.float32)
        return mean


EMPTY = Bin()


def _bin(samples: list[Sample], stride: int) -> Bin:
    filled = replace(EMPTY, stride=stride)
    for sample in samples:
        filled = filled.add(sample)
    return filled


def aligned(values: "Floats", layers: tuple[str, ...], wanted: tuple[str, ...]) -> "Floats":
    """Return the rows of `layers` in the order of `wanted`; NaN for a layer that is not there."""
    if layers == wanted:
        return values
    place = {name: at for at, name in enumerate(layers)}
    found = np.full((len(wanted), values.shape[1]), np.nan, np.float32)
    for row, name in enumerate(wanted):
        if name in place:
            found[row] = values[place[name]]
    return found
