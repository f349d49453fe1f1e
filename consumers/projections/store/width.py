"""How many threads DuckDB has for a commit.

With one, nothing is handed from core to core, and a commit of a few rows takes three quarters of the time. But one alone
writes many rows by another plan, which takes half as long again.
"""

import contextlib
from typing import Any

import duckdb

_MANY = 2 * 122_880  # rows: two row groups, which is what two threads can share
_FEW = 4096  # rows; between the two it stays as it is, for a change waits for queries that have a thread
_WIDE = 2  # threads at least, for many rows


class Width:
    """The threads of a DuckDB instance whose owner wants `threads` of them when there is little to do."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.now = threads

    def fit(self, con: duckdb.DuckDBPyConnection, rows: int) -> None:
        """Have the threads that a commit of so many rows wants; to be called outside of transactions."""
        if self.now < _WIDE and rows >= _MANY:
            self._set(con, _WIDE)
        elif self.now > self._threads and rows <= _FEW:
            self._set(con, self._threads)

    def _set(self, con: Any, threads: int) -> None:
        self.now = threads
        with contextlib.suppress(duckdb.Error):  # it only takes longer
            con.execute(f"SET GLOBAL threads = {threads}")
