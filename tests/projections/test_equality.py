# ruff: noqa: RUF012  (a projection declares its tables as plain dicts)
"""Whatever the events, the frames, the batches and the crashes: an incremental store equals one built from zero."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from morphogen.consumers.projections import Batch, Entry, Projection, Rows, Store, discover
from morphogen.consumers.projections.follow.folder import Folder
from morphogen.consumers.projections.store import commits
from morphogen.schemas import (
    SIGNALS,
    CommandAccepted,
    CommandFinished,
    CommandIssued,
    DeadLetter,
    DeadResolved,
    Event,
    LayerHealth,
    LogLine,
    Metrics,
    Names,
    ProducerClosed,
    ProducerDropped,
    RunFailed,
    RunFinished,
    RunStarted,
)


class Reading(Event, type="equality.reading", version=1):
    sensor: str
    value: float | None = None


class Sensors(Projection, name="sensors", version=1, types=("equality.reading",)):
    """A user's keyed table, one row an event."""

    tables = {"sensors": "sensor VARCHAR, value DOUBLE, whole VARIANT"}
    keys = {"sensors": ("sensor",)}

    def rows(self, event: Entry) -> list[tuple[Any, ...]]:
        return [(event.body.sensor, event.body.value, {"v": event.body.value})]


class Totals(Projection, name="totals", version=1, types=("equality.reading", "metrics.scalars")):
    """A user's fold with a state."""

    tables = {"totals": "total BIGINT"}

    def initial(self) -> Any:
        return {"total": 0}

    def advance(self, state: Any, batch: Batch) -> tuple[Any, Rows]:
        found = batch.of("equality.reading")
        totals = state["total"] + np.arange(1, len(found) + 1)
        return {"total": state["total"] + len(found)}, {"totals": found.columns({"total": totals})}


NUMBERS = st.one_of(
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([2**53 + 1, -(2**53) - 1, math.nan, math.inf, -0.0, 0]),
)
WORDS = st.sampled_from(["a", "b", "loss", "", "ünï", "x\x00y", "it's"])
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(-(2**63), 2**64 - 1), WORDS, st.binary(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)
DICTS = st.dictionaries(WORDS, PLAIN, max_size=3)
IDS = st.sampled_from(["c1", "c2", "c3"])


@st.composite
def healths(draw: st.DrawFn) -> LayerHealth:
    count = draw(st.integers(0, 4))
    signals: dict[str, Any] = {}
    for signal in draw(st.sets(st.sampled_from(SIGNALS))):
        size = draw(st.sampled_from([count, count, count, count + 1]))
        values = draw(st.lists(st.floats(width=32), min_size=size, max_size=size))
        signals[signal] = np.array(values, draw(st.sampled_from(["<f4", "<f4", "<f8"])))
    missing = draw(st.dictionaries(st.sampled_from(SIGNALS), st.lists(st.integers(0, 5), max_size=2), max_size=1))
    return LayerHealth(layers=Names([f"l{i}" for i in range(count)]), missing=missing, **signals)


