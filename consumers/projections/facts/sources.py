"""Where the items of a case come from, and how a batch of the log becomes columns of them.

A case of its own reads events of its own type. A case that is bound to an event type of the log reads those: one item an
event, or, of `health.layer`, one a layer. Whole columns are made; no item is an object of its own where the log holds
numbers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from morphogen.schemas import SIGNALS
from morphogen.schemas.knowledge.cases import ORIGINS, attributes, structure, type_of
from morphogen.schemas.knowledge.program import CaseInfo
from morphogen.schemas.knowledge.stream import (
    Flag,
    Integer,
    Items,
    Kind,
    Number,
    Text,
    Values,
    flags,
    integers,
    lists,
    numbers,
    texts,
)
from morphogen.schemas.knowledge.types import Type

from ..builtin.layer_health import LayerHealthRows
from ..builtin.metrics import MetricRows
from ..fold.arrays import Gaps, Words
from ..fold.batch import Batch

Places = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]

ENVELOPE = ("run", "attempt", "rank", "step", "time")
"""What a bound case may name as a field besides what its events say."""

NONFINITE = "nonfinite"
"""What a case of named numbers may name besides: how many of an event's numbers are NaN or infinite."""

_KINDS: Mapping[str, Kind] = {"int": "int", "float": "number", "string": "text", "boolean": "flag", "list": "list"}
_MAKE: Mapping[str, Callable[[Sequence[Any]], Values]] = {
    "number": numbers, "int": integers, "text": texts, "flag": flags, "list": lists,
}  # fmt: skip
_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Items of one case in one batch, in the order of the log.

    `at` is the place of each item's event in the batch, `part` counts the items of an event. `rejected` are events of
    the type that are no items, with the reason.
    """

    at: Places
    part: Ints
    fields: Mapping[str, Values]
    origin: Text
    source: Text
    rejected: Sequence[tuple[int, str]] = ()

    def items(self, batch: Batch) -> Items:
        """Return them with place, run and time."""
        run = batch.run
        return Items(
            batch.seq[self.at], batch.idx[self.at].astype(np.int64), self.part, Text(run.codes[self.at], run.words),
            batch.time[self.at], self.fields, _measured(self.origin),
        )  # fmt: skip


class Source(Protocol):
    """What reads the items of one case."""

    info: CaseInfo
    type: str

    def read(self, batch: Batch) -> Read:
        """Return the items in a batch."""
        ...


def kind_of(type_: Type) -> Kind:
    """Return what a field is to a condition; `nothing` for what no condition can look into."""
    return _KINDS.get(type_.kind, "nothing")


def kinds_of(info: CaseInfo) -> dict[str, Kind]:
    """Return what each field of a case is to a condition."""
    return {name: kind for name, type_ in info.fields.items() if (kind := kind_of(type_)) != "nothing"}


def source_of(info: CaseInfo) -> Source:
    """Return what reads the items of a case."""
    if info.source is None:
        return OwnEvents(info)
    if info.source == "metrics.scalars":
        return MetricEvents(info)
    return HealthEvents(info) if info.source == "health.layer" else OtherEvents(info)


def once(source: Source, batch: Batch) -> Read:
    """Return what `source.read` says of a batch, read once for all who ask."""
    return batch.once(("case", source.type, structure(source.info)), lambda: source.read(batch))


def _measured(origin: Text) -> "npt.NDArray[np.bool_]":
    table = np.array([*(word == "measured" for word in origin.words), False], np.bool_)
    return table[origin.codes]


def _same(length: int, word: str) -> Text:
    return Text(np.zeros(length, np.int32), [word])


def _of_type(batch: Batch, type_: str) -> Places:
    kinds = batch.kinds
    if type_ not in kinds.words:
        return np.empty(0, np.intp)
    return np.flatnonzero(kinds.codes == list(kinds.words).index(type_))


class OwnEvents:
    """Events of the case's own type, each checked against what the case declares."""

    def __init__(self, info: CaseInfo) -> None:
        self.info = info
        self.type = type_of(info)
        self._names = attributes(info)
        own = [(self._names[name], _wire(type_), *_default(type_)) for name, type_ in info.fields.items()]
        extra = [("origin", str, "measured")] + ([] if "source" in info.fields else [("source", str, "")])
        fields = [(name, kind, *default) for name, kind, *default in [*own, *extra]]
        renamed = {attribute: field for field, attribute in self._names.items() if attribute != field}
        self._wire = msgspec.defstruct("Wire", fields, rename=renamed or None, kw_only=True, gc=False)
        self._one = msgspec.msgpack.Decoder(self._wire)
        self._all = msgspec.msgpack.Decoder(list[self._wire])  # type: ignore[name-defined]
        self._listed = {
            name: set(type_.values) for name, type_ in info.fields.items() if type_.values and not _literal(type_)
        }

    def read(self, batch: Batch) -> Read:
        """Return one item an event; what is not as declared is rejected."""
        at = _of_type(batch, self.type)
        raws = [batch.records[place].body for place in at.tolist()]
        rejected: list[tuple[int, str]] = []
        try:
            bodies = self._all.decode(b"\xdd" + len(raws).to_bytes(4, "big") + b"".join(raws))
            bad = [i for i, body in enumerate(bodies) if self._problem(body)] if self._listed else []
        except (msgspec.MsgspecError, ValueError):
            bodies, bad = [], []
            for i, raw in enumerate(raws):
                try:
                    bodies.append(self._one.decode(raw))
                except (msgspec.MsgspecError, ValueError) as error:
                    bodies.append(None)
                    bad.append(i)
                    rejected.append((int(at[i]), str(error)))
        strange = {body.origin for body in bodies if body is not None} - set(ORIGINS)
        if strange or bad or self._listed:
            reasons = dict(rejected)
            for i, body in enumerate(bodies):
                if body is not None and (reason := self._problem(body)):
                    reasons[int(at[i])] = reason
            kept = [i for i in range(len(bodies)) if int(at[i]) not in reasons]
            rejected = sorted(reasons.items())
            bodies, at = [bodies[i] for i in kept], at[kept]
        fields = {
            name: _maker(type_)(list(map(attrgetter(self._names[name]), bodies)))
            for name, type_ in self.info.fields.items()
        }
        origin = texts([body.origin for body in bodies])
        source = texts([body.source for body in bodies]) if isinstance_text(self.info) else _same(len(bodies), "")
        return Read(at, np.zeros(len(at), np.int64), fields, origin, source, rejected)

    def _problem(self, body: Any) -> str | None:
        if body.origin not in ORIGINS:
            return f"origin is {body.origin!r}; it must be one of {', '.join(ORIGINS)}"
        for name, allowed in self._listed.items():
            value = getattr(body, self._names[name])
            if value is not None and value not in allowed:
                return f"`{name}` is {value!r}; it must be one of {sorted(allowed)!r}"
        return None


