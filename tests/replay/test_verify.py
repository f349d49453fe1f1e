"""What the tables say is proven against the log, and what is wrong is named."""

from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from morphogen.bus.archive.archive import Archive
from morphogen.bus.connection import Connection
from morphogen.bus.past import Extent
from morphogen.bus.reader import read
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, stream_info, trim
from morphogen.consumers.projections import Entry, Projection, discover
from morphogen.consumers.projections.follow.projector import store_path
from morphogen.replay import verify as verify_room
from morphogen.replay.archive import archive
from morphogen.replay.errors import RebuildFailed
from morphogen.replay.rebuild import rebuild
from morphogen.replay.verify import verify
from morphogen.schemas import Metrics, Record, encode_frame

from .conftest import Body, Callable, fill
from .test_rebuild import projector


class Failing(Projection, name="failing", version=1, types=("metrics.scalars",)):
    tables = {"failing": "name VARCHAR"}  # noqa: RUF012

    def rows(self, event: Entry) -> Any:
        raise ValueError("cannot")


class Sound(Projection, name="failing", version=2, types=("metrics.scalars",)):
    tables = {"failing": "n INTEGER"}  # noqa: RUF012

    def rows(self, event: Entry) -> Any:
        yield (1,)


async def damage(conn: Connection, settings: Settings, *statements: str) -> None:
    """Change the live file behind everybody's back."""
    path = store_path(settings, (await stream_info(conn, LOG)).epoch)
    with duckdb.connect(str(path)) as con:
        for statement in statements:
            con.execute(statement)


