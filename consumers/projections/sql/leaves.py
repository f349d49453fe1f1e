"""Arrays of Arrow whose plain values, at any depth within lists, structs and maps, become others."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

Wanted = Callable[[Any], bool]
"""Whether a type is one of those whose values change."""


def holds(kind: Any, wanted: Wanted) -> bool:
    """Tell whether a type is wanted, or holds one that is."""
    return wanted(kind) or any(holds(kind.field(number).type, wanted) for number in range(kind.num_fields))


def changed(array: Any, wanted: Wanted, change: Callable[[Any], Any]) -> Any:
    """Return an array in which `change` took the place of each array of a wanted type, with as many values."""
    kind = array.type
    if not holds(kind, wanted):
        return array
    if wanted(kind):
        return change(array)
    absent = array.is_null()
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        parts = [changed(part, wanted, change) for part in array.flatten()]
        return pa.StructArray.from_arrays(parts, names=names, mask=absent)
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        values = array.values.slice(array.offset * size, len(array) * size)
        return pa.FixedSizeListArray.from_arrays(changed(values, wanted, change), size, mask=absent)
    offsets = pa.array(
        array.offsets.to_pylist(), array.offsets.type
    )  # a mask needs them to begin where their buffer does
    if pa.types.is_map(kind):
        keys, items = changed(array.keys, wanted, change), changed(array.items, wanted, change)
        return pa.MapArray.from_arrays(offsets, keys, items, mask=absent)
    lists = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    return lists.from_arrays(offsets, changed(array.values, wanted, change), mask=absent)
