"""A stretch of the past goes where it is sent: whole, chosen, paced, marked."""

import asyncio
import io
import json
import resource
import signal
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from morphogen.bus.connection import Connection
from morphogen.bus.errors import ArchiveError
from morphogen.bus.past import past
from morphogen.bus.reader import Message, read
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, stream_info, trim
from morphogen.consumers.projections.errors import StoreFull
from morphogen.consumers.projections.store import Folded, Store
from morphogen.replay.archive import archive
from morphogen.replay.errors import BadRange, SinkFailed
from morphogen.replay.projection import ProjectionSink, into_projection
from morphogen.replay.replay import Replay, ReplayReport, replay
from morphogen.replay.sinks import BusSink, FileSink, StreamSink
from morphogen.replay.span import Instant
from morphogen.schemas import decode_frame, verify_frame

from .conftest import WRITER, Body, Callable, fill


def test_lines_carry_every_event_and_what_json_has_no_word_for(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(2))
        await conn.publish_ack("morphogen.log.a.metrics.1-0", b"\xc1junk")
        out = io.StringIO()

        report = await replay(conn, settings, StreamSink(out))

        assert report == ReplayReport(first=1, last=7, frames=6, events=6, unreadable=1)
        rows = [json.loads(line) for line in out.getvalue().splitlines()]
        assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
        assert rows[0]["body"]["values"] == {"loss": 1.0, "odd": "NaN", "big": 2**63 - 1}
        assert rows[4]["body"]["grad_norm"] == [1.0, "NaN", "Infinity"]
        assert rows[4]["body"]["layers"] == ["a", "b", "c"]
        assert rows[2]["body"]["message"] == "step 0 ünïcode"
        assert rows[0]["id"] == f"{WRITER}.metrics.1"
        assert rows[6]["type"] == "$unreadable"

    bus(body)


def test_raw_output_is_the_frames_themselves(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(3))
        out = io.BytesIO()

        await replay(conn, settings, StreamSink(out, raw=True), types=["health.*"])

        frames = [m.data async for batch in read(conn, family="health") for m in batch]
        assert out.getvalue() == b"".join(frames)

    bus(body)


def test_a_stretch_is_chosen_by_sequence_time_run_and_type(bus: Callable[[Body], None]) -> None:
    async def seqs(conn: Connection, settings: Settings, **choice: object) -> list[int]:
        out = io.StringIO()
        await replay(conn, settings, StreamSink(out), **choice)  # type: ignore[arg-type]
        return [json.loads(line)["seq"] for line in out.getvalue().splitlines()]

    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(3))
        await asyncio.sleep(0.01)
        middle = datetime.now(UTC)
        await asyncio.sleep(0.01)
        await fill(conn, "b", range(3))
        await archive(conn, settings, upto=12)
        await trim(conn, 8)

        assert await seqs(conn, settings, from_=4, to=8) == [4, 5, 6, 7, 8]
        assert await seqs(conn, settings, from_=middle) == list(range(10, 19))
        assert await seqs(conn, settings, to=middle) == list(range(1, 10))
        stored = [message.stored async for batch in read(conn, after=9, upto=11) for message in batch]
        assert await seqs(conn, settings, from_=Instant(stored[0], 1), to=Instant(stored[1], 1)) == [10, 11]
        assert await seqs(conn, settings, from_=9, to=Instant(stored[1] - 1, 1)) == [9, 10]
        assert await seqs(conn, settings, from_=Instant(stored[1], 1), to=Instant(stored[1] // 1000 * 1000)) == [11]
        with pytest.raises(BadRange, match=r"from 2\S+Z to 2\S+Z runs backwards"):
            await seqs(conn, settings, from_=Instant(stored[1], 1), to=middle)
        assert await seqs(conn, settings, run="b", types=["log.*"]) == [12, 15, 18]
        assert await seqs(conn, settings, types=["*.layer"]) == [2, 5, 8, 11, 14, 17]
        assert await seqs(conn, settings, from_=99) == []
        with pytest.raises(BadRange, match="backwards"):
            await seqs(conn, settings, from_=5, to=4)

    bus(body)


def test_speed_paces_by_the_time_of_storing(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(4))
        stored = [m.stored async for batch in past(conn, settings) for m in batch]
        now = 100.0
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            nonlocal now
            slept.append(seconds)
            now += seconds

        job = Replay(conn, settings, StreamSink(io.StringIO()), speed=0.5, sleep=sleep, clock=lambda: now)
        await job.run()

        assert sum(slept) == pytest.approx((stored[-1] - stored[0]) / 1e9 * 2)
        assert len(slept) == len(set(stored)) - 1

    bus(body)


def test_files_are_complete_or_not_there(bus: Callable[[Body], None], tmp_path: Path) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5), per_frame=2)
        for ending in (".jsonl", ".msgpack", ".parquet"):
            path = tmp_path / f"out{ending}"
            await replay(conn, settings, FileSink(path), types=["metrics.*"])
            assert sorted(tmp_path.glob("*.part")) == []
            with pytest.raises(SinkFailed, match="there already"):
                FileSink(path)

        rows = duckdb.sql(f"SELECT seq, count, max_step FROM '{tmp_path}/out.parquet' ORDER BY seq").fetchall()
        assert rows == [(1, 2, 1), (4, 2, 3), (7, 1, 4)]
        lines = duckdb.sql(f"SELECT seq, idx, step FROM '{tmp_path}/out.jsonl' ORDER BY ALL").fetchall()
        assert lines == [(1, 0, 0), (1, 1, 1), (4, 0, 2), (4, 1, 3), (7, 0, 4)]
        with pytest.raises(SinkFailed, match=r"write \.jsonl"):
            FileSink(tmp_path / "out.txt")

    bus(body)