FRAMES = st.one_of(
    st.lists(st.builds(Metrics, values=st.dictionaries(WORDS, NUMBERS, max_size=3)), min_size=1, max_size=4),
    st.lists(healths(), min_size=1, max_size=3),
    st.lists(st.builds(LogLine, message=WORDS, logger=st.none() | WORDS, fields=DICTS), min_size=1, max_size=3),
    st.lists(st.one_of(
        st.builds(RunStarted, config=DICTS, host=st.none() | WORDS), st.builds(RunFinished),
        st.builds(RunFailed, error=WORDS, message=WORDS)), min_size=1, max_size=2),
    st.lists(st.builds(CommandIssued, command_id=IDS, target=WORDS, name=WORDS, args=DICTS), min_size=1, max_size=2),
    st.lists(st.one_of(
        st.builds(CommandAccepted, command_id=IDS, worker=WORDS, delivery=st.integers(1, 3)),
        st.builds(CommandFinished, command_id=IDS, worker=WORDS, delivery=st.integers(1, 3), ok=st.booleans(), result=PLAIN),
        st.builds(DeadResolved, command_id=IDS, action=st.sampled_from(["retried", "dropped"]))), min_size=1, max_size=3),
    st.lists(st.builds(DeadLetter, command_id=IDS, target=WORDS, name=WORDS, reason=WORDS, deliveries=st.integers(1, 3)),
             min_size=1, max_size=2),
    st.lists(st.one_of(
        st.builds(ProducerClosed, produced=st.dictionaries(st.sampled_from(["metrics", "log"]), st.integers(0, 9))),
        st.builds(ProducerDropped, lane=st.just("metrics"), first=st.just(1), last=st.just(2), count=st.just(2),
                  bytes=st.just(9), reason=WORDS)), min_size=1, max_size=2),
    st.lists(st.builds(Reading, sensor=WORDS, value=st.none() | st.floats()), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(["strange.kind", "strange.other"]), st.integers(1, 3), PLAIN), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(["metrics.scalars", "health.layer", "equality.reading"]), st.integers(1, 3),
                       DICTS), min_size=1, max_size=3).map(lambda found: [one for one in found if one[0] == found[0][0]]),
)  # fmt: skip
MESSAGES = st.lists(
    st.one_of(
        st.tuples(FRAMES, st.sampled_from(["r1", "r 2"]), st.integers(1, 2), st.integers(0, 1),
                  st.none() | st.integers(0, 5), st.booleans()),
        st.binary(max_size=20),
    ), min_size=1, max_size=14)  # fmt: skip


GENERATED = {
    *(kind.type for kind in (Metrics, LayerHealth, LogLine, RunStarted, RunFinished, RunFailed, CommandIssued,
      CommandAccepted, CommandFinished, DeadResolved, DeadLetter, ProducerClosed, ProducerDropped, Reading)),
    "*",
}  # fmt: skip


def names_to_compare(store: Store) -> list[str]:
    """Return the tables and views, hidden ones too, of every projection that gets a row of what is generated here.

    The tables of the others are empty however they are folded, and hashing a hundred empty tables takes seconds.
    """
    reached = {one.projection.name for one in store.generations if GENERATED.intersection(one.projection.types)}
    with store.reading() as con:
        rows = con.execute("SELECT name, projection FROM morphogen.views ORDER BY name").fetchall()
    return [name for name, projection in rows if projection in reached]


class CrashError(Exception):
    """The process dies here."""


def die(*_: object) -> None:
    raise CrashError


