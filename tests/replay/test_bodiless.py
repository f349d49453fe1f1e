"""Events whose bodies lie in blobs: in every table while the broker has them, and told where it has not."""

import asyncio
import io
import json
from pathlib import Path

import duckdb
import msgspec
import pytest

from morphogen.bus import blobs, bodies, patience
from morphogen.bus.blobs import get_bytes, put_bytes
from morphogen.bus.connection import Connection
from morphogen.bus.errors import RequestTimeout
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, stream_info
from morphogen.consumers.projections.follow.projector import run_projector, store_path
from morphogen.consumers.projections.store import Store
from morphogen.replay.archive import archive
from morphogen.replay.projection import into_projection
from morphogen.replay.rebuild import rebuild
from morphogen.replay.replay import replay
from morphogen.replay.sinks import StreamSink
from morphogen.replay.verify import verify
from morphogen.schemas import LogLine, Record, encode, encode_frame

from .conftest import WRITER, Body, Callable
from .test_rebuild import projector


async def large(conn: Connection, number: int, more: str = "") -> str:
    """Write a line whose body lies in a blob; return which."""
    sha256 = await put_bytes(conn, LogLine(message=f"large {number}{more}").encode())
    raw = msgspec.Raw(encode({"$blob": sha256, "size": 500_000}))
    record = Record(number, "log.line", 1, None, number, raw)
    frame = encode_frame([record], run="r", attempt=1, rank=0, writer=WRITER, family="log")
    await conn.publish_ack("morphogen.log.r.log.1-0", frame)
    return sha256


async def lines(conn: Connection, settings: Settings) -> list[str]:
    """Return the messages in the tables, which nobody may hold."""
    epoch = (await stream_info(conn, LOG)).epoch
    with Store.open(store_path(settings, epoch), epoch=epoch) as store, store.reading() as cursor:
        return [message for (message,) in cursor.execute("SELECT message FROM log_lines ORDER BY seq").fetchall()]


def test_no_table_goes_past_a_body_that_a_silent_broker_still_has(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = 3

    async def moody(conn: Connection, sha256: str) -> bytes:
        nonlocal silent
        silent -= 1
        if silent >= 0:
            raise RequestTimeout("silence")
        return await get_bytes(conn, sha256)

    async def body(conn: Connection, settings: Settings) -> None:
        nonlocal silent
        for number in range(1, 4):
            await large(conn, number)
        monkeypatch.setattr(bodies, "get_bytes", moody)
        report = await rebuild(conn, settings)
        assert (report.position, report.bodiless) == (3, 0)
        assert await lines(conn, settings) == ["large 1", "large 2", "large 3"]
        size = await conn.last_message(LOG, "morphogen.log.r.log.1-0")
        with duckdb.connect(str(store_path(settings, (await stream_info(conn, LOG)).epoch)), read_only=True) as con:
            assert size is not None  # `frames` tells how many bytes are in the log
            assert con.sql("SELECT bytes FROM frames WHERE seq = 3").fetchall() == [(len(size.data),)]
        assert (await verify(conn, settings)).ok

        await large(conn, 4)
        monkeypatch.setattr(patience, "_PATIENCE", 0.1)
        silent = 1_000_000
        with pytest.raises(RequestTimeout, match="silence"):
            await rebuild(conn, settings)
        assert await lines(conn, settings) == ["large 1", "large 2", "large 3"]
        silent = 0
        await rebuild(conn, settings)
        assert (await lines(conn, settings))[3:] == ["large 4"]

    bus(body)


def test_a_projector_that_waits_for_a_body_ends_when_it_is_told_to_and_goes_on_later(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        asked, stop = asyncio.Event(), asyncio.Event()

        async def never(_conn: Connection, _sha256: str) -> bytes:
            asked.set()
            await asyncio.Event().wait()
            return b""

        await large(conn, 1)
        with monkeypatch.context() as patch:
            patch.setattr(bodies, "get_bytes", never)
            running = asyncio.create_task(run_projector(settings, stop=stop))
            await asyncio.wait_for(asked.wait(), 20)
            stop.set()
            await asyncio.wait_for(running, 5)
        assert await lines(conn, settings) == []
        async with projector(conn, settings):
            pass
        assert await lines(conn, settings) == ["large 1"]

    bus(body)


def test_what_is_gone_is_counted_by_rebuild_and_a_fault_to_verify(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        gone = await large(conn, 1)
        await large(conn, 2)
        await blobs.delete(conn, gone)

        assert (await rebuild(conn, settings)).bodiless == 1
        assert await lines(conn, settings) == ["large 2"]
        async with projector(conn, settings):
            report = await rebuild(conn, settings)
            assert (report.by_projector, report.bodiless) == (True, 1)
        checked = await verify(conn, settings)
        assert not checked.ok
        assert not checked.differences
        assert checked.faults[0].startswith(
            "1 event lies in a blob, gone or damaged: no table made now has what it says"
        )

    bus(body)


def test_verify_warns_of_a_rebuild_where_only_the_live_tables_have_a_body(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        sha256 = await large(conn, 1, "x" * 10_000)
        await rebuild(conn, settings)
        await blobs.delete(conn, sha256)

        checked = await verify(conn, settings)

        assert checked.summary().endswith("`morphogen rebuild` makes tables anew, without the bodies that are gone")
        said = [str(one) for one in checked.differences if one.table == "log_lines"]
        assert "message='large 1xxxx" in said[0]
        assert max(map(len, checked.lines())) < 1000
        assert "(10,007 characters)" in said[0]

    bus(body)


def test_a_replay_has_the_bodies_and_an_archive_alone_says_that_it_has_not(
    bus: Callable[[Body], None], tmp_path: Path
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        for number in range(1, 4):
            await large(conn, number)
        out = io.StringIO()
        assert (await replay(conn, settings, StreamSink(out))).bodiless == 0
        assert [json.loads(row)["body"]["message"] for row in out.getvalue().splitlines()] == [
            f"large {number}" for number in range(1, 4)
        ]
        assert (await into_projection(conn, settings, tmp_path / "whole.duckdb")).bodiless == 0
        with duckdb.connect(str(tmp_path / "whole.duckdb"), read_only=True) as con:
            assert con.sql("SELECT count(*) FROM log_lines").fetchall() == [(3,)]

        await archive(conn, settings)
        assert (await replay(None, settings, StreamSink(io.StringIO()), from_=2)).bodiless == 2
        path = tmp_path / "alone.duckdb"
        assert (await into_projection(None, settings, path, to=2)).bodiless == 2
        assert (await into_projection(conn, settings, path, resume=True)).bodiless == 2  # of the whole file
        with duckdb.connect(str(path), read_only=True) as con:
            assert con.sql("SELECT message FROM log_lines").fetchall() == [("large 3",)]
            assert con.sql("SELECT seq FROM events_without_body ORDER BY ALL").fetchall() == [(1,), (2,)]
        raw = io.BytesIO()
        assert (await replay(None, settings, StreamSink(raw, raw=True))).bodiless == 0  # frames as they are
        assert raw.getvalue().count(b"$blob") == 3

    bus(body)
