"""record, log, watch: what a training loop sees, on a real broker, read back with SQL."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import morphogen
from morphogen.bus.errors import SettingsError
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql.query import query
from morphogen.schemas import Event


class Checkpointed(Event, type="testing.checkpointed", version=1):
    """An event of a user's own."""

    uri: str
    loss: float | None = None


def rows(sql: str) -> list[tuple[Any, ...]]:
    return query(sql, wait=True).rows()


def run_script(text: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env},
    )  # fmt: skip


def test_two_lines_record_a_run(settings: Settings) -> None:
    run = morphogen.record("first", config={"lr": 0.1, "layers": [1, 2]})
    run.log(loss=0.5, step=1)
    run.log({"loss": 0.25, "acc": np.float32(0.5)}, step=2)
    run.finish()

    assert rows("SELECT step, name, value FROM metrics ORDER BY ALL") == [
        (1, "loss", 0.5),
        (2, "acc", 0.5),
        (2, "loss", 0.25),
    ]
    ((status, attempt, lr),) = rows("SELECT status, attempt, config.lr::DOUBLE FROM runs WHERE run = 'first'")
    assert (status, attempt, lr) == ("finished", 1, 0.1)
    assert rows("SELECT coalesce(sum(lost), 0) + coalesce(sum(dropped), 0) FROM producers") == [(0,)]


def test_numbers_arrive_exactly(settings: Settings) -> None:
    with morphogen.record("exact") as run:
        run.log(
            {"nan": math.nan, "inf": math.inf, "ninf": -math.inf, "big": 2**63 - 1, "small": -(2**63), "ü.*": 1}, step=1
        )

    found = dict(rows("SELECT name, value FROM metrics"))
    assert math.isnan(found["nan"])
    assert (found["inf"], found["ninf"], found["ü.*"]) == (math.inf, -math.inf, 1.0)
    ((big, small),) = rows(
        'SELECT body."values".big::BIGINT, body."values".small::BIGINT FROM events WHERE type = \'metrics.scalars\''
    )
    assert (big, small) == (2**63 - 1, -(2**63))


def test_without_a_step_numbers_belong_to_the_next_one(settings: Settings) -> None:
    with morphogen.record("steps") as run:
        run.log(a=1)
        run.log(a=2)
        run.log(a=3, step=10)
        run.log(a=4)

    assert [step for (step,) in rows("SELECT step FROM metrics ORDER BY value")] == [1, 2, 10, 11]


def test_what_is_no_number_is_said_once_and_the_rest_is_kept(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), morphogen.record("odd") as run:
        for step in range(5):
            run.log({"loss": 0.5, "text": "abc", "none": None, "deep": {"a": 1}}, step=step)

    assert run.rejected == 5
    assert sum("metric 'text'" in record.message for record in caplog.records) == 1
    assert rows("SELECT DISTINCT name FROM metrics ORDER BY 1") == [("deep/a",), ("loss",)]


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def test_a_step_that_is_no_number_costs_only_the_step(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), morphogen.record("steps") as run:
        run.log(a=1, step="7")  # type: ignore[arg-type]
        run.log(a=2)
        run.log(a=3, step=math.nan)  # type: ignore[arg-type]
        run.log(a=4, step="x")  # type: ignore[arg-type]
        run.log(a=5)
        run.log(a=6, step=np.int32(20))  # type: ignore[arg-type]
        run.log(a=7)
        run.log(a=8, step=2.7)  # type: ignore[arg-type]
        run.log(a=9, step=2**70)
        run.log(a=10)
        run.log(a=11, step=np.float64(30.0))  # type: ignore[arg-type]
        run.log(a=12, step=Decimal(40))  # type: ignore[arg-type]
        run.log(a=13, step=Unshowable())  # type: ignore[arg-type]

    assert [step for (step,) in rows("SELECT step FROM metrics ORDER BY value")] == [
        7, 8, None, None, 9, 20, 21, None, None, 22, 30, 40, None,
    ]  # fmt: skip
    assert "step nan was not recorded: it is no whole number" in caplog.text


