"""What happens to the way to the log when brokers die, disks fill, processes fork and bits flip: nothing is lost."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.connection import Connection, PubAck, connect
from morphogen.bus.errors import JetStreamApiError, PublishTimeout
from morphogen.bus.reader import read
from morphogen.bus.settings import Settings
from morphogen.bus.spool import Kind
from morphogen.bus.spool import courier as couriers
from morphogen.bus.spool import room as rooms
from morphogen.bus.spool.drain import drain
from morphogen.bus.spool.leftover import leftovers
from morphogen.bus.spool.publisher import Publisher
from morphogen.bus.spool.spool import Spool
from morphogen.bus.streams import LOG, ensure_streams
from morphogen.schemas.frames import Frame, decode_frame

# Forking beside threads is what training frameworks do, whatever newer interpreters think of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

STARTED = Kind("run.started", 1)
SCALARS = Kind("metrics.scalars", 1)
BODY = msgspec.msgpack.encode({"values": {"loss": 0.5}})


def log_of(settings: Settings) -> list[Frame]:
    async def collect() -> list[Frame]:
        conn = await connect(settings, name="test")
        try:
            await ensure_streams(conn)
            return [decode_frame(m.data, m.seq) async for batch in read(conn) for m in batch]
        finally:
            await conn.close()

    return asyncio.run(collect())


def counters(frames: list[Frame], writer: str | None = None, family: str = "metrics") -> list[int]:
    return [r.n for f in frames for r in f.records if f.family == family and writer in (None, f.writer)]


def recording(settings: Settings, run: str = "r", attempt: int | None = None) -> tuple[Spool, Publisher]:
    spool = Spool.create(settings, run=run, attempt=attempt)
    publisher = Publisher(settings)
    publisher.add(spool)
    spool.lane("run").append(STARTED, None, time.time_ns(), None, msgspec.msgpack.encode({}))
    return spool, publisher


def test_a_broker_killed_again_and_again_while_events_flow_loses_and_doubles_nothing(settings: Settings) -> None:
    spool, publisher = recording(settings)
    lane = spool.lane("metrics", high_rate=True)
    assert publisher.flush(20.0)
    logged = 0
    for _ in range(5):
        end = time.monotonic() + random.uniform(0.05, 0.3)
        while time.monotonic() < end:
            for step in range(20):
                logged = lane.append(SCALARS, step, 5, None, BODY)
            time.sleep(0.001)
        status = brokers.status(settings)
        if status.pid is not None:
            os.kill(status.pid, signal.SIGKILL)

    assert publisher.flush(30.0)
    assert publisher.close()

    frames = log_of(settings)
    assert counters(frames) == list(range(1, logged + 1))
    assert {frame.attempt for frame in frames} == {1}


def test_a_hung_broker_is_waited_for(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "ACK_TIMEOUT", 0.3)
    spool, publisher = recording(settings)
    lane = spool.lane("metrics")
    assert publisher.flush(20.0)
    pid = brokers.status(settings).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        for step in range(5000):
            lane.append(SCALARS, step, 5, None, BODY)
        assert not publisher.flush(1.0)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert publisher.close(20.0)
    assert counters(log_of(settings)) == list(range(1, 5001))


def test_a_broker_that_is_away_for_the_whole_run_costs_nothing_but_a_sync(settings: Settings) -> None:
    away = Settings(home=settings.home, urls=("nats://127.0.0.1:1",))
    spool, publisher = recording(away)
    for step in range(30_000):
        spool.lane("metrics", high_rate=True).append(SCALARS, step, 5, None, BODY)
    assert not publisher.close(0.2)

    report = asyncio.run(drain(settings))

    assert (report.runs, report.spools, report.events) == (("r",), 1, 30_001)
    assert counters(log_of(settings)) == list(range(1, 30_001))


@pytest.mark.parametrize("forced", [None, 4], ids=["counted", "forced"])
def test_two_processes_that_record_one_run_at_once_both_keep_everything(settings: Settings, forced: int | None) -> None:
    brokers.ensure(settings)
    program = f"""
