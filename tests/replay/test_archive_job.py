"""The log goes into the archive whole, survives kills on the way, and is trimmed only behind what is safe."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from morphogen.bus.archive import writer as archive_writer
from morphogen.bus.archive.archive import Archive
from morphogen.bus.connection import Connection
from morphogen.bus.errors import ArchiveDamaged, LogGap
from morphogen.bus.past import past
from morphogen.bus.reader import Message, read
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, stream_info, trim
from morphogen.replay.archive import archive

from .conftest import Body, Callable, fill

TODAY = time.time_ns()


def later() -> int:
    """Return a time at which everything stored so far is old."""
    return time.time_ns() + 30 * 86_400_000_000_000


async def box_of(conn: Connection, settings: Settings) -> Archive:
    return Archive.of(settings, (await stream_info(conn, LOG)).epoch)


async def everything(conn: Connection, settings: Settings) -> list[Message]:
    return [message async for batch in past(conn, settings) for message in batch]


def test_the_whole_log_is_archived_and_a_second_run_adds_only_what_is_new(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(10))
        await conn.publish_ack("morphogen.log.a.metrics.1-0", b"no frame")
        seen: list[tuple[int, int, str]] = []

        first = await archive(conn, settings, progress=lambda *step: seen.append(step))
        again = await archive(conn, settings)
        last = await fill(conn, "b", range(4))
        more = await archive(conn, settings)

        assert (first.first, first.last, first.messages) == (1, 31, 31)
        assert (again.first, again.last, again.messages) == (32, 31, 0)
        assert (more.first, more.last, more.messages) == (32, last, 12)
        assert seen[-1] == (31, 31, "messages")
        log = [message async for batch in read(conn) for message in batch]
        archived = [message for batch in (await box_of(conn, settings)).read() for message in batch]
        assert archived == log

    bus(body)


def test_the_log_is_trimmed_behind_the_archive_and_the_past_stays_whole(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(10))
        before = await everything(conn, settings)

        kept = await archive(conn, settings, trim_log=True, keep=0)
        assert kept.trimmed == 0  # too young: the broker still uses it to refuse duplicates

        gone = await archive(conn, settings, trim_log=True, keep=0, now_ns=later())
        assert gone.trimmed == last
        assert (await stream_info(conn, LOG)).messages == 0
        assert await everything(conn, settings) == before

        await fill(conn, "b", range(2))
        again = await archive(conn, settings, trim_log=True, keep=0, now_ns=later())
        assert (again.first, again.trimmed) == (last + 1, 6)
        assert len(await everything(conn, settings)) == last + 6

    bus(body)


def test_a_clock_that_is_ahead_of_the_brokers_forgets_nothing_young(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(3))
        monkeypatch.setattr(time, "time_ns", lambda: TODAY + 2 * 86_400_000_000_000)

        assert (await archive(conn, settings, trim_log=True, keep=86400)).trimmed == 0

    bus(body)


def test_a_damaged_file_stops_the_trimming_and_is_written_again_from_the_log(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(10))
        await archive(conn, settings)
        await fill(conn, "b", range(10))
        await archive(conn, settings)
        before = await everything(conn, settings)
        path = sorted((await box_of(conn, settings)).folder.glob("**/*.parquet"))[0]
        path.write_bytes(path.read_bytes()[:-1])

        with pytest.raises(ArchiveDamaged, match="nothing was trimmed"):
            await archive(conn, settings, trim_log=True, now_ns=later())
        assert (await stream_info(conn, LOG)).first_seq == 1

        report = await archive(conn, settings, repair=True)
        assert report.repaired == (1,)
        box = await box_of(conn, settings)
        assert box.verify() == []
        assert [message for batch in box.read() for message in batch] == before

        path.unlink()
        await trim(conn, 5)
        with pytest.raises(ArchiveDamaged, match="only a backup has it"):
            await archive(conn, settings, repair=True)

    bus(body)


def test_an_archive_that_is_not_of_this_log_stops_the_trimming(bus: Callable[[Body], None], tmp_path: Path) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(3))
        box = await box_of(conn, settings)
        with box.writing(1) as writer:
            segment = writer.segment()
            async for batch in read(conn):
                segment.add([message._replace(data=b"other") for message in batch])
            writer.commit(segment.seal())

        with pytest.raises(ArchiveDamaged, match="message 1 of the log is not the one in"):
            await archive(conn, settings, trim_log=True, now_ns=later())
        assert (await stream_info(conn, LOG)).first_seq == 1

    bus(body)


def test_what_is_lost_for_good_is_named_and_has_to_be_accepted(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(5))
        await trim(conn, 4)

        with pytest.raises(LogGap, match="messages 1-3 "):
            await archive(conn, settings)
        await archive(conn, settings, accept_gap=True)

        assert (await box_of(conn, settings)).gaps == [(1, 3)]
        assert [message.seq for message in await everything(conn, settings)] == list(range(4, 16))

    bus(body)


def test_cancelling_keeps_what_was_read_and_the_next_run_goes_on(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.bus.pull._BATCH", 8)

    async def body(conn: Connection, settings: Settings) -> None:
        last = await fill(conn, "a", range(60))

        def stop(done: int, total: int, unit: str) -> None:
            if done < total:
                task.cancel()

        task = asyncio.create_task(archive(conn, settings, progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        box = await box_of(conn, settings)
        assert 0 < box.covered < last
        assert box.verify() == []
        assert list(box.folder.glob("**/*.part")) == []

        await archive(conn, settings)
        archived = [message.seq for batch in (await box_of(conn, settings)).read() for message in batch]
        assert archived == list(range(1, last + 1))

    bus(body)


JOB = """
import asyncio, sys
from pathlib import Path
from morphogen.bus import pull
from morphogen.bus.archive import writer as archive_writer
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.replay.archive import archive
archive_writer.WINDOW_ROWS, archive_writer.SEGMENT_ROWS, pull._BATCH = 11, 40, 32
async def main():
    settings = Settings(home=Path(sys.argv[1]))
    conn = await connect(settings, name="job", start_broker=False)
    print("go", flush=True)
    await archive(conn, settings)
    await conn.close()
