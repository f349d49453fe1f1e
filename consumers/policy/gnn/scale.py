"""The mean and spread of each column over what was measured, so that unlike signals weigh alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Wide: TypeAlias = npt.NDArray[np.float64]
    Floats: TypeAlias = npt.NDArray[np.float32]

_LEAST = 8  # measurements below which a column is left as it is
_FAR = 6.0  # standard deviations that a value is cut at


@dataclass(frozen=True, eq=False)
class Scale:
    """Count, mean and sum of squared deviations of each column (Chan, Golub and LeVeque 1979); float64."""

    count: "Wide"
    mean: "Wide"
    squares: "Wide"

    @classmethod
    def empty(cls, columns: int) -> "Scale":
        """Return a scale that has seen nothing."""
        return cls(np.zeros(columns), np.zeros(columns), np.zeros(columns))

    def seen(self, many: "Sequence[Floats]") -> "Scale":
        """Return the scale after more rows of values; what is NaN is not counted."""
        if not many:
            return self
        rows = np.concatenate(many).astype(np.float64)
        known = np.isfinite(rows)
        count = known.sum(axis=0).astype(np.float64)
        least = np.maximum(count, 1)
        mean = np.where(known, rows, 0).sum(axis=0) / least
        squares = np.where(known, (np.where(known, rows, 0) - mean) ** 2, 0).sum(axis=0)
        total = self.count + count
        apart, share = mean - self.mean, count / np.maximum(total, 1)
        return Scale(total, self.mean + apart * share, self.squares + squares + apart**2 * self.count * share)

    def inputs(self, values: "Floats", into: "Floats | None" = None) -> "Floats":
        """Return (rows, 2 * columns): the scaled values with 0 for what was not measured, then what was measured."""
        mean, spread = self.standard
        columns = values.shape[1]
        found = np.empty((len(values), 2 * columns), np.float32) if into is None else into
        scaled, known = found[:, :columns], np.isfinite(values)
        np.subtract(values, mean, out=scaled)
        np.divide(scaled, spread, out=scaled)
        np.clip(scaled, -_FAR, _FAR, out=scaled)
        scaled[~known] = 0
        found[:, columns:] = known
        return found

    @cached_property
    def standard(self) -> "tuple[Floats, Floats]":
        """The mean and the spread of each column; 0 and 1 where too little was measured, or nothing varied."""
        ready = self.count >= _LEAST
        spread = np.sqrt(self.squares / np.maximum(self.count, 1))
        spread = np.where(ready & (spread > 1e-3), spread, 1.0)
        return np.where(ready, self.mean, 0.0).astype(np.float32), spread.astype(np.float32)