import time
from morphogen.bus.spool import Kind
from morphogen.bus.spool.publisher import Publisher
from morphogen.bus.settings import Settings
from morphogen.bus.spool import Spool
settings = Settings.from_environ()
spool = Spool.create(settings, run="r", attempt={forced})
publisher = Publisher(settings)
publisher.add(spool)
spool.lane("run").append(Kind("run.started", 1), None, 5, None, b"\\x80")
for step in range(3000):
    spool.lane("metrics").append(Kind("metrics.scalars", 1), step, 5, None, b"\\x80")
assert publisher.close(20.0)
print(spool.writer, spool.attempt)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60) for process in processes]

    assert [error for _, error in said if "Traceback" in error] == []
    attempts = dict(output.split() for output, _ in said)
    first = forced or 1
    assert sorted(map(int, attempts.values())) == [first, first + 1, first + 2]
    frames = log_of(settings)
    for writer, attempt in attempts.items():
        assert counters(frames, writer) == list(range(1, 3001))
        assert {frame.attempt for frame in frames if frame.writer == writer} == {int(attempt)}


class Liar:
    """Lose acknowledgements of frames that were stored, and refuse or delay others, in front of the real broker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.true = Connection.publish_ack
        self.lies: Counter[str] = Counter()
        monkeypatch.setattr(Connection, "publish_ack", lambda *args, **kw: self.publish(*args, **kw))

    async def publish(
        self, conn: Connection, subject: str, data: bytes, headers: dict[str, str], timeout: float
    ) -> PubAck:
        lie = random.choice(["ack lost", "never sent", "late", "refused", "", "", ""])
        self.lies[lie] += 1
        if lie == "never sent":
            raise PublishTimeout("lie")
        if lie == "refused":
            raise JetStreamApiError(503, 10077, "lie")
        if lie == "late":
            asyncio.get_running_loop().create_task(self._late(conn, subject, data, headers))
            raise PublishTimeout("lie")
        ack = await self.true(conn, subject, data, headers, timeout=timeout)
        if lie == "ack lost":
            raise PublishTimeout("lie")
        return ack

    async def _late(self, conn: Connection, subject: str, data: bytes, headers: dict[str, str]) -> None:
        await asyncio.sleep(random.uniform(0.0, 0.1))
        try:
            await self.true(conn, subject, data, headers, timeout=5.0)
        except JetStreamApiError:
            self.lies["late and refused"] += 1


def test_lost_late_and_refused_acknowledgements_double_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "_FIRST_PAUSE", 0.005)
    monkeypatch.setattr(couriers, "_LONGEST_PAUSE", 0.02)
    liar = Liar(monkeypatch)
    spool, publisher = recording(settings)
    families = [spool.lane(family, high_rate=True) for family in ("metrics", "health", "log")]
    for step in range(600):
        for lane in families:
            lane.append(SCALARS, step, 5, None, BODY)
        if step % 5 == 0:
            time.sleep(0.002)

    assert publisher.close(30.0)

    assert liar.lies["ack lost"] > 0
    assert liar.lies["late"] > 0
    frames = log_of(settings)
    for family in ("metrics", "health", "log"):
        assert counters(frames, family=family) == list(range(1, 601))
    assert {frame.attempt for frame in frames} == {1}


def test_a_spool_that_was_taken_over_half_way_is_continued_where_the_log_stands(settings: Settings) -> None:
    spool, publisher = recording(settings)
    lane = spool.lane("metrics")
    for step in range(500):
        lane.append(SCALARS, step, 5, None, BODY)
    assert publisher.flush(20.0)
    assert spool.folder is not None
    mark = spool.folder / "metrics" / "acked"
    mark.write_bytes(b"\0" * 12)  # the hint is lost: only the log knows
    publisher._desk.spools = []  # as if this process had been killed here
    for step in range(500):
        lane.append(SCALARS, step, 5, None, BODY)
    publisher.close()
    spool._unlock()

    report = asyncio.run(drain(settings))

    assert report.stuck == 0
    assert counters(log_of(settings)) == list(range(1, 1001))


def test_a_torn_tail_and_a_flipped_bit_in_a_dead_spool(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool.create(settings, run="r")
    spool.lane("run").append(STARTED, None, 5, None, msgspec.msgpack.encode({}))
    lane = spool.lane("metrics")
    for step in range(1000):
        lane.append(SCALARS, step, 5, None, BODY)
    ends = [lane._segment.records.end_of(i) for i in range(lane._segment.records.count)]
    path = lane._segment.path
    assert path is not None
    spool._unlock()
    data = bytearray(path.read_bytes())
    hit = random.randrange(1, 1000)
    data[random.randrange(ends[hit - 1], ends[hit])] ^= 1 << random.randrange(8)
    data[ends[-1] + 1 : ends[-1] + 30] = data[1:30]  # a record that was being written, its first byte still missing
    path.write_bytes(data)

    report = asyncio.run(drain(settings))

    assert (report.events, report.quarantined) == (1000, 1)
    assert counters(log_of(settings)) == [n for n in range(1, 1001) if n != hit + 1]
    assert "are damaged" in caplog.text
    assert list(leftovers(settings)) == []


def test_a_recreated_log_is_filled_from_where_the_writer_stands(settings: Settings) -> None:
    spool, publisher = recording(settings)
    lane = spool.lane("metrics")
    lane.append(SCALARS, 1, 5, None, BODY)
    assert publisher.flush(20.0)

    async def recreate() -> None:
        conn = await connect(settings, name="test")
        await conn.js(f"STREAM.DELETE.{LOG}")
        await conn.close()

    asyncio.run(recreate())
    lane.append(SCALARS, 2, 5, None, BODY)

    assert publisher.close(20.0)
    assert counters(log_of(settings)) == [2]


def test_a_worker_that_is_killed_after_its_log_returned_loses_nothing(settings: Settings) -> None:
    spool, publisher = recording(settings)
    lane = spool.lane("metrics", high_rate=True)
    assert publisher.flush(20.0)
    ready = os.pipe()
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            for step in range(1000):
                lane.append(SCALARS, step, 5, None, BODY)
            os.write(ready[1], b"x")
            time.sleep(60)
            os._exit(1)
        for step in range(100):
            lane.append(SCALARS, step, 5, None, BODY)
        os.read(ready[0], 1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    assert publisher.close(20.0)

    frames = log_of(settings)
    assert counters(frames, spool.writer) == list(range(1, 301))
    children = {frame.writer for frame in frames} - {spool.writer}
    assert len(children) == 3
    for child in children:
        assert counters(frames, child) == list(range(1, 1001))
    assert list(leftovers(settings)) == []


def test_a_worker_publishes_while_it_lives(settings: Settings) -> None:
    spool, publisher = recording(settings)
    lane = spool.lane("metrics")
    assert publisher.flush(20.0)
    pid = os.fork()
    if pid == 0:
        lane.append(SCALARS, 1, 5, None, BODY)
        os._exit(0 if publisher.flush(20.0) and publisher.close() else 1)

    assert os.waitpid(pid, 0)[1] == 0
    assert publisher.close()
    assert [frame.family for frame in log_of(settings)] == ["run", "metrics"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"cannot mount a small disk here: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("memory", [rooms.MEMORY_LIMIT, 2 << 20], ids=["memory holds it", "memory is full too"])
def test_a_disk_that_is_full_neither_kills_nor_blocks_nor_loses_what_memory_holds_or_low_rate_events(
    small_disk: Path, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(rooms, "MEMORY_LIMIT", memory)
    spool = Spool.create(Settings(home=small_disk), run="r")
    lane = spool.lane("metrics", high_rate=True)
    low = spool.lane("run")
    low.append(STARTED, None, 5, None, msgspec.msgpack.encode({}))
    slowest = 0.0
    for step in range(200_000):
        began = time.perf_counter()
        assert lane.append(SCALARS, step, 5, None, BODY) == step + 1
        slowest = max(slowest, time.perf_counter() - began)
        if step % 10_000 == 0:
            low.append(STARTED, step, 5, None, msgspec.msgpack.encode({}))
    assert slowest < 1.0
    assert caplog.text.count("a kill would lose them") == 1
    full = memory == 2 << 20
    assert ("disk and memory are full" in caplog.text) == full
    assert (lane.dropped > 0) == full

    publisher = Publisher(settings, adopt=False)
    publisher.add(spool)
    assert publisher.close(20.0)

    frames = log_of(settings)
    assert counters(frames, family="run") == list(range(1, 22))
    told: list[Any] = [msgspec.msgpack.decode(r.body) for f in frames if f.family == "producer" for r in f.records]
    gone = [n for each in told for n in range(each["first"], each["last"] + 1)]
    assert sorted([*gone, *counters(frames)]) == list(range(1, 200_001))
