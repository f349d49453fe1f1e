"""Many rows are committed by two threads, few by one; what is in the tables does not tell."""

from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from morphogen.consumers.projections import Store
from morphogen.consumers.projections.sql.sandbox import harden
from morphogen.consumers.projections.store import width as widths
from morphogen.consumers.projections.store.width import Width
from morphogen.schemas import Metrics


def threads(con: Any) -> int:
    ((number,),) = con.execute("SELECT current_setting('threads')").fetchall()
    return int(number)


def test_the_threads_follow_the_rows_and_only_where_it_is_worth_it() -> None:
    with duckdb.connect(config={"threads": 1}) as con:
        width = Width(1)
        seen = []
        for rows in (10, 245_759, 245_760, 100_000, 4097, 4096, 10):
            width.fit(con, rows)
            seen.append((width.now, threads(con)))
        assert seen == [(n, n) for n in (1, 1, 2, 2, 2, 1, 1)]

    with duckdb.connect(config={"threads": 3}) as con:
        width = Width(3)
        for rows in (10, 10**7, 10):
            width.fit(con, rows)
            assert (width.now, threads(con)) == (3, 3)


def test_a_store_that_is_shut_off_still_commits_many_rows_with_more_threads_and_all_of_them_arrive(
    open_store: Callable[..., Store],
    catch_up: Callable[..., int],
    ask: Callable[..., list[Any]],
    log: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(widths, "_MANY", 3000)
    monkeypatch.setattr(widths, "_FEW", 1100)  # of which a few are those of other tables
    store = open_store(threads=1)
    harden(store._con)
    seen = []
    total = 0
    for count in (10, 4000, 2000, 10, 5000):
        log.write(*(Metrics(values={"loss": float(total + at)}) for at in range(count)))
        total += count
        catch_up(store, log)
        seen.append((store._width.now, threads(store._con)))

    assert seen == [(n, n) for n in (1, 2, 2, 1, 2)]
    assert ask(store, "SELECT count(*), sum(value) FROM metrics") == [(total, total * (total - 1) / 2)]
    with store.reading() as con, pytest.raises(duckdb.Error):
        con.execute("SET GLOBAL memory_limit = '10GB'")
