"""The table of a case: one row an item, measured or not; a case that is bound to layer health is a view over it."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from morphogen.schemas import SIGNALS
from morphogen.schemas.knowledge.cases import structure, type_of
from morphogen.schemas.knowledge.program import CaseInfo
from morphogen.schemas.knowledge.stream import Flag, Integer, Lists, Number, Text, Values

from ..fold.arrays import Gaps, Words, flags
from ..fold.batch import Batch
from ..fold.rows import Columns
from ..projection import FRONT, Projection, Rows
from .items import ENVELOPE, Read, is_whole, kind_of
from .naming import case_table, columns_of
from .sources import once, source_of
from .sql import Relation, quoted

_SQL = {"number": "DOUBLE", "int": "BIGINT", "text": "VARCHAR", "flag": "BOOLEAN"}
_CAST = {"number": "DOUBLE", "int": "BIGINT", "text": "VARCHAR"}


def table_of(info: CaseInfo) -> str:
    """Return the table, or view, that holds the items of a case."""
    return case_table(info.system, info.case.name)


def relation_of(info: CaseInfo) -> Relation:
    """Return how SQL finds the items of a case."""
    columns = columns_of(info.fields)
    layered = info.source == "health.layer"
    order = ("seq", "idx", "part") if layered else ("seq", "idx")
    floats = frozenset(name for name, type_ in info.fields.items() if kind_of(type_) == "number")
    return Relation(table_of(info), columns, order, (*FRONT, "part", *columns.values()), floats)


def case_views(info: CaseInfo) -> dict[str, str]:
    """Return the view that a case is where its items lie in the table of layer health already; nothing otherwise."""
    if info.source != "health.layer":
        return {}
    parts = []
    for name, column in columns_of(info.fields).items():
        kind = _CAST.get(kind_of(info.fields[name]))
        known = name in SIGNALS or name in ("layer", "depth") or name in ENVELOPE
        text_wanted, text_there = kind == "VARCHAR", name in ("layer", "run")
        if kind is None or not known or text_wanted != text_there:
            parts.append(f"NULL::{_CAST.get(kind_of(info.fields[name]), 'VARCHAR')} AS {quoted(column)}")
        elif name in SIGNALS and kind == "BIGINT":
            parts.append(
                f"CASE WHEN isfinite({name}) AND {name} = floor({name}) THEN {name}::BIGINT END AS {quoted(column)}"
            )
        else:
            value = "epoch_ns(time)" if name == "time" else quoted(name)
            parts.append(f"{value}::{kind} AS {quoted(column)}")
    front = ", ".join(quoted(name) for name in FRONT)
    fields = "".join(f", {part}" for part in parts)
    return {
        table_of(info): f"SELECT {front}, depth AS part{fields}, 'measured' AS origin, '' AS source FROM layer_health"
    }


class CaseTable(Projection):
    """Items of one case. Make one with `case_projection`."""

    def __init__(self, info: CaseInfo) -> None:
        self.info = info
        self.source = source_of(info)
        self.table = table_of(info)

    def depends(self) -> tuple[str, ...]:
        """Return what the case declares: another declaration is another table."""
        return (structure(self.info),)

    def fold(self, batch: Batch) -> Rows:
        """Return a row for each item, and one for each event that is none."""
        read = once(self.source, batch)
        rows: dict[str, Columns] = {}
        if len(read.at):
            said = {"origin": read.origin, "source": read.source}
            more = {name: Words(text.codes, text.words) for name, text in said.items()}
            rows[self.table] = Columns({**item_columns(self.info, read, batch), **more})
        if read.rejected:
            places = np.array([place for place, _ in read.rejected], np.intp)
            reasons = [reason for _, reason in read.rejected]
            rows[f"_{self.table}_no"] = Columns({**_front(batch, places), "reason": reasons})
        return rows


@cache
def _class_of(table: str, type_: str, columns: str) -> type[CaseTable]:
    """Return the class of a case's table; the columns decide it, so that equal ones share it."""

    class Made(CaseTable, name=table, version=1, types=(type_,)):
        tables: Mapping[str, str] = {table: columns, f"_{table}_no": "reason VARCHAR"}

    return Made


def case_projection(info: CaseInfo) -> CaseTable | None:
    """Return the projection of a case, or None where its items lie in a table of the log already."""
    if info.source == "health.layer":
        return None
    kinds = [f"{quoted(name)} {kind}" for name, kind in sql_columns(info).items()]
    columns = ", ".join(["part INTEGER", *kinds, "origin VARCHAR", "source VARCHAR"])
    return _class_of(table_of(info), source_of(info).type, columns)(info)


def sql_columns(info: CaseInfo) -> dict[str, str]:
    """Return the columns of a case's fields, with their DuckDB types."""
    names = columns_of(info.fields)
    return {names[name]: _SQL.get(kind_of(type_), "JSON") for name, type_ in info.fields.items()}


def item_columns(info: CaseInfo, read: Read, batch: Batch) -> dict[str, Any]:
    """Return place, envelope and fields of the items of a batch; made once for all tables that show them."""

    def make() -> dict[str, Any]:
        names = columns_of(info.fields)
        fields = {names[name]: shown_column(value) for name, value in read.fields.items()}
        return {**_front(batch, read.at), "part": read.part.astype(np.int32), **fields}

    return batch.once(("item columns", type_of(info), structure(info)), make)


def shown_column(value: Values) -> Any:
    """Return a column as tables take it."""
    match value:
        case Number(values=values, missing=missing):
            return values if missing is None else Gaps(values, missing)
        case Integer(values=values, missing=missing):
            return Gaps(values, missing)
        case Text(codes=codes, words=words):
            return Words(codes, list(words))
        case Flag(true=true, false=false):
            return flags(true, ~(true | false))
        case Lists(values=values):
            return list(values)


def _front(batch: Batch, at: Any) -> dict[str, Any]:
    every: tuple[Any, ...] = (batch.seq, batch.idx, batch.run, batch.attempt, batch.rank, batch.step, batch.time)
    whole = is_whole(at, batch)
    return {name: array if whole else array[at] for name, array in zip(FRONT, every, strict=True)}
