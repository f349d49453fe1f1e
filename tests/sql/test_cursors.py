"""Cursors that serve query after query: nothing of one may reach the next."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from morphogen.consumers.projections.sql.cursors import Cursors
from morphogen.consumers.projections.sql.errors import SqlError, SqlRefused
from morphogen.consumers.projections.sql.sandbox import Limits, Query
from morphogen.consumers.projections.sql.statements import check
from morphogen.consumers.projections.store import Store

from ..projections.conftest import new_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with new_store(tmp_path / "store.duckdb") as store:
        yield store


def asked(cursors: Cursors, sql: str, limits: Limits | None = None, as_of: int | None = None) -> tuple[Query, bool]:
    """Ask as the service does; return the query, and whether its cursor had served before."""
    limits = limits or Limits()
    cursor, limited = cursors.take(limits)
    query = Query(cursor, sql, limits=limits, limited=limited, as_of=as_of)
    with query:
        list(query.batches())
    if query.reusable:
        cursors.give(cursor, limits)
    return query, limited


def test_a_cursor_serves_the_next_query_of_the_same_limits_only(store: Store) -> None:
    cursors = Cursors(store)

    served = [
        asked(cursors, "SELECT 1")[1],
        asked(cursors, "SELECT 2", Limits(rows=1))[1],
        asked(cursors, "SELECT 3", Limits(seconds=5))[1],
        asked(cursors, "SELECT 4", Limits(memory=64 << 20))[1],
        asked(cursors, "SELECT 5", Limits(seconds=5))[1],
    ]

    assert served == [False, True, False, False, True]
    cursors.clear()
    assert not asked(cursors, "SELECT 6")[1]


def test_a_query_that_went_wrong_or_left_something_takes_its_cursor_along(store: Store) -> None:
    cursors = Cursors(store)

    assert not asked(cursors, "SELECT 1", as_of=0)[0].reusable
    with pytest.raises(SqlError):
        asked(cursors, "SELECT nothing FROM nowhere")
    assert not asked(cursors, "SELECT 1")[1]


def test_the_limits_of_a_cursor_hold_for_whoever_takes_it_next(store: Store) -> None:
    cursors = Cursors(store)
    limits = Limits(seconds=0.2)
    asked(cursors, "SELECT 1", limits)

    with pytest.raises(SqlError, match="stopped after"):
        asked(cursors, "SELECT count(*) FROM range(100000000000)", limits)


def test_each_query_sees_the_tables_as_they_are_when_it_is_asked(store: Store) -> None:
    cursors = Cursors(store)
    asked(cursors, "SELECT count(*) FROM events")
    store.cursor().execute("CREATE TABLE more AS SELECT 1 AS a")

    query, served = asked(cursors, "SELECT * FROM more")

    assert served
    assert query.rows == 1


def test_a_text_is_judged_the_same_the_second_time(store: Store) -> None:
    for _ in range(2):
        check(store.cursor(), "SELECT 41 + 1")
        with pytest.raises(SqlRefused):
            check(store.cursor(), "DROP TABLE events")
        with pytest.raises(SqlRefused):
            check(store.cursor(), "SELECT * FROM read_csv('/etc/passwd')")
        with pytest.raises(SqlRefused):
            check(store.cursor(), "SELECT setseed(0.5)")  # it would reach the next query of the cursor
