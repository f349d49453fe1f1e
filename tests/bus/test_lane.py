"""A lane keeps every record whose append returned, tells damage from an unfinished end, and never raises."""

import errno
import os
import random
import resource
import signal
import struct
import sys
import threading
import weakref
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.bus.spool import Kind, Lane
from morphogen.bus.spool import room as rooms
from morphogen.bus.spool import segment as segments
from morphogen.bus.spool.cut import Cut
from morphogen.bus.spool.mark import Mark
from morphogen.bus.spool.pages import populate
from morphogen.bus.spool.records import PlainRecords, Records
from morphogen.bus.spool.room import Loss, Room
from morphogen.bus.spool.segment import Segment
from morphogen.bus.spool.walk import Damage, Walk
from morphogen.schemas.frames import HEAD, Record, decode_records

SCALARS = Kind("metrics.scalars", 1)
BODY = msgspec.msgpack.encode({"values": {"loss": 0.5}})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whatever makes lanes makes them with compiled records and with plain ones."""
    if "tmp_path" in metafunc.fixturenames:
        metafunc.fixturenames.append("_records")
        metafunc.parametrize("_records", [Records, PlainRecords], ids=["as built", "plain"], indirect=True)


@pytest.fixture
def _records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "Records", request.param)


def envelope(n: int, step: object, time_ns: int, cause: str | None) -> bytes:
    return b"\x87\xa1n" + struct.pack(">BQ", 0xCF, n) + SCALARS.rest(step, time_ns, cause)


def make(folder: Path, limit: int = 1 << 30, *, high_rate: bool = True, size: int = 64 << 10) -> Lane:
    return Lane(folder, "metrics", Room(limit), high_rate=high_rate, segment_size=size)


def walked(data: bytes, done: int = 0) -> tuple[list[Record], list[Damage]]:
    walk = Walk(data, 0)
    records: list[Record] = []
    damages: list[Damage] = []
    while (found := walk.step(1 << 20, done)) is not None:
        if isinstance(found, Damage):
            damages.append(found)
        else:
            records += decode_records(found.records)
    return records, damages


def on_disk(lane: Lane) -> bytes:
    assert lane.folder is not None
    return b"".join(path.read_bytes() for path in sorted(lane.folder.glob("*.seg")))


def test_a_record_is_on_disk_as_the_log_will_have_it(tmp_path: Path) -> None:
    lane = make(tmp_path)

    assert lane.append(SCALARS, 7, 1_700_000_000_000_000_000, None, BODY) == 1
    assert lane.append(SCALARS, -3, 5, "0123456789abcdef.run.1", BODY) == 2
    assert lane.append(SCALARS, None, 5, None, BODY) == 3

    records, damages = walked(on_disk(lane))
    assert damages == []
    assert [(r.n, r.type, r.version, r.step, r.time, r.cause) for r in records] == [
        (1, "metrics.scalars", 1, 7, 1_700_000_000_000_000_000, None),
        (2, "metrics.scalars", 1, -3, 5, "0123456789abcdef.run.1"),
        (3, "metrics.scalars", 1, None, 5, None),
    ]
    assert all(msgspec.msgpack.decode(r.body) == {"values": {"loss": 0.5}} for r in records)


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (0, 0),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**64 - 1, 2**64 - 1),
        (2**64, None),
        (1.0, 1),
        (2.9, None),
        ("x", None),
    ],
)
def test_a_step_that_the_log_cannot_hold_becomes_none_and_is_no_error(
    tmp_path: Path, step: Any, kept: int | None
) -> None:
    lane = make(tmp_path)

    assert lane.append(SCALARS, step, 5, None, BODY) == 1

    records, _ = walked(on_disk(lane))
    assert [record.step for record in records] == [kept]


def test_cuts_hold_whole_records_up_to_the_budget_and_stay_until_acknowledged(tmp_path: Path) -> None:
    lane = make(tmp_path)
    for step in range(5000):
        lane.append(SCALARS, step, 5, None, BODY)

    seen: list[int] = []
    while (cut := lane.cut(10_000)) is not None:
        assert cut.size <= 10_000
        assert lane.cut(10_000) is cut
        records = list(decode_records(cut.records))
        assert [r.n for r in records] == list(range(cut.first, cut.last + 1))
        seen += [r.n for r in records]
        lane.ack(cut.last)

    assert seen == list(range(1, 5001))
    assert not lane.pending
    assert len(list((tmp_path / "metrics").glob("*.seg"))) == 1


def test_an_acknowledgement_inside_a_cut_cuts_the_rest_anew(tmp_path: Path) -> None:
    lane = make(tmp_path)
    for step in range(100):
        lane.append(SCALARS, step, 5, None, BODY)
    assert lane.cut(1 << 20) is not None

    lane.ack(40)

    cut = lane.cut(1 << 20)
    assert cut is not None
    assert (cut.first, cut.last) == (41, 100)


def test_a_record_larger_than_a_segment_gets_one_of_its_size(tmp_path: Path) -> None:
    lane = make(tmp_path, high_rate=False)
    big = msgspec.msgpack.encode({"x": os.urandom(5 << 20)})
    lane.append(SCALARS, 1, 5, None, BODY)
    lane.append(SCALARS, 2, 5, None, big)
    lane.append(SCALARS, 3, 5, None, BODY)

    firsts = []
    while (cut := lane.cut(100_000)) is not None:
        firsts.append((cut.first, cut.count, cut.size > 5 << 20))
        lane.ack(cut.last)

    assert firsts == [(1, 1, False), (2, 1, True), (3, 1, False)]


def test_threads_that_log_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    lane = make(tmp_path)
    sys.setswitchinterval(1e-6)
    try:
        got: list[list[int]] = [[] for _ in range(8)]

        def log(mine: list[int], who: int) -> None:
            mine.extend(lane.append(SCALARS, who * 10_000 + step, 5, None, BODY) for step in range(1500))

        threads = [threading.Thread(target=log, args=(mine, who)) for who, mine in enumerate(got)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(0.005)

    steps: dict[int, int | None] = {}
    while (cut := lane.cut(100_000)) is not None:
        steps |= {r.n: r.step for r in decode_records(cut.records)}
        lane.ack(cut.last)
    assert sorted(steps) == list(range(1, 12_001))
    for who, mine in enumerate(got):
        assert [steps[n] for n in mine] == [who * 10_000 + step for step in range(1500)]


def test_a_signal_handler_that_logs_in_the_middle_of_an_append_is_harmless(tmp_path: Path) -> None:
    lane = make(tmp_path)
    nested: list[int] = []

    def handle(*_: object) -> None:
        nested.append(lane.append(SCALARS, -1, 5, None, BODY))
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.0005))

    before = signal.signal(signal.SIGALRM, handle)
    outer: list[int] = []
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        while len(nested) < 300:
            outer.append(lane.append(SCALARS, 1, 5, None, BODY))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    steps: dict[int, int | None] = {}
    while (cut := lane.cut(100_000)) is not None:
        steps |= {r.n: r.step for r in decode_records(cut.records)}
        lane.ack(cut.last)
    assert sorted([*outer, *nested]) == sorted(steps) == list(range(1, lane.n + 1))
    assert all(steps[n] == -1 for n in nested)


def test_numbers_cross_from_segment_to_segment_and_what_is_none_is_never_written(tmp_path: Path) -> None:
    lane = make(tmp_path, size=4096)
    before = b"\x81\xa6values"
    odd: list[object] = [{"a": "12345678"}, {"a": 1.0, "b": True}, {}, {1: 2.0}, None, {"x" * 5000: None}]
    for step in range(2000):
        assert lane.append_numbers(SCALARS, step, 5, before, {f"m{i}": i / 7 for i in range(step % 40 + 1)}) == step + 1
        assert lane.append_numbers(SCALARS, step, 5, before, odd[step % len(odd)]) == -1
    assert lane.append_numbers(SCALARS, 1, 5, before, {"x" * 9000: 1.0}) == 2001
    assert lane.append_numbers(SCALARS, None, 5, before, {"a": 1.0}) == -1

    records: list[Record] = []
    while (cut := lane.cut(100_000)) is not None:
        records += decode_records(cut.records)
        lane.ack(cut.last)
    assert [(r.n, r.step) for r in records] == [*((step + 1, step) for step in range(2000)), (2001, 1)]
    assert all(
        msgspec.msgpack.decode(r.body) == {"values": {f"m{i}": i / 7 for i in range((r.n - 1) % 40 + 1)}}
        for r in records[:-1]
    )


def test_an_unfinished_end_is_no_damage(tmp_path: Path) -> None:
    lane = make(tmp_path)
    for step in range(10):
        lane.append(SCALARS, step, 5, None, BODY)
    data = bytearray(on_disk(lane))
    end = lane._segment.end
    event = envelope(11, 1, 5, None) + BODY
    data[end : end + 40] = (HEAD.pack(0, len(event), 0xCE, 7) + event)[:40]

    records, damages = walked(bytes(data))

    assert [r.n for r in records] == list(range(1, 11))
    assert damages == []


def test_a_damaged_last_record_is_told_from_an_unfinished_one(tmp_path: Path) -> None:
    lane = make(tmp_path)
    for step in range(10):
        lane.append(SCALARS, step, 5, None, BODY)
    data = bytearray(on_disk(lane))
    data[lane._segment.end - 1] ^= 1

    records, damages = walked(bytes(data))

    assert [r.n for r in records] == list(range(1, 10))
    assert [damage.count for damage in damages] == [1]


def test_a_truncated_segment_gives_what_it_holds(tmp_path: Path) -> None:
    lane = make(tmp_path)
    for step in range(10):
        lane.append(SCALARS, step, 5, None, BODY)
    one = lane._segment.records.end_of(0)

    for size in range(lane._segment.end):
        records, damages = walked(on_disk(lane)[:size])
        assert [r.n for r in records] == list(range(1, size // one + 1))
        assert len(damages) == (size % one > 0)


def _sample() -> tuple[bytes, list[int]]:
    random.seed(5)
    parts, ends = [], []
    for n in range(1, 31):
        # Bodies that hold records themselves, as a dead letter's does, must not be taken for records.
        inner = envelope(random.choice((n + 1, n + 2, 7, 100)), 1, 5, None) + BODY
        inner = HEAD.pack(0xCE, len(inner), 0xCE, zlib.crc32(inner)) + inner
        body = msgspec.msgpack.encode({"x": inner if n % 3 == 0 else os.urandom(random.randrange(300))})
        event = envelope(n, n, 5, None) + body
        parts.append(HEAD.pack(0xCE, len(event), 0xCE, zlib.crc32(event)) + event)
        ends.append(sum(map(len, parts)))
    return b"".join(parts) + bytes(3000), ends


SAMPLE, SAMPLE_ENDS = _sample()


@settings(max_examples=600, deadline=None)
@given(st.integers(0, len(SAMPLE) * 8 - 1))
def test_a_flipped_bit_costs_at_most_the_record_that_it_hits(bit: int) -> None:
    data = bytearray(SAMPLE)
    data[bit // 8] ^= 1 << bit % 8
    hit = next((n for n, end in enumerate(SAMPLE_ENDS, 1) if bit // 8 < end), None)

    records, damages = walked(bytes(data))

    everything = list(range(1, 31))
    assert [r.n for r in records] == [n for n in everything if n != hit]
    assert sum(damage.count for damage in damages) == (hit is not None)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_foreign_bytes_hold_no_records_and_raise_nothing(data: bytes) -> None:
    records, _ = walked(data)

    assert records == []


def test_a_zeroed_page_costs_what_lay_in_it(tmp_path: Path) -> None:
    lane = make(tmp_path)
    for step in range(300):
        lane.append(SCALARS, step, 5, None, BODY)
    data = bytearray(on_disk(lane))
    data[4096:8192] = bytes(4096)
    one = lane._segment.records.end_of(0)

    records, damages = walked(bytes(data))

    lost = range(4096 // one + 1, -(-8192 // one) + 1)
    assert [r.n for r in records] == [n for n in range(1, 301) if n not in lost]
    assert [damage.count for damage in damages] == [len(lost)]


def test_a_full_spool_drops_the_oldest_high_rate_segments_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    losses: list[Loss] = []
    room = Room(256 << 10, "run r")
    room.on_loss = losses.append
    lane = Lane(tmp_path, "metrics", room, high_rate=True, segment_size=64 << 10)
    low = Lane(tmp_path, "run", room, high_rate=False, segment_size=64 << 10)
    low.append(Kind("run.started", 1), None, 5, None, BODY)
    for step in range(10_000):
        assert lane.append(SCALARS, step, 5, None, BODY) == step + 1

    assert room.disk_bytes <= 256 << 10
    assert losses[0].first == 1
    assert [b.first for b in losses[1:]] == [a.last + 1 for a in losses[:-1]]
    assert lane.dropped == sum(loss.count for loss in losses) == losses[-1].last
    assert f"dropped {losses[0].count} unsent metrics events (1 to {losses[0].last}" in caplog.text
    kept = []
    while (cut := lane.cut(100_000)) is not None:
        kept += list(range(cut.first, cut.last + 1))
        lane.ack(cut.last)
    assert kept == list(range(losses[-1].last + 1, 10_001))
    assert not lane.pending
    assert low.dropped == 0


def test_what_is_on_its_way_to_the_log_is_not_dropped(tmp_path: Path) -> None:
    room = Room(128 << 10)
    lane = Lane(tmp_path, "metrics", room, high_rate=True, segment_size=64 << 10)
    lane.append(SCALARS, 0, 5, None, BODY)
    flying = lane.cut(100)
    assert flying is not None

    for step in range(5000):
        lane.append(SCALARS, step, 5, None, BODY)

    assert lane.dropped > 0
    assert lane.cut(100) is flying
    assert next(iter(decode_records(flying.records))).n == 1
    lane.ack(1)
    following = lane.cut(100)
    assert following is not None
    assert following.first == 2


def test_low_rate_lanes_are_never_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    room = Room(128 << 10, "run r")
    lane = Lane(tmp_path, "run", room, high_rate=False, segment_size=64 << 10)
    for step in range(5000):
        assert lane.append(SCALARS, step, 5, None, BODY) == step + 1

    assert lane.dropped == lane.refused == 0
    assert caplog.text.count("exceed the limit") == 1
    records, _ = walked(on_disk(lane))
    assert [r.n for r in records] == list(range(1, 5001))


class Disk:
    """A disk with so many bytes left, in place of the real one's allocation."""

    def __init__(self, left: int) -> None:
        self.left = left

    def allocate(self, fd: int, size: int) -> None:
        if size > self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= size
        os.ftruncate(fd, size)

    def discard(self, segment: Segment) -> None:
        if segment.path is not None:
            self.left += segment.size
        _discard(segment)


