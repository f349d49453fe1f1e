"""Items of one case in one batch, as columns: what every source returns, and how fields become columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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

from ..fold.arrays import Gaps
from ..fold.batch import Batch

Places = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]

ENVELOPE = ("run", "attempt", "rank", "step", "time")
"""What a bound case may name as a field besides what its events say."""

_KINDS: Mapping[str, Kind] = {"int": "int", "float": "number", "string": "text", "boolean": "flag", "list": "list"}
_MAKE: Mapping[str, Callable[[Sequence[Any]], Values]] = {
    "number": numbers, "int": integers, "text": texts, "flag": flags, "list": lists,
}  # fmt: skip


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
        at: Any = slice(None) if is_whole(self.at, batch) else self.at
        return Items(
            batch.seq[at], batch.idx[at].astype(np.int64), self.part, Text(run.codes[at], run.words), batch.time[at],
            self.fields, self.measured,
        )  # fmt: skip

    @property
    def measured(self) -> "npt.NDArray[np.bool_]":
        """Which items were measured."""
        table = np.array([*(word == "measured" for word in self.origin.words), False], np.bool_)
        return table[self.origin.codes]


def is_whole(at: Places, batch: Batch) -> bool:
    """Tell whether places in a batch are all that it has, each once."""
    return len(at) == len(batch) and bool((at[1:] > at[:-1]).all())


def kind_of(type_: Type) -> Kind:
    """Return what a field is to a condition; `nothing` for what no condition can look into."""
    return _KINDS.get(type_.kind, "nothing")


def kinds_of(info: CaseInfo) -> dict[str, Kind]:
    """Return what each field of a case is to a condition."""
    return {name: kind for name, type_ in info.fields.items() if (kind := kind_of(type_)) != "nothing"}


def same_word(length: int, word: str) -> Text:
    """Return a column that has one word in every row."""
    return Text(np.zeros(length, np.int32), [word])


def of_type(batch: Batch, type_: str) -> Places:
    """Return the places in a batch of the events of one type."""
    kinds = batch.kinds
    if type_ not in kinds.words:
        return np.empty(0, np.intp)
    return np.flatnonzero(kinds.codes == list(kinds.words).index(type_))


def from_floats(
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
    return Number(values, missing) if kind == "number" else unknown(len(values), type_)


def enveloped(batch: Batch, name: str, at: Places, type_: Type) -> Values:
    """Return a field of the envelope; `time` is in unix nanoseconds."""
    if name == "run":
        return fitting(Text(batch.run.codes[at], batch.run.words), type_)
    if name == "step":
        step: Gaps = batch.step[at]
        return fitting(Integer(step.numbers, step.missing), type_)
    column: Ints = {"attempt": batch.attempt, "rank": batch.rank, "time": batch.time}[name][at]
    return fitting(Integer(column), type_)


def fitting(value: Text | Integer, type_: Type) -> Values:
    """Return a column as a field of this type has it: unknown where it is of another kind."""
    kind = kind_of(type_)
    if isinstance(value, Text):
        return value if kind == "text" else unknown(len(value), type_)
    if kind == "number":
        return Number(value.floats())
    return value if kind == "int" else unknown(len(value), type_)


def maker(type_: Type) -> Callable[[Sequence[Any]], Values]:
    """Return what makes a column of a field from Python values."""
    return _MAKE.get(kind_of(type_), lists)


def unknown(length: int, type_: Type) -> Values:
    """Return a column of which nothing is known."""
    return maker(type_)([None] * length)


def nothing(info: CaseInfo) -> Read:
    """Return that a batch has no item of a case."""
    none = np.empty(0, np.intp)
    return read_plain(none, np.empty(0, np.int64), {name: unknown(0, type_) for name, type_ in info.fields.items()})


def read_plain(at: Places, part: Ints, fields: Mapping[str, Values]) -> Read:
    """Return items that were all measured, by nobody in particular."""
    return Read(at, part, fields, same_word(len(at), "measured"), same_word(len(at), ""))