def test_nothing_that_is_passed_raises_into_the_loop_and_what_can_be_kept_is(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), morphogen.record("odd") as run:
        run.log([1], a=2)  # type: ignore[arg-type]
        run.log({"loss": 0.5, "\ud800": 1.0, "flag": True, "text": "12345678"}, step=1)
        run.log({"loss": 0.5, "text": 1.0}, step=2)
        run.log({"loss": 0.5, "text": "12345678"}, step=3)  # as long as the numbers of the call before
        run.line(Unshowable())
        run.line("half \ud800", field=Unshowable())
        run.artifact(None)  # type: ignore[arg-type]
        run.artifact("\ud800")
        run.artifact(b"bytes")  # type: ignore[arg-type]

    assert rows("SELECT step, name, value FROM metrics ORDER BY ALL") == [
        (1, "flag", 1.0), (1, "loss", 0.5), (2, "loss", 0.5), (2, "text", 1.0), (3, "loss", 0.5)
    ]  # fmt: skip
    assert rows("SELECT count(*) FROM unknown_events") == [(0,)]
    assert "metric '\\\\ud800' was not recorded: its name holds half a character" in caplog.text
    assert rows("SELECT message FROM log_lines ORDER BY seq, idx") == [("<Unshowable>",), ("half \\ud800",)]


def test_users_events_lines_and_artifacts(settings: Settings, tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"abc")
    with morphogen.record("events") as run:
        first = run.event(Checkpointed(uri="file:///a", loss=0.5), step=3)
        run.event(Checkpointed(uri="file:///b"), step=4, cause=first)
        run.line("hello", level="warning", lr=0.1)
        run.artifact(weights, kind="model", epoch=1)
        run.artifact("s3://bucket/x")

    assert rows("SELECT body.uri::VARCHAR, cause FROM events WHERE type = 'testing.checkpointed' ORDER BY step") == [
        ("file:///a", None),
        ("file:///b", first),
    ]
    assert rows("SELECT id FROM events WHERE step = 3") == [(first,)]
    assert rows("SELECT level, message FROM log_lines") == [("warning", "hello")]
    found = rows("SELECT name, size, sha256 FROM artifacts ORDER BY name")
    assert found == [
        ("weights.bin", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("x", None, None),
    ]


def test_the_same_name_again_is_the_next_attempt_and_steps_may_rewind(settings: Settings) -> None:
    for attempt in (1, 2, 3):
        with morphogen.record("again") as run:
            assert run.attempt == attempt
            for step in range(3):
                run.log(loss=attempt, step=step)

    assert rows("SELECT count(*) FROM metrics") == [(9,)]
    assert rows("SELECT DISTINCT value FROM run_metrics") == [(3.0,)]


def test_an_exception_is_recorded_and_passes_through(settings: Settings) -> None:
    with pytest.raises(ZeroDivisionError), morphogen.record("broken") as run:
        run.log(loss=1, step=1)
        _ = 1 / 0

    assert rows("SELECT status, error, message FROM runs") == [("failed", "ZeroDivisionError", "division by zero")]


def test_an_uncaught_exception_without_a_with_block_is_recorded(settings: Settings) -> None:
    done = run_script("import morphogen; run = morphogen.record('hook'); run.log(a=1); raise ValueError('no')")

    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1  # the program's own
    assert rows("SELECT status, error, message FROM runs") == [("failed", "ValueError", "no")]


def test_an_exception_that_cannot_be_shown_or_is_no_utf_8_is_recorded(settings: Settings) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("never")

    with pytest.raises(Mute), morphogen.record("mute"):
        raise Mute
    with pytest.raises(ValueError, match="caf"), morphogen.record("bytes"):
        raise ValueError("caf\udce9")
    morphogen.record("told").fail("caf\udce9")

    assert rows("SELECT run, status, error, message FROM runs ORDER BY run") == [
        ("bytes", "failed", "ValueError", "caf\\udce9"),
        ("mute", "failed", "Mute", "<it cannot be shown>"),
        ("told", "failed", "caf\\udce9", "caf\\udce9"),
    ]


def test_an_uncaught_exception_is_recorded_where_another_hook_was_put_in_place(settings: Settings) -> None:
    script = "import morphogen, sys; run = morphogen.record('rich'); sys.excepthook = print; raise ValueError('no')"

    assert run_script(script).returncode == 1
    assert rows("SELECT status, error FROM runs") == [("failed", "ValueError")]


def test_a_run_that_nothing_refers_to_any_more_is_finished(settings: Settings) -> None:
    script = """
        import gc, morphogen, os, threading
        def trial(number):
            run = morphogen.record(f"trial {number}")
            run.log(loss=number)
        for number in range(3):
            trial(number)
        gc.collect()
        for number in range(3, 12):
            trial(number)
            gc.collect()
        kept = morphogen.record("kept")
        kept.log(loss=1)
    """
    done = run_script(script)

    assert (done.returncode, done.stderr) == (0, "")
    assert rows("SELECT status, count(*) FROM runs GROUP BY status") == [("finished", 13)]
    assert rows("SELECT count(*) FROM metrics") == [(13,)]


def test_without_another_thread_a_run_begins_and_what_is_dropped_without_a_broker_ends_in_the_spool(
    home: Path,
) -> None:
    script = """
        import gc, morphogen, threading
        import morphogen.producers.recorder as recorder
        recorder._CLAIM_PATIENCE = 0.0
        def trial(number):
            morphogen.record(f"trial {number}", url="nats://127.0.0.1:1").log(loss=number)
        for number in range(4):
            trial(number)
        gc.collect()
        def refuse(thread):
            raise RuntimeError("can't start new thread")
        threading.Thread.start = refuse
        trial(4)
    """
    done = run_script(script)

    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    ended = [path for path in (home / "spool").rglob("*.seg") if b"run.finished" in path.read_bytes()]
    assert len(ended) == 5


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_are_recorded_as_they_end(settings: Settings, tmp_path: Path, method: str) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent("""
        import gc, multiprocessing, sys
        import morphogen

        def work(name, end):
            run = morphogen.record(name)
            run.log(loss=1.0)
            if end == "drop":
                del run
                gc.collect()
            if end == "codes":
                sys.exit(["no", "number"])
            if end == "raise":
                raise ValueError("no")
            if end == "exit":
                try:
                    raise KeyError("why")
                except KeyError:
                    sys.exit(1)

        if __name__ == "__main__":
            parent = morphogen.record("parent")
            context = multiprocessing.get_context(sys.argv[1])
            ends = ("raise", "exit", "end", "drop", "codes")
            children = [context.Process(target=work, args=(end, end)) for end in ends]
            try:
                raise RuntimeError("which the parent deals with, and no child")
            except RuntimeError:
                for child in children:
                    child.start()
            for child in children:
                child.join()
            with context.Pool(1) as pool:
                pool.starmap(work, [("pooled", "end")])
            parent.finish()
        """)
    )
    subprocess.run([sys.executable, str(script), method], capture_output=True, timeout=60, check=True)

    told = sys.version_info < (3, 13)  # of what ended them; later ones have the code alone by then
    assert rows("SELECT run, status, error FROM runs ORDER BY run") == [
        ("codes", "failed", "SystemExit" if told else "exit code 1"), ("drop", "finished", None),
        ("end", "finished", None), ("exit", "failed", "KeyError" if told else "exit code 1"),
        ("parent", "finished", None), ("pooled", "finished", None),
        ("raise", "failed", "ValueError" if told else "exit code 1"),
    ]  # fmt: skip
    assert rows("SELECT count(*) FROM metrics") == [(6,)]