_discard = Segment.discard


def test_a_full_disk_drops_nothing_while_memory_holds_it_and_then_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(200 << 10)
    monkeypatch.setattr(segments, "allocate", disk.allocate)
    monkeypatch.setattr(Segment, "discard", lambda segment: disk.discard(segment))
    monkeypatch.setattr(rooms, "MEMORY_LIMIT", 2 << 20)
    lane = make(tmp_path)

    step = 0
    while lane.pending_bytes < 2 << 20:  # the disk's room and nearly all of the memory
        step += 1
        assert lane.append(SCALARS, step, 5, None, BODY) == step
        assert lane.dropped == 0
    fits, last = step, step + 10_000
    for step in range(fits + 1, last + 1):
        assert lane.append(SCALARS, step, 5, None, BODY) == step

    assert caplog.text.count("a kill would lose them") == 1
    assert "disk and memory are full" in caplog.text
    assert lane.dropped > 0
    assert list(_drained(lane)) == list(range(lane.dropped + 1, last + 1))


@pytest.mark.parametrize("high_rate", [False, True])
def test_a_full_disk_means_memory_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, high_rate: bool
) -> None:
    disk = Disk(0)
    monkeypatch.setattr(segments, "allocate", disk.allocate)
    lane = make(tmp_path, high_rate=high_rate)

    for step in range(3000):
        assert lane.append(SCALARS, step, 5, None, BODY) == step + 1
    assert caplog.text.count("a kill would lose them") == 1
    disk.left = 10 << 20
    for step in range(20_000):
        lane.append(SCALARS, step, 5, None, BODY)
    assert caplog.text.count("writes to disk again") == 0  # a kill would still lose what is in memory
    assert list(_drained(lane)) == list(range(1, 23_001))
    for step in range(20_000):
        lane.append(SCALARS, step, 5, None, BODY)

    assert caplog.text.count("writes to disk again") == 1
    assert list(_drained(lane)) == list(range(23_001, 43_001))


