"""The publisher brings every event to the log once, and claims an attempt before anything else."""

import asyncio
import contextlib
import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.broker.process import find_binary, free_port
from morphogen.bus.connection import connect
from morphogen.bus.reader import read
from morphogen.bus.settings import Settings
from morphogen.bus.spool import Kind, pace
from morphogen.bus.spool import segment as segments
from morphogen.bus.spool.courier import FRAME_RECORDS
from morphogen.bus.spool.drain import drain
from morphogen.bus.spool.leftover import leftovers
from morphogen.bus.spool.publisher import Publisher
from morphogen.bus.spool.spool import Counts, Spool
from morphogen.bus.streams import LOG, ensure_streams
from morphogen.schemas.frames import Frame, decode_frame

STARTED = Kind("run.started", 1)
SCALARS = Kind("metrics.scalars", 1)
BODY = msgspec.msgpack.encode({"values": {"loss": 0.5}})
EMPTY = msgspec.msgpack.encode({})


def log_of(settings: Settings) -> list[tuple[str, Frame]]:
    """Read the whole log: subjects and frames."""

    async def collect() -> list[tuple[str, Frame]]:
        conn = await connect(settings, name="test")
        try:
            await ensure_streams(conn)
            return [(m.subject, decode_frame(m.data, m.seq)) async for batch in read(conn) for m in batch]
        finally:
            await conn.close()

    return asyncio.run(collect())


def counters(frames: list[tuple[str, Frame]], family: str = "metrics") -> list[int]:
    return [record.n for _, frame in frames for record in frame.records if frame.family == family]


@pytest.fixture
def spool(settings: Settings) -> Spool:
    return Spool.create(settings, run="r")


@pytest.fixture
def publisher(settings: Settings, spool: Spool) -> Iterator[Publisher]:
    publisher = Publisher(settings)
    publisher.add(spool)
    yield publisher
    publisher.close(0.5)


def start(spool: Spool) -> None:
    spool.lane("run").append(STARTED, None, time.time_ns(), None, EMPTY)


def test_a_trickle_of_numbers_goes_in_few_frames_and_a_flush_does_not_wait_for_them(
    settings: Settings, spool: Spool, publisher: Publisher
) -> None:
    start(spool)
    lane = spool.lane("metrics", high_rate=True)
    for step in range(400):
        lane.append(SCALARS, step, 5, None, BODY)
        time.sleep(0.002)
    began = time.monotonic()

    assert publisher.flush(20.0)
    waited = time.monotonic() - began
    assert publisher.close()
    frames = log_of(settings)
    assert counters(frames) == list(range(1, 401))
    assert sum(frame.family == "metrics" for _, frame in frames) < 200, "far fewer than one each 2 to 8 ms"
    assert waited < 10


def test_events_alone_do_not_wait_for_company(settings: Settings, spool: Spool, publisher: Publisher) -> None:
    start(spool)
    assert publisher.flush(20.0)
    lane = spool.lane("log", high_rate=False)
    for _ in range(20):
        lane.append(Kind("log.line", 1), None, 5, None, EMPTY)
        time.sleep(0.05)

    assert publisher.flush(20.0)
    assert publisher.close()
    assert sum(frame.family == "log" for _, frame in log_of(settings)) > 8, "one each, but for those of a busy machine"