def test_sigterm_is_heard_though_the_first_run_was_a_threads(settings: Settings) -> None:
    script = """
        import morphogen, os, signal, threading
        def first():
            with morphogen.record("thread") as run:
                run.log(a=1)
        thread = threading.Thread(target=first)
        thread.start()
        thread.join()
        run = morphogen.record("main")
        run.log(a=1)
        os.kill(os.getpid(), signal.SIGTERM)
    """
    assert run_script(script).returncode == 143
    assert rows("SELECT run, status FROM runs ORDER BY run") == [("main", "failed"), ("thread", "finished")]


def test_a_cause_that_is_no_id_costs_that_event_alone(settings: Settings) -> None:
    with morphogen.record("causes") as run:
        first = run.event(Checkpointed(uri="a"))
        assert run.event(Checkpointed(uri="b"), cause=5) is None  # type: ignore[arg-type]
        assert run.event(Checkpointed(uri="c"), cause=first) is not None
        assert run.rejected == 1

    assert rows("SELECT body.uri::VARCHAR FROM events WHERE type = 'testing.checkpointed' ORDER BY seq, idx") == [
        ("a",), ("c",),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["MORPHOGEN_ATTEMPT", "MORPHOGEN_RANK", "RANK"])
def test_an_environment_that_no_reader_could_take_is_refused_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "202611220905")
    with pytest.raises(SettingsError, match="is 202611220905; give an integer from"):
        morphogen.record("dated")

    assert not settings.spool_dir.exists()


