"""Events of a case's own type as columns, without an object for each.

The first event says in which order the fields stand; all that stand so are read in step. What is left is tried again by
the first of it, a few times. Whatever is not plainly what the case declares is left for the reader that checks event by
event and knows the reasons.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from morphogen.schemas.knowledge.cases import ORIGINS
from morphogen.schemas.knowledge.program import CaseInfo
from morphogen.schemas.knowledge.stream import Flag, Integer, Number, Text, Values, joined
from morphogen.schemas.knowledge.types import Type

from ..builtin.alike import fields as places_of
from ..fold.envelopes import Bodies
from ..fold.lockstep import LONGEST, Lockstep
from .items import Places, kind_of, same_word, unknown

LEAST = 64
"""Events from which this is worth its calls."""

_STRIDE = 1 << 14  # events at a time, so that what is read together lies in the processor's cache
_ORDERS = 8
_PLAIN = ("number", "int", "text", "flag")


class Rows(NamedTuple):
    """Some events by their number, and what they say."""

    rows: Places
    fields: dict[str, Values]
    origin: Text
    source: Text


def together(parts: Sequence[Rows]) -> Rows:
    """Return events that were read in pieces, in their order; at least one piece."""
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    fields = {name: joined([part.fields[name] for part in parts]) for name in parts[0].fields}
    origin, source = joined([part.origin for part in parts]), joined([part.source for part in parts])
    if not (rows[1:] > rows[:-1]).all():
        order = np.argsort(rows, kind="stable")
        rows, fields = rows[order], {name: value.take(order) for name, value in fields.items()}
        origin, source = origin.take(order), source.take(order)
    assert isinstance(origin, Text)
    assert isinstance(source, Text)
    return Rows(rows, fields, origin, source)


class OwnColumns:
    """Reads events of one case; `able` tells whether it can, which it cannot where a field is a list or a map."""

    def __init__(self, info: CaseInfo) -> None:
        self._fields = info.fields
        self._needed = {name for name, type_ in info.fields.items() if not type_.optional}
        types = info.fields.values()
        self.able = all(kind_of(one) in _PLAIN and (not one.values or one.kind in ("string", "int")) for one in types)

    def read(self, bodies: Bodies) -> list[Rows]:
        """Return the events that could be read, in pieces."""
        parts = []
        for begin in range(0, len(bodies.starts), _STRIDE):
            left = np.arange(begin, min(begin + _STRIDE, len(bodies.starts)))
            for _ in range(_ORDERS):
                if len(left) < LEAST:
                    break
                found = self._like_first(bodies, left)
                if found is None:
                    left = left[1:]
                    continue
                good, part = found
                parts.append(part)
                left = left[~good]
        return parts

    def _like_first(
        self, bodies: Bodies, rows: Places
    ) -> "tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], Rows] | None":
        """Read those of some events whose fields stand as in the first; None where the first cannot be read here."""
        first = bodies.raw(rows[0])
        places = places_of(first)
        if places is None or not self._needed <= places.keys():
            return None
        step = Lockstep(bodies.data, bodies.starts[rows])
        fields: dict[str, Values] = {}
        said: dict[str, Text] = {}
        end = 0
        for name, (start, behind) in places.items():
            if start - end > LONGEST:
                return None
            key, end = first[end:start], behind
            if name not in self._fields and name in ("origin", "source") and len(key) + behind - start <= LONGEST:
                word = msgspec.msgpack.decode(first[start:behind])
                if isinstance(word, str) and step.stands(key + first[start:behind]):  # mostly all say the same
                    said[name] = same_word(len(rows), word)
                    continue
            step.literal(key)
            if name in self._fields:
                fields[name] = _column(step, self._fields[name])
            elif name in ("origin", "source"):
                said[name] = Text(*step.texts())
            else:
                step.skip()
        good = step.good & (step.at == bodies.ends[rows])
        origin = said.get("origin")
        if origin is not None:
            good &= _among(origin, ORIGINS)
        if not good[0]:
            return None
        kept = slice(None) if good.all() else np.flatnonzero(good)
        count = len(rows[kept])
        every = {
            name: fields[name].take(kept) if name in fields else unknown(count, type_)
            for name, type_ in self._fields.items()
        }
        source = (
            every["source"] if "source" in self._fields else said.get("source", same_word(len(rows), "")).take(kept)
        )
        if not isinstance(source, Text):
            source = same_word(count, "")
        origin = same_word(count, "measured") if origin is None else origin.take(kept)
        return good, Rows(rows[kept], every, origin, source)


def _column(step: Lockstep, type_: Type) -> Values:
    kind = kind_of(type_)
    if kind == "number":
        return Number(*step.floats(optional=type_.optional))
    if kind == "int":
        values, missing = step.integers(optional=type_.optional)
        if type_.values:
            step.only(np.isin(values, np.array(type_.values, np.int64)) | (False if missing is None else missing))
        return Integer(values, missing)
    if kind == "flag":
        return Flag(*step.flags(optional=type_.optional))
    text = Text(*step.texts(optional=type_.optional))
    if type_.values:
        step.only(_among(text, type_.values) | (text.codes < 0))
    return text


def _among(text: Text, allowed: Sequence[object]) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    return np.array([*(word in allowed for word in text.words), False], np.bool_)[text.codes]
