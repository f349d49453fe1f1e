"""A generation that was made anew takes the older one's place in one step, for whoever looks."""

from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from morphogen.consumers.projections import Store
from morphogen.consumers.projections.store import store as storing
from morphogen.consumers.projections.store.generation import Folded
from morphogen.schemas import Metrics

from .conftest import Log


def standing(store: Store) -> list[tuple[int, bool]]:
    return [(one.generation, one.live) for one in store.status() if one.projection == "metrics"]


@pytest.fixture
def store(log: Log, open_store: Callable[..., Store], catch_up: Callable[..., int]) -> Store:
    log.write(Metrics(values={"loss": 1.0}))
    made = open_store()
    catch_up(made, log)
    return made


def test_a_generation_is_told_live_only_when_its_tables_answer(
    log: Log, store: Store, catch_up: Callable[..., int], ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[tuple[int, bool]], int]] = []
    real = storing.replace_views

    def look(*given: Any) -> None:
        seen.append((standing(store), store.position()))
        real(*given)

    monkeypatch.setattr(storing, "replace_views", look)
    store.rebuild(["metrics"])
    catch_up(store, log)

    assert seen == [([(1, True), (2, False)], 1)]
    assert standing(store) == [(2, True)]
    assert "p_metrics_2" in ask(store, "SELECT sql FROM duckdb_views() WHERE view_name = 'metrics'")[0][0]
    assert ask(store, "SELECT count(*) FROM metrics") == [(1,)]


def test_a_swap_that_fails_leaves_the_older_generation_live(
    store: Store, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (new,) = store.rebuild(["metrics"])

    def fail(*_: Any) -> None:
        raise duckdb.IOException("no space left")

    with monkeypatch.context() as patch, pytest.raises(duckdb.IOException):
        patch.setattr(storing, "replace_views", fail)
        store.swap([new])

    assert standing(store) == [(1, True), (2, False)]
    assert ask(store, "SELECT count(*) FROM metrics") == [(1,)]


def test_one_whose_place_another_rebuild_took_is_not_swapped_in(
    log: Log, store: Store, catch_up: Callable[..., int], ask: Callable[..., Any]
) -> None:
    first = store.rebuild(["metrics"])
    store.rebuild(["metrics"])
    store.swap(first)

    assert standing(store) == [(1, True), (3, False)]
    assert ask(store, "SELECT count(*) FROM metrics") == [(1,)]
    catch_up(store, log)
    assert standing(store) == [(3, True)]
    assert ask(store, "SELECT count(*) FROM metrics") == [(1,)]


def test_a_commit_of_one_that_was_dropped_moves_none_that_got_its_id(
    store: Store, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (dropped,) = store.rebuild(["metrics"])
    store._drop(dropped)
    (new,) = store.rebuild(["metrics"])
    assert new.id == dropped.id

    folded = Folded(1, 1, [], [dropped], states={dropped: 1}, encoded={dropped: b"state"})
    store.commit(folded)
    store.commit(Folded(1, 1, [], [dropped], failed={dropped: "why"}))

    assert ask(store, f"SELECT seq, state, error FROM morphogen.positions WHERE id = {new.id}") == [(0, None, None)]
    assert store.holds(Folded(1, 1, [], [*store.live, dropped]))
