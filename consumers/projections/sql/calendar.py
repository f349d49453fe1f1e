"""Dates and times as text where one is infinite or outside of the years 1 to 9999, for forms that have none such."""

from typing import Any

import pyarrow as pa

from .cells import python_values
from .leaves import changed, holds

_ENDS = (-62_135_596_800, 253_402_300_800)  # seconds after 1970 in which what Python can name begins and is over
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def within_calendar(table: pa.Table, *, deep: bool = False) -> pa.Table:
    """Return a table with each column that has such a date or time as text; `deep`, also those within others."""
    for number, field in enumerate(table.schema):
        if not (holds(field.type, _dated) if deep else _dated(field.type)):
            continue
        column = table.column(number)
        if _dated(field.type):
            if _outside(column, field.type):
                table = table.set_column(number, field.name, pa.chunked_array(map(_told, column.chunks), pa.string()))
        else:  # whole, for its type must be one
            whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], field.type)
            table = table.set_column(number, field.name, changed(whole, _dated, _told_if_outside))
    return table


def _dated(kind: Any) -> bool:
    return bool(pa.types.is_date32(kind) or pa.types.is_timestamp(kind))


def _told_if_outside(array: Any) -> Any:
    return _told(array) if _outside(array, array.type) else array


def _outside(values: Any, kind: Any) -> bool:
    import pyarrow.compute as pc  # a tenth of the time that a question takes, and most need none of it

    width, ticks = (pa.int32(), 1 / 86_400) if pa.types.is_date32(kind) else (pa.int64(), _TICKS[kind.unit])
    ends = pc.min_max(values.cast(width)).as_py()
    least, most = (int(second * ticks) for second in _ENDS)
    return not (max(least, 2 - 2**63) <= (ends["min"] or 0) and (ends["max"] or 0) < min(most, 2**63 - 1))


def _told(array: Any) -> Any:
    return pa.array([None if value is None else str(value) for value in python_values(array)], pa.string())
