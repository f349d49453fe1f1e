"""The archive gives back what it was given, or says which file is at fault."""

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import msgspec
import pandas
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morphogen.bus.archive import writer as archive_writer
from morphogen.bus.archive.archive import Archive, ArchiveWriter
from morphogen.bus.archive.manifest import NAME, Manifest, load, locked, save
from morphogen.bus.archive.subjects import matches, tokens
from morphogen.bus.errors import ArchiveBusy, ArchiveDamaged, ArchiveError, ArchiveUnreadable
from morphogen.bus.pull import Message
from morphogen.schemas import Metrics, Record, encode_frame, token

EPOCH = "0123456789abcdef"
DAY = 86_400_000_000_000


def frame(
    seq: int, run: str = "digits", family: str = "metrics", steps: Sequence[int | None] = (7,), data: bytes = b""
) -> Message:
    """Return a message that holds one metrics event a step, or `data` as it is."""
    body = msgspec.Raw(Metrics(values={"loss": float("nan")}).encode())
    records = [Record(i + 1, "metrics.scalars", 1, step, 1_000 + i, body) for i, step in enumerate(steps)]
    whole = data or encode_frame(records, run=run, attempt=1, rank=0, writer="ab" * 8, family=family)
    return Message(seq, 20_000 * DAY + seq, f"morphogen.log.{token(run)}.{token(family)}.1-0", whole)


def put(folder: Path, messages: Sequence[Message], *, last: int | None = None) -> Archive:
    """Archive messages into the folder and return the archive."""
    archive = Archive(folder)
    with archive.writing(1) as writer:
        rest = list(messages)
        while rest or last is not None:
            segment = writer.segment()
            taken = segment.add(rest)
            rest = rest[taken:]
            writer.commit(segment.seal(None if rest else last))
            last = None
    return Archive(folder)


def got(archive: Archive, **filters: object) -> list[Message]:
    """Return what the archive reads."""
    return [message for batch in archive.read(**filters) for message in batch]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / EPOCH


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_writer, "WINDOW_ROWS", 3)
    monkeypatch.setattr(archive_writer, "SEGMENT_ROWS", 8)


messages_of_a_log = st.lists(
    st.tuples(
        st.integers(1, 3),  # distance to the one before
        st.integers(0, 2 * DAY),
        st.sampled_from(["", "digits", "résnet 50/lr=0.1.*", "x" * 200]),
        st.sampled_from(["metrics", "health", "log"]),
        st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1)), min_size=1, max_size=3),
        st.one_of(st.none(), st.binary(max_size=40)),
        st.sampled_from(["", "stray", "a/../b.c"]),
    ),
    max_size=40,
)


def build(drawn: list[tuple[int, int, str, str, list[int | None], bytes | None, str]]) -> list[Message]:
    """Turn what Hypothesis drew into messages of a log: frames, other bytes, and odd subjects."""
    built: list[Message] = []
    seq = stored = 0
    for distance, later, run, family, steps, raw, stray in drawn:
        seq += distance
        stored += later
        message = frame(seq, run, family, steps)
        subject = f"morphogen.log.{stray}" if stray else message.subject
        built.append(Message(seq, 20_000 * DAY + stored, subject, message.data if raw is None else raw))
    return built


@given(messages_of_a_log, st.integers(1, 5), st.integers(1, 12), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_goes_in_comes_out_to_the_byte_and_in_order_whatever_the_cuts(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[int, int, str, str, list[int | None], bytes | None, str]],
    window: int,
    segment: int,
    data: st.DataObject,
) -> None:
    messages = build(drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_writer, "WINDOW_ROWS", window)
        patch.setattr(archive_writer, "SEGMENT_ROWS", segment)
        archive = put(tmp_path_factory.mktemp("a") / EPOCH, messages)

    assert got(archive) == messages
    assert archive.rows == len(messages)
    assert archive.verify() == []
    missing = set(range(1, archive.covered + 1)) - {message.seq for message in messages}
    assert {seq for first, last in archive.gaps for seq in range(first, last + 1)} == missing

    after, upto = data.draw(st.integers(0, 60)), data.draw(st.integers(0, 60))
    run, family = (
        data.draw(st.sampled_from([None, "digits", ""])),
        data.draw(st.sampled_from([None, "log", ["log", "health"]])),
    )
    run_token, families = tokens(run, family)
    wanted = [m for m in messages if after < m.seq <= upto and matches(m.subject, run_token, families)]
    assert got(archive, after=after, upto=upto, run=run, family=family) == wanted
    moment = data.draw(st.integers(20_000 * DAY, 20_100 * DAY))
    assert archive.sequence_at(moment) == next((m.seq for m in messages if m.stored >= moment), None)


