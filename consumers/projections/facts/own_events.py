"""Events of a case's own type, each checked against what the case declares."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from morphogen.schemas.knowledge.cases import ORIGINS, attributes, type_of
from morphogen.schemas.knowledge.program import CaseInfo
from morphogen.schemas.knowledge.stream import texts
from morphogen.schemas.knowledge.types import Type

from ..fold.batch import Batch
from .items import Places, Read, maker, of_type, same_word
from .own_columns import LEAST, OwnColumns, Rows, together

_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class OwnEvents:
    """Events of the case's own type, each checked against what the case declares."""

    def __init__(self, info: CaseInfo) -> None:
        self.info = info
        self.type = type_of(info)
        self._names = attributes(info)
        self._columns = OwnColumns(info)
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
        at = of_type(batch, self.type)
        bodies = batch.bodies(at)
        parts = self._columns.read(bodies) if self._columns.able and len(at) >= LEAST else []
        left = np.ones(len(at), np.bool_)
        for part in parts:
            left[part.rows] = False
        rejected: list[tuple[int, str]] = []
        if left.any() or not parts:
            rows = np.flatnonzero(left)
            part, reasons = self._one_by_one(rows, [bodies.raw(row) for row in rows.tolist()])
            parts.append(part)
            rejected = [(int(at[row]), reason) for row, reason in reasons]
        found = together(parts)
        return Read(
            at[found.rows], np.zeros(len(found.rows), np.int64), found.fields, found.origin, found.source, rejected
        )

    def _one_by_one(self, rows: Places, raws: list[bytes]) -> tuple[Rows, list[tuple[int, str]]]:
        """Read events as objects; return what are items, and the others with the reason, by row."""
        reasons: dict[int, str] = {}
        try:
            bodies = self._all.decode(b"\xdd" + len(raws).to_bytes(4, "big") + b"".join(raws))
        except (msgspec.MsgspecError, ValueError):
            bodies = []
            for i, raw in enumerate(raws):
                try:
                    bodies.append(self._one.decode(raw))
                except (msgspec.MsgspecError, ValueError) as error:
                    bodies.append(None)
                    reasons[i] = str(error)
        strange = {body.origin for body in bodies if body is not None} - set(ORIGINS)
        if strange or reasons or self._listed:
            for i, body in enumerate(bodies):
                if body is not None and (reason := self._problem(body)):
                    reasons[i] = reason
            kept = [i for i in range(len(bodies)) if i not in reasons]
            bodies, items = [bodies[i] for i in kept], rows[kept]
        else:
            items = rows
        fields = {
            name: maker(type_)(list(map(attrgetter(self._names[name]), bodies)))
            for name, type_ in self.info.fields.items()
        }
        origin = texts([body.origin for body in bodies])
        source = texts([body.source for body in bodies]) if isinstance_text(self.info) else same_word(len(bodies), "")
        return Rows(items, fields, origin, source), [(int(rows[i]), reasons[i]) for i in sorted(reasons)]

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
