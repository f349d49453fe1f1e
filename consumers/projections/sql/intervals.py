"""Intervals as text, at any depth, for the forms that have no interval of months, days and nanoseconds."""

from typing import Any

import pyarrow as pa

from .cells import shown
from .leaves import changed, holds


def without_intervals(table: pa.Table) -> pa.Table:
    """Return a table with each interval, also within lists, structs and maps, as text; all else is as it was."""
    for number, field in enumerate(table.schema):
        if holds(field.type, pa.types.is_interval):
            chunks = table.column(number).chunks or [pa.array([], field.type)]
            told = [changed(chunk, pa.types.is_interval, _told) for chunk in chunks]
            table = table.set_column(number, field.name, pa.chunked_array(told))
    return table


def _told(array: Any) -> Any:
    return pa.array([None if value is None else shown(value) for value in array.to_pylist()], pa.string())
