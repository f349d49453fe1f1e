"""Items of cases that are bound to an event type of the log: named numbers, layers, or events of any other type."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from morphogen.schemas import SIGNALS
from morphogen.schemas.knowledge.cases import type_of
from morphogen.schemas.knowledge.program import CaseInfo
from morphogen.schemas.knowledge.stream import Integer, Text, Values
from morphogen.schemas.knowledge.types import Type

from ..builtin.layer_health import LayerHealthRows
from ..builtin.metrics import MetricRows
from ..fold.arrays import Words
from ..fold.batch import Batch
from .items import (
    ENVELOPE,
    Ints,
    Places,
    Read,
    enveloped,
    fitting,
    from_floats,
    kind_of,
    maker,
    nothing,
    of_type,
    read_plain,
    unknown,
)

NONFINITE = "nonfinite"
"""What a case of named numbers may name besides: how many of an event's numbers are NaN or infinite."""


class MetricEvents:
    """Named numbers: one item for each event that has all numbers which the case requires, or any where it requires none.

    `nonfinite` is how many of the event's numbers are NaN or infinite, unless the event has a number of that name. Being
    there in every event, it makes an event an item only in a case that names no other number.
    """

    type = "metrics.scalars"

    def __init__(self, info: CaseInfo) -> None:
        self.info = info
        self._named = [name for name in info.fields if name not in ENVELOPE]
        asked = [name for name in self._named if name != NONFINITE] or self._named
        self._required = [name for name in asked if not info.fields[name].optional]
        self._enough = [] if self._required else asked

    def read(self, batch: Batch) -> Read:
        """Return the items, from the columns of the projected numbers."""
        rows = MetricRows().fold(batch).get("metrics")
        at = of_type(batch, self.type)
        if rows is None or not len(rows):
            return nothing(self.info)
        names: Words = rows["name"]
        place = batch.seq[at] * (1 << 20) + batch.idx[at]
        owner = np.searchsorted(place, np.asarray(rows["seq"]) * (1 << 20) + np.asarray(rows["idx"]))
        values, there = {}, {}
        for name in self._named:
            column, seen = np.full(len(at), np.nan), np.zeros(len(at), np.bool_)
            if name in names.words:
                mine = names.codes == list(names.words).index(name)
                column[owner[mine]] = np.asarray(rows["value"])[mine]
                seen[owner[mine]] = True
            if name == NONFINITE:
                strange = np.bincount(owner[~np.isfinite(np.asarray(rows["value"]))], minlength=len(at))
                column, seen = np.where(seen, column, strange), np.ones(len(at), np.bool_)
            values[name], there[name] = column, seen
        none = np.zeros(len(at), np.bool_)
        wanted = [there[name] for name in self._required]
        some = [none, *(there[name] for name in self._enough)]
        kept = np.flatnonzero(np.logical_and.reduce(wanted) if wanted else np.logical_or.reduce(some))
        fields = {
            name: from_floats(values[name][kept], self.info.fields[name], ~there[name][kept])
            if name in values
            else enveloped(batch, name, at[kept], self.info.fields[name])
            for name in self.info.fields
        }
        return read_plain(at[kept], np.zeros(len(kept), np.int64), fields)


class HealthEvents:
    """Layers: one item for each layer of each event; a field that no layer was measured for is unknown."""

    type = "health.layer"

    def __init__(self, info: CaseInfo) -> None:
        self.info = info

    def read(self, batch: Batch) -> Read:
        """Return the items, from the columns of the projected layers."""
        rows = LayerHealthRows().fold(batch).get("layer_health")
        at = of_type(batch, self.type)
        if rows is None or not len(rows):
            return nothing(self.info)
        place = batch.seq[at] * (1 << 20) + batch.idx[at]
        owner = at[np.searchsorted(place, np.asarray(rows["seq"]) * (1 << 20) + np.asarray(rows["idx"]))]
        depth = np.asarray(rows["depth"]).astype(np.int64)
        fields = {name: self._field(batch, rows, name, type_, owner, depth) for name, type_ in self.info.fields.items()}
        return read_plain(owner, depth, fields)

    def _field(self, batch: Batch, rows: Any, name: str, type_: Type, owner: Places, depth: Ints) -> Values:
        if name == "layer":
            words: Words = rows["layer"]
            return fitting(Text(words.codes, words.words), type_)
        if name == "depth":
            return fitting(Integer(depth), type_)
        if name in SIGNALS:
            if kind_of(type_) == "flag":
                return unknown(len(owner), type_)
            column = rows[name]
            missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
            return from_floats(column.to_numpy(zero_copy_only=False).astype(np.float64), type_, missing)
        return enveloped(batch, name, owner, type_) if name in ENVELOPE else unknown(len(owner), type_)


class OtherEvents:
    """Events of any other type: one item an event, its fields by name; one of another kind than declared is unknown."""

    def __init__(self, info: CaseInfo) -> None:
        self.info = info
        self.type = type_of(info)

    def read(self, batch: Batch) -> Read:
        """Return the items."""
        found = batch.of(self.type)
        at = found.positions
        fields: dict[str, Values] = {}
        for name, type_ in self.info.fields.items():
            values = [_field_of(body, name) for body in found.bodies]
            known = any(value is not _ABSENT for value in values)
            if name in ENVELOPE and not known:
                fields[name] = enveloped(batch, name, at, type_)
            else:
                fields[name] = maker(type_)([_checked(value, type_) for value in values])
        return read_plain(at, np.zeros(len(at), np.int64), fields)


_ABSENT = object()


def _field_of(body: Any, name: str) -> Any:
    if isinstance(body, Mapping):
        return body.get(name, _ABSENT)
    return getattr(body, name, _ABSENT) if name in getattr(body, "__struct_fields__", ()) else _ABSENT


def _checked(value: Any, type_: Type) -> Any:
    if value is _ABSENT or value is None:
        return None
    kind = kind_of(type_)
    if kind == "number":
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if plain and not (isinstance(value, float) and math.isnan(value)) else None
    if kind == "int":
        return value if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else None
    if kind == "text":
        return value if isinstance(value, str) else None
    if kind == "flag":
        return value if isinstance(value, bool) else None
    return list(value) if isinstance(value, list | tuple) else None
