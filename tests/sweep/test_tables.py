"""What SQL says of sweeps, and what tables and files say of findings."""

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.consumers.projections import Store, discover
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.producers.loops.build.gather import Sweep, sweeps_of
from morphogen.producers.loops.build.tables import by_parameter, csv_text, markdown, ranked, shown, trial_rows
from morphogen.producers.loops.errors import WorkspaceError
from morphogen.schemas import (
    Event,
    Record,
    SweepBest,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialStarted,
    encode_frame,
)

STARTED = SweepStarted(
    sweep="Tune", parameters={"a": [1, 2, 3]}, sampler="grid", metric="Performance.speed", objective="maximize", size=3
)


def trial(number: int, value: float | None, state: str = "measured", **more: Any) -> TrialFinished:
    values = [] if value is None else [value - 1, value, value + 1]
    return TrialFinished(
        sweep="Tune",
        number=number,
        key=f"k{number}",
        config={"a": number},
        state=state,
        value=value,
        values=values,
        **more,
    )


EVENTS: list[Event] = [
    STARTED,
    TrialStarted(sweep="Tune", number=1, key="k1", config={"a": 1}),
    trial(1, 5.0),
    SweepBest(sweep="Tune", number=1, key="k1", config={"a": 1}, value=5.0, low=4.0, high=6.0, level=0.75),
    trial(2, 9.0),
    SweepBest(sweep="Tune", number=2, key="k2", config={"a": 2}, value=9.0, low=8.0, high=10.0, level=0.75, previous=1),
    trial(3, None, "failed", reason="it | broke\nbadly"),
]
END = SweepFinished(
    sweep="Tune", reason="exhausted", trials=3, measured=2, failed=1, rejected=0, pruned=0, excluded=4, best=2,
    config={"a": 2}, value=9.0, speedup=1.8,
)  # fmt: skip


def asked(tmp_path: Path, events: list[Event], sql: str) -> list[Any]:
    """Fold events into a store as the projector does, and ask it."""

    class Source:
        async def end(self) -> int:
            return 1

        async def read(self, after: int, upto: int | None = None, *, follow: bool = False) -> Any:
            if after < 1:
                yield [Message()]

    class Message:
        seq, stored, subject = 1, 1, "morphogen.log.r.sweep.1-0"
        data = encode_frame(
            [
                Record(n=n, type=e.type, version=1, step=None, time=1_000 + n, body=msgspec.Raw(e.encode()), cause=None)
                for n, e in enumerate(events, start=1)
            ],
            run="r", attempt=1, rank=0, writer="a" * 16, family="sweep",
        )  # fmt: skip
        size = len(data)

    async def fold(store: Store) -> None:
        await Follower(store, Source()).catch_up(None)

    store = Store.open(tmp_path / "store.duckdb", discover((), installed=False), epoch="epoch")
    try:
        asyncio.run(fold(store))
        with store.reading(None) as con:
            return con.execute(sql).fetchall()  # type: ignore[no-any-return]
    finally:
        store.close()


def test_trials_are_rows_with_their_spread(tmp_path: Path) -> None:
    rows = asked(
        tmp_path, EVENTS, "SELECT number, state, value, lowest, highest, repeats, config.a, reason FROM trials"
    )

    assert [row[:7] for row in rows] == [
        (1, "measured", 5.0, 4.0, 6.0, 3, 1),
        (2, "measured", 9.0, 8.0, 10.0, 3, 2),
        (3, "failed", None, None, None, 0, 3),
    ]
    assert rows[2][7] == "it | broke\nbadly"


def test_the_best_trial_is_the_last_that_was_called_so(tmp_path: Path) -> None:
    sql = "SELECT run, sweep, metric, number, value, low, high, speedup FROM best_trials"

    assert asked(tmp_path, [*EVENTS, END], sql) == [("r", "Tune", "Performance.speed", 2, 9.0, 8.0, 10.0, 1.8)]


def test_a_sweep_runs_until_it_says_why_it_ended(tmp_path: Path) -> None:
    sql = "SELECT sweep, status, trials, measured, failed, excluded FROM sweeps"

    assert asked(tmp_path, EVENTS, sql) == [("Tune", "running", 3, 2, 1, None)]
    (tmp_path / "b").mkdir()
    assert asked(tmp_path / "b", [*EVENTS, END], sql) == [("Tune", "exhausted", 3, 2, 1, 4)]


@pytest.fixture
def sweep() -> Sweep:
    """The sweep of these tests."""
    return sweeps_of([*EVENTS, END])[0]


def test_gathered_trials_are_ranked_by_their_median(sweep: Sweep) -> None:
    assert [one.number for one in ranked(sweep)] == [2, 1]
    assert sweep.moves == (1, 2)
    assert by_parameter(sweep, "a") == [
        {"a": 1, "trials": 1, "median": 5.0, "best": 5.0},
        {"a": 2, "trials": 1, "median": 9.0, "best": 9.0},
    ]


def test_a_cell_cannot_break_its_table(sweep: Sweep) -> None:
    text = markdown(trial_rows(sweep))

    lines = text.splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("| it \\| broke badly |")
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_csv_reads_back(sweep: Sweep) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(trial_rows(sweep)))))

    assert rows[2]["reason"] == "it | broke\nbadly"
    assert rows[1]["Performance.speed"] == "9.0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "true"), (3, "3"), (2.0, "2"), (0.123456, "0.1235"), (1e20, "1e+20"), ([1], "[1]"), ("x", "x")],
)
def test_values_are_shown_as_a_reader_wants_them(value: Any, text: str) -> None:
    assert shown(value) == text


def test_a_full_disk_fails_the_build_and_names_the_artifact(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from morphogen.producers.loops.workspace import Workspace

    def full(self: Workspace, name: str, data: bytes) -> None:
        raise WorkspaceError(f"{name} cannot be written: No space left on device; free some space")

    monkeypatch.setattr(Workspace, "write", full)
    path = runs.write(
        """
        system Test {
          trace_schema { variant Item { case Performance { speed: float } } }
          engineering_loop Tune {
            parameter a: [1, 2]
            measure { tool: "measured:measure" metric: Performance.speed objective: maximize }
          }
          build { artifact "trials.csv" { generator: csv input: trace.all } }
        }
        """,
        "def measure(a):\n    return float(a)\n",
    )

    ended = runs.start(path)

    assert ended.status == "failed"
    assert ended.reason == "artifact trials.csv: trials.csv cannot be written: No space left on device; free some space"
    assert not (runs.folder / "trials.csv").exists()