def test_an_interrupted_replay_says_where_to_go_on_and_loses_nothing(
    bus: Callable[[Body], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.bus.pull._BATCH", 4)

    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(40))
        sink = FileSink(tmp_path / "first.jsonl")

        def stop(done: int, total: int, unit: str) -> None:
            if done < total:
                task.cancel()

        job = Replay(conn, settings, sink, progress=stop)
        task = asyncio.create_task(job.run())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert 0 < job.position < last
        assert sink.path.name == f"first.upto-{job.position}.jsonl"

        rest = FileSink(tmp_path / "rest.jsonl")
        await replay(conn, settings, rest, from_=job.position + 1)
        lines = sink.path.read_text().splitlines() + rest.path.read_text().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, last + 1))
        assert not (tmp_path / "first.jsonl").exists()

    bus(body)


def test_on_the_bus_a_replay_is_marked_and_stored_once(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(4), per_frame=2)
        before = (await stream_info(conn, LOG)).last_seq
        for _ in range(2):  # the second is what a resumed replay of the same name does
            await replay(conn, settings, BusSink(conn, "try 1"), types=["metrics.*", "log.*"])

        assert (await stream_info(conn, LOG)).last_seq == before
        stored: list[Message] = [m async for batch in read(conn, stream="replay") for m in batch]
        assert [m.subject for m in stored] == [
            "morphogen.replay.try=201.a.metrics", "morphogen.replay.try=201.a.log",
            "morphogen.replay.try=201.a.metrics", "morphogen.replay.try=201.a.log",
        ]  # fmt: skip
        for message in stored:
            verify_frame(message.data)
        frames = [decode_frame(message.data) for message in stored]
        assert {frame.replay for frame in frames} == {"try 1"}
        assert [(frame.first, frame.last) for frame in frames] == [(1, 2), (1, 2), (3, 4), (3, 4)]

    bus(body)


