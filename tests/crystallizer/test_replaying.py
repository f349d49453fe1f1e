"""The replay of held-out executions: bounded in time, whatever the draft does."""

import pytest

from morphogen.consumers.crystallizer.gauntlet import replaying
from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import Sandbox

from .courses import draft, family

SPINS = "def run(n: int) -> int:\n    while n > 3:\n        pass\n    return n\n"
WRONG = "def run(n: int) -> int:\n    return n + 1\n"
SAME = "def run(n: int) -> int:\n    return n\n"


@pytest.fixture
def traces() -> list[Trace]:
    return family(lambda act, n: n, [{"n": at} for at in range(12)])


def test_the_first_that_has_to_be_killed_is_the_last_that_is_run(traces: list[Trace], sandbox: Sandbox) -> None:
    stage, runs, _ = replaying.replayed(draft(SPINS, traces), traces[2:], traces[:2], [], sandbox, None, 2)

    assert [run.fault is None for run in runs] == [True, True, False]
    assert runs[-1].outcome is not None
    assert runs[-1].outcome.killed_by in {"cpu", "wall"}
    assert (stage.tried, stage.matched) == (3, 2)
    assert stage.reason.startswith("1 of 3 held-out executions differ, the first e4: ")
    assert stage.reason.endswith("; 7 more were not run")


def test_other_faults_are_all_counted(traces: list[Trace], sandbox: Sandbox) -> None:
    stage, runs, _ = replaying.replayed(draft(WRONG, traces), traces[2:], traces[:2], [], sandbox, None, 2)

    assert (len(runs), stage.matched) == (10, 0)
    assert "not run" not in stage.reason


def test_all_replays_together_have_their_time(
    traces: list[Trace], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "_MOST_SECONDS", 0.0)
    stage, runs, _ = replaying.replayed(draft(SAME, traces), traces[2:], traces[:2], [], sandbox, None, 2)

    assert (stage.ok, runs) == (False, ())
    assert (
        stage.reason
        == "its replays take longer than 0 s; let it do less: 10 of 10 held-out executions were left by then"
    )
