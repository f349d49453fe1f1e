"""Archive and live log read as one sequence, whatever is trimmed, archived or missing on the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest

from morphogen.bus import Bus, Seen, broker
from morphogen.bus import past as module
from morphogen.bus.archive.archive import Archive
from morphogen.bus.connection import Connection, connect
from morphogen.bus.errors import ArchiveError, Disconnected, LogGap
from morphogen.bus.past import extent, past, sequence_at
from morphogen.bus.reader import Message, read
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, StreamInfo, ensure_streams, stream_info, trim
from morphogen.schemas import LogLine

Body = Callable[[Connection, Settings], Awaitable[None]]


@pytest.fixture
def bus(home: Path) -> Iterator[Callable[[Body], None]]:
    """Run an async body against a broker and log of its own."""
    settings = Settings(home=home)

    @asynccontextmanager
    async def open_bus() -> AsyncIterator[Connection]:
        conn = await connect(settings, name="test")
        try:
            await ensure_streams(conn)
            yield conn
        finally:
            await conn.close()

    async def go(body: Body) -> None:
        async with open_bus() as conn:
            await body(conn, settings)

    try:
        yield lambda body: asyncio.run(go(body))
    finally:
        broker.down(settings)


async def publish(conn: Connection, first: int, last: int) -> None:
    """Publish messages whose bytes are their sequence, over two runs and two families."""
    for seq in range(first, last + 1):
        family = "metrics" if seq % 3 else "log"
        ack = await conn.publish_ack(f"morphogen.log.run{seq % 2}.{family}.1-0", b"%d" % seq)
        assert ack.seq == seq


async def archive_upto(conn: Connection, settings: Settings, last: int) -> Archive:
    """Archive what is not yet, up to a sequence, as one segment."""
    info = await stream_info(conn, LOG)
    archive = Archive.of(settings, info.epoch)
    with archive.writing(info.first_seq) as writer:
        segment = writer.segment()
        async for batch in read(conn, after=archive.covered, upto=last):
            segment.add(batch)
        writer.commit(segment.seal())
    return archive


async def seqs(batches: AsyncIterator[list[Message]]) -> list[int]:
    """Return the sequences, after checking that each message is the one of its sequence."""
    found: list[Message] = []
    async for batch in batches:
        assert batch
        found += batch
    assert all(int(message.data) == message.seq for message in found)
    return [message.seq for message in found]


@pytest.mark.parametrize(("archived", "trimmed"), [(0, 0), (12, 0), (12, 12), (12, 7), (20, 20), (20, 0)])
def test_the_past_is_seamless_wherever_the_archive_ends_and_the_log_begins(
    bus: Callable[[Body], None], archived: int, trimmed: int
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 20)
        if archived:
            await archive_upto(conn, settings, archived)
        if trimmed:
            await trim(conn, trimmed + 1)

        assert await seqs(past(conn, settings)) == list(range(1, 21))
        assert await seqs(past(conn, settings, after=5, upto=15)) == list(range(6, 16))
        assert await seqs(past(conn, settings, after=12)) == list(range(13, 21))
        assert await seqs(past(conn, settings, after=20)) == []
        assert await seqs(past(conn, settings, upto=99)) == list(range(1, 21))
        assert await seqs(past(conn, settings, run="run1")) == list(range(1, 21, 2))
        assert await seqs(past(conn, settings, family="log")) == list(range(3, 21, 3))
        assert await seqs(past(conn, settings, run="run0", family=["log", "other"])) == [6, 12, 18]
        reach = await extent(conn, settings)
        assert (reach.archived, reach.live, reach.last) == (archived, trimmed + 1, 20)

    bus(body)


def test_a_time_is_found_in_the_archive_and_in_the_log(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 10)
        everything = [message async for batch in read(conn) for message in batch]
        await archive_upto(conn, settings, 6)
        await trim(conn, 5)

        for message in everything:
            assert await sequence_at(conn, settings, message.stored) == message.seq
            assert await seqs(past(conn, settings, since_ns=message.stored)) == list(range(message.seq, 11))
        assert await sequence_at(conn, settings, 0) == 1
        assert await sequence_at(conn, settings, everything[-1].stored + 1) == 11
        assert await seqs(past(conn, settings, since_ns=everything[-1].stored + 1)) == []

    bus(body)


@pytest.mark.parametrize("run", [None, "run1"])
def test_the_log_may_be_archived_and_trimmed_while_it_is_read(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch, run: str | None
) -> None:
    monkeypatch.setattr("morphogen.bus.pull._BATCH", 4)

    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 400)
        await archive_upto(conn, settings, 10)
        found = []
        async for batch in past(conn, settings, run=run):
            found += [message.seq for message in batch]
            reach = await extent(conn, settings)
            upto = min(reach.archived + 37, 400)
            if upto > reach.archived:
                await archive_upto(conn, settings, upto)
                await trim(conn, upto + 1)
        assert found == list(range(1, 401, 1 if run is None else 2))

    bus(body)


def test_a_missing_range_is_named(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 20)
        await archive_upto(conn, settings, 5)
        await trim(conn, 9)

        with pytest.raises(LogGap, match="messages 6-8 are in neither the archive nor the log") as caught:
            await seqs(past(conn, settings))
        assert (caught.value.first, caught.value.last) == (6, 8)
        with pytest.raises(LogGap, match="6-8"):
            await seqs(past(conn, settings, run="run1"))
        assert await seqs(past(conn, settings, upto=5)) == [1, 2, 3, 4, 5]
        assert await seqs(past(conn, settings, after=8)) == list(range(9, 21))

    bus(body)


def test_a_wholly_trimmed_log_is_still_a_past(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 9)
        await archive_upto(conn, settings, 9)
        await trim(conn, 10)
        assert await seqs(past(conn, settings)) == list(range(1, 10))

        await publish(conn, 10, 12)
        assert await seqs(past(conn, settings)) == list(range(1, 13))

    bus(body)


def test_without_a_broker_the_archive_alone_is_read(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        with pytest.raises(ArchiveError, match="no archive"):
            await seqs(past(None, settings))
        await publish(conn, 1, 9)
        await archive_upto(conn, settings, 6)

    bus(body)

    async def offline(settings: Settings) -> None:
        assert await seqs(past(None, settings)) == [1, 2, 3, 4, 5, 6]
        assert await seqs(past(None, settings, after=4)) == [5, 6]
        assert await sequence_at(None, settings, 1 << 62) == 7
        with pytest.raises(ArchiveError, match="ends at sequence 6: start the broker"):
            await seqs(past(None, settings, upto=7))

    asyncio.run(offline(Settings.from_environ()))


def test_a_live_past_goes_on_from_the_archive_into_what_is_stored_later(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 6)
        await archive_upto(conn, settings, 4)
        await trim(conn, 4)
        found: list[int] = []

        async def follow() -> None:
            async for batch in past(conn, settings, follow=True, upto=12):
                found.extend(message.seq for message in batch)

        reader = asyncio.create_task(follow())
        await publish(conn, 7, 12)
        await asyncio.wait_for(reader, 10)

        assert found == list(range(1, 13))

    bus(body)


def test_a_hole_amid_the_log_is_named_and_what_is_before_it_comes(
    bus: Callable[[Body], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 21)
        await conn.js(f"STREAM.PURGE.{LOG}", {"filter": "morphogen.log.run1.log.1-0"})  # 3, 9, 15, 21
        found: list[int] = []

        with pytest.raises(LogGap, match=r"messages 3-3 .* accept the loss"):
            async for batch in past(conn, settings):
                found += [message.seq for message in batch]
        assert found == [1, 2]
        with pytest.raises(LogGap, match="messages 21-21 "):
            await seqs(past(conn, settings, after=15))
        whole = [seq for seq in range(1, 21) if seq not in (3, 9, 15)]
        assert await seqs(past(conn, settings, holes=True)) == whole
        assert await seqs(past(conn, settings, upto=20, follow=True)) == whole  # one that goes on is warned
        assert await seqs(past(conn, settings, after=3, upto=8)) == [4, 5, 6, 7, 8]

    bus(body)


def test_a_time_behind_a_lost_range_is_an_error_and_a_whole_log_no_warning(
    bus: Callable[[Body], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 20)
        stored = [message.stored async for batch in read(conn) for message in batch]
        for ns, seq in ((-(10**30), 1), (0, 1), (stored[11], 12), (10**30, 21)):
            assert await sequence_at(conn, settings, ns) == seq
        assert [m.seq async for batch in read(conn, since_ns=stored[11]) for m in batch] == list(range(12, 21))
        assert "damaged" not in caplog.text

        await archive_upto(conn, settings, 5)
        await trim(conn, 9)
        for seq in (6, 9):  # which of 6 to 8 were stored by then, nobody knows
            with pytest.raises(LogGap, match="messages 6-8 "):
                await sequence_at(conn, settings, stored[seq - 1])
        assert await sequence_at(conn, settings, stored[4]) == 5
        assert await sequence_at(conn, settings, stored[9]) == 10

    bus(body)


async def put_back(conn: Connection, last: int) -> None:
    """Let the log be another one of the same identity, as a broker's store that is restored from an older copy."""
    config = (await conn.js(f"STREAM.INFO.{LOG}"))["config"]
    await conn.js(f"STREAM.DELETE.{LOG}")
    await conn.js(f"STREAM.CREATE.{LOG}", {name: config[name] for name in ("name", "subjects", "metadata", "storage")})
    await publish(conn, 1, last)