def test_of_what_is_not_wanted_no_bytes_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = put(folder, [frame(seq) for seq in range(1, 9)])
    read: list[str] = []
    whole = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, group: int, columns: list[str], **options: object) -> object:
        read.extend(columns)
        return whole(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    assert got(archive, family="log") == []
    assert set(read) == {"subject"}
    assert len(got(archive, family="metrics")) == 8


def test_a_machine_without_an_archive_reads_the_past_without_parquet() -> None:
    code = "import sys, morphogen.bus.past; raise SystemExit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_files_lie_by_day_and_run_and_other_tools_read_their_columns(folder: Path) -> None:
    put(
        folder,
        [frame(1, "a"), frame(2, "résnet 50"), frame(3, "a", steps=(3, None, 9)), frame(4, data=b"\xc1 no frame")],
    )

    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("**/*.parquet"))
    assert names == [
        "day=2024-10-04/run=a/1-3.parquet",
        "day=2024-10-04/run=digits/4-4.parquet",
        "day=2024-10-04/run=r=C3=A9snet=2050/2-2.parquet",
    ]
    rows = duckdb.sql(
        f"SELECT seq, run, family, count, types, min_step, max_step, error IS NULL, epoch_ns(stored) "
        f"FROM read_parquet('{folder}/**/*.parquet') ORDER BY seq"
    ).fetchall()
    moment = 20_000 * DAY
    assert rows == [
        (1, "a", "metrics", 1, ["metrics.scalars"], 7, 7, True, moment + 1),
        (2, "résnet 50", "metrics", 1, ["metrics.scalars"], 7, 7, True, moment + 2),
        (3, "a", "metrics", 3, ["metrics.scalars"], 3, 9, True, moment + 3),
        (4, "digits", "metrics", None, None, None, None, False, moment + 4),
    ]
    read = pandas.read_parquet(folder / names[0])
    assert list(read["max_step"]) == [7, 9]


def test_a_run_of_the_archive_adds_to_the_one_before(folder: Path) -> None:
    put(folder, [frame(1), frame(2)])

    archive = put(folder, [frame(3, "other"), frame(4)])

    assert [message.seq for message in got(archive)] == [1, 2, 3, 4]
    assert [(segment.first, segment.last) for segment in archive.manifest.segments] == [(1, 2), (3, 4)]


def test_sequences_that_the_log_lacks_at_its_end_are_covered_and_told(folder: Path) -> None:
    archive = put(folder, [frame(2), frame(3)], last=9)

    assert archive.covered == 9
    assert archive.gaps == [(1, 1), (4, 9)]
    assert load(folder) == archive.manifest


def test_a_segment_with_many_runs_is_cut(folder: Path) -> None:
    messages = [frame(seq, f"run {seq}") for seq in range(1, 601)]

    archive = put(folder, messages)

    assert got(archive) == messages
    assert max(len(segment.files) for segment in archive.manifest.segments) <= archive_writer.SEGMENT_FILES


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Let few more files be open together than are already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    free = (number for number in itertools.count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, 6, None)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_more_runs_than_files_may_be_open_are_written_read_and_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_writer, "WINDOW_ROWS", 40)
    messages = [frame(seq, f"run {seq % 60}") for seq in range(1, 181)]

    archive = put(folder, messages)

    assert got(archive) == messages
    assert archive.verify() == []
    assert archive.sequence_at(messages[70].stored) == 71
    assert archive.newest() == (180, messages[-1].stored)


