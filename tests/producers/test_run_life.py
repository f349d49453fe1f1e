"""What a run holds, and lets go of: the models it watches, files, copies of itself."""

import copy
import gc
import logging
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import morphogen
from morphogen.bus.errors import BusError
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql.query import query
from morphogen.producers import environment
from morphogen.schemas import Event, LayerHealth


def rows(sql: str) -> list[tuple[Any, ...]]:
    return query(sql, wait=True).rows()


def until(reached: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def ender_is_idle() -> None:
    """Wait until every run that was dropped has ended."""
    from morphogen.producers import ending

    waited = threading.Event()

    class Last:
        def finish(self, *, timeout: float) -> None:
            waited.set()

    ending._dropped.put(Last())  # type: ignore[arg-type]
    assert waited.wait(10)


@pytest.fixture
def training() -> tuple[Any, Any, Callable[[], None]]:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(3, 4)).sum().backward()
        optimizer.step()

    return model, optimizer, step


def test_a_cell_that_is_executed_again_ends_the_run_before(
    settings: Settings, training: tuple[Any, Any, Callable[[], None]]
) -> None:
    model, optimizer, step = training
    refs = []
    run = None
    for _ in range(3):
        run = morphogen.record("cell")
        run.watch(model, optimizer)
        refs.append(weakref.ref(run))
        for at in range(1, 6):
            step()
            run.log(loss=1.0, step=at)
    until(lambda: [ref() for ref in refs] == [None, None, run])
    assert run is not None
    run.finish()

    assert rows("SELECT attempt, count(*), min(step), max(step) FROM layer_health GROUP BY 1 ORDER BY 1") == [
        (attempt, 5, 1, 5) for attempt in (1, 2, 3)
    ]
    assert rows("SELECT attempt FROM events WHERE type = 'run.finished' ORDER BY 1") == [(1,), (2,), (3,)]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_run_that_watches_one_model_after_the_other_keeps_what_they_measured_and_none_of_them(
    settings: Settings,
) -> None:
    torch = pytest.importorskip("torch")
    with morphogen.record("folds") as run:
        for fold in range(20):
            model = torch.nn.Linear(4, 2)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            run.watch(model, optimizer, every=1 if fold % 2 else None)
            for at in (1, 2, 3):
                model(torch.ones(3, 4)).sum().backward()
                optimizer.step()
                run.log(loss=1.0, step=3 * fold + at)
            del model, optimizer
            until(lambda: all(watch.done() and not clock.waits() for watch, clock in run._health.watches))
        assert len(run._health.watches) == 1
        assert len(run._health._unhurried) == 0

    assert rows("SELECT list(step ORDER BY step) FROM layer_health") == [(list(range(1, 61)),)]


def test_a_dropped_run_takes_no_more_health_and_leaves_the_model(
    settings: Settings, training: tuple[Any, Any, Callable[[], None]]
) -> None:
    model, optimizer, step = training
    run = morphogen.record("dropped")
    run.watch(model, optimizer)
    heard: list[tuple[Event, int | None]] = []
    run.subscribe(lambda event, at: heard.append((event, at)))
    step()
    run.log(loss=1.0, step=1)
    run.settle()
    assert [(type(event), at) for event, at in heard] == [(LayerHealth, 1)]

    del run
    for _ in range(3):
        step()
    ender_is_idle()
    step()

    assert rows("SELECT status FROM runs") == [("finished",)]
    assert rows("SELECT step FROM layer_health") == [(1,)]
    assert "_compiled_call_impl" not in model.__dict__
    before = len(optimizer._optimizer_step_pre_hooks)
    with morphogen.record("next") as run:
        run.watch(model, optimizer)
        assert len(optimizer._optimizer_step_pre_hooks) == before


def test_a_run_that_is_collected_in_the_midst_of_a_step_does_not_disturb_it(
    settings: Settings, training: tuple[Any, Any, Callable[[], None]]
) -> None:
    model, optimizer, step = training
    held = [morphogen.record("midst")]
    held[0].watch(model, optimizer)
    optimizer.register_step_pre_hook(lambda *_: held.clear())
    optimizer.register_step_pre_hook(lambda *_: ender_is_idle())
    optimizer.register_step_pre_hook(lambda *_: None)  # for which torch looks on

    step()
    step()

    assert rows("SELECT status FROM runs") == [("finished",)]


class Model:
    def __init__(self, run: Any) -> None:
        self.run = run


def test_a_copy_of_a_run_is_the_run_itself_and_no_pickle_holds_one(settings: Settings) -> None:
    with morphogen.record("copied") as run:
        assert copy.copy(run) is run
        assert copy.deepcopy(Model(run)).run is run
        with pytest.raises(TypeError, match=r"run 'copied' cannot be pickled: .* morphogen\.record\(name"):
            pickle.dumps(Model(run))
        gc.collect()
        run.log(a=1)

    assert rows("SELECT count(*) FROM metrics") == [(1,)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the descriptors are counted in /proc")
@pytest.mark.parametrize("url", [None, "nats://127.0.0.1:1"])
def test_a_run_that_is_over_holds_no_file_and_answers_all_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    monkeypatch.setattr("morphogen.producers.recorder._CLAIM_PATIENCE", 5.0 if url is None else 0.0)
    warm = morphogen.record("warm", url=url)
    warm.finish(timeout=5.0 if url is None else 0.0)
    gc.collect()
    before, kept = files(), []
    for number in range(5):
        run = morphogen.record(f"trial {number}", url=url)
        run.log(loss=1.0)
        run.finish(timeout=5.0 if url is None else 0.0)
        kept.append(run)

    until(lambda: gc.collect() >= 0 and files() <= before)
    assert ".seg" not in Path("/proc/self/maps").read_text()
    for run in kept:
        counts = run.stats()["metrics"]
        assert (counts.produced, counts.acked) == (1, 1 if url is None else 0)
        assert run.flush(0.1) is (url is None)
        run.log(loss=2.0)
        assert run.event(Event()) is None
        assert run.stats()["metrics"].refused == 1
        run.finish()
    unsent = list(settings.spool_dir.rglob("metrics/*.seg"))
    assert len(unsent) == (0 if url is None else 5)


def test_where_no_file_can_be_opened_no_run_begins_and_nothing_is_left(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def versions() -> dict[str, str]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(environment, "versions", versions)

    with pytest.raises(BusError, match="no run can be begun: Too many open files; finish"):
        morphogen.record("too many")

    assert not list(home.rglob("*"))


def test_what_is_refused_for_another_reason_is_said_again_but_not_for_ever(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), morphogen.record("said") as run:
        run.watch(object(), object())
        run.watch(object(), object())
        run.watch(object(), None, every=0)
        run.log([1])  # type: ignore[arg-type]
        run.log(7)  # type: ignore[arg-type]
        for number in range(50):
            run._refusals.say("thing", f"reason {number}")
        run._refusals.say("t" * 5000, "r" * 5000)

    told = [record.message for record in caplog.records]
    assert sum(": watch was not recorded" in line for line in told) == 2
    assert sum(": log was not recorded" in line for line in told) == 2
    assert sum(": thing was not recorded" in line for line in told) == 5
    assert run.rejected == 56
    assert max(map(len, told)) < 2000