def test_a_log_older_than_its_archive_is_refused(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 10)
        epoch = (await archive_upto(conn, settings, 10)).folder.name
        await put_back(conn, 6)

        with pytest.raises(ArchiveError, match=r"the log ends at 6, its archive .* at 10: .* older copy"):
            await extent(conn, settings)
        await publish(conn, 7, 14)
        for after in (0, 12):
            with pytest.raises(ArchiveError, match="message 10 of the log is not the one in"):
                await seqs(past(conn, settings, after=after))
        assert await seqs(past(None, settings, epoch=epoch)) == list(range(1, 11))

    bus(body)


@pytest.mark.parametrize("follow", [False, True])
def test_a_broker_that_is_away_amid_the_reading_is_waited_for(
    bus: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    asked = 0

    async def away(conn: Connection, stream: str) -> StreamInfo:
        nonlocal asked
        asked += 1
        if asked in (2, 4, 6):  # the first is asked before anything is read
            raise Disconnected("the connection was lost")
        return await stream_info(conn, stream)

    async def body(conn: Connection, settings: Settings) -> None:
        await publish(conn, 1, 20)
        await archive_upto(conn, settings, 6)
        await trim(conn, 5)
        monkeypatch.setattr(module, "stream_info", away)
        found = []
        async with aclosing(past(conn, settings, family="log", follow=follow)) as batches:
            async for batch in batches:
                found += [message.seq for message in batch]
                if found[-1] == 18:
                    break
        assert found == [3, 6, 9, 12, 15, 18]
        assert asked > 2

    bus(body)


def test_a_program_that_is_not_asynchronous_reads_archive_and_log_as_one(
    settings: Settings, trimmed: Callable[[Bus], None]
) -> None:
    with Bus.open(settings) as opened:

        def tell(number: int) -> None:
            opened.emit(LogLine(message=str(number)), run=f"run{number % 2}", msg_id=f"line-{number}")

        def said(seen: Iterator[Seen], count: int) -> list[str]:
            return [str(getattr(one.event, "message", None)) for one in islice(seen, count)]

        for number in range(4):
            tell(number)
        trimmed(opened)
        for number in range(4, 6):
            tell(number)

        assert said(opened.past(family="log"), 9) == [*"012345"]
        assert said(opened.past(run="run1", after=2, upto=5), 9) == ["3"]
        following = opened.past(family="log", after=1, follow=True)
        assert said(following, 2) == [*"12"]
        tell(6)
        trimmed(opened)
        tell(7)
        assert said(following, 5) == [*"34567"]


def test_who_follows_by_a_filter_goes_on_where_another_machine_trims_the_log(
    settings: Settings, trimmed: Callable[[Bus], None], caplog: pytest.LogCaptureFixture
) -> None:
    with Bus.open(settings) as opened:
        for number in range(3):
            opened.emit(LogLine(message=str(number)), run=f"run{number % 2}", msg_id=f"line-{number}")
        following = opened.past(run="run0", follow=True)
        assert [str(getattr(one.event, "message", None)) for one in islice(following, 2)] == ["0", "2"]
        opened.emit(LogLine(message="3"), run="run1", msg_id="line-3")
        trimmed(opened)
        settings.archive_dir.rename(settings.home / "elsewhere")
        opened.emit(LogLine(message="4"), run="run0", msg_id="line-4")
        assert getattr(next(following).event, "message", None) == "4"
        assert "trimmed behind message 3 while it was followed" in caplog.text
        with pytest.raises(LogGap):
            next(opened.past(run="run0", after=3, follow=True))