def test_a_file_that_may_not_be_opened_is_not_called_damaged(folder: Path, request: pytest.FixtureRequest) -> None:
    archive = put(folder, [frame(1), frame(2)])
    reader = archive.read()
    request.getfixturevalue("no_descriptors")

    told = "cannot read archived file .*1-2.parquet: Too many open files; raise `ulimit -n`"
    with pytest.raises(ArchiveUnreadable, match=told):
        list(reader)
    with pytest.raises(ArchiveUnreadable, match=told):
        archive.verify()
    with pytest.raises(ArchiveUnreadable, match=r"cannot read .*manifest\.json: Too many open files"):
        Archive(folder)
    with pytest.raises(ArchiveError, match=r"cannot write the archive in .*: Too many open files; raise `ulimit -n`"):
        ArchiveWriter(archive).segment().add([frame(3)])


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENFILE, errno.ENOMEM, errno.EPERM])
def test_what_the_machine_refuses_is_told_as_it_says_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    archive = put(folder, [frame(1)])

    def refuse(*_: object, **__: object) -> None:
        raise MemoryError if number == errno.ENOMEM else OSError(number, os.strerror(number))

    monkeypatch.setattr(pq, "ParquetFile", refuse)

    with pytest.raises(ArchiveUnreadable, match=f"{os.strerror(number)}; "):
        got(archive)


def test_bytes_that_the_disk_cannot_give_back_are_lost_and_can_be_written_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = put(folder, [frame(1)])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pq, "ParquetFile", refuse)

    [(segment, [line])] = archive.damages()
    assert segment.first == 1
    assert "1-1.parquet is damaged: [Errno 5] Input/output error. Restore it" in line


def test_a_file_that_a_repair_replaces_while_it_is_read_is_read_on(folder: Path) -> None:
    messages = [frame(seq) for seq in range(1, 7)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_writer, "WINDOW_ROWS", 3)
        reader = put(folder, messages).read()
        first = next(reader)
        path = next(folder.glob("**/*.parquet"))
        copy = path.with_suffix(".copy")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)

    assert [*first, *(message for batch in reader for message in batch)] == messages


def break_file(path: Path, how: str) -> None:
    """Damage a file as disks and people do."""
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "no parquet":
        path.write_bytes(b"x" * len(whole))
    elif how == "footer":
        path.write_bytes(whole[:-20] + b"\xff" * 12 + whole[-8:])
    else:
        spot = 200 + whole[200:].index(b"\x28\xb5\x2f\xfd") + 12  # inside a compressed page
        path.write_bytes(whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :])


@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "no parquet", "footer", "bit"])
def test_a_damaged_file_is_named_in_one_line_by_reading_and_by_verify(folder: Path, how: str) -> None:
    put(folder, [frame(seq, data=os.urandom(5000)) for seq in range(1, 4)])
    path = next(folder.glob("**/*.parquet"))

    break_file(path, how)

    archive = Archive(folder)
    (line,) = archive.verify()
    assert str(path) in line
    assert "1-3" in line
    assert "\n" not in line
    with pytest.raises(ArchiveDamaged, match=str(path)):
        got(archive)


def test_a_file_of_another_archive_is_not_taken_for_ours(folder: Path, tmp_path: Path) -> None:
    put(folder, [frame(1), frame(2)])
    other = put(tmp_path / "feedfeed", [frame(1), Message(2, 5, "morphogen.log.x.y.z", b"foreign")])
    path = folder / load(folder).segments[0].files[0].path  # type: ignore[union-attr]
    foreign = next(p for p in other.folder.glob("**/*.parquet") if "digits" in str(p))

    path.write_bytes(foreign.read_bytes())

    with pytest.raises(ArchiveDamaged, match="instead of"):
        got(Archive(folder))
    assert len(Archive(folder).verify()) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"epoch": "other", "segments": []}', '{"epoch": "0123456789abcdef", "format": 9}']
)
def test_a_bad_manifest_is_an_error_that_names_it(folder: Path, text: str) -> None:
    put(folder, [frame(1)])

    (folder / NAME).write_text(text)

    with pytest.raises(ArchiveDamaged, match=r"manifest\.json"):
        Archive(folder)


