# ruff: noqa: RUF012  (a projection declares its tables as plain dicts)
"""Versions, rebuilds, failures and waiting: what happens while the log goes on."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from morphogen.consumers.projections import DeclarationError, Entry, PositionBeyondLog, Projection, Store, discover
from morphogen.consumers.projections.errors import FoldError
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.schemas import Event, Metrics


class Beat(Event, type="follower.beat", version=1):
    value: int


class Beats(Projection, name="beats", version=1, types=("follower.beat",)):
    tables = {"beats": "value BIGINT"}

    def rows(self, event: Entry) -> Any:
        yield (event.body.value,)


class BeatsTwo(Projection, name="beats", version=2, types=("follower.beat",)):
    tables = {"beats": "value BIGINT, double BIGINT"}
    views = {"beat_sums": "SELECT sum(double) AS total FROM beats"}

    def rows(self, event: Entry) -> Any:
        yield event.body.value, 2 * event.body.value


class BeatsOfOthers(Projection, name="beats_of_others", version=1, types=("follower.beat",)):
    tables = {"beats_again": "value BIGINT"}
    views = {"beats_of_others": "SELECT value FROM beats JOIN beats_again USING (seq, idx, value)"}

    rows = Beats.rows


class Fragile(Projection, name="fragile", version=1, types=("follower.beat",)):
    tables = {"fragile": "value BIGINT"}

    def rows(self, event: Entry) -> Any:
        if event.body.value == 3:
            raise RuntimeError("three")
        yield (event.body.value,)


class Leaving(Projection, name="leaving", version=1, types=("follower.beat",)):
    tables = {"leaving": "value BIGINT"}

    def rows(self, event: Entry) -> Any:
        raise SystemExit(3)


class WrongRows(Projection, name="wrong_rows", version=1, types=("follower.beat",)):
    tables = {"wrong_rows": "value TINYINT[]"}

    def rows(self, event: Entry) -> Any:
        yield ([event.body.value * 1000],)


class Unstorable(Projection, name="unstorable", version=1, types=("follower.beat",)):
    tables = {"unstorable": "value BIGINT"}

    def initial(self) -> Any:
        return 1

    def advance(self, state: Any, batch: Any) -> Any:
        return state * 2**20, self.fold(batch)  # soon too large for msgpack

    rows = Beats.rows


class NoBeginning(Projection, name="no_beginning", version=1, types=("follower.beat",)):
    tables = {"no_beginning": "value BIGINT"}

    def initial(self) -> Any:
        raise RuntimeError("no beginning")

    rows = Beats.rows


class Unmade(Projection, name="unmade", version=1, types=("follower.beat",)):
    tables = {"unmade": "value BIGINT"}

    def __init__(self) -> None:
        raise RuntimeError("not ready")


@contextlib.asynccontextmanager
async def following(store: Store, log: Any, **options: Any) -> AsyncIterator[Follower]:
    stop = asyncio.Event()
    follower = Follower(store, log, **options)
    task = asyncio.create_task(follower.follow(stop))
    try:
        yield follower
    finally:
        stop.set()
        await task


def beat(log: Any, *values: int) -> int:
    return log.write(*(Beat(value=value) for value in values))


def test_rows_are_visible_once_the_position_is_reached(
    log: Any, open_store: Callable[..., Store], ask: Callable[..., Any]
) -> None:
    async def story() -> None:
        store = open_store(extra=[Beats])
        async with asyncio.timeout(30), following(store, log):
            for value in range(20):
                seq = beat(log, value)
                assert await store.reached(seq, 10)
                assert ask(store, "SELECT count(*) FROM beats") == [(value + 1,)]
        assert not await store.reached(21, 0.01)
        assert store.wait(20, 0)

    asyncio.run(story())


def test_a_new_version_is_built_beside_the_old_one_and_swapped_in(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int], ask: Callable[..., Any]
) -> None:
    beat(log, 1, 2)
    store = open_store(extra=[Beats])
    catch_up(store, log)
    store.close()
    beat(log, 3)

    store = open_store(extra=[BeatsTwo])
    assert ask(store, "SELECT value FROM beats") == [(1,), (2,)]  # the old one answers until the new one is built
    assert store.position() == 1
    catch_up(store, log, batch_bytes=1)
    assert store.position() == 2

    assert ask(store, "SELECT value, double FROM beats ORDER BY 1") == [(1, 2), (2, 4), (3, 6)]
    assert ask(store, "SELECT total FROM beat_sums") == [(12,)]
    assert [(s.version, s.generation, s.live) for s in store.status() if s.projection == "beats"] == [(2, 2, True)]
    assert ask(store, "SELECT count(*) FROM duckdb_schemas() WHERE schema_name = 'p_beats_1'") == [(0,)]


def test_a_build_that_was_cut_off_goes_on_where_it_stood(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int], ask: Callable[..., Any]
) -> None:
    for value in range(6):
        beat(log, value)
    store = open_store(extra=[Beats])
    catch_up(store, log)
    store.close()

    def die(folded: Any) -> None:
        if folded.last == 3:
            raise RuntimeError("killed")

    store = open_store(extra=[BeatsTwo])
    with pytest.raises(RuntimeError, match="killed"):
        catch_up(store, log, batch_bytes=1, on_commit=die)
    store.close()
    assert log.reads[-1] == (0, 6)

    store = open_store(extra=[BeatsTwo])
    assert ask(store, "SELECT count(*) FROM beats") == [(6,)]
    catch_up(store, log)

    assert log.reads[-1][0] >= 3
    assert ask(store, "SELECT count(*), sum(double) FROM beats") == [(6, 30)]


def test_a_projection_that_joins_later_is_built_from_the_beginning_while_the_others_go_on(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int], ask: Callable[..., Any]
) -> None:
    for value in range(5):
        beat(log, value)
    store = open_store()
    catch_up(store, log)
    store.close()

    async def story() -> None:
        store = open_store(extra=[Beats])
        async with asyncio.timeout(30), following(store, log):
            beat(log, 5)
            assert await store.reached(6, 20)
            while "beats" not in store.views():
                await asyncio.sleep(0.01)
            assert ask(store, "SELECT count(*) FROM beats") == [(6,)]
            beat(log, 6)
            assert await store.reached(7, 20)
            assert ask(store, "SELECT count(*) FROM beats") == [(7,)]

    asyncio.run(story())


def test_a_rebuild_on_demand_gives_the_same_tables_while_the_log_goes_on(
    log: Any, open_store: Callable[..., Store], ask: Callable[..., Any]
) -> None:
    async def story() -> None:
        store = open_store(extra=[Beats])
        async with asyncio.timeout(60), following(store, log, batch_bytes=1):
            for value in range(30):
                beat(log, value)
                log.write(Metrics(values={"x": float(value)}))
            await store.reached(60, 20)
            before = {name: store.content_hash(name) for name in store.tables()}
            begun = store.rebuild()
            while any(not one.live for one in begun):
                await asyncio.sleep(0.01)
            assert {name: store.content_hash(name) for name in store.tables()} == before
            beat(log, 30)
            assert await store.reached(61, 20)
            assert ask(store, "SELECT count(*) FROM beats") == [(31,)]
            assert {one.number for one in store.generations} == {2}
        with pytest.raises(DeclarationError, match="no projection 'nonsense'"):
            store.rebuild(["nonsense"])

    asyncio.run(story())


def test_a_failing_projection_stops_alone_says_why_and_goes_on_after_it_is_mended(
    log: Any,
    open_store: Callable[..., Store],
    catch_up: Callable[..., int],
    ask: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value in range(6):
        beat(log, value)
    store = open_store(extra=[Beats, Fragile, Leaving, WrongRows])
    with caplog.at_level(logging.ERROR):
        catch_up(store, log, batch_bytes=1)

    assert ask(store, "SELECT count(*) FROM beats") == [(6,)]
    assert ask(store, "SELECT value FROM fragile") == [(0,), (1,), (2,)]
    errors = {one.projection: one.error for one in store.status() if one.error}
    assert set(errors) == {"fragile", "leaving", "wrong_rows"}
    assert "RuntimeError: three" in str(errors["fragile"])
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert store.position() == 6
    store.close()

    monkeypatch.setattr(Fragile, "rows", Beats.rows)
    store = open_store(extra=[Beats, Fragile])
    catch_up(store, log)
    assert ask(store, "SELECT value FROM fragile ORDER BY 1") == [(value,) for value in range(6)]


def test_a_state_that_cannot_be_stored_or_begun_stops_its_projection_alone(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int], ask: Callable[..., Any], monkeypatch: Any
) -> None:
    for value in range(6):
        beat(log, value)
    extra = [Beats, Unstorable, NoBeginning]
    for _ in range(2):
        store = open_store(extra=extra)
        assert catch_up(store, log, batch_bytes=1) == 6
        assert ask(store, "SELECT count(*) FROM beats") == [(6,)]
        assert ask(store, "SELECT value FROM unstorable ORDER BY 1") == [(0,), (1,), (2,)]
        errors = {one.projection: str(one.error) for one in store.status() if one.error}
        assert set(errors) == {"unstorable", "no_beginning"}
        assert errors["unstorable"].startswith("projection 'unstorable' failed on messages 4..4: OverflowError")
        assert "RuntimeError: no beginning; mend it" in errors["no_beginning"]
        store.close()

    monkeypatch.setattr(Unstorable, "advance", Projection.advance)
    monkeypatch.setattr(NoBeginning, "initial", Projection.initial)
    store = open_store(extra=extra)
    catch_up(store, log)
    assert ask(store, "SELECT count(*) FROM no_beginning, unstorable") == [(36,)]
    assert [one.error for one in store.status() if one.error] == []
    assert store._con.execute("SELECT count(error) FROM morphogen.positions").fetchall() == [(0,)]


def test_a_projection_whose_class_fails_is_named() -> None:
    with pytest.raises(DeclarationError, match=r"projection 'unmade' .* cannot be made: RuntimeError: not ready; mend"):
        discover([Unmade], installed=False)


def test_an_older_version_whose_next_one_fails_holds_nobody_back(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    beat(log, 3)
    store = open_store(extra=[Beats])
    catch_up(store, log)
    store.close()
    beat(log, 4)
    monkeypatch.setattr(BeatsTwo, "rows", Leaving.rows)

    assert catch_up(open_store(extra=[BeatsTwo]), log) == 2


def test_a_projection_that_is_uninstalled_leaves_no_view_and_goes_on_when_it_is_back(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int], ask: Callable[..., Any]
) -> None:
    beat(log, 1)
    store = open_store(extra=[Beats])
    catch_up(store, log)
    store.close()
    beat(log, 2)
    store = open_store()
    catch_up(store, log)
    assert "beats" not in store.views()
    store.close()

    store = open_store(extra=[Beats])
    catch_up(store, log)
    assert ask(store, "SELECT value FROM beats ORDER BY 1") == [(1,), (2,)]


def test_a_view_over_the_table_of_an_uninstalled_package_is_left_out_and_is_back_with_it(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int], ask: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    beat(log, 1)
    for extra, seen in [([Beats, BeatsOfOthers], True), ([BeatsOfOthers], False), ([Beats, BeatsOfOthers], True)]:
        caplog.clear()
        store = open_store(extra=extra)
        catch_up(store, log)
        said = [record.getMessage() for record in caplog.records]
        assert ask(store, "SELECT count(*) FROM beats_again") == [(1,)]
        assert ("beats_of_others" in store.views()) is seen
        assert [("'beats_of_others'" in line, "uninstall" in line) for line in said] == ([] if seen else [(True, True)])
        if not seen:  # what comes later is not held up by it
            store.rebuild(["metrics", "beats_of_others"])
            catch_up(store, log)
            assert {one.number for one in store.generations if one.projection.name == "metrics"} == {2}
        store.close()

    assert ask(open_store("fresh", extra=[BeatsOfOthers]), "SELECT count(*) FROM beats_again") == [(0,)]


def test_a_view_that_is_no_sql_is_an_error_whoever_declares_it(open_store: Callable[..., Store]) -> None:
    class Typo(BeatsOfOthers, name="typo", version=1, types=("testing.beat",)):
        views = {"mistyped": "selct * frm beats_again"}

    with pytest.raises(DeclarationError, match="Parser Error"):
        open_store(extra=[Typo])


def test_a_store_that_has_seen_more_than_the_log_says_so(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int]
) -> None:
    beat(log, 1)
    beat(log, 2)
    store = open_store(extra=[Beats])
    catch_up(store, log)
    log.messages.pop()

    with pytest.raises(PositionBeyondLog, match="morphogen rebuild"):
        catch_up(store, log)


def test_a_store_can_stop_short_and_go_on(
    log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int], ask: Callable[..., Any]
) -> None:
    for value in range(6):
        beat(log, value)
    store = open_store(extra=[Beats])
    done: list[int] = []

    assert catch_up(store, log, 4, on_commit=lambda folded: done.append(folded.last)) == 4
    assert done[-1] == 4
    assert catch_up(store, log) == 6
    assert ask(store, "SELECT count(*) FROM beats") == [(6,)]
    assert ask(store, "SELECT count(*) FROM beats", 4) == [(4,)]
    stored = log.messages[2].stored
    assert store.seq_at(stored) == 3
    assert store.seq_at(stored - 1) == 2
    assert store.seq_at(0) == 0


def test_what_a_fold_raised_is_told_in_one_line() -> None:
    assert "ValueError: one two; mend it" in str(FoldError("mine", 1, 2, ValueError("one\n  two")))