asyncio.run(main())
"""


def test_a_job_killed_at_any_moment_goes_on_with_nothing_lost_or_doubled(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        last = 0
        for attempt in range(10):
            last = await fill(conn, f"run {attempt % 3}", range(attempt * 30, attempt * 30 + 30))
            child = subprocess.Popen([sys.executable, "-c", JOB, str(settings.home)], stdout=subprocess.PIPE)
            assert child.stdout is not None
            await asyncio.to_thread(child.stdout.readline)
            await asyncio.sleep(0.006 * attempt)
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
            seen = [m.seq for batch in (await box_of(conn, settings)).read() for m in batch]
            assert seen == list(range(1, len(seen) + 1))
        await archive(conn, settings)

        box = await box_of(conn, settings)
        assert [m for batch in box.read() for m in batch] == [m async for batch in read(conn) for m in batch]
        assert box.covered == last
        assert box.verify() == []
        assert box.strangers() == []

    bus(body)


def test_many_segments_and_windows_come_back_in_order(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_writer, "WINDOW_ROWS", 5)
    monkeypatch.setattr(archive_writer, "SEGMENT_ROWS", 17)

    async def body(conn: Connection, settings: Settings) -> None:
        for run in ("a", "b", "c"):
            await fill(conn, run, range(15))
        report = await archive(conn, settings)

        box = await box_of(conn, settings)
        assert len(box.manifest.segments) == 8
        assert report.files == sum(len(segment.files) for segment in box.manifest.segments)
        assert [m for batch in box.read() for m in batch] == [m async for batch in read(conn) for m in batch]

    bus(body)


def test_a_hole_amid_the_log_has_to_be_accepted_and_is_noted(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        for run in ("a", "b", "c", "d"):
            await fill(conn, run, range(2))
        for run in ("b", "d"):
            await conn.js(f"STREAM.PURGE.{LOG}", {"filter": f"morphogen.log.{run}.>"})

        with pytest.raises(LogGap, match="messages 7-12 "):
            await archive(conn, settings)
        with pytest.raises(LogGap, match="messages 19-24 "):
            await archive(conn, settings, accept_gap=True, upto=18)
            await archive(conn, settings)
        report = await archive(conn, settings, accept_gap=True)

        assert (report.archived, report.rows) == (24, 12)
        assert (await box_of(conn, settings)).gaps == [(7, 12), (19, 24)]
        assert [m.seq for m in await everything(conn, settings)] == [*range(1, 7), *range(13, 19)]

    bus(body)


def test_a_time_to_keep_that_is_longer_than_time_keeps_everything(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await fill(conn, "a", range(2))
        assert (await archive(conn, settings, trim_log=True, keep=1e303)).trimmed == 0

    bus(body)
