"""A spool belongs to one process, survives it, and gives up nothing that can still be read."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from morphogen.bus.settings import Settings
from morphogen.bus.spool import Kind, Lane
from morphogen.bus.spool.attempts import next_attempt, note_attempt
from morphogen.bus.spool.leftover import Leftover, LeftoverLane, Unreadable, leftovers
from morphogen.bus.spool.spool import Spool
from morphogen.bus.spool.writer import LOCK_FILE, WRITER_FILE, Writer, lock
from morphogen.schemas.frames import decode_records
from morphogen.schemas.names import token

# Forking beside threads is what training frameworks do, whatever newer interpreters think of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SCALARS = Kind("metrics.scalars", 1)
BODY = msgspec.msgpack.encode({"values": {"loss": 0.5}})


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(home=home)


def log(lane: Lane, count: int) -> None:
    for step in range(count):
        lane.append(SCALARS, step, time.time_ns(), None, BODY)


def die(spool: Spool) -> Path:
    """Let go of a spool as a kill would: nothing is closed, the lock is free."""
    assert spool.folder is not None
    spool._unlock()
    return spool.folder


def adopt(settings: Settings, folder: Path) -> Leftover:
    left = Leftover.adopt(settings, folder, 1 << 20)
    assert left is not None
    return left


def drained(lane: LeftoverLane) -> list[int]:
    seen = []
    while (cut := lane.cut(2000)) is not None:
        seen += [record.n for record in decode_records(cut.records)]
        lane.ack(cut.last)
    return seen


def test_a_spool_says_whose_it_is_and_is_locked(settings: Settings) -> None:
    spool = Spool.create(settings, run="résumé/1", rank=3)

    assert spool.folder is not None
    kept = Writer.load(spool.folder)
    assert kept == spool.identity
    assert (kept.run, kept.rank, kept.attempt, kept.pid) == ("résumé/1", 3, 1, os.getpid())
    assert lock(spool.folder) is None
    assert list(leftovers(settings)) == [spool.folder]
    assert Leftover.adopt(settings, spool.folder, 1) is None
    assert spool.finish()
    assert list(settings.spool_dir.iterdir()) == []


def test_a_family_with_an_event_that_may_not_be_dropped_is_not_dropped(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool.create(Settings(home=home, spool_limit=1 << 20), run="r")
    spool.lane("mine", high_rate=True).append(Kind("mine.sample", 1), None, 5, None, BODY)
    assert spool.lane("mine", high_rate=False).append(Kind("mine.verdict", 1), None, 5, None, BODY) == 2
    log(spool.lane("mine", high_rate=True), 3000)  # segments that are full, and the oldest of all
    log(spool.lane("metrics", high_rate=True), 20_000)  # more than the spool holds

    assert spool.lane("mine").dropped == 0
    assert spool.lane("metrics").dropped > 0
    assert caplog.text.count("give those of high rate a family of their own") == 1


def test_a_spool_with_unsent_events_stays_when_it_is_closed(settings: Settings) -> None:
    spool = Spool.create(settings, run="r")
    log(spool.lane("metrics", high_rate=True), 100)

    assert not spool.finish()

    left = adopt(settings, next(leftovers(settings)))
    assert left.identity == spool.identity
    assert drained(left.lanes["metrics"]) == list(range(1, 101))
    assert left.finish()
    assert list(leftovers(settings)) == []


def test_acknowledged_segments_go_and_the_mark_remembers(settings: Settings) -> None:
    spool = Spool.create(settings, run="r")
    lane = spool.lane("metrics")
    log(lane, 30_000)
    assert spool.folder is not None
    segments = len(list(spool.folder.glob("metrics/*.seg")))
    lane.ack(20_000)

    assert len(list(spool.folder.glob("metrics/*.seg"))) < segments
    left = adopt(settings, die(spool))
    assert drained(left.lanes["metrics"]) == list(range(20_001, 30_001))


def test_attempts_count_up_and_skip_what_was_taken_elsewhere(settings: Settings) -> None:
    assert [Spool.create(settings, run="r").attempt for _ in range(3)] == [1, 2, 3]
    note_attempt(settings.attempts_dir, "r", 0, 9)
    note_attempt(settings.attempts_dir, "r", 0, 4)

    assert Spool.create(settings, run="r").attempt == 10
    assert Spool.create(settings, run="r", rank=1).attempt == 1
    assert Spool.create(settings, run="r", attempt=50).attempt == 50
    assert Spool.create(settings, run="r").attempt == 51


def test_processes_that_start_at_once_get_different_attempts(settings: Settings) -> None:
    program = (
        "import sys; from pathlib import Path; from morphogen.bus.spool.attempts import next_attempt\n"
        "sys.stdin.read(1)\n"
        "print(*[next_attempt(Path(sys.argv[1]), 'r', 0) for _ in range(50)])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(settings.attempts_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    taken = [int(each) for process in processes for each in process.communicate(b"x")[0].split()]

    assert sorted(taken) == list(range(1, 201))
    assert next_attempt(settings.attempts_dir, "r", 0) == 201


def test_either_copy_of_the_writer_is_enough(settings: Settings) -> None:
    for name in (WRITER_FILE, LOCK_FILE):
        spool = Spool.create(settings, run="r")
        log(spool.lane("metrics"), 3)
        folder = die(spool)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 4
        (folder / name).write_bytes(data)

        assert drained(adopt(settings, folder).lanes["metrics"]) == [1, 2, 3]


def test_a_drain_that_was_cut_off_goes_on_where_it_stood(settings: Settings) -> None:
    spool = Spool.create(settings, run="r")
    log(spool.lane("metrics"), 1000)
    folder = die(spool)
    left = adopt(settings, folder)
    lane = left.lanes["metrics"]
    for _ in range(3):
        cut = lane.cut(5000)
        assert cut is not None
        lane.ack(cut.last)
    done = lane.done
    left.release()

    again = adopt(settings, folder).lanes["metrics"]

    assert 0 < done < 1000
    assert drained(again) == list(range(done + 1, 1001))


def test_a_folder_of_somebody_else_is_left_alone(settings: Settings) -> None:
    folder = settings.spool_dir / "r" / "notes"
    folder.mkdir(parents=True)
    (folder / "todo.txt").write_text("buy milk")

    with pytest.raises(Unreadable, match="is no spool of ours"):
        Leftover.adopt(settings, folder, 1)
    assert (folder / "todo.txt").read_text() == "buy milk"


def test_damage_is_set_aside_and_the_rest_is_delivered(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool.create(settings, run="r")
    lane = spool.lane("metrics")
    log(lane, 100)
    folder = die(spool)
    path = folder / "metrics" / "00000001.seg"
    data = bytearray(path.read_bytes())
    start, end = lane._segment.records.end_of(40), lane._segment.records.end_of(41)
    data[start + 30] ^= 16
    path.write_bytes(data)

    left = adopt(settings, folder)
    assert drained(left.lanes["metrics"]) == [n for n in range(1, 101) if n != 42]
    assert left.lanes["metrics"].quarantined == 1
    assert left.finish()

    kept = next((settings.home / "quarantine" / "r" / spool.writer).iterdir())
    assert kept.read_bytes() == bytes(data[start:end])
    assert "1 events of metrics" in caplog.text


def test_missing_empty_truncated_foreign_and_unreadable_files_cost_only_what_they_held(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool.create(settings, run="r")
    lane = spool.lane("metrics")
    lane.segment_size = 4096
    log(lane, 1000)
    folder = die(spool)
    segments = [lane._sealed[i] for i in range(5)]
    paths = [segment.path for segment in segments if segment.path is not None]
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].write_bytes(paths[2].read_bytes()[: segments[2].records.end_of(4)])
    paths[3].write_bytes(os.urandom(4096))
    paths[4].unlink()
    paths[4].mkdir()
    (folder / "metrics" / "notes.txt").write_text("x")

    left = adopt(settings, folder)
    seen = drained(left.lanes["metrics"])

    first = segments[2].first
    assert seen == [*range(first, first + 5), *range(segments[4].last + 1, 1001)]
    assert left.finish()
    assert sorted(path.name for path in (settings.home / "quarantine" / "r" / spool.writer).iterdir()) == [
        "metrics-00000004-0.bin", "metrics-00000005.seg", "metrics-notes.txt",
    ]  # fmt: skip
    assert "Traceback" not in caplog.text


def test_a_spool_without_a_writable_home_lives_in_memory(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "blocked").write_text("")

    spool = Spool.create(Settings(home=home / "blocked"), run="r")

    assert spool.attempt == 1
    assert spool.lane("metrics").append(SCALARS, 1, 5, None, BODY) == 1
    assert "in memory only" in caplog.text
    assert not spool.finish()


def test_a_forked_child_is_refused_what_it_logs_to_a_spool_that_was_finished_before(settings: Settings) -> None:
    spool = Spool.create(settings, run="r", rank=0)
    lane = spool.lane("metrics")
    spool.finish()
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with spool.room.lock:
            held.set()
            forked.wait(30.0)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(10.0)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        os._exit(lane.append(SCALARS, 1, 1, None, BODY))
    forked.set()
    holding.join()
    assert os.waitpid(pid, 0)[1] == 0


def test_a_forked_child_opens_a_spool_of_its_own_when_it_logs(settings: Settings) -> None:
    spool = Spool.create(settings, run="r", rank=2)
    lane = spool.lane("metrics", high_rate=True)
    log(lane, 10)
    assert spool.folder is not None

    pid = os.fork()
    if pid == 0:
        numbers = [lane.append(SCALARS, step, 5, None, BODY) for step in range(5)]
        os._exit(0 if numbers == [1, 2, 3, 4, 5] and spool.identity.kind == "child" else 1)
    assert os.waitpid(pid, 0)[1] == 0
    silent = os.fork()
    if silent == 0:
        spool.finish()
        os._exit(0)
    assert os.waitpid(silent, 0)[1] == 0
    log(lane, 10)

    assert lane.n == 20
    assert spool.folder.is_dir()
    [child] = [folder for folder in leftovers(settings) if folder != spool.folder]
    left = adopt(settings, child)
    assert (left.identity.kind, left.identity.parent, left.identity.rank) == ("child", spool.writer, 2)
    assert left.identity.label(1) == f"1-2-{left.identity.writer}"
    assert drained(left.lanes["metrics"]) == [1, 2, 3, 4, 5]


def test_a_parent_keeps_its_lock_while_a_child_closes_and_loses_it_when_it_dies(settings: Settings) -> None:
    spool = Spool.create(settings, run="r")
    assert spool.folder is not None
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)

    assert lock(spool.folder) is None
    spool._unlock()
    fd = lock(spool.folder)
    os.write(go[1], b"x")
    os.waitpid(pid, 0)

    assert fd is not None
    os.close(fd)


def test_what_a_creator_or_remover_left_half_done_is_cleared(settings: Settings) -> None:
    run = settings.spool_dir / "r"
    for name in (".a.gone", ".b.new", ".c.new"):
        (run / name).mkdir(parents=True)
    os.utime(run / ".b.new", (1, 1))

    assert list(leftovers(settings)) == []
    assert [path.name for path in run.iterdir()] == [".c.new"]


def test_a_family_that_is_first_used_after_the_end_is_refused_and_leaves_nothing_behind(settings: Settings) -> None:
    spool = Spool.create(settings, run="over")
    assert spool.finish()

    late = spool.lane("log")

    assert late.append(SCALARS, 1, time.time_ns(), None, BODY) == 0
    assert late.refused == 1
    assert not late.pending
    assert not (settings.spool_dir / "over").exists()


def long_family(settings: Settings) -> tuple[str, Path]:
    """Leave three records of a family whose folder's name had to be cut."""
    family = "l" * 130
    spool = Spool.create(settings, run="r")
    lane = spool.lane(family)
    for step in range(3):
        lane.append(Kind(f"{family}.x", 1), step, time.time_ns(), None, BODY)
    return family, die(spool)


def test_a_family_with_a_very_long_name_is_found_by_its_records(settings: Settings) -> None:
    family, folder = long_family(settings)

    left = adopt(settings, folder)

    assert drained(left.lanes[family]) == [1, 2, 3]
    assert left.finish()
    assert not folder.exists()


def test_a_lane_that_nobody_understands_stays(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    family, folder = long_family(settings)
    (segment,) = (folder / token(family)).glob("*.seg")
    data = segment.read_bytes()
    segment.write_bytes(bytes([data[0] ^ 1]) + b"?" * 4000)

    left = adopt(settings, folder)

    assert left.lanes == {}
    assert not left.finish()
    assert segment.exists()
    assert str(segment.parent) in caplog.text

    segment.write_bytes(bytes(4096))  # reserved, and never written to
    assert adopt(settings, folder).finish()
    assert not folder.exists()