def test_memory_is_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(segments, "allocate", Disk(0).allocate)
    monkeypatch.setattr(rooms, "MEMORY_LIMIT", 2 << 20)
    high, low = make(tmp_path), make(tmp_path, high_rate=False)
    body = msgspec.msgpack.encode({"x": os.urandom(50_000)})

    for step in range(200):
        assert high.append(SCALARS, step, 5, None, body) == step + 1
    assert high.dropped > 0
    results = [low.append(SCALARS, step, 5, None, body) for step in range(200)]

    assert results[0] == 1
    assert results[-1] == 0
    assert low.refused > 0
    assert caplog.text.count("events are refused") == 1


def test_a_folder_that_vanishes_is_made_again_and_an_unwritable_one_means_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    lane = make(blocked)

    assert lane.append(SCALARS, 1, 5, None, BODY) == 1
    assert "in memory" in caplog.text


def test_a_spare_segment_is_used_when_its_time_comes(tmp_path: Path) -> None:
    lane = make(tmp_path)
    while lane._segment.end * 2 <= lane._segment.size or not lane.n:
        lane.append(SCALARS, 1, 5, None, BODY)
    lane.prepare()
    spare = lane._spare
    assert spare is not None

    while lane._segment is not spare:
        lane.append(SCALARS, 1, 5, None, BODY)
    lane.append(SCALARS, 1, 5, None, msgspec.msgpack.encode({"x": bytes(100_000)}))
    lane.append(SCALARS, 1, 5, None, BODY)

    assert list(_drained(lane)) == list(range(1, lane.n + 1))
    assert walked(on_disk(lane))[1] == []