def isinstance_text(info: CaseInfo) -> bool:
    """Tell whether the events of a case say their source in text, as all do unless the case has such a field."""
    return "source" not in info.fields or info.fields["source"].kind == "string"


def _wire(type_: Type) -> Any:
    kinds: Mapping[str, Any] = {
        "int": _INT64,
        "float": float,
        "string": str,
        "boolean": bool,
        "map": dict,
        "list": list,
    }
    if _literal(type_):
        kind: Any = Literal[type_.values]
    elif type_.kind == "list" and type_.item is not None and type_.item.kind in kinds:
        kind = list[_wire(type_.item) | None]  # type: ignore[misc]
    else:
        kind = kinds.get(type_.kind, Any)
    return kind | None if type_.optional and kind is not Any else kind


def _literal(type_: Type) -> bool:
    return bool(type_.values) and type_.kind in ("string", "int")


def _default(type_: Type) -> tuple[Any, ...]:
    return (None,) if type_.optional or type_.kind in ("any", "null") else ()


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
        at = _of_type(batch, self.type)
        if rows is None or not len(rows):
            return _nothing(self.info, batch)
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
            name: _from_floats(values[name][kept], self.info.fields[name], ~there[name][kept])
            if name in values
            else _enveloped(batch, name, at[kept], self.info.fields[name])
            for name in self.info.fields
        }
        return _read_plain(at[kept], np.zeros(len(kept), np.int64), fields)


