"""A snapshot is a plain, verified copy at one position, or nothing at all."""

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from morphogen.bus.settings import Settings
from morphogen.consumers.projections import Projection, Store
from morphogen.consumers.projections.sql.errors import SnapshotFailed
from morphogen.consumers.projections.sql.query import query, snapshot
from morphogen.consumers.projections.sql.snapshot import write_snapshot


def read(path: Path, sql: str) -> list[Any]:
    """Ask a copy as an outside tool does, from a process of its own."""
    code = "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).execute(sys.argv[2]).fetchall())"
    done = subprocess.run([sys.executable, "-c", code, str(path), sql], capture_output=True, text=True, check=True)
    rows: list[Any] = eval(done.stdout)  # our own output
    return rows


@pytest.mark.parametrize("with_projector", [True, False])
def test_a_duckdb_snapshot_holds_plain_tables(
    log: Any, start_projector: Any, settings: Settings, tmp_path: Path, with_projector: bool
) -> None:
    log.metrics(3, 10)
    if with_projector:
        start_projector()
    query("SELECT 1", wait=True)

    path = snapshot(tmp_path)

    assert path == tmp_path / "morphogen-3.duckdb"
    assert read(path, "SELECT count(*), count(DISTINCT seq) FROM metrics") == [(30, 3)]
    assert read(path, "SELECT body->>'values' IS NOT NULL FROM events LIMIT 1") == [(True,)]
    assert read(path, "SELECT position FROM morphogen_snapshot") == [(3,)]
    assert read(path, "SELECT count(*) FROM duckdb_views() WHERE NOT internal") == [(0,)]
    assert {name for (name,) in read(path, "SHOW TABLES")} >= {"events", "metrics", "runs", "frames", "commands"}
    assert os.listdir(tmp_path) == [path.name]


def test_a_parquet_snapshot_is_a_folder_that_anyone_reads(log: Any, settings: Settings, tmp_path: Path) -> None:
    log.metrics(2, 10)

    path = snapshot(tmp_path / "mine", "parquet")

    assert path == tmp_path / "mine-2"
    assert len(pd.read_parquet(path / "metrics.parquet")) == 20
    assert duckdb.sql(f"SELECT count(*) FROM '{path}/events.parquet'").fetchall() == [(20,)]
    assert os.listdir(tmp_path) == ["mine-2"]


def test_a_snapshot_is_consistent_while_the_projector_writes(
    log: Any, projector: "subprocess.Popen[str]", settings: Settings, tmp_path: Path
) -> None:
    log.metrics(5, 20)
    query("SELECT 1", wait=True)
    writer = threading.Thread(target=log.metrics, args=(200, 20))
    writer.start()

    paths = {snapshot(tmp_path / f"s{number}.duckdb") for number in range(3)}
    writer.join()

    for path in paths:
        position = int(path.stem.rpartition("-")[2])
        assert read(path, "SELECT count(*), max(seq) FROM metrics") == [(20 * position, position)]
        assert read(path, "SELECT count(*), sum(count) FROM frames") == [(position, 20 * position)]
    assert query("SELECT count(*) FROM metrics", wait=True).scalar() == 4100


@pytest.mark.parametrize("form", ["duckdb", "parquet"])
def test_the_same_snapshot_twice_is_one(log: Any, settings: Settings, tmp_path: Path, form: str) -> None:
    log.metrics()

    assert snapshot(tmp_path, form) == snapshot(tmp_path, form)

    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("form", ["duckdb", "parquet"])
def test_a_full_disk_leaves_nothing_behind_and_says_so(log: Any, settings: Settings, tmp_path: Path, form: str) -> None:
    log.metrics(20, 500)
    query("SELECT 1")
    code = (
        "import resource, signal, sys\n"
        "from morphogen.consumers.projections.sql.query import query, snapshot\n"
        "query('SELECT 1')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))\n"
        "from morphogen.consumers.projections.sql.errors import SnapshotFailed\n"
        "try: snapshot(sys.argv[1], sys.argv[2])\n"
        "except SnapshotFailed as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), form], capture_output=True, text=True, check=False
    )

    assert "no room for the snapshot" in done.stdout, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_one_line(log: Any, settings: Settings, tmp_path: Path) -> None:
    log.metrics()
    (tmp_path / "file").write_text("")

    with pytest.raises(SnapshotFailed, match="could not be written") as caught:
        snapshot(tmp_path / "file" / "below")
    assert "\n" not in str(caught.value)
    with pytest.raises(SnapshotFailed, match="duckdb or parquet"):
        snapshot(tmp_path, "xml")
    (store,) = settings.projections_dir.glob("*.duckdb")
    with pytest.raises(SnapshotFailed, match="is the store itself"):
        snapshot(store)
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY


