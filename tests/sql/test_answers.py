"""A query is answered by the projector where one runs, and in this process where none does."""

import datetime as dt
import hashlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG
from morphogen.consumers.projections.sql import query as asking
from morphogen.consumers.projections.sql.asof import parse_as_of
from morphogen.consumers.projections.sql.cells import Moment
from morphogen.consumers.projections.sql.errors import PositionNotReached, SqlError, SqlTooLong
from morphogen.consumers.projections.sql.query import SqlClient, query, status, wait_for
from morphogen.schemas import KnowledgeLoaded, MorphogenError

Start = Callable[[], "subprocess.Popen[str]"]


def test_without_a_projector_this_process_catches_up_and_answers(log: Any, settings: Settings) -> None:
    log.metrics(3, 10)
    heard: list[tuple[int, int]] = []

    result = query("SELECT count(*) FROM metrics", progress=lambda done, total: heard.append((done, total)))

    assert result.scalar() == 30
    assert heard[-1] == (3, 3)
    assert status() is None


def test_what_the_log_has_lost_amid_the_rest_is_warned_of_and_the_rest_is_answered(
    log: Any, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    for run in ("a", "b", "c"):
        log.metrics(1, 10, run=run)
    with Bus.open(settings) as bus:
        bus.run(bus.conn.js(f"STREAM.PURGE.{LOG}", {"filter": "morphogen.log.b.>"}))

    assert query("SELECT run, count(*) FROM metrics GROUP BY run ORDER BY run").rows() == [("a", 10), ("c", 10)]
    assert "the log holds nothing from sequence" in caplog.text


def test_an_empty_log_has_empty_tables(settings: Settings) -> None:
    assert query("SELECT count(*) FROM events").scalar() == 0


def test_the_store_is_let_go_after_an_answer(log: Any, settings: Settings) -> None:
    log.metrics()
    query("SELECT 1")
    (path,) = settings.projections_dir.glob("*.duckdb")

    code = (
        "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('SELECT count(*) FROM metrics').fetchone()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "10"


def test_a_running_projector_answers(served: Any) -> None:
    seq = served.log().metrics(5, 10, run="answered")

    result = query("SELECT count(*) AS n, max(value) AS top FROM metrics WHERE run = 'answered'", wait=seq)

    assert result.rows() == [(50, 1.0)]
    assert result.position >= seq
    found = status()
    assert found is not None
    assert found.pid == served.process.pid
    assert found.lag == 0
    assert "metrics" in found.tables


def test_wait_true_reads_ones_own_writes(served: Any) -> None:
    log = served.log()
    for written in range(1, 21):
        seq = log.metrics(1, 1, run="own")
        assert query("SELECT count(*) FROM metrics WHERE run = 'own'", wait=True).scalar() == written
    assert wait_for() == seq


@pytest.mark.parametrize("with_projector", [True, False])
def test_waiting_for_what_never_comes_names_position_and_goal(
    log: Any, start_projector: Start, with_projector: bool
) -> None:
    log.metrics(2)
    if with_projector:
        start_projector()
        wait_for()

    with pytest.raises(PositionNotReached, match=r"2\b.*\b99") as caught:
        query("SELECT 1", wait=99, timeout=0.3)
    assert "\n" not in str(caught.value)
    with pytest.raises(SqlError, match=r"\b99\b"):
        query("SELECT 1", as_of=99, timeout=0.3)


def test_numbers_that_no_log_has_are_told_with_their_bounds(log: Any) -> None:
    with pytest.raises(SqlError, match="go from 1 to 9223372036854775807"):
        query("SELECT 1", as_of=2**63)
    with pytest.raises(SqlError, match="from 0 to 9223372036854775807"):
        query("SELECT 1", max_rows=2**63)


def test_a_letter_that_the_locale_does_not_know_is_told(log: Any) -> None:
    with pytest.raises(SqlError, match=r"'\\udcc3', which is no character: is the locale \(LC_ALL\) UTF-8"):
        query("SELECT '\udcc3'")


@pytest.mark.parametrize("with_projector", [True, False])
def test_as_of_answers_as_the_tables_stood(log: Any, start_projector: Start, with_projector: bool) -> None:
    log.metrics(2)
    time.sleep(0.05)
    between = dt.datetime.now()  # a time without a zone is local
    aware = between.astimezone(dt.UTC)
    time.sleep(0.05)
    log.metrics(3)
    if with_projector:
        start_projector()
    count = "SELECT count(*) FROM metrics"

    assert query(count, wait=True).scalar() == 50
    assert [query(count, as_of=seq).scalar() for seq in range(6)] == [0, 10, 20, 30, 40, 50]
    for moment in (between, aware, between.isoformat(), aware.isoformat(), aware.isoformat().replace("+00:00", "Z")):
        result = query(count, as_of=moment)
        assert (result.scalar(), result.as_of) == (20, 2)
    assert query(count, as_of="3").scalar() == 30
    assert query(count, as_of="0s ago").scalar() == 50
    assert query(count, as_of="1 day ago").scalar() == 0
    assert query("SELECT count(*) FROM events", as_of=1).scalar() == 10
    with pytest.raises(SqlError, match="future"):
        query(count, as_of=between + dt.timedelta(hours=1))
    with pytest.raises(SqlError, match="no sequence and no time"):
        query(count, as_of="yesterday-ish")


def test_a_moment_that_the_log_has_is_past_though_the_clock_here_is_behind(
    log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.metrics(2)
    first = query("SELECT epoch_ns(min(stored)) FROM frames", wait=True).scalar()
    behind = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: behind)
    seconds, rest = divmod(first, 10**9)

    moment = f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    assert query("SELECT count(*) FROM metrics", as_of=moment).scalar() == 10
    with pytest.raises(SqlError, match="future"):
        query("SELECT 1", as_of=dt.datetime.now() + dt.timedelta(hours=1))


def test_parameters_arrive_as_they_were_given(anywhere: None) -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678901)

    result = query(
        "SELECT $i::HUGEINT, $f::DOUBLE, $s, $b, $n, $t::TIMESTAMP, $d::DATE, $l::BIGINT[]",
        params={
            "i": 2**100, "f": float("inf"), "s": "né'\"; --", "b": b"\x00\xff", "n": None,
            "t": moment, "d": moment.date(), "l": [1, 2],
        },
    )  # fmt: skip

    assert result.rows() == [(2**100, float("inf"), "né'\"; --", b"\x00\xff", None, moment, moment.date(), [1, 2])]
    assert query("SELECT ?::INT + ?::INT", params=(1, 2)).scalar() == 3
    with pytest.raises(SqlError, match="parameter"):
        query("SELECT ?", params=[object()])


def test_an_error_is_one_line_with_the_place_apart(served: Any) -> None:
    with pytest.raises(SqlError) as caught:
        query("SELECT nope\nFROM metricss")

    assert "metricss does not exist" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.detail.startswith("LINE 2: FROM metricss")
    assert "^" in caught.value.detail


def test_a_large_answer_arrives_whole_and_max_rows_cuts_it(served: Any) -> None:
    sql = "SELECT i, repeat('x', 50) AS s, i::DOUBLE / 3 AS v FROM range(300000) t(i)"

    result = query(sql)

    assert len(result) == 300_000
    assert result.arrow().column("i").to_pylist() == list(range(300_000))
    assert not result.truncated
    few = query(sql, max_rows=1000)
    assert (len(few), few.truncated) == (1000, True)


def test_many_askers_are_answered_at_once(served: Any) -> None:
    seq = served.log().metrics(4, 25, run="many")
    wait_for(seq)
    answers: list[int] = []

    def ask() -> None:
        answers.extend(query("SELECT count(*) FROM metrics WHERE run = 'many'").scalar() for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [100] * 120


def test_processes_without_a_projector_take_turns(log: Any, settings: Settings) -> None:
    log.metrics(2, 10)
    code = "from morphogen.consumers.projections.sql.query import query; print(query('SELECT count(*) FROM metrics', timeout=50).scalar())"
    askers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]

    results = [process.communicate(timeout=60) for process in askers]

    assert [out.strip() for out, _ in results] == ["20"] * 4, results


def test_a_store_that_someone_holds_and_does_not_serve_is_one_clear_line(log: Any, settings: Settings) -> None:
    log.metrics()
    query("SELECT 1")
    (path,) = settings.projections_dir.glob("*.duckdb")
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"

    try:
        with pytest.raises(SqlError, match="another process holds the store") as caught:
            query("SELECT 1", timeout=0.5)
        assert "\n" not in str(caught.value)
    finally:
        holder.communicate("")
    assert query("SELECT 1").scalar() == 1


def test_a_projector_that_ends_and_comes_back_is_not_noticed(log: Any, start_projector: Start) -> None:
    log.metrics()
    first = start_projector()
    assert query("SELECT count(*) FROM metrics", wait=True).scalar() == 10
    first.kill()
    first.wait()

    assert query("SELECT count(*) FROM metrics").scalar() == 10  # answered here
    start_projector()
    assert query("SELECT count(*) FROM metrics").scalar() == 10


def test_an_interrupted_asker_stops_its_query(served: Any) -> None:
    client = SqlClient.shared(served.settings)
    endless = "SELECT count(*) FROM range(1000000000000)"
    code = (
        "import sys\nfrom morphogen.consumers.projections.sql.query import query\nprint('asking', flush=True)\n"
        f"try: query({endless!r}, timeout=60)\nexcept KeyboardInterrupt: print('stopped', flush=True)"
    )
    asker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    assert asker.stdout.readline().strip() == "asking"
    _until(lambda: _running(client) == 1)

    asker.send_signal(2)

    out, errors = asker.communicate(timeout=10)
    assert out.strip() == "stopped", errors
    _until(lambda: _running(client) == 0)


def test_an_asker_that_is_killed_leaves_no_query_behind(served: Any) -> None:
    code = "from morphogen.consumers.projections.sql.query import query\nquery('SELECT * FROM range(1000000000000)', timeout=60)"
    asker = subprocess.Popen([sys.executable, "-c", code])
    client = SqlClient.shared(served.settings)
    _until(lambda: _running(client) == 1)

    asker.kill()
    asker.wait()

    _until(lambda: _running(client) == 0)


def test_a_query_is_stopped_at_its_time_limit(served: Any) -> None:
    started = time.monotonic()

    with pytest.raises(SqlTooLong, match=r"0\.5 s"):
        query("SELECT count(*) FROM range(1000000000000)", timeout=0.5)

    assert time.monotonic() - started < 5
    assert query("SELECT 1").scalar() == 1


def test_the_store_file_stays_locked_while_answers_are_given(served: Any, tmp_path: Path) -> None:
    served.log().metrics(run="locked")
    query("SELECT * FROM events WHERE run = 'locked'", wait=True).to_parquet(tmp_path / "events.parquet")
    (path,) = served.settings.projections_dir.glob("*.duckdb")
    code = "import duckdb, sys; duckdb.connect(sys.argv[1])"

    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)

    assert "lock" in done.stderr
    assert duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/events.parquet'").fetchall() == [(10,)]