def test_an_event_that_no_spool_could_hold_is_refused_and_drops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lane = make(tmp_path, 1 << 20)
    lane.append(SCALARS, 1, 5, None, BODY)

    assert lane.append(SCALARS, 2, 5, None, msgspec.msgpack.encode({"x": bytes(2 << 20)})) == 0

    assert lane.append(SCALARS, 3, 5, None, BODY) == 2
    assert (lane.refused, lane.dropped) == (1, 0)
    assert "exceeds the spool's limit" in caplog.text


def test_a_closed_lane_refuses_without_raising(tmp_path: Path) -> None:
    lane = make(tmp_path)
    lane.append(SCALARS, 1, 5, None, BODY)
    lane.close()

    assert lane.append(SCALARS, 1, 5, None, BODY) == 0
    assert [r.n for r in walked(on_disk(lane))[0]] == [1]


@pytest.mark.parametrize("sent", [0, 3000, 5000])
def test_a_closed_lane_holds_nothing_and_leaves_what_is_unsent(tmp_path: Path, sent: int) -> None:
    lane = make(tmp_path)
    for step in range(5000):
        lane.append(SCALARS, step, 5, None, BODY)
    lane.ack(sent)
    lane.ahead()
    lane.cut(1000)
    room, oldest = weakref.ref(lane._segment.map), weakref.ref([*lane._sealed, lane._segment][0].map)
    lane.close()

    assert (room(), oldest()) == (None, None)
    assert (lane.n, lane.done, lane.pending) == (5000, sent, sent < 5000)
    assert (lane.cut(1000), lane.unsynced(), lane.ahead(), lane.wants_spare) == (None, [], None, False)
    assert {record.n for record in walked(on_disk(lane), sent)[0]} >= set(range(sent + 1, 5001))
    assert Mark.read(tmp_path / "metrics" / "acked") == sent
    lane.ack(5000)
    lane.mark.write()
    assert (lane.done, Mark.read(tmp_path / "metrics" / "acked")) == (5000, sent)


