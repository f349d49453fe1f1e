"""Intervals as text, at any depth, for the forms that have no interval of months, days and nanoseconds."""

from typing import Any

import pyarrow as pa

from .cells import shown


def without_intervals(table: pa.Table) -> pa.Table:
    """Return a table with each interval, also within lists, structs and maps, as text; all else is as it was."""
    for number, field in enumerate(table.schema):
        if _holds(field.type):
            chunks = [_told(chunk) for chunk in table.column(number).chunks] or [_told(pa.array([], field.type))]
            table = table.set_column(number, field.name, pa.chunked_array(chunks))
    return table


def _holds(kind: Any) -> bool:
    if pa.types.is_interval(kind):
        return True
    return any(_holds(kind.field(number).type) for number in range(kind.num_fields))


def _told(array: Any) -> Any:
    kind = array.type
    if not _holds(kind):
        return array
    if pa.types.is_interval(kind):
        return pa.array([None if value is None else shown(value) for value in array.to_pylist()], pa.string())
    absent = array.is_null()
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        return pa.StructArray.from_arrays([_told(part) for part in array.flatten()], names=names, mask=absent)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        return pa.FixedSizeListArray.from_arrays(_told(values), size, mask=absent)
    offsets = pa.array(
        array.offsets.to_pylist(), array.offsets.type
    )  # a mask needs them to begin where their buffer does
    if pa.types.is_map(kind):
        return pa.MapArray.from_arrays(offsets, _told(array.keys), _told(array.items), mask=absent)
    lists = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    return lists.from_arrays(offsets, _told(array.values), mask=absent)
