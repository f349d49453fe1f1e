"""The file: locked, damaged, foreign, full."""

import asyncio
import logging
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from morphogen.consumers.projections import Store, StoreDamaged, StoreLocked, discover
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.consumers.projections.store.duckfile import set_aside
from morphogen.schemas import LogLine, Metrics

HOLD = """
import sys
from morphogen.consumers.projections import Store
store = Store.open(sys.argv[1], epoch="epoch")
print("open", flush=True)
sys.stdin.read()
"""


def open_plain(path: Path) -> Store:
    return Store.open(path, discover(installed=False), epoch="epoch")


def test_a_store_that_another_process_owns_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(StoreLocked, match="in use by another process") as raised:
            open_plain(path)
        assert "\n" not in str(raised.value)
        owner.communicate()
    open_plain(path).close()


@pytest.mark.parametrize("spoil", ["text", "short", "header"])
def test_a_damaged_file_is_named_and_can_be_kept_aside(
    spoil: str, tmp_path: Path, log: Any, catch_up: Callable[..., int]
) -> None:
    path = tmp_path / "a.duckdb"
    log.write(*(LogLine(message=str(i) * 50) for i in range(2000)))
    with open_plain(path) as store:
        catch_up(store, log)
    whole = path.read_bytes()
    path.write_bytes(
        {"text": b"hello", "short": whole[: len(whole) // 2], "header": b"\0" * 4096 + whole[4096:]}[spoil]
    )

    with pytest.raises(StoreDamaged, match="morphogen rebuild") as raised, open_plain(path) as store:
        store.content_hash("log_lines")

    assert "\n" not in str(raised.value)
    aside = set_aside(path)
    assert aside is not None
    assert aside.name == "a.duckdb.damaged-1"
    with open_plain(path) as store:
        catch_up(store, log)
        assert store.content_hash("log_lines")[0] == 2000
    assert set_aside(tmp_path / "nothing.duckdb") is None


def test_a_foreign_duckdb_file_and_another_logs_store_are_refused(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "foreign.duckdb")) as con:
        con.execute("CREATE TABLE mine(x INTEGER)")
    with pytest.raises(StoreDamaged, match="no store of Morphogen"):
        open_plain(tmp_path / "foreign.duckdb")
    open_plain(tmp_path / "a.duckdb").close()
    with pytest.raises(StoreDamaged, match="was made from log epoch"):
        Store.open(tmp_path / "a.duckdb", discover(installed=False), epoch="another")


def test_a_full_disk_is_said_once_and_loses_nothing(tmp_path: Path, log: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.duckdb"
    for i in range(30):
        log.write(*(LogLine(message=f"{i} {j} {hash((i, j))}" * 20) for j in range(200)))
        log.write(*(Metrics(values={"x": float(j)}) for j in range(200)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def story(store: Store) -> None:
        follower = Follower(store, log, batch_bytes=200_000)
        task = asyncio.create_task(follower.catch_up())
        for _ in range(1500):
            await asyncio.sleep(0.02)
            if any("nothing is lost" in record.getMessage() for record in caplog.records):
                break
        else:
            pytest.fail("the disk never was full")
        await asyncio.sleep(1.0)
        assert not task.done()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        async with asyncio.timeout(30):
            assert await task == len(log.messages)

    with open_plain(path) as store, caplog.at_level(logging.WARNING):
        wal = path.with_name(path.name + ".wal")
        used = max(path.stat().st_size, wal.stat().st_size if wal.exists() else 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (used + 300_000, hard))
        try:
            asyncio.run(story(store))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert store.content_hash("log_lines")[0] == 6000
        assert store.content_hash("metrics")[0] == 6000
        hashes = {name: store.content_hash(name) for name in store.tables()}
    lines = [record.getMessage() for record in caplog.records if "nothing is lost" in record.getMessage()]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    with open_plain(path) as store:
        assert {name: store.content_hash(name) for name in store.tables()} == hashes


def test_memory_that_a_query_holds_is_waited_for(tmp_path: Path, log: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def until(said: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not said():
                await asyncio.sleep(0.02)

    async def story(store: Store) -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(Follower(store, log).follow(stop))
        log.write(LogLine(message="first"))
        await until(lambda: store.front() == 1)
        greedy = store.cursor()
        greedy.execute("SET max_temp_directory_size = '0B'")
        held = 0
        for size in (1_000_000, 100_000, 10_000, 1_000):  # until not a page is left
            while True:
                try:
                    greedy.execute(f"CREATE TEMP TABLE t{held} AS SELECT random() AS x FROM range({size})")
                except duckdb.OutOfMemoryException:
                    break
                held += 1
        log.write(*(LogLine(message=f"{i}" * 500) for i in range(2000)))
        await until(lambda: any("no memory to write" in record.getMessage() for record in caplog.records))
        assert not task.done()
        for number in range(held):
            greedy.execute(f"DROP TABLE t{number}")
        greedy.close()
        await until(lambda: store.front() == 2)
        stop.set()
        await task

    with (
        Store.open(
            tmp_path / "a.duckdb", discover(installed=False), epoch="epoch", memory_limit="100MB", threads=1
        ) as store,
        caplog.at_level(logging.WARNING),
    ):
        asyncio.run(story(store))
        assert store.content_hash("log_lines")[0] == 2001


def test_a_commit_that_cannot_be_ends_the_follower_while_nothing_more_comes(
    tmp_path: Path, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(store: Store) -> None:
        task = asyncio.create_task(Follower(store, log).follow(asyncio.Event()))
        log.write(LogLine(message="the only one"))
        async with asyncio.timeout(10):
            with pytest.raises(StoreDamaged, match="spoiled"):
                await task

    def spoiled(*_: object) -> None:
        raise StoreDamaged("the file is spoiled: mend it")

    with open_plain(tmp_path / "a.duckdb") as store:
        monkeypatch.setattr(store, "commit", spoiled)
        asyncio.run(story(store))


def test_no_progress_of_duckdbs_goes_into_the_output_of_a_one_liner(tmp_path: Path) -> None:
    # Whoever asks by `python -c` looks to DuckDB like somebody at a prompt, who is shown a bar after two seconds.
    code = (
        "import sys\nfrom morphogen.consumers.projections import Store\n"
        "with Store.open(sys.argv[1], epoch='epoch') as store, store.reading() as con:\n"
        "    for one in (store._con, con): print(one.execute(\"SELECT current_setting('enable_progress_bar')\").fetchone())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.duckdb")], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["(False,)", "(False,)"]