def _drained(lane: Lane) -> Any:
    while (cut := lane.cut(100_000)) is not None:
        assert isinstance(cut, Cut)
        yield from range(cut.first, cut.last + 1)
        lane.ack(cut.last)


def test_the_counter_stands_where_recovery_looks_for_it() -> None:
    event = envelope(258, None, 5, "c")

    assert struct.unpack_from(">Q", event, 4) == (258,)


def test_a_spare_segment_has_its_pages_only_where_the_last_one_was_filled_between_two_syncs(tmp_path: Path) -> None:
    lane = make(tmp_path)
    appended = 0

    def fill(share: float) -> None:
        nonlocal appended
        while lane._segment.end < share * lane._segment.size:
            appended += lane.append(SCALARS, appended, 5, None, BODY) > 0

    lane.append(SCALARS, 0, 5, None, BODY)
    fill(0.6)
    lane.prepare()
    spare = lane._spare
    assert spare is not None
    assert spare.warmed == spare.size
    assert bytes(spare.map) == bytes(spare.size)
    lane.prepare()
    assert lane._spare is spare, "there is one already"
    fill(1.0 - 200 / lane._segment.size)
    while lane._segment is not spare:
        appended += lane.append(SCALARS, appended, 5, None, BODY) > 0
    fill(0.6)
    for segment in lane.unsynced():
        segment.sync()
    lane.prepare()
    assert lane._spare is not None
    assert lane._spare.warmed == 0, "all of it would be written to disk as zeros first"

    got: list[int] = []
    while (cut := lane.cut(1 << 20)) is not None:
        got += [record.n for record in decode_records(cut.records)]
        lane.ack(cut.last)
    assert got == list(range(1, lane.n + 1))


