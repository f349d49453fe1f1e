"""`metrics`: one row a named number of a step.

NaN and infinities are kept as DOUBLE. In DuckDB NaN is greater than all numbers and makes an average NaN: say
`WHERE isfinite(value)` to leave both out. Every rank may record; `run_metrics` is the canonical curve of a run,
which is rank 0 and, where a restarted job repeated a step, its latest attempt.
"""

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from ..fold.arrays import Words, strings
from ..fold.batch import Batch
from ..fold.selection import Selection
from ..projection import Body, Projection, Rows
from .alike import Slot, alike, column, fields, number_slot, stretches

if TYPE_CHECKING:
    import numpy.typing as npt

_EXACT = 2.0**53  # integers up to here are exact as a double
_WIDE = (np.dtype(">u8"), np.dtype(">i8"))


class MetricRows(Projection, name="metrics", version=1, types=("metrics.scalars",)):
    """Named numbers, by run, attempt, rank and step."""

    tables = {"metrics": "name VARCHAR, value DOUBLE"}
    views = {
        "run_metrics": """
            SELECT run, step, name, value, attempt, time, seq, idx FROM metrics WHERE rank = 0
            QUALIFY step IS NULL
                 OR row_number() OVER (PARTITION BY run, step, name ORDER BY attempt DESC, seq DESC, idx DESC) = 1
        """
    }
    bodies = {"metrics.scalars": Body("metrics", "json_group_object(name, value)", "{'values': held}::JSON")}

    def fold(self, batch: Batch) -> Rows:
        """Return a row for each value."""
        found = batch.once(self.name, lambda: _read(batch))
        if not len(found.events):
            return {}
        single = bool((found.lengths == 1).all())
        columns = {"name": found.names, "value": found.numbers}
        return {"metrics": found.events.columns(columns, None if single else found.lengths)}

    def holds(self, batch: Batch) -> "npt.NDArray[np.intp]":
        """Return the events whose values are all exact as doubles, and that have any."""
        found = batch.once(self.name, lambda: _read(batch))
        return found.events.positions[found.exact]


class _Found(NamedTuple):
    """Values of a batch end to end: how many each event has, and which events are exact as doubles."""

    events: Selection
    lengths: "npt.NDArray[np.int64]"
    names: Words
    numbers: "npt.NDArray[np.float64]"
    exact: "npt.NDArray[np.bool_]"


def _read(batch: Batch) -> _Found:
    return _read_alike(batch.of("metrics.scalars", msgspec.Raw)) or _read_each(batch.of("metrics.scalars"))


def _read_alike(events: Selection) -> _Found | None:
    """Read stretches of events that have the same names, without an object for any."""
    matrices = stretches(events.raw)
    if not matrices:
        return None
    names: list[Words] = []
    numbers: list[npt.NDArray[np.float64]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    for matrix in matrices:
        body = matrix[0].tobytes()
        places = fields(body)
        inner = fields(body, *places["values"]) if places and places.keys() == {"values"} else None
        if not inner:
            return None
        slots = [number_slot(body, *place) for place in inner.values()]
        if None in slots or not alike(matrix, found := [slot for slot in slots if isinstance(slot, Slot)]):
            return None
        columns = [column(matrix, slot) for slot in found]
        if any(each.dtype in _WIDE and _large(each) for each in columns):
            return None
        values = np.empty((len(matrix), len(inner)))
        parts = iter(columns)
        for i, slot in enumerate(slots):
            values[:, i] = next(parts)[:, 0] if isinstance(slot, Slot) else slot
        numbers.append(values.ravel())
        lengths.append(np.full(len(matrix), len(inner), np.int64))
        names.append(Words(np.tile(np.arange(len(inner), dtype=np.int32), len(matrix)), list(inner)))
    return _Found(events, np.concatenate(lengths), _one_book(names), np.concatenate(numbers), events.newest)


def _one_book(parts: list[Words]) -> Words:
    """Lay strings end to end over one list of words."""
    words = list(dict.fromkeys(chain.from_iterable(part.words for part in parts)))
    at = {word: code for code, word in enumerate(words)}
    codes = [np.array([at[word] for word in part.words], np.int32)[part.codes] for part in parts]
    return Words(np.concatenate(codes), words)


def _read_each(events: Selection) -> _Found:
    values = [body.values for body in events.bodies]
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    numbers = np.array(list(chain.from_iterable(map(dict.values, values))), np.float64)
    exact = events.newest & (lengths > 0)
    if _large(numbers):
        owner = np.repeat(np.arange(len(values)), lengths)
        for at in np.unique(owner[np.abs(numbers) >= _EXACT]):
            exact[at] &= not any(type(v) is int and abs(v) > _EXACT for v in values[at].values())
    return _Found(events, lengths, strings(list(chain.from_iterable(values))), numbers, exact)


def _large(numbers: "npt.NDArray[Any]") -> bool:
    return bool((np.abs(numbers.astype(np.float64)) >= _EXACT).any())
