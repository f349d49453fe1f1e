"""Tables are made anew from the past, by the projector where one runs, and nothing else changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import duckdb
import pytest

from morphogen.bus.connection import Connection
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, stream_info, trim
from morphogen.consumers.projections.errors import DeclarationError
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.consumers.projections.follow.projector import run_projector, store_path
from morphogen.consumers.projections.follow.source import LogSource
from morphogen.consumers.projections.sql.protocol import CONTROL, Reply, encode
from morphogen.consumers.projections.sql.service import serve
from morphogen.consumers.projections.store import Store
from morphogen.replay.archive import archive
from morphogen.replay.errors import RebuildFailed
from morphogen.replay.rebuild import Operation, ask, controls, rebuild

from .conftest import Body, Callable, fill


@contextlib.asynccontextmanager
async def projector(
    conn: Connection, settings: Settings, operations: Callable[[Store], dict[str, Operation]] = controls
) -> AsyncIterator[None]:
    """Run a projector with its service, as the command does."""
    stop = asyncio.Event()

    async def service(store: Store, of: Connection) -> None:
        answering = await serve(store, of, settings, controls=operations(store))
        try:
            await asyncio.Event().wait()
        finally:
            await answering.close()

    task = asyncio.create_task(run_projector(settings, stop=stop, serve=service))
    try:
        for _ in range(200):
            with contextlib.suppress(Exception):
                await ask(conn, "wait", {"timeout": 5})
                break
            await asyncio.sleep(0.05)
        yield
    finally:
        stop.set()
        await task


async def hashes(conn: Connection, settings: Settings) -> dict[str, tuple[int, str]]:
    """Return rows and hash of every table in the file, which nobody may hold."""
    epoch = (await stream_info(conn, LOG)).epoch
    with Store.open(store_path(settings, epoch), epoch=epoch) as store:
        return {table: store.content_hash(table) for table in store.tables()}


def test_a_first_rebuild_makes_the_tables_and_a_second_makes_the_same(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(20), per_frame=3)
        seen: list[tuple[int, int, str]] = []

        first = await rebuild(conn, settings, progress=lambda *step: seen.append(step))
        before = await hashes(conn, settings)
        again = await rebuild(conn, settings)

        assert (first.position, again.position) == (last, last)
        assert not first.by_projector
        assert {"events", "metrics", "layer_health"} <= set(again.projections)
        assert before["metrics"][0] == 60
        assert before["layer_health"][0] == 60
        assert await hashes(conn, settings) == before
        assert seen[-1] == (last, last, "messages")

    bus(body)


def test_damage_to_a_table_is_undone_and_other_projections_are_left_alone(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await rebuild(conn, settings)
        before = await hashes(conn, settings)
        path = store_path(settings, (await stream_info(conn, LOG)).epoch)
        with duckdb.connect(str(path)) as con:
            con.execute("UPDATE p_metrics_1.metrics SET value = 7")

        report = await rebuild(conn, settings, ["metrics"])

        assert report.projections == ("metrics",)
        assert await hashes(conn, settings) == before
        with pytest.raises(DeclarationError, match="no projection 'metrix'"):
            await rebuild(conn, settings, ["metrix"])

    bus(body)


def test_the_archive_and_the_log_together_give_the_same_tables(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(20))
        await rebuild(conn, settings)
        before = await hashes(conn, settings)
        await archive(conn, settings, upto=31)
        await trim(conn, 25)

        await rebuild(conn, settings)

        assert await hashes(conn, settings) == before

    bus(body)


def test_without_a_broker_the_archive_is_enough(bus: Callable[[Body], None]) -> None:
    found: list[dict[str, tuple[int, str]]] = []

    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(6))
        await archive(conn, settings)
        await rebuild(conn, settings)
        found.append(await hashes(conn, settings))
        store_path(settings, (await stream_info(conn, LOG)).epoch).unlink()
        report = await rebuild(None, settings)
        assert report.position == 18
        assert await hashes(conn, settings) == found[0]

    bus(body)


def test_a_file_that_is_no_store_is_kept_aside(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        path = store_path(settings, (await stream_info(conn, LOG)).epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)

        report = await rebuild(conn, settings)

        assert report.position == 15
        assert path.with_name(f"{path.name}.damaged-1").read_bytes() == b"x" * 5000

    bus(body)


def test_tables_that_know_more_than_the_log_are_kept_aside(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await rebuild(conn, settings)
        path = store_path(settings, (await stream_info(conn, LOG)).epoch)
        with duckdb.connect(str(path)) as con:
            con.execute("UPDATE morphogen.positions SET seq = 999")

        report = await rebuild(conn, settings)

        assert report.position == 15
        assert path.with_name(f"{path.name}.damaged-1").exists()

    bus(body)


def test_an_interrupted_rebuild_can_be_resumed(bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morphogen.replay.rebuild.FOLD_BYTES", 2000)
    monkeypatch.setattr("morphogen.bus.pull._BATCH", 8)

    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(80))
        await rebuild(conn, settings)
        before = await hashes(conn, settings)
        loop = asyncio.get_running_loop()

        def stop(done: int, total: int, unit: str) -> None:
            if done < total:
                loop.call_soon_threadsafe(task.cancel)

        task = asyncio.create_task(rebuild(conn, settings, ["metrics"], progress=stop))
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await hashes(conn, settings) == before

        report = await rebuild(conn, settings, ["metrics"], resume=True)
        assert report.projections == ("metrics",)
        assert report.position == last
        assert await hashes(conn, settings) == before

    bus(body)


def test_a_running_projector_is_asked(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(20))
        async with projector(conn, settings):
            everything = await rebuild(conn, settings)
            assert everything.by_projector
            assert everything.position == last
            last = await fill(conn, "b", range(5))
            one = await rebuild(conn, settings, ["metrics"])
            assert one.projections == ("metrics",)
            assert one.position == last
            with pytest.raises(RebuildFailed, match="no projection 'metrix'"):
                await rebuild(conn, settings, ["metrix"])
        assert (await hashes(conn, settings))["metrics"][0] == 75

    bus(body)


@pytest.mark.parametrize("by_projector", [True, False])
def test_a_past_that_cannot_be_read_fails_the_rebuild_and_the_tables_go_on(
    bus: Callable[[Body], None], by_projector: bool
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await rebuild(conn, settings)
        before = await hashes(conn, settings)
        await archive(conn, settings)
        await trim(conn, 10)
        damaged, *_ = sorted(settings.archive_dir.rglob("*.parquet"))
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-10])

        async with projector(conn, settings) if by_projector else contextlib.nullcontext():
            with pytest.raises(RebuildFailed, match=r"is damaged.*Restore it"):
                await rebuild(conn, settings)
            last = await fill(conn, "b", range(5))
            if by_projector:
                await ask(conn, "wait", {"seq": last, "timeout": 20})
            else:
                await catch_up(conn, settings, last)
        after = await hashes(conn, settings)
        damaged.write_bytes(whole)
        await rebuild(conn, settings)

        assert after["metrics"][0] == 2 * before["metrics"][0]
        assert await hashes(conn, settings) == after

    bus(body)


async def catch_up(conn: Connection, settings: Settings, upto: int) -> None:
    """Follow the log up to `upto`, as a process does that asks where no projector runs."""
    epoch = (await stream_info(conn, LOG)).epoch
    with Store.open(store_path(settings, epoch), epoch=epoch) as store:
        assert await Follower(store, LogSource(conn, settings)).catch_up() == upto


@pytest.mark.parametrize("question", [2, 3])
def test_a_projector_that_dies_with_a_question_in_hand_is_not_waited_for_long(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch, question: int
) -> None:
    monkeypatch.setattr("morphogen.replay.rebuild._ANSWER", 0.2)
    monkeypatch.setattr("morphogen.replay.rebuild._PATIENCE", 0.5)

    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(2))

        asked = []

        async def answer(message: Any) -> None:
            asked.append(message)
            if len(asked) == question:  # killed: it says nothing, and then nobody is there
                await projector.unsubscribe()
                return
            generations = [["metrics", 1, 6, True, None]]
            await conn.nc.publish(
                message.reply, encode(Reply(values={"begun": [["metrics", 2]], "generations": generations}))
            )

        projector = await conn.nc.listen(CONTROL, answer)
        async with asyncio.timeout(10):
            with pytest.raises(RebuildFailed, match="the projector stopped during the rebuild"):
                await rebuild(conn, settings)

    bus(body)


def test_a_rebuild_whose_first_answer_was_lost_begins_once(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.replay.rebuild._ANSWER", 1.0)
    asked: list[dict[str, Any]] = []

    def forgetful(store: Store) -> dict[str, Operation]:
        known = controls(store)

        async def begin(args: dict[str, Any]) -> dict[str, Any]:
            asked.append(args)
            reply = await known["rebuild"](args)
            if len(asked) == 1:
                await asyncio.sleep(60)
            return reply

        return {**known, "rebuild": begin}

    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(3))
        async with projector(conn, settings, forgetful):
            report = await rebuild(conn, settings, ["metrics"])
            generations = (await ask(conn, "generations"))["generations"]
        assert (report.projections, report.position, len(asked)) == (("metrics",), last, 2)
        assert [number for name, number, *_ in generations if name == "metrics"] == [2]

    bus(body)


def test_a_rebuild_says_what_took_its_place(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(3))
        there: list[list[Any]] = [["metrics", 1, 9, True, None]]

        async def answer(message: Any) -> None:
            await conn.nc.publish(
                message.reply, encode(Reply(values={"begun": [["metrics", 2]], "generations": there}))
            )

        await conn.nc.listen(CONTROL, answer)
        with pytest.raises(RebuildFailed, match="the tables of metrics are called for no more"):
            await rebuild(conn, settings)
        there.append(["metrics", 3, 0, False, None])
        with pytest.raises(RebuildFailed, match="another rebuild of metrics"):
            await rebuild(conn, settings)

    bus(body)


def test_a_rebuild_of_a_name_given_twice_is_one(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(3))
        async with projector(conn, settings):
            assert (await rebuild(conn, settings, ["metrics", "metrics"])).projections == ("metrics",)

    bus(body)
