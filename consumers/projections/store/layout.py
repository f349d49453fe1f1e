"""How projections lie in the DuckDB file: schemas, tables, views, and the SQL that makes them.

morphogen.store                  what this file is: its format and the epoch of its log
morphogen.views                  the public views as they were made
morphogen.positions              one row a generation: how far it has folded, with its state
morphogen.parts                  states that are kept in parts, by generation and key
p_<projection>_<generation>.*    the tables of one generation; they only grow
main.<table>, main.<view>        what people read: the live generation, as of a position where one is set
"""

from collections.abc import Iterable, Mapping

from ..fold.rows import DOCUMENTS
from ..projection import FRONT, Projection

FORMAT = 1
AS_OF = "CASE WHEN getvariable('as_of') IS NULL THEN true ELSE seq <= getvariable('as_of')::BIGINT END"
"""Cuts every public table at the connection's variable `as_of`. Without one it is `true` by the time a query is planned:
any comparison left standing would keep DuckDB from leaving out the join in `events`."""

META = """
    CREATE SCHEMA morphogen;
    CREATE TABLE morphogen.store(format INTEGER, epoch VARCHAR);
    CREATE TABLE morphogen.views(name VARCHAR, projection VARCHAR, sql VARCHAR);
    CREATE TABLE morphogen.positions(
        id INTEGER, projection VARCHAR, version INTEGER, signature VARCHAR, generation INTEGER, epoch VARCHAR,
        seq BIGINT, state BLOB, live BOOLEAN, error VARCHAR
    );
"""


_NUMBERS = tuple(name for name, kind in FRONT.items() if kind != "VARCHAR")
# What DuckDB would choose by itself, after it has tried all others at length.
_RUNS = " USING COMPRESSION rle"


PARTS = "CREATE TABLE IF NOT EXISTS morphogen.parts(id INTEGER, key VARCHAR, state BLOB)"
"""States that are kept in parts, by generation."""


def schema_of(projection: str, generation: int) -> str:
    """Return the schema that holds the tables of one generation."""
    return f"p_{projection}_{generation}"


def create_generation(projection: Projection, generation: int) -> str:
    """Return the statements that make the empty tables of a generation."""
    schema = schema_of(projection.name, generation)
    statements = [f"CREATE SCHEMA {schema}"]
    for table, columns in projection.columns.items():
        runs = _NUMBERS if table in projection.repeating else ()
        declared = ", ".join(f'"{name}" {kind}{_RUNS if name in runs else ""}' for name, kind in columns.items())
        statements.append(f"CREATE TABLE {schema}.{table}({declared})")
    return "; ".join(statements)


def insert_from(schema: str, table: str, columns: Mapping[str, str], source: str) -> str:
    """Return the statement that moves a registered Arrow table into a table."""
    values = ", ".join(
        f'"{name}"::JSON::VARIANT' if kind == "VARIANT" else f'"{name}"' for name, kind in columns.items()
    )
    return f"INSERT INTO {schema}.{table} SELECT {values} FROM {source}"


def table_views(projection: Projection, generation: int) -> dict[str, str]:
    """Return the views over a generation's tables, by name."""
    schema = schema_of(projection.name, generation)
    views: dict[str, str] = {}
    for table, columns in projection.columns.items():
        names = ", ".join(f'"{name}"' for name in columns)
        every = f"SELECT {names} FROM {schema}.{table} WHERE {AS_OF}"
        key = projection.keys.get(table)
        if key is None:
            views[table] = every
            continue
        parts = ", ".join(f'"{name}"' for name in key)
        newest = f"row_number() OVER (PARTITION BY {parts} ORDER BY seq DESC, idx DESC, rowid DESC) = 1"
        views[f"{table}_versions"] = every
        views[table] = f"{every} QUALIFY {newest}"
    return views


def row_hash(columns: Iterable[tuple[str, str]]) -> str:
    """Return an expression that hashes a row over all columns; nested documents by their text, NULL unlike NaN."""
    return f"hash({', '.join(_hashable(name, kind) for name, kind in columns)})"


def _hashable(name: str, kind: str) -> str:
    nested = kind in DOCUMENTS or any(word in kind for word in ("VARIANT", "JSON", "MAP("))
    return f'"{name}"::JSON::VARCHAR' if nested else f'"{name}"'
