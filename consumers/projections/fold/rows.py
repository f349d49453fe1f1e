"""What a fold returns: columns of a table, and how they become an Arrow table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .arrays import text, to_arrow
from .body_json import to_json
from .nested import is_shaped, shaped

if TYPE_CHECKING:
    from ..projection import Projection
    from .batch import Batch

Values = Any
"""A column: a numpy array, `Words`, `Gaps`, a list of plain values, or an Arrow array."""

Made = dict[tuple[int, str], tuple[pa.Array, Values]]
"""Arrow arrays by the identity of the column and the DuckDB type that they were made for, with the column itself."""

DOCUMENTS = ("VARIANT", "JSON")
"""DuckDB types of columns whose values are nested: they travel as JSON text."""


class Columns:
    """Rows of one table, column by column, all of the same length."""

    def __init__(self, columns: Mapping[str, Values]) -> None:
        self.columns = dict(columns)
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            sizes = ", ".join(f"{name} {len(column)}" for name, column in self.columns.items())
            raise ValueError(f"columns of one table differ in length: {sizes}")
        self._length = lengths.pop() if lengths else 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, name: str) -> Values:
        return self.columns[name]

    def arrow(self, types: Mapping[str, str], made: "Made | None" = None) -> pa.Table:
        """Return the rows as an Arrow table for a DuckDB table with these columns and types, which must be all here.

        `made` keeps what was made of a column for the tables that are to come: those of one batch share many.
        """
        columns = self.columns
        if columns.keys() != types.keys():
            if missing := [name for name in types if name not in columns]:
                raise ValueError(f"the fold returned no column {', '.join(missing)}")
            extra = [name for name in columns if name not in types]
            raise ValueError(f"the fold returned {', '.join(extra)}, which the table does not declare")
        if made is None:
            made = {}
        arrays = []
        for name, kind in types.items():
            values = columns[name]
            found = made.get((id(values), kind))
            if found is None:
                found = made[id(values), kind] = (
                    _array(values, kind),
                    values,
                )  # held, so that its id is not given anew
            arrays.append(found[0])
        return pa.Table.from_arrays(arrays, names=list(types))


def _array(values: Values, kind: str) -> pa.Array:
    if kind in DOCUMENTS and not isinstance(values, pa.Array | pa.ChunkedArray):
        return text([None if value is None else to_json(value) for value in values])
    if is_shaped(kind) and not isinstance(values, pa.Array | pa.ChunkedArray):
        return shaped(values, kind)
    return to_arrow(values, kind)


def rows_by_event(projection: "Projection", batch: "Batch") -> dict[str, Columns]:
    """Fold a batch by the projection's `rows`, event by event."""
    wide = len(projection.tables) != 1
    only = next(iter(projection.tables), "")
    collected: dict[str, list[tuple[Any, ...]]] = {}
    for entry in batch.entries(projection.types):
        front = (entry.seq, entry.idx, entry.run, entry.attempt, entry.rank, _step(entry.step), entry.time)
        for row in projection.rows(entry):
            table, values = row if wide else (only, row)
            collected.setdefault(table, []).append((*front, *values))
    rows: dict[str, Columns] = {}
    for table, tuples in collected.items():
        if table not in projection.columns:
            raise ValueError(f"a row for table {table!r}, which is not declared")
        names = list(projection.columns[table])
        wrong = next((row for row in tuples if len(row) != len(names)), None)
        if wrong is not None:
            raise ValueError(
                f"a row of {len(wrong) - 7} values for table {table!r}, which has {len(names) - 7} columns"
            )
        rows[table] = Columns(dict(zip(names, map(list, zip(*tuples, strict=True)), strict=True)))
    return rows


def _step(step: int | None) -> int | None:
    return step if step is None or -(2**63) <= step < 2**63 else None