def test_pages_are_asked_for_ahead_of_what_is_written_and_again_after_a_sync(tmp_path: Path) -> None:
    lane = make(tmp_path, size=1 << 20)
    assert lane.ahead() is None, "nothing is written yet"
    for step in range(100):
        lane.append(SCALARS, step, 5, None, BODY)
    segment, end = lane._segment, lane._segment.end

    assert lane.ahead() == (segment, end + max(4 * end, 16 << 10))
    assert lane.ahead() is None, "nothing was written since"
    segment.warm(5 * end)
    assert segment.warmed >= 5 * end
    for step in range(100):
        lane.append(SCALARS, step, 5, None, BODY)
    assert lane.ahead() is None, "they are at hand"
    warmed = segment.warmed
    segment.sync()
    assert segment.warmed == warmed, "what was written out was asked for again"
    segment.warm(segment.end)
    assert segment.warmed == warmed
    segment.warm(1 << 40)
    assert segment.warmed == segment.size
    while lane._segment is segment:
        assert lane.append(SCALARS, 0, 5, None, BODY)
    found = lane.ahead()
    assert found is not None
    assert found[0] is lane._segment
    segment.release()
    segment.warmed = 0
    segment.warm(1 << 20)
    assert segment.warmed == 0, "it is let go of"
    Segment.in_memory(1 << 16).warm(1 << 16)


def test_pages_made_ready_under_a_writer_keep_what_it_writes(tmp_path: Path) -> None:
    segment = Segment.on_disk(tmp_path / "a", 4 << 20)
    done = threading.Event()

    def warm() -> None:
        while not done.is_set():
            segment.warmed = 0
            segment.warm(segment.size)

    thread = threading.Thread(target=warm)
    thread.start()
    wanted = random.Random(3).randbytes(segment.size)
    for start in range(0, segment.size, 999):
        segment.map[start : start + 999] = wanted[start : start + 999]
    done.set()
    thread.join()

    assert bytes(segment.map) == wanted
    segment.sync()
    assert (tmp_path / "a").read_bytes() == wanted


@pytest.mark.skipif(sys.platform != "linux", reason="other systems make a page when it is written to")
def test_pages_that_were_made_ready_cost_the_writer_no_fault(tmp_path: Path) -> None:
    segment = Segment.on_disk(tmp_path / "a", 4 << 20)
    if not populate(segment.map, 0, segment.size):
        pytest.skip("this Linux has no MADV_POPULATE_WRITE")
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for start in range(0, segment.size, segments.PAGE):
        segment.map[start] = 1

    assert resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < segment.size / segments.PAGE / 10


def test_a_segment_is_released_while_it_is_synced(tmp_path: Path) -> None:
    lane = make(tmp_path)
    lane.append(SCALARS, 0, 5, None, BODY)
    (segment,) = lane.unsynced()

    class Synced:
        """Lets the segment go when it is asked how far it was synced: after its descriptor was looked at."""

        def __get__(self, owner: Any, _: object) -> int:
            segment.release()
            return 0

        def __set__(self, owner: Any, value: int) -> None:
            pytest.fail("a closed file was synced")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segment, "synced", Synced())
        segment.sync()