def test_numbers_that_come_after_an_event_are_no_reason_to_publish(
    settings: Settings, spool: Spool, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_SHARE", 1e-6)  # however fast the machine, a trickle waits as long as it ever does,
    monkeypatch.setattr(pace, "_LONGEST_TRICKLE", 0.06)  # and by then there is an event again
    start(spool)
    assert publisher.flush(20.0)
    lane, events = spool.lane("metrics", high_rate=True), spool.lane("log", high_rate=False)
    for step in range(600):
        lane.append(SCALARS, step, 5, None, BODY)
        if step % 20 == 0:
            events.append(Kind("log.line", 1), None, 5, None, EMPTY)
        time.sleep(0.002)

    assert publisher.flush(20.0)
    assert publisher.close()
    frames = log_of(settings)
    assert counters(frames) == list(range(1, 601))
    both = [sum(frame.family == family for _, frame in frames) for family in ("metrics", "log")]
    assert both[0] < 1.5 * both[1] + 2, "with each event, and not once more after it"


def test_events_arrive_once_in_order_and_a_clean_end_leaves_nothing(
    settings: Settings, spool: Spool, publisher: Publisher
) -> None:
    start(spool)
    lane = spool.lane("metrics", high_rate=True)
    for step in range(20_000):
        lane.append(SCALARS, step, 5, None, BODY)

    assert publisher.flush(20.0)
    assert publisher.stats() == {"run": Counts(1, 1), "metrics": Counts(20_000, 20_000)}
    assert publisher.close()

    frames = log_of(settings)
    assert counters(frames) == list(range(1, 20_001))
    assert {subject for subject, _ in frames} == {"morphogen.log.r.run.1-0", "morphogen.log.r.metrics.1-0"}
    assert frames[0][1].family == "run"
    assert all(frame.size <= FRAME_RECORDS + 1024 for _, frame in frames)
    assert {(f.run, f.attempt, f.rank, f.writer, f.replay) for _, f in frames} == {("r", 1, 0, spool.writer, None)}
    assert not list(settings.spool_dir.iterdir())


@contextlib.contextmanager
def small_broker(home: Path, port: int, limit: int) -> Iterator[Settings]:
    """A broker that takes messages of at most `limit` bytes, on a port."""
    (home / "small.conf").write_text(
        f'listen: 127.0.0.1:{port}\nmax_payload: {limit}\njetstream {{ store_dir: "{home / "store"}" }}\n'
    )
    server = subprocess.Popen([find_binary(), "-c", home / "small.conf"], stderr=subprocess.DEVNULL)
    try:
        yield Settings(home=home, urls=(f"nats://127.0.0.1:{port}",))
    finally:
        server.kill()
        server.wait()


def fill(spool: Spool, count: int) -> None:
    start(spool)
    lane = spool.lane("metrics", high_rate=True)
    for step in range(count):
        lane.append(SCALARS, step, 5, None, BODY)


def test_a_broker_that_takes_only_small_messages_gets_small_frames(home: Path) -> None:
    limit = 64 * 1024
    with small_broker(home, free_port(), limit) as there:
        spool, publisher = Spool.create(there, run="r"), Publisher(there)
        publisher.add(spool)
        fill(spool, 20_000)

        assert publisher.flush(30.0)
        assert publisher.close()
        frames = log_of(there)
        assert counters(frames) == list(range(1, 20_001))
        assert max(frame.size for _, frame in frames) <= limit


def test_what_a_dead_writer_left_reaches_a_broker_that_takes_only_small_messages(home: Path) -> None:
    limit = 64 * 1024
    with small_broker(home, free_port(), limit) as there:
        spool = Spool.create(there, run="r")
        fill(spool, 20_000)
        assert not spool.finish(), "what is unsent stays"

        async def bring() -> None:
            async with asyncio.timeout(30):
                await drain(there)

        asyncio.run(bring())
        frames = log_of(there)
        assert counters(frames) == list(range(1, 20_001))
        assert max(frame.size for _, frame in frames) <= limit


def test_a_frame_that_is_too_large_for_the_next_broker_is_cut_anew(settings: Settings) -> None:
    lane = Spool.create(settings, run="r").lane("metrics", high_rate=True)
    for step in range(1000):
        lane.append(SCALARS, step, 5, None, BODY)
    large = lane.cut(40_000)
    assert large is not None

    small = lane.cut(1000)
    assert small is not None
    assert small.first == large.first
    assert 1 < small.count < large.count
    assert small.size <= 1000
    assert lane.cut(40_000) is small, "it may be on its way"
    one = lane.cut(1)
    assert one is not None
    assert one.count == 1
    assert lane.cut(1) is one, "there is no smaller one"
    lane.ack(large.last)  # it had arrived after all
    rest = lane.cut(40_000)
    assert rest is not None
    assert rest.first == large.last + 1


def test_an_attempt_is_claimed_even_when_the_run_lane_has_nothing_to_say(
    settings: Settings, spool: Spool, publisher: Publisher
) -> None:
    spool.lane("metrics").append(SCALARS, 1, 5, None, BODY)

    assert publisher.flush(10.0)
    start(spool)
    assert publisher.flush(10.0)

    frames = log_of(settings)
    assert [(f.family, f.first, f.last, len(f.records)) for _, f in frames] == [
        ("run", 1, 0, 0), ("metrics", 1, 1, 1), ("run", 1, 1, 1)
    ]  # fmt: skip


def test_two_writers_with_one_forced_attempt_become_two_attempts(settings: Settings) -> None:
    spools = [Spool.create(settings, run="r", attempt=7) for _ in range(3)]
    publishers = [Publisher(settings, adopt=False) for _ in spools]
    for publisher, spool in zip(publishers, spools, strict=True):
        publisher.add(spool)
        start(spool)
        for step in range(100):
            spool.lane("metrics").append(SCALARS, step, 5, None, BODY)

    closed = [publisher.close(10.0) for publisher in publishers]

    assert closed == [True] * 3
    assert sorted(spool.attempt for spool in spools) == [7, 8, 9]
    frames = log_of(settings)
    for spool in spools:
        mine = [(subject, frame) for subject, frame in frames if frame.writer == spool.writer]
        assert counters(mine) == list(range(1, 101))
        assert {frame.attempt for _, frame in mine} == {spool.attempt}
        assert {subject.rpartition(".")[2] for subject, _ in mine} == {f"{spool.attempt}-0"}
    assert Spool.create(settings, run="r").attempt == 10


def test_ranks_that_meet_an_old_run_agree_on_the_next_attempt(settings: Settings) -> None:
    for attempt in (1, 2):
        for rank in (0, 1):
            _record(settings, rank, attempt)

    again = [_record(settings, rank, 1) for rank in (0, 1)]

    assert [spool.attempt for spool in again] == [3, 3]


def _record(settings: Settings, rank: int, attempt: int) -> Spool:
    spool = Spool.create(settings, run="r", rank=rank, attempt=attempt)
    publisher = Publisher(settings, adopt=False)
    publisher.add(spool)
    start(spool)
    assert publisher.close(10.0)
    return spool


def test_a_second_writer_found_later_fences_the_first_which_goes_on_loudly(
    settings: Settings, spool: Spool, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    start(spool)
    lane = spool.lane("metrics")
    lane.append(SCALARS, 1, 5, None, BODY)
    assert publisher.flush(10.0)
    _trim(settings)
    intruder = Spool.create(settings, run="r", attempt=1)
    second = Publisher(settings, adopt=False)
    second.add(intruder)
    start(intruder)
    intruder.lane("metrics").append(SCALARS, 1, 5, None, BODY)
    assert second.close(10.0)

    for step in range(100):
        lane.append(SCALARS, step, 5, None, BODY)
    assert publisher.flush(10.0)

    assert (intruder.attempt, spool.attempt) == (1, 2)
    assert caplog.text.count("is recorded by another process as well; this one goes on as attempt 2") == 1
    mine = [each for each in log_of(settings) if each[1].writer == spool.writer]
    assert counters(mine) == list(range(2, 102))


def _trim(settings: Settings) -> None:
    async def trim() -> None:
        conn = await connect(settings, name="test")
        await conn.js(f"STREAM.PURGE.{LOG}", {})
        await conn.close()

    asyncio.run(trim())


def test_noise_at_the_end_of_a_subject_holds_nobody_up(settings: Settings, spool: Spool, publisher: Publisher) -> None:
    start(spool)
    lane = spool.lane("metrics")
    lane.append(SCALARS, 1, 5, None, BODY)
    assert publisher.flush(10.0)
    subjects = {subject for subject, _ in log_of(settings)}

    async def spoil() -> list[int]:
        conn = await connect(settings, name="test")
        acks = [await conn.publish_ack(subject, b"noise") for subject in subjects]
        await conn.close()
        return [ack.seq for ack in acks]

    noise = asyncio.run(spoil())
    lane.append(SCALARS, 2, 5, None, BODY)
    lane.append(SCALARS, 3, 5, None, BODY)

    assert publisher.flush(10.0)
    assert max(noise) == 4
    assert spool.attempt == 1

    async def metrics() -> list[int]:
        conn = await connect(settings, name="test")
        messages = [message async for batch in read(conn) for message in batch if message.seq not in noise]
        await conn.close()
        frames = [("", decode_frame(message.data)) for message in messages]
        return counters(frames)

    assert asyncio.run(metrics()) == [1, 2, 3]


def test_trimming_the_log_behind_a_writer_disturbs_nothing(
    settings: Settings, spool: Spool, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    start(spool)
    lane = spool.lane("metrics")
    for step in range(100):
        lane.append(SCALARS, step, 5, None, BODY)
    assert publisher.flush(10.0)
    _trim(settings)

    for step in range(100):
        lane.append(SCALARS, step, 5, None, BODY)
    assert publisher.close(10.0)

    assert counters(log_of(settings)) == list(range(101, 201))
    assert spool.attempt == 1
    assert caplog.text == ""


def test_an_event_of_five_megabytes_travels_by_reference(
    settings: Settings, spool: Spool, publisher: Publisher
) -> None:
    from morphogen.bus.blobs import get_bytes

    body = msgspec.msgpack.encode({"x": os.urandom(5 << 20)})
    start(spool)
    lane = spool.lane("artifact")
    lane.append(SCALARS, 1, 5, None, BODY)
    lane.append(SCALARS, 2, 6, "cause.run.1", body)
    lane.append(SCALARS, 3, 7, None, BODY)

    assert publisher.flush(20.0)

    records = [record for _, frame in log_of(settings) if frame.family == "artifact" for record in frame.records]
    assert [record.n for record in records] == [1, 2, 3]
    big = records[1]
    assert (big.type, big.version, big.step, big.time, big.cause) == ("metrics.scalars", 1, 2, 6, "cause.run.1")
    stub = msgspec.msgpack.decode(big.body)
    assert stub["size"] == len(body)

    async def fetch() -> bytes:
        conn = await connect(settings, name="test")
        try:
            return await get_bytes(conn, stub["$blob"])
        finally:
            await conn.close()

    assert asyncio.run(fetch()) == body


def test_what_a_dead_writer_left_is_published_by_the_next(settings: Settings) -> None:
    dead = Spool.create(settings, run="r")
    start(dead)
    for step in range(1000):
        dead.lane("metrics").append(SCALARS, step, 5, None, BODY)
    dead._unlock()

    spool = Spool.create(settings, run="r")
    publisher = Publisher(settings)
    publisher.add(spool)
    start(spool)
    end = time.monotonic() + 10.0
    while dead.folder in list(leftovers(settings)) and time.monotonic() < end:
        time.sleep(0.02)
    assert publisher.close()

    frames = log_of(settings)
    assert counters([each for each in frames if each[1].writer == dead.writer]) == list(range(1, 1001))
    assert {frame.attempt for _, frame in frames if frame.writer == dead.writer} == {1}
    assert not list(settings.spool_dir.iterdir())


def test_sync_drains_everything_and_counts_it(settings: Settings) -> None:
    brokers.ensure(settings)
    for run in ("a", "b", "b"):
        spool = Spool.create(settings, run=run)
        start(spool)
        for step in range(5000):
            spool.lane("metrics").append(SCALARS, step, 5, None, BODY)
        spool.finish()
    alive = Spool.create(settings, run="c")
    start(alive)
    seen: list[int] = []

    report = asyncio.run(drain(settings, lambda so_far: seen.append(so_far.events)))

    assert (report.runs, report.spools, report.events, report.quarantined) == (("a", "b"), 3, 15_003, 0)
    assert (report.busy, report.stuck) == (1, 0)
    assert report.bytes > 15_000 * len(BODY)
    assert seen == sorted(seen)
    assert seen[-1] == 15_003
    assert asyncio.run(drain(settings)).events == 0
    assert len(counters(log_of(settings))) == 15_000
    alive.finish()


def test_two_dead_writers_of_one_attempt_are_drained_as_two(settings: Settings) -> None:
    for _ in range(2):
        spool = Spool.create(settings, run="r", attempt=3)
        start(spool)
        spool.lane("metrics").append(SCALARS, 1, 5, None, BODY)
        spool.finish()

    report = asyncio.run(drain(settings))

    assert (report.spools, report.events) == (2, 4)
    frames = log_of(settings)
    assert sorted((frame.attempt, frame.family) for _, frame in frames) == [
        (3, "metrics"), (3, "run"), (4, "metrics"), (4, "run")
    ]  # fmt: skip
    assert len({(frame.attempt, frame.writer) for _, frame in frames}) == 2
    assert Spool.create(settings, run="r").attempt == 5


def test_closing_without_a_broker_is_bounded_and_keeps_everything(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = Settings(home=settings.home, urls=("nats://127.0.0.1:1",))
    spool = Spool.create(nowhere, run="r")
    publisher = Publisher(nowhere)
    publisher.add(spool)
    start(spool)
    for step in range(1000):
        spool.lane("metrics").append(SCALARS, step, 5, None, BODY)
    began = time.monotonic()

    assert not publisher.flush(0.3)
    assert not publisher.close(0.5)

    assert time.monotonic() - began < 3.0
    assert caplog.text.count("cannot reach the log") == 1
    assert asyncio.run(drain(settings)).events == 1001


def test_the_thread_sleeps_when_there_is_nothing_to_do_and_wakes_at_once(
    settings: Settings, spool: Spool, publisher: Publisher
) -> None:
    start(spool)
    assert publisher.flush(10.0)
    end = time.monotonic() + 10.0
    while not spool.room.bell.attention and time.monotonic() < end:
        time.sleep(0.01)
    assert spool.room.bell.attention

    lane = spool.lane("metrics")
    lane.append(SCALARS, 1, 5, None, BODY)
    end = time.monotonic() + 2.0
    while lane.pending and time.monotonic() < end:
        time.sleep(0.005)

    assert not lane.pending


def test_threads_and_several_runs_share_one_publisher(settings: Settings) -> None:
    publisher = Publisher(settings, adopt=False)
    spools = [Spool.create(settings, run=f"run {i}") for i in range(3)]
    for spool in spools:
        publisher.add(spool)

    def log(spool: Spool, family: str) -> None:
        for step in range(2000):
            spool.lane(family, high_rate=True).append(SCALARS, step, 5, None, BODY)

    threads = [
        threading.Thread(target=log, args=(spool, family))
        for spool in spools
        for family in ("metrics", "metrics", "log")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.remove(spools[0], 10.0)
    assert publisher.close(10.0)

    frames = log_of(settings)
    for spool in spools:
        mine = [each for each in frames if each[1].run == spool.run]
        assert counters(mine) == list(range(1, 4001))
        assert counters(mine, "log") == list(range(1, 2001))


def test_drops_are_told_in_the_producer_lane(settings: Settings) -> None:
    small = Settings(home=settings.home, spool_limit=1 << 20)
    spool = Spool.create(small, run="r")
    start(spool)
    lane = spool.lane("metrics", high_rate=True)
    for step in range(40_000):
        lane.append(SCALARS, step, 5, None, BODY)
    assert lane.dropped > 0
    publisher = Publisher(small)
    publisher.add(spool)

    assert publisher.close(10.0)

    frames = log_of(settings)
    told = [msgspec.msgpack.decode(r.body) for _, f in frames if f.family == "producer" for r in f.records]
    assert {(each["lane"], each["reason"]) for each in told} == {("metrics", "the spool is full")}
    gone = [n for each in told for n in range(each["first"], each["last"] + 1)]
    assert sorted([*gone, *counters(frames)]) == list(range(1, 40_001))
    assert sum(each["count"] for each in told) == len(gone) == lane.dropped


def test_sync_tells_what_it_cannot_read_from_what_is_in_use(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    brokers.ensure(settings)
    alive, damaged = Spool.create(settings, run="a"), Spool.create(settings, run="b")
    start(damaged)
    damaged.finish()
    assert damaged.folder is not None
    for name in ("writer.json", "lock"):
        (damaged.folder / name).write_text("{")
    stray = settings.spool_dir / "foo" / "bar"
    stray.mkdir(parents=True)

    report = asyncio.run(drain(settings))

    assert (report.busy, report.stuck, report.spools) == (1, 2, 0)
    assert str(damaged.folder) in caplog.text
    assert str(stray) in caplog.text
    alive.finish()


def test_what_was_kept_in_memory_only_is_not_lost_without_a_word(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "blocked").write_text("")
    nowhere = Settings(home=home / "blocked", urls=("nats://127.0.0.1:1",))
    spools = [Spool.create(nowhere, run=run) for run in ("r", "s")]
    publisher = Publisher(nowhere)
    for spool in spools:
        publisher.add(spool)
        start(spool)
    for step in range(102):
        spools[0].lane("metrics").append(SCALARS, step, 5, None, BODY)

    assert not publisher.remove(spools[1], 0.1)
    assert not publisher.close(0.1)
    assert not publisher.close(0.1)

    assert caplog.text.count("run r: 103 events are lost") == 1
    assert caplog.text.count("run s: 1 events are lost") == 1


def test_of_a_disk_that_fills_up_meanwhile_only_what_it_did_not_take_is_told_as_lost(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(fd: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spool = Spool.create(Settings(home=home, urls=("nats://127.0.0.1:1",)), run="r")
    start(spool)
    monkeypatch.setattr(segments, "allocate", full)
    for step in range(102):
        spool.lane("metrics").append(SCALARS, step, 5, None, BODY)
    publisher = Publisher(spool.settings)
    publisher.add(spool)

    assert not publisher.close(0.1)
    assert not publisher.close(0.1)

    assert caplog.text.count("run r: 102 events are lost") == 1
    assert caplog.text.count("are lost") == 1


def test_a_publisher_that_was_closed_holds_no_pipe_and_may_begin_again(
    settings: Settings, publisher: Publisher
) -> None:
    for run in ("r", "s"):
        spool = Spool.create(settings, run=run)
        publisher.add(spool)
        start(spool)

        assert publisher.close(10)
        assert publisher._desk.ear is None
        assert spool.room.bell.ring is None
        assert publisher.flush(1)

    assert [frame.run for _, frame in log_of(settings) if frame.family == "run"] == ["r", "s"]