def _running(client: SqlClient) -> int:
    found = client.status()
    assert found is not None
    return found.running


def _until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ({"timeout": 0}, "timeout is 0"),
        ({"timeout": math.inf}, "timeout is inf"),
        ({"timeout": None}, "timeout is None"),
        ({"max_rows": -1}, "max_rows is -1"),
        ({"max_rows": "9"}, "max_rows is '9'"),
        ({"wait": -1}, "wait is -1"),
        ({"wait": 10**30}, "wait is 1000"),
        ({"params": 5}, "params is a int"),
        ({"params": "ab"}, "params is a str"),
        ({"params": ["\ud800"]}, "which is no character"),
        ({"as_of": pd.NaT}, "as_of is NaT"),
        ({"as_of": "²"}, "no sequence and no time"),
        ({"as_of": dt.datetime.max}, "centuries in the future"),
        ({"as_of": 10**9}, "beyond the end of the log"),
    ],
)
def test_an_option_that_means_nothing_is_refused_at_once(anywhere: None, bad: dict[str, Any], line: str) -> None:
    began = time.monotonic()

    with pytest.raises(SqlError, match=line):
        query("SELECT 1", **bad)

    assert time.monotonic() - began < 20  # of the 30 that an answer may take


@pytest.mark.parametrize("moment", ["0001-01-01", dt.datetime.min, "1000000w ago", "-99999999999999w", "1960-01-01"])
def test_before_the_first_event_the_tables_are_empty(anywhere: None, moment: Any) -> None:
    assert query("SELECT count(*) FROM events", as_of=moment).scalar() == 0