class HealthEvents:
    """Layers: one item for each layer of each event; a field that no layer was measured for is unknown."""

    type = "health.layer"

    def __init__(self, info: CaseInfo) -> None:
        self.info = info

    def read(self, batch: Batch) -> Read:
        """Return the items, from the columns of the projected layers."""
        rows = LayerHealthRows().fold(batch).get("layer_health")
        at = _of_type(batch, self.type)
        if rows is None or not len(rows):
            return _nothing(self.info, batch)
        place = batch.seq[at] * (1 << 20) + batch.idx[at]
        owner = at[np.searchsorted(place, np.asarray(rows["seq"]) * (1 << 20) + np.asarray(rows["idx"]))]
        depth = np.asarray(rows["depth"]).astype(np.int64)
        fields = {name: self._field(batch, rows, name, type_, owner, depth) for name, type_ in self.info.fields.items()}
        return _read_plain(owner, depth, fields)

    def _field(self, batch: Batch, rows: Any, name: str, type_: Type, owner: Places, depth: Ints) -> Values:
        if name == "layer":
            words: Words = rows["layer"]
            return _fitting(Text(words.codes, words.words), type_)
        if name == "depth":
            return _fitting(Integer(depth), type_)
        if name in SIGNALS:
            column = rows[name].to_numpy(zero_copy_only=False).astype(np.float64)
            return _from_floats(column, type_)
        return _enveloped(batch, name, owner, type_) if name in ENVELOPE else _unknown(len(owner), type_)


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
                fields[name] = _enveloped(batch, name, at, type_)
            else:
                fields[name] = _maker(type_)([_checked(value, type_) for value in values])
        return _read_plain(at, np.zeros(len(at), np.int64), fields)


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


def _from_floats(
    values: "npt.NDArray[np.float64]", type_: Type, missing: "npt.NDArray[np.bool_] | None" = None
) -> Values:
    """Return numbers as a declared field has them."""
    kind = kind_of(type_)
    if kind == "int":
        with np.errstate(invalid="ignore"):
            whole = np.isfinite(values) & (np.abs(values) < 2**63) & (values == np.floor(values))
            return Integer(np.where(whole, values, 0.0).astype(np.int64), ~whole)
    if kind == "flag":
        return Flag(values == 1.0, values == 0.0)
    return Number(values, missing) if kind == "number" else _unknown(len(values), type_)


def _enveloped(batch: Batch, name: str, at: Places, type_: Type) -> Values:
    """Return a field of the envelope; `time` is in unix nanoseconds."""
    if name == "run":
        return _fitting(Text(batch.run.codes[at], batch.run.words), type_)
    if name == "step":
        step: Gaps = batch.step[at]
        return _fitting(Integer(step.numbers, step.missing), type_)
    column: Ints = {"attempt": batch.attempt, "rank": batch.rank, "time": batch.time}[name][at]
    return _fitting(Integer(column), type_)


def _fitting(value: Text | Integer, type_: Type) -> Values:
    kind = kind_of(type_)
    if isinstance(value, Text):
        return value if kind == "text" else _unknown(len(value), type_)
    if kind == "number":
        return Number(value.floats())
    return value if kind == "int" else _unknown(len(value), type_)


def _maker(type_: Type) -> Callable[[Sequence[Any]], Values]:
    return _MAKE.get(kind_of(type_), lists)


def _unknown(length: int, type_: Type) -> Values:
    return _maker(type_)([None] * length)


def _nothing(info: CaseInfo, batch: Batch) -> Read:
    none = np.empty(0, np.intp)
    return _read_plain(none, np.empty(0, np.int64), {name: _unknown(0, type_) for name, type_ in info.fields.items()})


def _read_plain(at: Places, part: Ints, fields: Mapping[str, Values]) -> Read:
    return Read(at, part, fields, _same(len(at), "measured"), _same(len(at), ""))