def test_a_lost_manifest_never_costs_the_files(folder: Path) -> None:
    put(folder, [frame(1)])
    (folder / NAME).unlink()

    with pytest.raises(ArchiveDamaged, match="missing beside archived files"):
        Archive(folder)

    assert len(list(folder.glob("**/*.parquet"))) == 1


def test_a_manifest_cannot_point_out_of_its_folder(folder: Path) -> None:
    archive = put(folder, [frame(1)])
    segment = archive.manifest.segments[0]
    file = msgspec.structs.replace(
        segment.files[0], path="day=x/run=/../../../secret/1-1.parquet", run="/../../../secret", day="x"
    )
    save(folder, Manifest(EPOCH, [msgspec.structs.replace(segment, files=[file])]))

    with pytest.raises(ArchiveDamaged, match="inconsistent"):
        Archive(folder)


def test_what_a_killed_writer_left_is_swept_and_what_the_log_lost_is_not(folder: Path) -> None:
    put(folder, [frame(1), frame(2)])
    run = next(folder.glob("day=*/run=*"))
    for name in ("3.parquet.part", "3-9.parquet", "8-9.parquet"):
        (run / name).write_bytes(b"half")
    (folder / "notes.parquet").write_bytes(b"somebody's")
    archive = Archive(folder)

    with archive.writing(log_first=5):
        pass

    assert archive.strangers() == [f"{run.relative_to(folder).as_posix()}/3-9.parquet", "notes.parquet"]
    assert [message.seq for message in got(Archive(folder))] == [1, 2]


def test_two_processes_cannot_archive_at_once(folder: Path) -> None:
    with locked(folder), pytest.raises(ArchiveBusy, match="wait"), Archive(folder).writing(1):
        pass


def test_a_full_disk_is_one_line_and_leaves_nothing_half_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, [frame(1)])

    class Full(archive_writer._Hashing):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive_writer, "_Hashing", Full)
    with pytest.raises(ArchiveError, match="No space left on device; make room"):
        put(folder, [frame(2)])

    assert [message.seq for message in got(Archive(folder))] == [1]
    assert list(folder.glob("**/*.part")) == []


def test_out_of_order_messages_are_refused(folder: Path) -> None:
    with pytest.raises(ArchiveError, match="out of order"):
        put(folder, [frame(2), frame(2)])


WRITER = """
import sys, os
from pathlib import Path
from morphogen.bus.archive import archive as archives
from morphogen.bus.archive import writer as archive_writer
from morphogen.bus.archive import Archive
from morphogen.bus.pull import Message
archive_writer.WINDOW_ROWS, archive_writer.SEGMENT_ROWS = 7, 23
archive = Archive(Path(sys.argv[1]))
with archive.writing(1) as writer:
    print("go", flush=True)
    while archive.covered < 2000:
        segment = writer.segment()
        for seq in range(segment.first, segment.first + 23):
            segment.add([Message(seq, 20_000 * 86_400_000_000_000 + seq, f"morphogen.log.r{seq % 4}.m.1-0", b"%d" % seq * 50)])
        writer.commit(segment.seal())
"""


@pytest.mark.usefixtures("small_parts")
def test_a_writer_killed_at_any_moment_goes_on_with_nothing_lost_or_doubled(folder: Path) -> None:
    for attempt in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.003 * attempt)
            child.send_signal(signal.SIGKILL)
        seen = [message.seq for message in got(Archive(folder))]
        assert seen == list(range(1, len(seen) + 1))
    subprocess.run([sys.executable, "-c", WRITER, str(folder)], check=True, stdout=subprocess.DEVNULL)

    archive = Archive(folder)
    assert [message.seq for message in got(archive)] == list(range(1, archive.covered + 1))
    assert archive.verify() == []
    assert archive.strangers() == []


def test_reading_stops_early_without_leaving_files_open(folder: Path) -> None:
    archive = put(folder, [frame(seq) for seq in range(1, 10)])
    before = len(os.listdir("/proc/self/fd"))

    batches: Iterator[list[Message]] = archive.read()
    next(batches)
    batches.close()  # type: ignore[attr-defined]

    assert len(os.listdir("/proc/self/fd")) == before
