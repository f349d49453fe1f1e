"""Content hashes of tables: equal where two stores hold the same rows, whatever their order and storage."""

import duckdb

from .layout import row_hash

Bucket = tuple[int, int, str]
"""(first sequence, rows, hash) of a range of sequences."""


def content_hash(con: duckdb.DuckDBPyConnection, table: str) -> tuple[int, str]:
    """Return the number of rows of a table or view, and a hash over all of its columns."""
    row = con.execute(
        "SELECT count(*), coalesce(sum(h), 0), coalesce(bit_xor(h), 0) "
        f'FROM (SELECT {row_hash(_columns(con, table))} AS h FROM "{table}")'
    ).fetchone()
    assert row is not None
    return int(row[0]), _text(row[1], row[2])


def bucket_hashes(con: duckdb.DuckDBPyConnection, table: str, *, bucket: int, after: int = 0) -> list[Bucket]:
    """Return a hash for each range of `bucket` sequences beyond `after`; empty ranges are left out."""
    columns = _columns(con, table)
    if "seq" not in {name for name, _ in columns}:
        raise ValueError(f"{table!r} has no column seq: compare the tables that it is made of")
    rows = con.execute(
        f"SELECT (seq // {int(bucket)}) * {int(bucket)} AS start, count(*), sum(h), bit_xor(h) "
        f'FROM (SELECT seq, {row_hash(columns)} AS h FROM "{table}" WHERE seq > {int(after)}) '
        "GROUP BY start ORDER BY start"
    ).fetchall()
    return [(int(start), int(count), _text(total, mixed)) for start, count, total, mixed in rows]


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in con.execute(f'DESCRIBE "{table}"').fetchall()]


def _text(total: int, mixed: int) -> str:
    return f"{int(total) % 2**64:016x}{int(mixed):016x}"