def test_sound_tables_are_equal_and_every_table_is_compared(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(10), per_frame=3)
        await rebuild(conn, settings)
        later = await fill(conn, "a", range(10, 12))
        seen: list[tuple[int, int, str]] = []

        report = await verify(conn, settings, progress=lambda *step: seen.append(step))

        assert report.ok, list(report.lines())
        assert (report.position, report.last, report.messages) == (last, later, later)
        assert {"metrics", "layer_health"} <= {table.table for table in report.tables}
        assert next(table.log[0] for table in report.tables if table.table == "metrics") == 30
        assert {unit for _, _, unit in seen} >= {"messages folded", "tables compared", "messages read"}
        assert list(settings.home.glob("verify-*")) == []
        assert list(report.lines())[-1].endswith("all is as the log says")

    bus(body)


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (
            "UPDATE p_metrics_1.metrics SET value = 0.25 WHERE seq = 4 AND name = 'loss'",
            "table metrics, seq 4, idx 0: value is '0.25', the log says '0.5'",
        ),
        ("DELETE FROM p_layer_health_1.layer_health WHERE seq = 8 AND layer = 'b'", "only the log has the row"),
        (
            "INSERT INTO p_metrics_1.metrics SELECT * FROM p_metrics_1.metrics WHERE seq = 7 LIMIT 1",
            "only the live table",
        ),
        (
            "UPDATE p_metrics_1.metrics SET value = NULL WHERE isnan(value) AND seq = 7",
            "value is None, the log says 'nan'",
        ),
    ],
)
def test_a_change_behind_the_tables_back_is_named_by_table_place_and_value(
    bus: Callable[[Body], None], statement: str, text: str
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await rebuild(conn, settings)
        await damage(conn, settings, statement)

        report = await verify(conn, settings)

        assert not report.ok
        assert len(report.differences) == 1
        assert text in str(report.differences[0])
        assert str(report.differences[0]) == next(report.lines())
        assert sum(not table.equal for table in report.tables) == 1

        await rebuild(conn, settings, [report.differences[0].table])
        assert (await verify(conn, settings)).ok

    bus(body)


def test_a_projection_that_failed_is_named_and_all_other_tables_are_compared(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(5))
        projections = discover([Failing], installed=False)
        with pytest.raises(RebuildFailed):
            await rebuild(conn, settings, projections=projections)
        await damage(conn, settings, "UPDATE p_metrics_1.metrics SET value = 0.25 WHERE seq = 4 AND name = 'loss'")

        for _ in range(2):  # to look changes nothing
            report = await verify(conn, settings, projections=projections)

            assert report.position == last
            assert [fault.split(" on ")[0] for fault in report.faults] == ["stopped: projection 'failing' failed"]
            assert [table.table for table in report.tables if not table.equal] == ["metrics"]
            assert len(report.tables) > 50

    bus(body)


def test_a_newer_version_that_fails_is_named_too(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(3))
        await rebuild(conn, settings, projections=discover([Sound], installed=False))
        last = await fill(conn, "a", range(3, 5))
        Failing.version = 3
        projections = discover([Failing], installed=False)
        with pytest.raises(RebuildFailed):
            await rebuild(conn, settings, projections=projections)

        report = await verify(conn, settings, projections=projections)

        assert report.position == last
        assert [fault.split(" on ")[0] for fault in report.faults] == ["stopped: projection 'failing' failed"]

    try:
        bus(body)
    finally:
        Failing.version = 1


def test_the_first_difference_is_the_first_in_the_log(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(20), per_frame=4)
        await rebuild(conn, settings)
        await damage(
            conn, settings, "UPDATE p_metrics_1.metrics SET value = -1 WHERE seq >= 4 AND (seq > 4 OR idx >= 2)"
        )

        (difference,) = (await verify(conn, settings)).differences

        assert (difference.table, difference.seq, difference.idx) == ("metrics", 4, 2)
        assert difference.live is not None
        assert difference.live["value"] == "-1.0"

    bus(body)


def test_a_running_projector_is_verified_too(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(6))
        await rebuild(conn, settings)
        await damage(conn, settings, "UPDATE p_metrics_1.metrics SET value = 0.25 WHERE seq = 4 AND name = 'loss'")
        async with projector(conn, settings):
            report = await verify(conn, settings)
            assert str(report.differences[0]) == "table metrics, seq 4, idx 0: value is '0.25', the log says '0.5'"
            await rebuild(conn, settings)
            report = await verify(conn, settings)
            assert report.ok, list(report.lines())
            assert len(report.tables) >= 5

    bus(body)


def test_a_record_whose_crc_is_wrong_is_named(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(2))
        event = Metrics(values={"x": 1.0})
        record = Record(1, event.type, 1, 0, 5, msgspec.Raw(event.encode()))
        data = bytearray(encode_frame([record], run="b", attempt=1, rank=0, writer="ef" * 8, family="metrics"))
        data[-1] ^= 1
        await conn.publish_ack("morphogen.log.b.metrics.1-0", bytes(data))
        await conn.publish_ack("morphogen.log.b.metrics.1-0", b"no frame at all")
        await rebuild(conn, settings)

        report = await verify(conn, settings)

        (fault,) = report.faults
        assert fault.startswith("message 7 (morphogen.log.b.metrics.1-0): damaged record at byte 0")
        assert report.unreadable == 1
        assert all(table.equal for table in report.tables)
        assert not report.ok

    bus(body)


def test_a_damaged_archive_is_named_even_while_the_log_has_it_all(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await archive(conn, settings)
        await rebuild(conn, settings)
        path = next(settings.archive_dir.glob("**/*.parquet"))
        whole = path.read_bytes()
        spot = whole.index(b"parquet-cpp-arrow") + 3  # what no reader of rows looks at
        path.write_bytes(whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :])

        report = await verify(conn, settings)

        (fault,) = report.faults
        assert f"archived file {path} is damaged: its SHA-256" in fault
        assert all(table.equal for table in report.tables)

    bus(body)


def test_a_past_that_cannot_be_read_to_its_end_is_a_fault(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await rebuild(conn, settings)
        await archive(conn, settings)
        path = next(settings.archive_dir.glob("**/*.parquet"))
        path.write_bytes(path.read_bytes()[:-100])

        report = await verify(conn, settings)

        assert not report.ok
        assert [str(path) in fault for fault in report.faults] == [True]

    bus(body)


def test_without_tables_the_past_alone_is_checked(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await archive(conn, settings, upto=9)
        await trim(conn, 7)

        report = await verify(conn, settings)

        assert report.ok
        assert (report.position, report.messages) == (0, 15)
        assert (await verify(None, settings)).messages == 9

    bus(body)


def test_tables_that_know_more_than_the_log_are_a_fault(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await rebuild(conn, settings)
        await damage(conn, settings, "UPDATE morphogen.positions SET seq = 999")

        report = await verify(conn, settings)

        assert not report.ok
        assert "the tables have seen message 999, but the log ends at 15" in report.faults[0]

    bus(body)


def test_tables_that_went_on_while_the_archive_was_read_are_no_fault(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        asked = verify_room.extent
        early = [await asked(conn, settings)]
        last = await fill(conn, "b", range(3))
        await rebuild(conn, settings)

        async def extent(*args: object) -> Extent:
            return early.pop() if early else await asked(conn, settings)

        monkeypatch.setattr(verify_room, "extent", extent)
        report = await verify(conn, settings)

        assert report.ok, list(report.lines())
        assert (report.position, report.last, report.messages) == (last, last, last)

    bus(body)


def test_what_another_process_archives_meanwhile_is_no_stranger(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await archive(conn, settings, upto=6)
        path = next(settings.archive_dir.glob("**/*.parquet"))
        for name in ("7.parquet.part", "7-9.parquet", "1-2.parquet", "else.parquet"):
            path.with_name(name).touch()

        notes = (await verify(conn, settings)).notes

        assert [Path(note.split()[0]).name for note in notes] == ["1-2.parquet", "else.parquet"]

    bus(body)


def test_every_message_that_the_log_shares_with_its_archive_is_compared(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        info = await stream_info(conn, LOG)
        with Archive.of(settings, info.epoch).writing(1) as writer:
            segment = writer.segment()
            async for batch in read(conn):
                segment.add([one._replace(stored=one.stored - 1) if one.seq == 4 else one for one in batch])
            writer.commit(segment.seal())

        report = await verify(conn, settings)

        assert not report.ok
        assert [fault.startswith("message 4 of the log is not the one in") for fault in report.faults] == [True]

    bus(body)


def test_a_hole_amid_the_log_is_a_fault_and_the_rest_is_compared(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        for run in ("a", "b", "c"):
            await fill(conn, run, range(2))
        await rebuild(conn, settings)
        await conn.js(f"STREAM.PURGE.{LOG}", {"filter": "morphogen.log.b.>"})

        report = await verify(conn, settings)

        assert report.faults == ["the log has nothing from 7 to 12: its store was damaged"]
        assert report.messages == 12
        assert len(report.tables) >= 5

    bus(body)


def test_an_archive_of_another_log_alone_is_no_sound_past(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        other = settings.archive_dir / "other"
        with Archive(other).writing(1):
            pass

        report = await verify(conn, settings)
        assert [f"nothing of this log, but of {other.name}" in fault for fault in report.faults] == [True]
        await fill(conn, "a", range(2))
        report = await verify(conn, settings)
        assert report.ok
        assert any("but of other" in note for note in report.notes)

    bus(body)


def test_a_data_folder_that_is_not_there_yet_is_made(bus: Callable[[Body], None], tmp_path: Path) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(3))
        async with projector(conn, settings):
            report = await verify(conn, Settings(home=tmp_path / "far" / "away"))
            assert report.tables
            assert all(table.equal for table in report.tables)

    bus(body)