def test_a_run_may_be_named_as_a_family(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        for run in ("command", "dead"):
            await fill(conn, run, range(1))
        await replay(conn, settings, BusSink(conn, "again"))

        stored = [m.subject async for batch in read(conn, stream="replay") for m in batch]
        assert stored[0] == "morphogen.replay.again.command.metrics"
        assert len(stored) == 6

    bus(body)


def test_a_second_part_that_is_interrupted_at_once_leaves_the_first_as_it_is(
    bus: Callable[[Body], None], tmp_path: Path
) -> None:
    async def cancelled(conn: Connection, settings: Settings, from_: int, upto: int) -> FileSink:
        sink = FileSink(tmp_path / "t.jsonl")

        async def sleep(_: float) -> None:
            if job.position >= upto:
                raise asyncio.CancelledError

        job = Replay(conn, settings, sink, from_=from_, speed=1e-9, sleep=sleep)
        with pytest.raises(asyncio.CancelledError):
            await job.run()
        assert job.position == upto
        return sink

    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        first = await cancelled(conn, settings, 1, 6)
        assert (first.saved, first.path.name) == (True, "t.upto-6.jsonl")
        kept = first.path.read_text()

        empty = FileSink(tmp_path / "t.jsonl")
        await empty.begin(6)
        await empty.close(6, complete=False)
        assert not empty.saved
        again = await cancelled(conn, settings, 4, 6)
        assert again.path.name == "t.upto-6.2.jsonl"

        assert first.path.read_text() == kept
        assert sorted(path.name for path in tmp_path.iterdir()) == ["t.upto-6.2.jsonl", "t.upto-6.jsonl"]

    bus(body)


@pytest.mark.parametrize("ending", [".jsonl", ".frames", ".parquet"])
def test_a_file_that_cannot_be_written_or_has_no_stretch_is_not_left_behind(
    bus: Callable[[Body], None], tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.replay.sinks.WINDOW_ROWS", 4)

    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(60), per_frame=10)
        await fill(conn, "b", range(60))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        written = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            sink = FileSink(tmp_path / f"full{ending}")
            await sink.begin(0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))  # as a full disk, for files of this process
            with pytest.raises(SinkFailed, match="cannot write"):
                async for batch in past(conn, settings):
                    for message in batch:
                        await sink.put(message, decode_frame(message.data), None)
            await sink.close(9, complete=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, written)
        with pytest.raises(BadRange):
            await replay(conn, settings, FileSink(tmp_path / f"back{ending}"), from_=9, to=2)
        with pytest.raises(BadRange):
            await into_projection(conn, settings, tmp_path / "back.duckdb", from_=9, to=2)
        assert list(tmp_path.iterdir()) == []

    bus(body)


def test_two_replays_do_not_write_into_one_file(tmp_path: Path) -> None:
    async def body() -> None:
        one, two = FileSink(tmp_path / "x.jsonl"), FileSink(tmp_path / "x.jsonl")
        await one.begin(0)
        with pytest.raises(SinkFailed, match="another replay is writing"):
            await two.begin(0)
        await two.close(0, complete=False)
        await one.close(0, complete=True)
        three = FileSink.__new__(FileSink)
        three.__dict__.update(two.__dict__)
        with pytest.raises(SinkFailed, match="there already"):
            await three.begin(0)
        assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]

    asyncio.run(body())


def test_the_archive_of_another_log_is_named_and_read_offline(bus: Callable[[Body], None], tmp_path: Path) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(3))
        epoch = (await archive(conn, settings)).epoch
        config = (await conn.js(f"STREAM.INFO.{LOG}"))["config"]
        await conn.js(f"STREAM.DELETE.{LOG}")
        fresh = {"name": LOG, "subjects": config["subjects"], "metadata": {"epoch": "fresh"}}
        await conn.js(f"STREAM.CREATE.{LOG}", fresh)

        with pytest.raises(ArchiveError, match=f"the log is empty, but .* holds {epoch}: .*--offline"):
            await replay(conn, settings, StreamSink(io.StringIO()))
        out = io.StringIO()
        for named in (None, epoch):
            assert (await replay(None, settings, StreamSink(out), epoch=named)).last == last
        with pytest.raises(ArchiveError, match="holds no log other: name one of"):
            await replay(None, settings, StreamSink(out), epoch="other")
        await into_projection(None, settings, tmp_path / "old.duckdb", epoch=epoch)

    bus(body)