def test_a_working_folder_that_is_gone_keeps_no_run_from_beginning(settings: Settings, tmp_path: Path) -> None:
    gone, script = tmp_path / "gone", tmp_path / "job.py"
    gone.mkdir()
    script.write_text("import os, sys, morphogen; os.rmdir(os.getcwd()); morphogen.record('nowhere').log(a=1)")

    done = subprocess.run([sys.executable, str(script)], cwd=gone, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert rows("SELECT run, status FROM runs") == [("nowhere", "finished")]


def test_lines_and_artifacts_take_what_people_pass(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.bin").write_bytes(b"x")
    with morphogen.record("loose") as run:
        run.line("careful", level=logging.WARNING)
        run.artifact(tmp_path / "caf\udce9.bin")
        run.artifact(tmp_path, name=123)  # type: ignore[arg-type]

    assert rows("SELECT level, message FROM log_lines") == [("warning", "careful")]
    assert rows("SELECT name FROM artifacts ORDER BY name") == [("123",), ("caf\\udce9.bin",)]


def test_a_step_that_is_no_number_costs_an_event_only_the_step(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int | None] = []
    steps: list[Any] = [3, np.int64(4), 5.0, "6", 2.9, -0.5, "x", 2**63, math.nan, None]
    with caplog.at_level(logging.WARNING), morphogen.record("steps") as run:
        run.subscribe(lambda event, step: heard.append(step))
        for step in steps:
            assert run.event(Checkpointed(uri="a"), step=step) is not None
        run.line("line", step=7.9)  # type: ignore[arg-type]
        assert run.rejected == 6

    kept = [3, 4, 5, 6, None, None, None, None, None, None]
    assert [step for (step,) in rows("SELECT step FROM events WHERE type LIKE 'testing.%' ORDER BY seq, idx")] == kept
    assert heard[: len(kept)] == kept
    assert rows("SELECT step FROM log_lines") == [(None,)]
    assert "step 2.9 was not recorded: it is no whole number" in caplog.text


def test_an_odd_value_costs_the_call_no_other(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    class Lazy:
        @property
        def device(self) -> str:
            raise RuntimeError("not initialised")

        def __float__(self) -> float:
            return 3.0

    with caplog.at_level(logging.WARNING), morphogen.record("odd") as run:
        run.log(loss=0.5, x=Lazy(), mask=np.ma.masked, step=1)
        run.log({"p": {"q": 1.0}, "p/q": 2.0}, step=2)
        run.log({"a": 1.0, "b": 2.0}, a=3.0, c=4.0, step=3)
        assert run.rejected == 2

    assert rows("SELECT step, name, value FROM metrics ORDER BY ALL") == [
        (1, "loss", 0.5), (1, "x", 3.0), (2, "p/q", 1.0), (3, "a", 1.0), (3, "b", 2.0), (3, "c", 4.0)
    ]  # fmt: skip
    assert "metric 'p/q' was not recorded: another value of the same call has that name" in caplog.text
    assert "metric 'a' was not recorded: another value" in caplog.text


def test_lines_and_artifacts_have_causes_and_fields_of_any_name(settings: Settings, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"self": 1, "message": "x", "path": "y"}
    with morphogen.record("caused") as run:
        first = run.event(Checkpointed(uri="a"))
        run.line("m", cause=first, **fields)
        run.artifact(tmp_path, cause=first, **fields)
        run.line("none", cause=5)  # type: ignore[arg-type]
        assert run.rejected == 1

    assert rows("SELECT type, cause FROM events WHERE cause IS NOT NULL ORDER BY seq, idx") == [
        ("log.line", first), ("artifact.saved", first),
    ]  # fmt: skip
    ((line, file),) = rows("SELECT (SELECT fields FROM log_lines), (SELECT metadata FROM artifacts)")
    for found in (line, file):
        assert (json.loads(found) if isinstance(found, str) else found) == fields


def test_what_a_line_and_an_artifact_are_of_may_be_given_by_name(settings: Settings, tmp_path: Path) -> None:
    with morphogen.record("named") as run:
        run.line(message="said", level="debug")
        run.artifact(path=tmp_path, name="folder")
        run.line()
        assert run.rejected == 0
        run.artifact()
        assert run.rejected == 1

    assert rows("SELECT message, level, fields FROM log_lines ORDER BY seq, idx") == [
        ("said", "debug", None), ("", "info", None),
    ]  # fmt: skip
    assert rows("SELECT name, uri, metadata::VARCHAR FROM artifacts") == [("folder", tmp_path.as_uri(), "{}")]


def test_the_end_of_the_process_finishes_the_run(settings: Settings) -> None:
    done = run_script("import morphogen; morphogen.record('exit').log(a=1)")

    assert (done.returncode, done.stderr) == (0, "")
    assert rows("SELECT status FROM runs") == [("finished",)]


def test_sigterm_is_recorded_and_the_programs_own_cleanup_runs(settings: Settings, tmp_path: Path) -> None:
    mark = tmp_path / "cleaned"
    script = f"""
        import morphogen, time, pathlib
        run = morphogen.record("term")
        run.log(a=1)
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            pathlib.Path({str(mark)!r}).write_text("yes")
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)

    assert child.wait(20) == 143
    child.stdout.close()
    assert mark.exists()
    assert rows("SELECT status, message FROM runs") == [("failed", "SIGTERM")]


def test_ranks_record_side_by_side_and_rank_0_is_canonical(settings: Settings) -> None:
    runs = [morphogen.record("ranks", rank=rank, attempt=1) for rank in (0, 1)]
    for run in runs:
        run.log(loss=run.rank, step=1)
        run.finish()

    assert rows("SELECT rank, value FROM metrics ORDER BY ALL") == [(0, 0.0), (1, 1.0)]
    assert rows("SELECT value FROM run_metrics") == [(0.0,)]


def test_threads_may_log_at_once(settings: Settings) -> None:
    with morphogen.record("threads") as run:

        def work(number: int) -> None:
            for step in range(500):
                run.log({f"t{number}": step}, step=step)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert rows("SELECT name, count(*), count(DISTINCT step) FROM metrics GROUP BY 1 ORDER BY 1") == [
        (f"t{number}", 500, 500) for number in range(4)
    ]


def test_watch_and_log_meet_at_the_same_step_also_after_a_restart(settings: Settings) -> None:
    torch = pytest.importorskip("torch")
    for first in (1, 6):
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with morphogen.record("watched") as run:
            run.watch(model, optimizer)
            for step in range(first, first + 5):
                loss = model(torch.ones(2, 4)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss, step=step)

    assert rows("SELECT attempt, min(step), max(step), count(*) FROM layer_health GROUP BY 1 ORDER BY 1") == [
        (1, 1, 5, 10),
        (2, 6, 10, 10),
    ]
    assert rows("SELECT DISTINCT layer FROM layer_health ORDER BY 1") == [("0",), ("2",)]
    assert rows("SELECT count(*) FROM layer_health WHERE grad_norm IS NULL OR weight_norm IS NULL") == [(0,)]


def test_without_any_broker_training_goes_on_and_sync_delivers(home: Path) -> None:
    script = "import morphogen; run = morphogen.record('alone'); [run.log(a=i, step=i) for i in range(100)]; run.finish(timeout=0.2)"
    done = run_script(script, MORPHOGEN_URL="nats://127.0.0.1:9")

    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "no broker" in done.stderr
    settings = Settings.from_environ()
    synced = subprocess.run([sys.executable, "-m", "morphogen.cli", "sync"], capture_output=True, text=True, check=True)
    assert "103 events" in synced.stdout
    assert rows("SELECT count(*), count(DISTINCT step) FROM metrics") == [(100, 100)]
    from morphogen.bus import broker

    broker.down(settings)


def test_nothing_raises_into_the_loop_whatever_is_logged(settings: Settings) -> None:
    class Hostile:
        def __float__(self) -> float:
            raise RuntimeError("never")

        def __repr__(self) -> str:
            raise RuntimeError("never")

    with morphogen.record("hostile", config={"x": Hostile}) as run:
        run.log({"x": Hostile()}, step=1)
        run.log({1: 2.0, ("a",): 3.0}, step=2)
        run.log({}, step=3)
        run.log(a=1, step="not a step")  # type: ignore[arg-type]
        run.log(a=1, step=2**70)
        run.event(object())  # type: ignore[arg-type]
        run.event(Event())
        run.watch(object(), object())
        run.line(Hostile)  # type: ignore[arg-type]

    assert rows("SELECT status FROM runs") == [("finished",)]
    assert rows("SELECT count(*) FROM metrics WHERE name IN ('1', '(''a'',)')") == [(2,)]


def test_logging_after_the_end_is_refused_quietly(settings: Settings) -> None:
    run = morphogen.record("over")
    run.finish()
    run.log(a=1)
    run.finish()

    assert rows("SELECT count(*) FROM metrics") == [(0,)]


def test_a_fork_that_logs_loses_nothing(settings: Settings) -> None:
    script = """
        import morphogen, os
        run = morphogen.record("forked")
        run.log(a=0, step=0)
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                for step in range(50):
                    run.log(a=child, step=step)
                run.flush(10)
                os._exit(0)
            children.append(pid)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        run.log(a=1, step=1)
        run.finish()
    """
    done = run_script(script)

    assert (done.returncode, done.stderr) == (0, "")
    assert rows("SELECT count(*) FROM metrics") == [(152,)]
    assert rows("SELECT count(DISTINCT writer) FROM producers WHERE family = 'metrics'") == [(4,)]
    assert rows("SELECT count(*) FROM runs") == [(1,)]


def test_a_fork_while_the_publisher_still_imports_harms_neither(settings: Settings) -> None:
    script = """
        import importlib.abc, os, sys, time

        class Slow(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "nats.aio.client":
                    time.sleep(0.5)

        sys.meta_path.insert(0, Slow())
        import morphogen
        run = morphogen.record("early")
        time.sleep(0.2)
        pid = os.fork()
        if pid == 0:
            import nats.aio.client
            run.log(a=1, step=1)
            os._exit(0 if run.flush(20) else 3)
        run.log(a=2, step=2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        run.finish()
    """
    done = run_script(script)

    assert done.returncode == 0, done.stderr
    assert rows("SELECT count(*) FROM metrics") == [(2,)]


def test_importing_the_recorder_brings_neither_torch_nor_numpy() -> None:
    script = "import sys, morphogen.producers.recorder; print(sorted({'torch', 'numpy', 'duckdb', 'pyarrow', 'nats'} & set(sys.modules)))"

    assert run_script(script).stdout.strip() == "[]"


def test_recording_leaves_the_jobs_random_numbers_alone(settings: Settings) -> None:
    script = """
        import random, sys
        import numpy as np
        import morphogen
        random.seed(7); np.random.seed(7)
        before = random.getstate(), np.random.get_state()[1].tolist()
        with morphogen.record("seeded") as run:
            for step in range(50):
                run.log(a=step, step=step)
            run.flush(1)
        print((random.getstate(), np.random.get_state()[1].tolist()) == before)
    """

    assert run_script(script).stdout == "True\n"
    assert run_script(script, MORPHOGEN_URL="nats://127.0.0.1:9").stdout == "True\n"


@pytest.mark.parametrize(
    "bad", [{"rank": "x"}, {"rank": -1}, {"rank": 1.5}, {"rank": 2**40}, {"attempt": 0}, {"attempt": "3"}]
)
def test_a_rank_or_attempt_that_no_reader_could_take_is_refused_at_once(
    settings: Settings, bad: dict[str, Any]
) -> None:
    (name,) = bad

    with pytest.raises(SettingsError, match=f"{name} is .*; give an integer from"):
        morphogen.record("numbered", **bad)

    assert not settings.spool_dir.exists()


def test_an_empty_home_is_the_users_and_not_the_folder_that_one_stands_in(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(settings.home))

    morphogen.record("somewhere", home="", url="nats://127.0.0.1:1").finish(timeout=0)

    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_name_and_arguments_are_no_utf_8_is_recorded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "data-\udcff"])

    with morphogen.record("caf\udce9", config={"file": "\udcff"}) as run:
        run.log(loss=1)

    assert rows("SELECT run, status, config.file::VARCHAR FROM runs") == [("caf\\udce9", "finished", "\\udcff")]
