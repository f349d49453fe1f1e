"""What the built-in tables and views say of a small log."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from morphogen.consumers.projections import Store
from morphogen.schemas import (
    ArtifactSaved,
    CommandAccepted,
    CommandFinished,
    CommandIssued,
    DeadLetter,
    DeadResolved,
    LayerHealth,
    LogLine,
    Metrics,
    Names,
    ProducerClosed,
    ProducerDropped,
    Record,
    RunFailed,
    RunFinished,
    RunStarted,
    encode,
    encode_frame,
)

Ask = Callable[..., list[Any]]


@pytest.fixture
def shown(log: Any, open_store: Callable[..., Store], catch_up: Callable[..., int]) -> Callable[[], Store]:
    """What folds the log as it is now into a store."""

    def run() -> Store:
        store = open_store()
        catch_up(store, log)
        return store

    return run


def test_metrics_keep_nan_infinities_and_large_numbers(log: Any, shown: Callable[[], Store], ask: Ask) -> None:
    log.write(Metrics(values={"loss": math.nan, "lr": 1e-3, "steps": 7}), step=4)
    log.write(Metrics(values={"up": math.inf, "down": -math.inf}), step=5)
    store = shown()

    rows = dict(ask(store, "SELECT name, value FROM metrics"))

    assert math.isnan(rows.pop("loss"))
    assert rows == {"lr": 1e-3, "steps": 7.0, "up": math.inf, "down": -math.inf}
    assert ask(store, "SELECT DISTINCT run, attempt, rank, step, idx FROM metrics ORDER BY step") == [
        ("run", 1, 0, 4, 0),
        ("run", 1, 0, 5, 0),
    ]


def test_events_give_back_every_body_that_other_tables_hold(log: Any, shown: Callable[[], Store], ask: Ask) -> None:
    log.write(Metrics(values={"loss": 0.5, "lr": 2.0}), step=1)
    log.write(LayerHealth(layers=Names(["a", "b"]), grad_norm=np.array([1, 2], "f4")), step=1)
    log.write(LogLine(message="hello", fields={"x": [1, None]}))
    store = shown()

    bodies = dict(ask(store, "SELECT type, body FROM events"))

    assert bodies["metrics.scalars"] == {"values": {"loss": 0.5, "lr": 2.0}}
    assert bodies["health.layer"]["layers"] == ["a", "b"]
    assert bodies["health.layer"]["grad_norm"] == [1.0, 2.0]
    assert bodies["health.layer"]["dead_share"] is None
    assert bodies["log.line"] == {"message": "hello", "level": "info", "logger": None, "fields": {"x": [1, None]}}
    assert ask(store, "SELECT count(*) FROM _event_rows WHERE body IS NOT NULL") == [(0,)]


def test_events_keep_bodies_that_a_column_could_not_hold_exactly(
    log: Any, shown: Callable[[], Store], ask: Ask
) -> None:
    log.write(Metrics(values={"tokens": 2**53 + 1}), Metrics(values={}), Metrics(values={"fine": 2**53}))
    log.write(LayerHealth(layers=Names(["a"]), grad_norm=np.array([0.1])))
    log.write(LayerHealth(layers=Names(["a", "b"]), grad_norm=np.array([1, 2], "f4"), missing={"grad_norm": [1]}))
    store = shown()

    rows = ask(store, "SELECT body FROM events ORDER BY seq, idx")

    assert rows[0] == ({"values": {"tokens": 2**53 + 1}},)
    assert rows[1] == ({"values": {}},)
    assert rows[3][0]["grad_norm"] == [0.1]
    assert rows[4][0]["missing"] == {"grad_norm": [1]}
    assert ask(store, "SELECT count(*) FROM _event_rows WHERE body IS NOT NULL") == [(4,)]


@pytest.mark.parametrize("asked", ["count(*)", "max(step)", "run, type, count(*)"])
def test_who_counts_events_does_not_pay_for_their_bodies(
    log: Any, shown: Callable[[], Store], ask: Ask, asked: str
) -> None:
    log.write(Metrics(values={"loss": 0.5}), LogLine(message="hello"))
    store = shown()

    grouped = " GROUP BY run, type" if asked.startswith("run") else ""
    plan = ask(store, f"EXPLAIN SELECT {asked} FROM events{grouped}")[0][1]

    assert "Scan" in plan or "Empty" in plan
    assert "Join" not in plan
    assert "Join" in ask(store, "EXPLAIN SELECT body FROM events")[0][1]


def test_a_layer_signal_is_null_where_it_was_not_measured_and_nan_where_it_was_nan(
    log: Any, shown: Callable[[], Store], ask: Ask
) -> None:
    log.write(
        LayerHealth(
            layers=Names(["a", "b", "c"]),
            grad_norm=np.array([1, np.nan, 3], "f4"),
            dead_share=np.array([0.5, 9, 9], "f4"),
            weight_norm=np.array([1, 2], "f4"),
            missing={"dead_share": [1, 2]},
        ),
        LayerHealth(layers=Names([])),
        LayerHealth(layers=Names(["z"]), nonfinite=np.array([2], "f4")),
        step=3,
    )
    store = shown()

    rows = ask(
        store, "SELECT layer, depth, grad_norm, dead_share, weight_norm, nonfinite FROM layer_health ORDER BY ALL"
    )

    assert [row[:2] for row in rows] == [("a", 0), ("b", 1), ("c", 2), ("z", 0)]
    assert rows[0][2:] == (1.0, 0.5, None, None)
    assert math.isnan(rows[1][2])
    assert rows[1][3:] == (None, None, None)
    assert rows[3][2:] == (None, None, None, 2.0)


def test_a_run_shows_its_latest_attempt(log: Any, shown: Callable[[], Store], ask: Ask) -> None:
    log.write(RunStarted(config={"lr": 0.1, "bad": math.nan}, host="h1", git_commit="abc", world_size=2), run="r/1")
    log.write(Metrics(values={"loss": 1.0}), run="r/1", step=9)
    log.write(RunFailed(error="ValueError", message="boom"), run="r/1")
    log.write(RunStarted(config={"lr": 0.2}, host="h2"), run="r/1", attempt=2, writer="b" * 16)
    log.write(Metrics(values={"loss": 1.0}), run="r/1", attempt=2, step=4, writer="b" * 16)
    log.write(RunStarted(), run="other", writer="c" * 16)
    log.write(RunFinished(duration=3.0), run="other", writer="c" * 16)
    store = shown()

    rows = ask(store, "SELECT run, status, attempts, last_step, host, config.lr::DOUBLE, error FROM runs ORDER BY run")

    assert rows == [("other", "finished", 1, None, None, None, None), ("r/1", "running", 2, 4, "h2", 0.2, None)]
    assert ask(store, "SELECT attempt, status, error, ranks FROM attempts WHERE run = 'r/1' ORDER BY attempt") == [
        (1, "failed", "ValueError", 2),
        (2, "running", None, 1),
    ]
    assert ask(store, "SELECT isnan(config.bad::DOUBLE) FROM attempts WHERE run = 'r/1' AND attempt = 1") == [(True,)]


def test_run_metrics_take_rank_0_and_the_latest_attempt_of_a_step(
    log: Any, shown: Callable[[], Store], ask: Ask
) -> None:
    for step in (1, 2, 3):
        log.write(Metrics(values={"loss": float(step)}), step=step)
        log.write(Metrics(values={"loss": 99.0}), step=step, rank=1, writer="b" * 16)
    log.write(Metrics(values={"loss": 30.0}), step=3, attempt=2, writer="c" * 16)
    store = shown()

    assert ask(store, "SELECT step, value FROM run_metrics WHERE name = 'loss' ORDER BY step") == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]
    assert ask(store, "SELECT count(*) FROM metrics") == [(7,)]


def test_a_command_shows_what_became_of_it(log: Any, shown: Callable[[], Store], ask: Ask) -> None:
    for name in ("done", "busy", "tried", "dead", "again", "waiting"):
        log.write(CommandIssued(command_id=name, target="t", name=name, args={"x": name}), run="")
    for name in ("done", "busy", "tried", "dead", "again"):
        log.write(CommandAccepted(command_id=name, worker="w", delivery=1), run="")
    log.write(
        CommandFinished(command_id="done", worker="w", delivery=1, ok=True, result={"y": 1}, duration=0.5), run=""
    )
    for name in ("tried", "dead", "again"):
        log.write(CommandFinished(command_id=name, worker="w", delivery=1, ok=False, error="no"), run="")
    for name in ("dead", "again"):
        log.write(DeadLetter(command_id=name, target="t", name=name, reason="gave up", deliveries=1), run="")
    log.write(DeadResolved(command_id="again", action="retried", retried_as="new", by="me"), run="")
    store = shown()

    assert dict(ask(store, "SELECT command_id, status FROM commands")) == {
        "done": "done",
        "busy": "accepted",
        "tried": "failed",
        "dead": "dead",
        "again": "retried",
        "waiting": "issued",
    }
    assert ask(store, "SELECT result.y::INT, duration, deliveries FROM commands WHERE command_id = 'done'") == [
        (1, 0.5, 1)
    ]
    assert ask(store, "SELECT command_id, status, reason, retried_as FROM dead_letters ORDER BY 1") == [
        ("again", "retried", "gave up", "new"),
        ("dead", "dead", "gave up", None),
    ]


def test_producers_lose_nothing_in_a_healthy_run(log: Any, shown: Callable[[], Store], ask: Ask) -> None:
    log.write(Metrics(values={"a": 1.0}), Metrics(values={"a": 2.0}))
    log.write(Metrics(values={"a": 3.0}), first=11)
    log.write(ProducerDropped(lane="metrics", first=3, last=10, count=8, bytes=800, reason="spool full"))
    log.write(ProducerClosed(produced={"metrics": 11, "producer": 1}, dropped={"metrics": 8}))
    store = shown()

    rows = ask(
        store, "SELECT family, produced, acked, projected, dropped, lost, doubled, closed FROM producers ORDER BY 1"
    )

    assert rows == [("metrics", 11, 3, 3, 8, 0, 0, True), ("producer", 2, 2, 2, 0, 0, 0, True)]


def test_producers_say_what_is_lost(log: Any, shown: Callable[[], Store], ask: Ask) -> None:
    log.write(Metrics(values={"a": 1.0}))
    log.write(Metrics(values={"a": 3.0}), first=5)
    log.write(ProducerClosed(produced={"metrics": 9}))
    store = shown()

    assert ask(store, "SELECT produced, projected, lost FROM producers WHERE family = 'metrics'") == [(9, 2, 7)]


def test_records_that_were_folded_before_are_left_out_and_counted(
    log: Any, shown: Callable[[], Store], ask: Ask
) -> None:
    log.write(*(Metrics(values={"a": float(i)}) for i in range(3)))
    log.write(*(Metrics(values={"a": float(i)}) for i in range(3)), first=1)
    log.write(*(Metrics(values={"a": float(i)}) for i in range(2, 5)), first=3)
    store = shown()

    assert ask(store, "SELECT value FROM metrics ORDER BY value") == [(float(i),) for i in range(5)]
    assert ask(store, "SELECT produced, acked, projected, doubled, lost FROM producers") == [(5, 5, 5, 4, 0)]
    assert ask(store, "SELECT id FROM events ORDER BY id") == [(f"{'a' * 16}.metrics.{n}",) for n in range(1, 6)]


@pytest.mark.parametrize("count", [1, 800], ids=["each by itself", "in step"])
@pytest.mark.parametrize(
    "odd",
    [{"attempt": 2**31}, {"rank": 10**11}, {"rank": -(2**31) - 1}, {"version": 2**40}, {"n": 2**63 + 5}],
    ids=lambda odd: next(iter(odd)),
)
def test_numbers_that_no_column_holds_make_a_message_unreadable_and_stop_nothing(
    log: Any, shown: Callable[[], Store], ask: Ask, odd: dict[str, int], count: int
) -> None:
    body = msgspec.Raw(encode(Metrics(values={"loss": 0.5})))
    first, version = odd.get("n", 1), odd.get("version", 1)
    records = [Record(first + at, "metrics.scalars", version, at, 10, body) for at in range(count)]
    log.write(Metrics(values={"before": 1.0}))
    attempt, rank = odd.get("attempt", 1), odd.get("rank", 0)
    log.put(encode_frame(records, run="odd", attempt=attempt, rank=rank, writer="b" * 16, family="metrics"))
    log.write(Metrics(values={"after": 1.0}))
    store = shown()

    assert [one.error for one in store.generations if one.error] == []
    assert ask(store, "SELECT name FROM metrics ORDER BY seq") == [("before",), ("after",)]
    assert ask(store, "SELECT count(*) FROM events WHERE type = '$unreadable'") == [(1,)]


def test_unknown_types_and_unreadable_messages_are_shown_and_stop_nothing(
    log: Any, shown: Callable[[], Store], ask: Ask
) -> None:
    log.write(("future.thing", 1, {"x": [1, {"y": math.inf}]}), ("future.thing", 2, "no map"))
    log.put(b"\x00garbage")
    log.write(("metrics.scalars", 99, {"other": 1}), ("metrics.scalars", 1, {"values": "bad"}))
    log.write(Metrics(values={"a": 1.0}))
    store = shown()

    rows = ask(store, "SELECT type, version, body FROM events ORDER BY seq, idx")

    assert rows[0] == ("future.thing", 1, {"x": [1, {"y": math.inf}]})
    assert rows[1] == ("future.thing", 2, "no map")
    assert rows[2][0] == "$unreadable"
    assert "not a frame" in rows[2][2]["reason"]
    assert rows[3] == ("metrics.scalars", 99, {"other": 1})
    assert rows[4] == ("metrics.scalars", 1, {"values": "bad"})
    assert ask(store, "SELECT type, version, events FROM unknown_events ORDER BY ALL") == [
        ("$unreadable", 0, 1),
        ("future.thing", 1, 1),
        ("future.thing", 2, 1),
        ("metrics.scalars", 1, 1),
        ("metrics.scalars", 99, 1),
    ]
    assert ask(store, "SELECT count(*) FROM metrics") == [(1,)]
    assert store.position() == 4


def test_artifacts_and_log_lines_have_their_tables(log: Any, shown: Callable[[], Store], ask: Ask) -> None:
    log.write(ArtifactSaved(name="ckpt", uri="s3://b/k", size=2**40, metadata={"epoch": 3}))
    log.write(LogLine(message="a\x00b", level="error", logger="x"), LogLine(message="ü"))
    store = shown()

    assert ask(store, "SELECT name, kind, size, metadata.epoch::INT FROM artifacts") == [("ckpt", "file", 2**40, 3)]
    assert ask(store, "SELECT level, logger, message FROM log_lines ORDER BY idx") == [
        ("error", "x", "a\x00b"),
        ("info", None, "ü"),
    ]


def test_an_event_whose_blob_cannot_be_had_is_listed(log: Any, shown: Callable[[], Store], ask: Ask) -> None:
    gone = {"$blob": "ab" * 32, "size": 500_000}
    log.write(("metrics.scalars", 1, {"values": {"small": 1.0}}), ("metrics.scalars", 1, gone))
    log.write(
        ("mine.thing", 1, gone), ("mine.thing", 1, {"$blob": "no hash", "size": 1}), ("mine.thing", 1, {"size": 1})
    )
    store = shown()

    assert ask(store, "SELECT name, value FROM metrics") == [("small", 1.0)]
    assert ask(store, "SELECT body FROM events WHERE seq = 1 AND idx = 1") == [(gone,)]
    assert ask(store, "SELECT seq, idx, id, type, blob FROM events_without_body ORDER BY ALL") == [
        (1, 1, "aaaaaaaaaaaaaaaa.metrics.2", "metrics.scalars", "ab" * 32),
        (2, 0, "aaaaaaaaaaaaaaaa.mine.1", "mine.thing", "ab" * 32),
    ]
