"""Columns of lists, maps and structs on their way to Arrow: shaped by the declared type, never by the values.

`pyarrow.array` would make one struct of all the maps of a batch: what a row holds would depend on its company.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from ..column_types import apart
from .arrays import TEXT, flags, from_numpy, text, to_arrow
from .body_json import to_json


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)  # as DuckDB casts them


_WRITTEN: dict[str, Callable[[Any], str]] = {"JSON": to_json, **dict.fromkeys(TEXT, _said)}


def is_shaped(kind: str) -> bool:
    """Tell whether columns of this type are made here."""
    return kind.endswith((")", "]", "ARRAY")) and apart(kind) is not None


def shaped(values: Iterable[Any], kind: str) -> pa.Array:
    """Return a column as an Arrow array of a type made of others. Raises TypeError for a value of another shape."""
    found = apart(kind)
    if found is None and isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return to_arrow(values, kind)
    values = list(values)
    if found is None:
        write = _WRITTEN.get(kind.upper())
        if write is not None:  # what is text already is left as it is
            return text([one if one is None or isinstance(one, str) else write(one) for one in values])
        return to_arrow(values, kind)
    missing = np.array([one is None for one in values], np.bool_)
    mask = flags(missing) if missing.any() else None
    if found.shape == "STRUCT":
        rows = [{} if one is None else _fields(one, kind) for one in values]
        columns = [
            shaped([_field(row, name) for row in rows], inner)
            for name, inner in zip(found.names, found.kinds, strict=True)
        ]
        return pa.StructArray.from_arrays(columns, names=list(found.names), mask=mask)
    parts = [[] if one is None else _items(one, kind, pairs=found.shape == "MAP") for one in values]
    offsets = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    starts = from_numpy(offsets, pa.int32())
    if found.shape == "LIST":
        return pa.ListArray.from_arrays(starts, shaped(_joined(parts), found.kinds[0]), mask=mask)
    flat = list(chain.from_iterable(parts))
    keys, held = [key for key, _ in flat], [value for _, value in flat]
    return pa.MapArray.from_arrays(starts, shaped(keys, found.kinds[0]), shaped(held, found.kinds[1]), mask=mask)


def _joined(parts: Sequence[Any]) -> Any:
    """Return the items of all parts; vectors that are all of one type stay one."""
    kinds = {part.dtype if isinstance(part, np.ndarray) else None for part in parts if len(part)}
    if len(kinds) == 1 and None not in kinds:
        return np.concatenate([part for part in parts if len(part)])
    return list(chain.from_iterable(part.tolist() if isinstance(part, np.ndarray) else part for part in parts))


def _items(value: Any, kind: str, *, pairs: bool) -> Any:
    if pairs and isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{value!r} does not fit into {kind}")
    if isinstance(value, np.ndarray):
        return value if value.ndim == 1 else value.tolist()
    return list(value)


def _fields(value: Any, kind: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} does not fit into {kind}: give a dict")
    return value


def _field(row: Mapping[Any, Any], name: str) -> Any:
    """Return a field whatever the case of its name, as DuckDB does; None where there is none."""
    if name in row:
        return row[name]
    return next((value for key, value in row.items() if str(key).lower() == name.lower()), None)