def test_an_age_may_be_written_as_replay_writes_it(log: Any, settings: Settings) -> None:
    log.metrics()

    assert query("SELECT count(*) FROM events", as_of="-1h").scalar() == 0
    assert query("SELECT count(*) FROM events", as_of="-0.001s").scalar() == 10


def test_parameters_may_be_numpys(anywhere: None) -> None:
    given = [np.int64(5), np.float32(0.5), np.arange(3)]

    assert query("SELECT ?, ?, ?", params=given).rows() == [(5, 0.5, [0, 1, 2])]


NS = 1_767_323_045_123_456_789  # 2026-01-02 03:04:05.123456789


@pytest.mark.parametrize(
    "moment",
    [
        Moment.of(NS),
        Moment.of(NS, dt.UTC),
        pd.Timestamp(NS),
        pd.Timestamp(NS, tz="Europe/Berlin"),
        np.datetime64(NS, "ns"),
    ],
    ids=repr,
)
def test_a_time_with_nanoseconds_finds_its_row(anywhere: None, moment: Any) -> None:
    rows = f"FROM (VALUES (make_timestamp_ns({NS})), (make_timestamp_ns({NS - 789}))) rows(t)"

    assert query(f"SELECT epoch_ns(t) {rows} WHERE t = $t", params={"t": moment}).rows() == [(NS,)]
    assert query(f"SELECT epoch_ns(t) {rows} WHERE t IN (SELECT unnest($l))", params={"l": [moment]}).rows() == [(NS,)]


