"""Whose store a file is: written into an empty file, and checked in any other."""

from pathlib import Path

import duckdb

from ..errors import StoreDamaged
from . import layout
from .duckfile import MEND


def claim(con: duckdb.DuckDBPyConnection, path: Path, epoch: str) -> None:
    """Make an empty file the store of the log `epoch`, within a transaction. Raises StoreDamaged where it is another's."""
    made = con.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'morphogen' AND table_name = 'store'"
    ).fetchone()
    others = con.execute("SELECT count(*) FROM duckdb_tables()").fetchone()
    assert made is not None
    assert others is not None
    if made[0] == 0 and others[0]:
        raise StoreDamaged(f"{path} is a DuckDB file, but no store of Morphogen: move it away")
    if made[0] == 0:
        con.execute(layout.META)
        con.execute("INSERT INTO morphogen.store VALUES (?, ?)", [layout.FORMAT, epoch])
    row = con.execute("SELECT format, epoch FROM morphogen.store").fetchone()
    if row is None:
        raise StoreDamaged(f"{path} does not say which log it belongs to: {MEND}")
    if row[0] != layout.FORMAT:
        raise StoreDamaged(f"{path} has store format {row[0]}, this version writes {layout.FORMAT}: {MEND}")
    if row[1] != epoch:
        raise StoreDamaged(f"{path} was made from log {row[1]}, not from {epoch}: {MEND}")