class FullDisk(io.StringIO):
    """A stream whose disk is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_line(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(2))
        with pytest.raises(SinkFailed, match="cannot write the output: No space left on device"):
            await replay(conn, settings, StreamSink(FullDisk()))

    bus(body)


def test_a_stretch_becomes_a_duckdb_file_of_its_own(bus: Callable[[Body], None], tmp_path: Path) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(10), per_frame=3)
        await fill(conn, "b", range(4))
        epoch = (await stream_info(conn, LOG)).epoch
        path = tmp_path / "run-a.duckdb"

        report = await replay(conn, settings, ProjectionSink(path, epoch), run="a", types=["metrics.*", "health.*"])

        assert report.events == 20
        with duckdb.connect(str(path), read_only=True) as con:
            assert con.sql("SELECT run, count(*) FROM metrics GROUP BY ALL").fetchall() == [("a", 30)]
            assert con.sql("SELECT count(*) FROM layer_health").fetchall() == [(30,)]
            assert con.sql("SELECT DISTINCT seq FROM morphogen.positions").fetchall() == [(report.last,)]
        with pytest.raises(SinkFailed, match="there already"):
            ProjectionSink(path, epoch)

    bus(body)


def test_an_interrupted_projection_goes_on_where_it_was(
    bus: Callable[[Body], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.bus.pull._BATCH", 4)
    monkeypatch.setattr("morphogen.replay.projection.FOLD_BYTES", 1000)

    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(40))
        epoch = (await stream_info(conn, LOG)).epoch
        path = tmp_path / "part.duckdb"

        def stop(done: int, total: int, unit: str) -> None:
            if done < total:
                task.cancel()

        task = asyncio.create_task(replay(conn, settings, ProjectionSink(path, epoch), progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        again = ProjectionSink(path, epoch, resume=True)
        assert 0 < again.position < last
        await replay(conn, settings, again, from_=again.position + 1)

        with duckdb.connect(str(path), read_only=True) as con:
            assert con.sql("SELECT count(*), count(DISTINCT step) FROM metrics").fetchall() == [(120, 40)]
            assert con.sql("SELECT DISTINCT seq FROM morphogen.positions").fetchall() == [(last,)]

    bus(body)


def test_a_commit_that_failed_is_made_by_the_resumed_replay(
    bus: Callable[[Body], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.replay.projection.FOLD_BYTES", 1000)

    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(40))
        path = tmp_path / "full.duckdb"
        commit, calls = Store.commit, []

        def full(store: Store, folded: Folded) -> None:
            calls.append(folded.last)
            if len(calls) == 3:
                raise StoreFull("no room")
            commit(store, folded)

        monkeypatch.setattr(Store, "commit", full)
        with pytest.raises(StoreFull):
            await into_projection(conn, settings, path)
        assert len(calls) == 3  # nothing was written after it, not even how far it came
        await into_projection(conn, settings, path, resume=True)

        with duckdb.connect(str(path), read_only=True) as con:
            assert con.sql("SELECT count(*), count(DISTINCT step) FROM metrics").fetchall() == [(120, 40)]
            assert con.sql("SELECT DISTINCT seq FROM morphogen.positions").fetchall() == [(last,)]

    bus(body)


def test_a_resumed_replay_begins_where_the_first_did_and_a_foreign_file_is_none(
    bus: Callable[[Body], None], tmp_path: Path
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(10))
        path = tmp_path / "late.duckdb"
        epoch = (await stream_info(conn, LOG)).epoch
        killed = ProjectionSink(path, epoch)
        await killed.begin(15)
        await killed.put(next(iter([m async for b in past(conn, settings, after=15) for m in b])), None, None)
        killed._store.close()  # type: ignore[union-attr]  # as by kill -9: nothing was folded

        report = await into_projection(conn, settings, path, resume=True)

        assert (report.first, report.last) == (16, last)
        with duckdb.connect(str(path), read_only=True) as con:
            assert con.sql("SELECT min(seq) FROM events").fetchall() == [(16,)]
        (tmp_path / "junk.duckdb").write_bytes(b"junk" * 5000)
        Store.open(tmp_path / "other.duckdb", epoch="other").close()
        for name in ("junk", "other"):
            with pytest.raises(SinkFailed, match=f"{name}.duckdb .* fold into another file") as caught:
                await into_projection(conn, settings, tmp_path / f"{name}.duckdb", resume=True)
            assert "rebuild" not in str(caught.value)

    bus(body)