def test_a_time_of_an_answer_goes_in_again_and_one_that_is_none_is_null(anywhere: None) -> None:
    taken = query(f"SELECT make_timestamp_ns({NS}) AS t")
    given = [taken.scalar(), taken.pandas()["t"][0], np.array([NS, NS + 1], "datetime64[ns]")]

    assert query("SELECT epoch_ns(?), epoch_ns(?), epoch_ns(?[2])", params=given).rows() == [(NS, NS, NS + 1)]
    assert query("SELECT epoch_ns(?[1])", params=[taken.pandas()["t"]]).scalar() == NS
    none = [pd.NaT, np.datetime64("NaT"), np.datetime64("2026-01-02")]
    assert query("SELECT ?, ?, ?", params=none).rows() == [(None, None, dt.date(2026, 1, 2))]


def test_a_time_that_nanoseconds_cannot_count_is_refused(anywhere: None) -> None:
    with pytest.raises(SqlError, match="1677 to 2262"):
        query("SELECT ?::VARCHAR", params=[np.datetime64("99999-01-01")])


def test_as_of_takes_the_times_of_pandas() -> None:
    plain = dt.datetime(2026, 1, 2, 3, 4, 5, 123456)

    assert parse_as_of(pd.Timestamp(plain)) == parse_as_of(plain)  # without a zone both are local
    assert parse_as_of(pd.Timestamp(NS, tz="Europe/Berlin")) == (None, NS)


def test_a_projector_that_is_held_or_killed_does_not_hold_its_askers(
    log: Any, start_projector: Start, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SILENCE", 1.5)
    log.metrics()
    process = start_projector()
    wait_for()
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(SqlTooLong, match=r"did not answer within 0\.5 s"):
            query("SELECT 1", timeout=0.5)
        assert time.monotonic() - began < 4
    finally:
        process.send_signal(signal.SIGCONT)
    client, answers = SqlClient.shared(settings), list[Any]()
    _until(lambda: _running(client) == 0)
    asker = threading.Thread(
        target=lambda: answers.append(query("SELECT count(*) FROM range(300000000) t(i) WHERE i % 7 = 3").scalar())
    )
    asker.start()
    _until(lambda: _running(client) == 1)

    process.kill()

    asker.join()
    assert answers == [42857143]  # by this process, which asked again


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_while_a_thread_asks_another_waits_no_longer_than_its_time_and_a_forked_child_not_at_all(
    log: Any, settings: Settings
) -> None:
    log.metrics()
    going, stop = threading.Event(), SqlClient.shared(settings).close
    endless = "SELECT count(*) FROM range(1000000000000)"

    def ask() -> None:
        with pytest.raises(MorphogenError):
            query(endless, progress=lambda *_: going.set())

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        assert going.wait(20)
        began = time.monotonic()
        with pytest.raises(SqlTooLong, match="another thread of this process"):
            query("SELECT 1", timeout=0.3)
        assert time.monotonic() - began < 3
        assert "forked" in _in_a_child(lambda: query("SELECT 1", timeout=5))
    finally:
        stop()
        asker.join()
    assert query("SELECT 1").scalar() == 1
    assert _in_a_child(lambda: query("SELECT 1").scalar()) == "1"


def _in_a_child(work: Callable[[], object]) -> str:
    """Return what a forked child has to say, which has 20 seconds."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            said = str(work())
        except MorphogenError as error:
            said = str(error)
        finally:
            os.write(sink, said.encode())
            os._exit(0)
    os.close(sink)
    with open(source, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


def test_who_waits_sees_the_tables_that_the_log_has_just_called_for(
    log: Any, projector: "subprocess.Popen[str]", settings: Settings
) -> None:
    log.metrics(20)
    text = """system Steps {
      trace_schema { variant T { case Step from "metrics.scalars" { loss: float } } }
      knowledge { fact rises(t: T.Step) { return slope(t.loss) over last 3 > 0 } }
    }"""
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    with Bus.open(settings) as bus:
        bus.emit(
            KnowledgeLoaded(name="steps", path="steps.mk", sha256=sha256, text=text, systems=["Steps"]), msg_id="steps"
        )

    assert query("SELECT count(*) FROM fact_steps_rises", wait=True).scalar() == 200
