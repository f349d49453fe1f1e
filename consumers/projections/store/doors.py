"""Where rows come into DuckDB: Arrow tables behind statements that are planned once.

Registering a table and planning an INSERT cost more than inserting a few rows does. So a door is registered and its
statement prepared once for each table and Arrow schema; DuckDB asks the door for its rows each time it runs.
"""

from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa

from . import layout
from .generation import Generation


class Doors:
    """The doors of one connection."""

    def __init__(self) -> None:
        self._doors: dict[tuple[str, str, str], _Door] = {}
        self._moves: dict[tuple[int, ...], str] = {}

    def insert(
        self, con: duckdb.DuckDBPyConnection, generation: Generation, table: str, rows: pa.Table, threads: int = 1
    ) -> None:
        """Insert rows into a table of a generation, within the connection's transaction, where DuckDB has `threads`."""
        key = (generation.schema, table, str(rows.schema))
        door = self._doors.get(key)
        if door is None:
            door = self._doors[key] = _Door(f"incoming_{len(self._doors)}", rows)
            con.register(door.name, door)
        door.rows = rows
        try:
            if threads not in door.planned:
                columns = generation.projection.columns[table]
                insert = layout.insert_from(generation.schema, table, columns, door.name)
                con.execute(f"PREPARE put_{door.name}_{threads} AS {insert}")
                door.planned.add(threads)
            con.execute(f"EXECUTE put_{door.name}_{threads}")
        finally:
            door.rows = None

    def move(self, con: duckdb.DuckDBPyConnection, generations: Sequence[int], seq: int) -> None:
        """Set the position of these generations, within the connection's transaction."""
        key = tuple(generations)
        if not key:
            return
        name = self._moves.get(key)
        if name is None:
            name = f"move_{len(self._moves)}"
            con.execute(f"PREPARE {name} AS UPDATE morphogen.positions SET seq = $1::BIGINT WHERE {_among(key)}")
            self._moves[key] = name
        con.execute(f"EXECUTE {name}({int(seq)})")


class _Door:
    """Where rows come in for one table; DuckDB asks for them anew at each statement."""

    def __init__(self, name: str, rows: pa.Table) -> None:
        self.name = name
        self.rows: pa.Table | None = rows
        self.planned = set[int]()  # numbers of threads for which the statement that takes them is prepared

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        assert self.rows is not None
        return self.rows.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        assert self.rows is not None
        return self.rows.schema.__arrow_c_schema__()


def _among(ids: Iterable[int]) -> str:
    """Return a condition on `id` by ranges: DuckDB makes a join of a list, which takes longer than all the rest."""
    ranges: list[tuple[int, int]] = []
    for one in sorted(set(ids)):
        if ranges and ranges[-1][1] == one - 1:
            ranges[-1] = ranges[-1][0], one
        else:
            ranges.append((one, one))
    return " OR ".join(f"id BETWEEN {first} AND {last}" for first, last in ranges)