def fill(log: Any, messages: list[Any]) -> None:
    for one in messages:
        if isinstance(one, bytes):
            log.put(one)
            continue
        events, run, attempt, rank, step, doubled = one
        options = {"run": run, "attempt": attempt, "rank": rank, "step": step, "writer": f"{attempt}{rank}" * 8}
        options["family"] = events[0][0].split(".")[0] if isinstance(events[0], tuple) else events[0].family
        log.write(*events, **options, first=1 if doubled else None)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of which nothing was folded yet: to make its tables takes ten times as long as to copy them."""
    path = tmp_path_factory.mktemp("empty") / "store.duckdb"
    Store.open(path, discover([Sensors, Totals], installed=False), epoch="epoch").close()
    return path


def fold_in_cuts(empty: Path, path: Path, log: Any, cuts: list[int], crashes: set[int]) -> Store:
    """Fold a log in batches that end at `cuts`; before some commits end, lose everything that was not committed."""
    shutil.copy(empty, path)
    store = Store.open(path, discover([Sensors, Totals], installed=False), epoch="epoch")
    folder = Folder(store.live, store.lanes(store.front()))
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(log.messages)], strict=True)):
        if start == end:
            continue
        if number in crashes:
            folded = folder.fold(log.messages[start:end])
            with mock.patch.object(commits, "move", die), pytest.raises(CrashError):
                store.commit(folded)
            store.close()
            store = Store.open(path, discover([Sensors, Totals], installed=False), epoch="epoch")
            assert store.position() == start
            folder = Folder(store.live, store.lanes(store.front()))
        folded = folder.fold(log.messages[start:end])
        assert not folded.failed
        store.commit(folded)
    return store


def compare(first: Store, second: Store, upto: int | None = None) -> None:
    for name in names_to_compare(first):
        assert first.content_hash(name, upto) == second.content_hash(name), name


def test_no_table_that_a_generated_event_reaches_is_left_out(
    fresh: Callable[[], Any], empty: Path, tmp_path: Path
) -> None:
    log = fresh()
    for at, event in enumerate((
        Metrics(values={"loss": 1.0}), LogLine(message="a"), RunStarted(config={}), RunFinished(),
        CommandIssued(command_id="c", target="t", name="n", args={}),
        CommandFinished(command_id="c", worker="w", delivery=1, ok=True, result=None),
        DeadLetter(command_id="c", target="t", name="n", reason="r", deliveries=1), ProducerClosed(produced={}),
        Reading(sensor="s"), LayerHealth(layers=Names(["l"]), grad_norm=np.ones(1, "<f4")),
    ), 1):  # fmt: skip
        log.write(event, run=f"r{at}")

    with fold_in_cuts(empty, tmp_path / "a.duckdb", log, [], set()) as store:
        left_out = {*store.tables(), *store.views()} - set(names_to_compare(store))

        assert {name: store.content_hash(name)[0] for name in left_out} == dict.fromkeys(left_out, 0)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(messages=MESSAGES, data=st.data())
def test_incremental_equals_rebuilt_by_content_hash(
    messages: list[Any],
    data: st.DataObject,
    fresh: Callable[[], Any],
    empty: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("equality")
    log = fresh()
    fill(log, messages)
    size = len(log.messages)
    cuts = sorted(data.draw(st.sets(st.integers(1, size), max_size=5), label="cuts"))
    crashes = data.draw(st.sets(st.integers(0, 5), max_size=2), label="crashes")
    upto = data.draw(st.integers(0, size), label="as of")

    with (
        fold_in_cuts(empty, folder / "cut.duckdb", log, cuts, crashes) as incremental,
        fold_in_cuts(empty, folder / "whole.duckdb", log, [], set()) as rebuilt,
    ):
        compare(incremental, rebuilt)
        for table in ("metrics", "_event_rows", "layer_health"):
            assert incremental.bucket_hashes(table, bucket=4) == rebuilt.bucket_hashes(table, bucket=4)
        past = fresh()
        past.messages = log.messages[:upto]
        with fold_in_cuts(empty, folder / "past.duckdb", past, [], set()) as earlier:
            compare(rebuilt, earlier, upto)


def test_a_hash_tells_nan_from_null_and_names_the_bucket_that_differs(
    fresh: Callable[[], Any], empty: Path, tmp_path: Path
) -> None:
    one, other = fresh(), fresh()
    for i in range(10):
        one.write(Reading(sensor="s", value=math.nan if i == 7 else 1.0))
        other.write(Reading(sensor="s", value=None if i == 7 else 1.0))

    with (
        fold_in_cuts(empty, tmp_path / "a.duckdb", one, [], set()) as first,
        fold_in_cuts(empty, tmp_path / "b.duckdb", other, [], set()) as second,
    ):
        assert first.content_hash("sensors_versions") != second.content_hash("sensors_versions")
        pairs = zip(
            first.bucket_hashes("sensors_versions", bucket=2),
            second.bucket_hashes("sensors_versions", bucket=2),
            strict=True,
        )
        assert [a[0] for a, b in pairs if a != b] == [8]
        assert first.content_hash("frames")[0] == 10
        with pytest.raises(ValueError, match="no column seq"):
            first.bucket_hashes("runs")