class Spans(Projection, name="spans", version=1, types=("metrics.scalars",)):
    views = {"spans": "SELECT INTERVAL '1 day 0.000001 s' AS i, [INTERVAL '1 s'] AS l, {'a': NULL::INTERVAL} AS s"}  # noqa: RUF012


class Odd(Projection, name="odd", version=1, types=("metrics.scalars",)):
    views = {"odd": "SELECT empty_struct FROM test_all_types()"}  # noqa: RUF012


def test_intervals_are_text_in_parquet_and_a_table_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path / "good.duckdb", [Spans()], epoch="one") as store:
        path = write_snapshot(store, tmp_path / "copy", "parquet")
        kept = write_snapshot(store, tmp_path / "copy")
    with (
        Store.open(tmp_path / "bad.duckdb", [Odd()], epoch="one") as store,
        pytest.raises(SnapshotFailed, match="table odd: "),
    ):
        write_snapshot(store, tmp_path / "none", "parquet")

    (row,) = pd.read_parquet(path / "spans.parquet").to_dict("records")
    assert (row["i"], [*row["l"]], row["s"]) == ("0 months 1 days 0.000001 s", ["0 months 0 days 1 s"], {"a": None})
    assert read(kept, "SELECT i = INTERVAL '1 day 0.000001 s' FROM spans") == [(True,)]


def test_a_folder_that_is_written_as_one_is_made(
    log: Any, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.metrics(2)
    monkeypatch.chdir(tmp_path)

    assert snapshot("new/") == tmp_path / "new" / "morphogen-2.duckdb"
    assert snapshot(f"{tmp_path}/more/deep/", "parquet") == tmp_path / "more" / "deep" / "morphogen-2"
    assert snapshot("mine") == tmp_path / "mine-2.duckdb"
    assert sorted(os.listdir(tmp_path)) == ["mine-2.duckdb", "more", "new"]


@pytest.mark.parametrize("form", ["duckdb", "parquet"])
def test_what_is_no_snapshot_of_this_log_is_never_replaced(
    log: Any, settings: Settings, tmp_path: Path, form: str
) -> None:
    log.metrics(3, 10)
    for name in ("checkpoint-3", "checkpoint-3.duckdb"):  # as a training framework may call its folders
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.bin").write_text("weights")
    (tmp_path / "file-3").write_text("text")
    (tmp_path / "file-3.duckdb").write_text("text")
    with contextlib.closing(sqlite3.connect(tmp_path / "lite-3.duckdb")) as lite, lite:
        lite.execute("CREATE TABLE morphogen_snapshot(epoch TEXT)")
    (tmp_path / "lite-3").mkdir()
    parquet.write_table(pa.table({"other": [1]}), tmp_path / "lite-3" / "morphogen_snapshot.parquet")
    own = snapshot(tmp_path / "mine", form)
    (tmp_path / own.name.replace("mine", "link")).symlink_to(own)
    foreign = snapshot(tmp_path / "foreign", form)
    with duckdb.connect() as con:  # of another log
        if form == "duckdb":
            con.execute(f"ATTACH '{foreign}' AS f")
            con.execute("UPDATE f.morphogen_snapshot SET epoch = 'another'")
            con.execute("DETACH f")
        else:
            con.execute(f"COPY (SELECT 3 AS position, 'another' AS epoch) TO '{foreign}/morphogen_snapshot.parquet'")
    for name in ("checkpoint", "file", "lite", "link", "foreign"):
        with pytest.raises(SnapshotFailed, match=f"{name}-3.* is there, and is no snapshot of this log"):
            snapshot(tmp_path / name, form)
    assert (tmp_path / "checkpoint-3" / "model.bin").read_text() == "weights"
    assert (tmp_path / "checkpoint-3.duckdb" / "model.bin").read_text() == "weights"
    assert (tmp_path / "file-3").read_text() == (tmp_path / "file-3.duckdb").read_text() == "text"
    assert snapshot(tmp_path / "own", form) == snapshot(tmp_path / "own", form)
