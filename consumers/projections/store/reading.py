"""What is read from the store while commits go on: each time on a connection of its own."""

import contextlib
from collections.abc import Iterator

import duckdb

from ..fold.batch import Lane
from .hashes import Bucket, bucket_hashes, content_hash
from .standing import Standing


class Readable(Standing):
    """A store's tables and views, for whoever only looks."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        super().__init__()
        self._con = con

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own for reading (another thread may use it while commits go on)."""
        return self._con.cursor()

    def lanes(self, upto: int) -> dict[Lane, int]:
        """Return the last counter folded in each lane, as of a position."""
        found = [one for one in self.generations if one.projection.name == "frames" and one.seq >= upto]
        if not found or upto == 0:
            return {}
        rows = self._con.execute(
            f"SELECT run, family, writer, max(last) FROM {found[0].schema}._frames WHERE seq <= ? GROUP BY ALL", [upto]
        ).fetchall()
        return {(run, family, writer): last for run, family, writer, last in rows}

    def seq_at(self, time_ns: int) -> int:
        """Return the last sequence that the broker had stored by a time (unix ns), 0 where there was none."""
        row = (
            self.cursor()
            .execute("SELECT coalesce(max(seq), 0) FROM frames WHERE stored <= make_timestamp_ns(?)", [time_ns])
            .fetchone()
        )
        return int(row[0]) if row else 0

    def newest_ns(self) -> int | None:
        """Return when the broker stored the newest message that is in the tables (unix ns), None where there is none."""
        row = self.cursor().execute("SELECT epoch_ns(max(stored)) FROM frames").fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def tables(self) -> list[str]:
        """Return the names of all tables of live generations, hidden ones too."""
        return [table for one in self.generations if one.live and not one.hidden for table in one.projection.tables]

    def views(self) -> list[str]:
        """Return the names of everything that people may read."""
        rows = (
            self.cursor()
            .execute(
                "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal "
                "AND NOT starts_with(view_name, '_') ORDER BY view_name"
            )
            .fetchall()
        )
        return [row[0] for row in rows]

    def content_hash(self, table: str, upto: int | None = None) -> tuple[int, str]:
        """Return the rows of a table or view, and a hash over them; as it stood at `upto` where that is given."""
        with self.reading(upto) as con:
            return content_hash(con, table)

    def bucket_hashes(self, table: str, *, bucket: int = 4096, after: int = 0, upto: int | None = None) -> list[Bucket]:
        """Return a hash for each range of `bucket` sequences in a table that has a column `seq`."""
        with self.reading(upto) as con:
            return bucket_hashes(con, table, bucket=bucket, after=after)

    @contextlib.contextmanager
    def reading(self, as_of: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor on which all public tables stand as they did at position `as_of`."""
        con = self.cursor()
        try:
            if as_of is not None:
                con.execute(f"SET VARIABLE as_of = {int(as_of)}")
            yield con
        finally:
            con.close()
