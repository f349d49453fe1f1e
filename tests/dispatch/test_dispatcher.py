"""Requests served for real: files are read and written, tools run in the sandbox, loops cost money; only models are scripted."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from morphogen.consumers.crystallizer import Loader, Registry
from morphogen.consumers.crystallizer.registry import tool_name
from morphogen.consumers.crystallizer.source import source_sha256
from morphogen.consumers.dispatch import DispatchConfig, DispatchError
from morphogen.consumers.dispatch.explain import same
from morphogen.consumers.executions import KEPT
from morphogen.kernels.sandbox import Capabilities, Declared, Sandbox
from morphogen.schemas import CrystalInvoked, CrystalMoved, CrystalRegistered, CrystalShadowed
from morphogen.schemas.crystals import Guard
from morphogen.schemas.dispatch import DispatchCompared, DispatchDecided, DispatchFellBack, DispatchFinished
from morphogen.schemas.executions import (
    MODES,
    ExecutionFeedback,
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
    GoalEmbedded,
)
from morphogen.schemas.goals import signature

from .conftest import Words
from .world import Log, Loop, dispatcher, files

COPY = "Copy {src} to {dst}"
TOTAL = "Sum the column {column} of {path}"


def copy(act: Any, src: str, dst: str) -> str:
    act("files.write_text", path=dst, text=act("files.read_text", path=src))
    return dst


def total(act: Any, column: str, path: str) -> int:
    """What a model would work out: no course explains it."""
    head, *rows = act("files.read_text", path=path).splitlines()
    at = head.split(",").index(column)
    return sum(int(row.split(",")[at]) for row in rows)


TOOL = '''
def run(column: str, path: str) -> int:
    """Sum a column."""
    head, *rows = files.read_text(path).splitlines()
    if column not in head.split(","):
        raise ValueError(f"there is no column {column}")
    at = head.split(",").index(column)
    return sum(int(row.split(",")[at]) for row in rows)
'''


def said(goal: str, params: dict[str, Any]) -> str:
    return goal.format(**params)


def ask(serves: Any, goal: str, params: dict[str, Any], **more: Any) -> Any:
    return serves.do(said(goal, params), params, **more)


def registry(
    goal: str, params: dict[str, Any], source: str, *, state: str = "active", guards: list[Guard] | None = None
) -> Registry:
    family = signature(said(goal, params), params)
    made = CrystalRegistered(
        tool=tool_name(family), number=1, signature=family, attempt="a", source=source, source_sha256=source_sha256(source),
        returns="Any", capabilities=["files.read_text"], effects=["read"],
        guards=guards or [Guard(kind="type", subject=name, expected=type(value).__name__) for name, value in params.items()],
    )  # fmt: skip
    moved = CrystalMoved(tool=made.tool, number=1, was="shadow", now="active", reason="the test says so")
    return Registry([made, moved] if state == "active" else [made])


@pytest.fixture
def shop(folder: Path) -> Path:
    for at in range(4):
        files(folder, **{f"shop{at}": f"price,count\n{at},2\n{at + 10},3\n"})
    return folder


def test_the_first_time_is_learned_and_the_next_time_followed(shop: Path, caps: Capabilities, log: Log) -> None:
    loop = Loop(log, copy)
    serves = dispatcher(log, caps, learner=loop, config=DispatchConfig(matches=0))
    first = ask(serves, COPY, {"src": "shop1.csv", "dst": "one.csv"})
    assert (first.ok, first.mode, first.cost_microusd, first.output) == (True, "learner", 3000, "one.csv")
    again = ask(serves, COPY, {"src": "shop2.csv", "dst": "two.csv"})
    assert (again.ok, again.mode, again.cost_microusd, again.saved_microusd) == (True, "follower", 0, 3000)
    assert again.saved_ns == first.duration_ns - again.duration_ns
    assert (shop / "two.csv").read_text() == (shop / "shop2.csv").read_text()
    assert len(loop.runs) == 1
    decided = log.of(DispatchDecided)[-1]
    assert [one.mode for one in decided.alternatives] == list(MODES)
    assert decided.execution == first.execution
    started = [event for event in log.of(ExecutionStarted) if event.mode == "follower"]
    assert [event.request for event in started] == [again.request]
    steps = [event for event in log.of(ExecutionStep) if event.execution == started[0].execution]
    assert [(event.number, event.name, event.effect) for event in steps] == [
        (0, "files.read_text", "read"),
        (1, "files.write_text", "write"),
    ]


def test_an_answer_that_a_model_worked_out_goes_to_the_guided_loop(shop: Path, caps: Capabilities, log: Log) -> None:
    learner, guided = Loop(log, total), Loop(log, total, mode="mixed", cost=1000)
    serves = dispatcher(log, caps, learner=learner, guided=guided, config=DispatchConfig(matches=0))
    params = {"column": "price", "path": "shop1.csv"}
    assert ask(serves, TOTAL, params).output == 12
    done = ask(serves, TOTAL, {"column": "price", "path": "shop2.csv"})
    assert (done.mode, done.output, done.saved_microusd) == ("mixed", 14, 2000)
    assert guided.guides[0].params == params
    assert guided.runs[0].goal == "Sum the column price of shop2.csv"
    lost = done.decided.alternatives[1]
    assert (lost.mode, lost.taken) == ("follower", False)
    assert "nothing says why" in lost.reason


def test_what_a_failed_mode_did_is_not_done_again_and_is_told(shop: Path, caps: Capabilities, log: Log) -> None:
    def noted(act: Any, src: str, note: str) -> str:
        act("files.append_text", path="notes.txt", text=note)
        text: str = act("files.read_text", path=src)
        return text

    loop = Loop(log, noted)
    serves = dispatcher(log, caps, learner=loop, config=DispatchConfig(matches=0))
    goal = "Note {note} and read {src}"
    for at in range(3):
        assert ask(serves, goal, {"src": f"shop{at}.csv", "note": f"note {at};"}, mode="learner").ok

    def otherwise(act: Any, src: str, note: str) -> str:
        act("files.append_text", path="notes.txt", text=note)
        return "it is not there"

    loop.agent = otherwise
    done = ask(serves, goal, {"src": "missing.csv", "note": "second;"})
    assert (done.ok, done.mode, done.output) == (True, "learner", "it is not there")
    assert (shop / "notes.txt").read_text() == "note 0;note 1;note 2;second;"
    (fell,) = done.fell_back
    assert (fell.mode, fell.to) == ("follower", "learner")
    assert "there is no file" in fell.reason
    assert fell.done == ["files.append_text(path='notes.txt', text='second;')"]
    assert [act.args for act in loop.runs[-1].done] == [{"path": "notes.txt", "text": "second;"}]
    assert [act.again for act in done.acts if act.name == "files.append_text"] == [False, True]


def test_a_tool_is_called_in_the_sandbox_behind_its_guards(
    shop: Path, caps: Capabilities, log: Log, sandbox: Sandbox
) -> None:
    params = {"column": "price", "path": "shop1.csv"}
    loader = Loader(registry(TOTAL, params, TOOL), caps, sandbox)
    loop = Loop(log, total)
    serves = dispatcher(log, caps, learner=loop, crystals=loader, config=DispatchConfig(matches=0))
    loop.runs.clear()
    assert ask(serves, TOTAL, params, mode="learner").output == 12
    done = ask(serves, TOTAL, {"column": "count", "path": "shop3.csv"})
    assert (done.ok, done.mode, done.output, done.cost_microusd) == (True, "crystallized", 5, 0)
    assert (done.tool, done.tool_version, done.saved_microusd) == (loader.registry.tools.popitem()[0], 1, 3000)
    assert [act.name for act in done.acts] == ["files.read_text"]
    invoked = log.of(CrystalInvoked)[-1]
    assert (invoked.ok, invoked.guard, invoked.request) == (True, None, done.request)
    assert "seccomp" in invoked.layers
    finished = log.of(DispatchFinished)[-1]
    assert (finished.mode, finished.tool_version, finished.execution) == ("crystallized", 1, done.execution)
    assert log.state.mean(signature(said(TOTAL, params), params), "crystallized").ns is not None


def test_a_missed_guard_falls_back_and_is_counted(shop: Path, caps: Capabilities, log: Log, sandbox: Sandbox) -> None:
    params = {"column": "price", "path": "shop1.csv"}
    guards = [Guard(kind="type", subject=name, expected="str") for name in params]
    guards.append(Guard(kind="environment", subject="units", expected="metric"))
    loader = Loader(registry(TOTAL, params, TOOL, guards=guards), caps, sandbox)
    loop = Loop(log, total)
    config = DispatchConfig(matches=0)
    wrong = dispatcher(log, caps, learner=loop, crystals=loader, environment={"units": "imperial"}, config=config)
    done = ask(wrong, TOTAL, params)
    assert (done.ok, done.mode, done.output) == (True, "learner", 12)
    (fell,) = done.fell_back
    assert (fell.mode, fell.to, fell.guard) == ("crystallized", "learner", "environment units")
    assert [event.guard for event in log.of(CrystalInvoked)] == ["environment units"]
    assert "guard 'environment units' is missed" in done.decided.alternatives[0].reason
    right = dispatcher(log, caps, learner=loop, crystals=loader, environment={"units": "metric"}, config=config)
    assert ask(right, TOTAL, params).mode == "crystallized"


def test_a_tool_that_raises_falls_back_and_loses_confidence(
    shop: Path, caps: Capabilities, log: Log, sandbox: Sandbox
) -> None:
    (shop / "odd.csv").write_text("price\nten\n")

    def patient(act: Any, column: str, path: str) -> int:
        return 10 if path == "odd.csv" else total(act, column, path)

    params = {"column": "price", "path": "odd.csv"}
    loader = Loader(registry(TOTAL, params, TOOL), caps, sandbox)
    serves = dispatcher(log, caps, learner=Loop(log, patient), crystals=loader, config=DispatchConfig(matches=0))
    done = ask(serves, TOTAL, params)
    assert (done.mode, done.output) == ("learner", 10)
    assert "ValueError" in done.fell_back[0].reason
    after = ask(serves, TOTAL, {"column": "price", "path": "shop1.csv"})
    assert "is below 0.92" in after.decided.alternatives[0].reason


def test_a_user_who_says_that_it_was_wrong_is_believed(shop: Path, caps: Capabilities, log: Log) -> None:
    serves = dispatcher(log, caps, learner=Loop(log, copy), config=DispatchConfig(matches=0))
    ask(serves, COPY, {"src": "shop1.csv", "dst": "one.csv"})
    followed = ask(serves, COPY, {"src": "shop2.csv", "dst": "two.csv"})
    assert followed.mode == "follower"
    log.tell(ExecutionFeedback(execution=followed.execution, outcome="failure"))
    assert ask(serves, COPY, {"src": "shop3.csv", "dst": "three.csv"}).mode == "learner"


def test_a_waiting_tool_runs_beside_what_served_and_does_nothing_for_real(
    shop: Path, caps: Capabilities, log: Log, sandbox: Sandbox
) -> None:
    params = {"column": "price", "path": "shop1.csv"}
    wrong = TOOL.replace("return sum(", "return 1 + sum(")
    for source, agreed in [(TOOL, True), (wrong, False)]:
        loader = Loader(registry(TOTAL, params, source, state="shadow"), caps, sandbox)
        serves = dispatcher(log, caps, learner=Loop(log, total), crystals=loader, config=DispatchConfig(matches=0))
        done = ask(serves, TOTAL, params)
        assert (done.mode in {"learner", "follower"}, done.output) == (True, 12)
        shadowed = log.of(CrystalShadowed)[-1]
        assert (shadowed.agreed, shadowed.request) == (agreed, done.request)
        assert "waits in shadow: 0 of 0 runs" in done.decided.alternatives[0].reason
    quiet = dispatcher(
        log, caps, learner=Loop(log, total), crystals=loader, config=DispatchConfig(matches=0, shadow=False)
    )
    ask(quiet, TOTAL, params)
    assert len(log.of(CrystalShadowed)) == 2


def test_budgets_are_kept_before_money_is_spent(shop: Path, caps: Capabilities, log: Log) -> None:
    learner, several = Loop(log, total, cap=5000), Loop(log, total, mode="orchestrator", cost=9000, cap=20_000)
    serves = dispatcher(log, caps, learner=learner, orchestrator=several, config=DispatchConfig(matches=0))
    params = {"column": "price", "path": "shop1.csv"}
    poor = ask(serves, TOTAL, params, budget_microusd=4999)
    assert (poor.ok, poor.mode, poor.cost_microusd, learner.runs) == (False, "none", 0, [])
    assert "may cost 5000" in (poor.error or "")
    ask(serves, TOTAL, params, budget_microusd=5000)
    assert learner.budgets == [5000]
    learner.agent = lambda act, **params: 1 // 0
    known = ask(serves, TOTAL, {"column": "price", "path": "shop2.csv"}, budget_microusd=3000, mode="learner")
    assert (known.ok, known.mode, known.fell_back[0].to) == (False, "learner", None)
    assert learner.budgets == [
        5000,
        3000,
    ]  # 3000 is what it cost before; the orchestrator may cost more than what is left
    assert several.runs == []
    rich = ask(serves, TOTAL, {"column": "price", "path": "shop2.csv"}, budget_microusd=30_000, mode="learner")
    assert (rich.mode, rich.cost_microusd, several.budgets) == ("orchestrator", 12_000, [27_000])
    assert rich.saved_microusd == -3000


def test_every_mode_that_fails_is_told_and_a_request_that_nobody_serves_says_why(
    shop: Path, caps: Capabilities, log: Log
) -> None:
    class Broken:
        cap_microusd = None

        def run(self, *_: Any) -> Any:
            raise RuntimeError("the model is away")

    serves = dispatcher(log, caps, learner=Broken(), orchestrator=Broken(), config=DispatchConfig(matches=0))
    done = ask(serves, TOTAL, {"column": "price", "path": "shop1.csv"})
    assert (done.ok, done.mode, done.cost_microusd) == (False, "orchestrator", None)
    assert [(one.mode, one.to) for one in done.fell_back] == [("learner", "orchestrator"), ("orchestrator", None)]
    assert "the model is away" in (done.error or "")
    nobody = dispatcher(Log(), caps, config=DispatchConfig(matches=0))
    alone = ask(nobody, TOTAL, {"column": "price", "path": "shop1.csv"})
    assert (alone.ok, alone.mode) == (False, "none")
    assert "no model is set up" in (alone.error or "")


def test_a_request_that_is_stopped_says_so_and_stops(shop: Path, caps: Capabilities, log: Log) -> None:
    class Stopped:
        cap_microusd = None

        def run(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    serves = dispatcher(log, caps, learner=Stopped(), config=DispatchConfig(matches=0))
    with pytest.raises(KeyboardInterrupt):
        ask(serves, TOTAL, {"column": "price", "path": "shop1.csv"})
    assert "it was stopped" in log.of(DispatchFinished)[-1].error
    assert not log.state.open


def test_a_dry_run_writes_no_decision(shop: Path, caps: Capabilities, log: Log) -> None:
    serves = dispatcher(log, caps, learner=Loop(log, copy), config=DispatchConfig(matches=0))
    decided = serves.decide("Copy it", {"src": "a", "dst": "b"})
    assert decided.mode == "learner"
    assert log.events == []


@pytest.mark.parametrize(
    ("goal", "more"),
    [
        (" ", {}),
        (5, {}),
        ("do it", {"mode": "guess"}),
        ("do it", {"params": [1]}),
        ("do it", {"request": 5}),
        ("do it", {"budget_microusd": -1}),
        ("do it", {"budget_microusd": math.nan}),
        ("do it", {"budget_microusd": "5"}),
        ("do it", {"budget_microusd": True}),
        ("do it", {"budget_microusd": 2**70}),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_understood_is_refused(
    goal: Any, more: dict[str, Any], caps: Capabilities, log: Log
) -> None:
    with pytest.raises(DispatchError):
        dispatcher(log, caps).do(goal, **more)
    assert log.events == []


def test_what_failed_before_a_loop_served_was_lost_and_nothing_else(shop: Path, caps: Capabilities, log: Log) -> None:
    fails, splits = Loop(log, total), Loop(log, copy, mode="orchestrator")
    serves = dispatcher(log, caps, learner=fails, orchestrator=splits, config=DispatchConfig(matches=0))

    done = ask(serves, COPY, {"src": "shop1.csv", "dst": "one.csv"})

    assert (done.mode, done.ok, [one.mode for one in done.fell_back]) == ("orchestrator", True, ["learner"])
    assert (done.saved_microusd, done.saved_ns) == (-3000, -done.fell_back[0].duration_ns)


def test_a_like_goal_is_guided_at_first_and_never_followed_on_likeness_alone(
    shop: Path, caps: Capabilities, log: Log, words: Words
) -> None:
    learner, guided = Loop(log, copy), Loop(log, copy, mode="mixed", cost=1000)
    serves = dispatcher(log, caps, learner=learner, guided=guided, embedder=words)
    for at in range(3):
        ask(serves, COPY, {"src": f"shop{at}.csv", "dst": f"{at}.csv"}, mode="learner")
    turned = "To {dst} copy {src}"
    done = ask(serves, turned, {"src": "shop1.csv", "dst": "one.csv"})
    assert (done.mode, done.decided.method) == ("mixed", "embedding")
    assert done.decided.similarity == pytest.approx(1.0, abs=1e-5)
    assert "compared with it 0 of 1 times" in done.decided.alternatives[1].reason
    compared = [event for event in log.of(DispatchCompared) if event.method == "embedding"]
    assert [(event.agreed, event.mode) for event in compared] == [(True, "follower")]
    ask(serves, "Rename {src} as {dst}", {"src": "shop1.csv", "dst": "one.csv"})
    embedded = log.of(GoalEmbedded)
    assert len({(event.signature, event.model) for event in embedded}) == len(embedded) == 2


def test_a_like_goal_that_means_something_else_is_found_out_on_paper(
    shop: Path, caps: Capabilities, log: Log, words: Words, sandbox: Sandbox
) -> None:
    """Minus is asked for in the words of plus, in another order."""
    params = {"column": "price", "path": "shop1.csv"}
    loader = Loader(registry(TOTAL, params, TOOL), caps, sandbox)

    def count(act: Any, column: str, path: str) -> int:
        return len(act("files.read_text", path=path).splitlines()) - 1

    learner, guided = Loop(log, total), Loop(log, count, mode="mixed")
    serves = dispatcher(log, caps, learner=learner, guided=guided, crystals=loader, embedder=words)
    ask(serves, TOTAL, params, mode="learner")
    other = "Of {path} the column sum {column}"
    done = ask(serves, other, {"column": "price", "path": "shop2.csv"})
    assert (done.mode, done.output) == ("mixed", 2)
    assert "compared with it 0 of 1 times" in done.decided.alternatives[0].reason
    compared = log.of(DispatchCompared)[-1]
    assert (compared.mode, compared.agreed, compared.method) == ("crystallized", False, "embedding")
    assert log.of(CrystalInvoked) == []  # what is called on paper is no call
    for at in range(3):
        again = ask(serves, other, {"column": "price", "path": f"shop{at}.csv"})
        assert again.mode != "crystallized"
        assert again.output == 2


def test_a_like_goal_that_means_the_same_gets_the_tool_once_that_is_proven(
    shop: Path, caps: Capabilities, log: Log, words: Words, sandbox: Sandbox
) -> None:
    params = {"column": "price", "path": "shop1.csv"}
    loader = Loader(registry(TOTAL, params, TOOL), caps, sandbox)
    loop = Loop(log, total)
    serves = dispatcher(log, caps, learner=loop, crystals=loader, embedder=words)
    ask(serves, TOTAL, params, mode="learner")
    other = "Of {path} the column sum {column}"
    modes = []
    for at in range(8):
        done = ask(serves, other, {"column": "price", "path": f"shop{at % 4}.csv"})
        assert done.output == 10 + 2 * (at % 4)
        modes.append(done.mode)
    assert modes[0] == "learner"
    assert modes[-1] in {"crystallized", "follower"}
    assert any(
        event.matched != event.signature and event.mode == "crystallized" for event in log.of(DispatchDecided)
    ), modes


def test_without_the_package_of_vectors_the_own_family_still_serves(
    shop: Path, caps: Capabilities, log: Log, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from morphogen.consumers.dispatch import WordLlama

    serves = dispatcher(log, caps, learner=Loop(log, copy), embedder=WordLlama(tmp_path))
    assert ask(serves, COPY, {"src": "shop1.csv", "dst": "one.csv"}).ok
    assert ask(serves, COPY, {"src": "shop2.csv", "dst": "two.csv"}).mode == "follower"
    assert caplog.text.count("matched by their own family only") == 1


def test_what_fails_afterwards_does_not_fail_the_request(
    shop: Path, caps: Capabilities, log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import morphogen.consumers.dispatch.dispatcher as home

    def broken(*_: object) -> None:
        raise RuntimeError("paper tore")

    monkeypatch.setattr(home, "compare", broken)
    serves = dispatcher(log, caps, learner=Loop(log, copy), config=DispatchConfig(matches=0))
    assert ask(serves, COPY, {"src": "shop1.csv", "dst": "one.csv"}).ok
    assert "paper tore" in caplog.text


def test_each_fall_back_names_its_request_and_the_log_tells_one_story(shop: Path, caps: Capabilities, log: Log) -> None:
    serves = dispatcher(log, caps, learner=Loop(log, copy), config=DispatchConfig(matches=0))
    for at in range(4):
        ask(serves, COPY, {"src": f"shop{at}.csv", "dst": f"{at}.csv"})
    ask(serves, COPY, {"src": "none.csv", "dst": "x.csv"})
    decided = [event.request for event in log.of(DispatchDecided)]
    assert decided == [event.request for event in log.of(DispatchFinished)]
    assert {event.request for event in log.of(DispatchFellBack)} == {decided[-1]}
    ended = {event.execution for event in log.of(ExecutionFinished)}
    assert {event.execution for event in log.of(ExecutionStarted)} == ended


def test_requests_of_several_threads_are_served_side_by_side(
    shop: Path, caps: Capabilities, log: Log, sandbox: Sandbox
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    params = {"column": "price", "path": "shop1.csv"}
    loader = Loader(registry(TOTAL, params, TOOL), caps, sandbox)
    serves = dispatcher(log, caps, learner=Loop(log, total), crystals=loader, config=DispatchConfig(matches=0))
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda at: ask(serves, TOTAL, {"column": "price", "path": f"shop{at % 4}.csv"}), range(24))
        )
    assert [one.output for one in done] == [10 + 2 * (at % 4) for at in range(24)]
    assert {one.mode for one in done} == {"crystallized"}
    assert all([act.args["path"] for act in one.acts] == [f"shop{at % 4}.csv"] for at, one in enumerate(done))
    assert not log.state.open


def test_what_is_followed_more_often_than_is_kept_is_still_followed(folder: Path, caps: Capabilities, log: Log) -> None:
    def shown(act: Any, path: str) -> str:
        text: str = act("files.read_text", path=path)
        return text

    files(folder, a="text of a", b="text of b")
    loop = Loop(log, shown)
    serves = dispatcher(log, caps, learner=loop, config=DispatchConfig(matches=0))
    done = [ask(serves, "Show {path}", {"path": f"{'ab'[at % 2]}.csv"}) for at in range(KEPT + 20)]
    assert [one.mode for one in done] == ["learner"] + ["follower"] * (KEPT + 19)
    assert done[-1].output == "text of b"
    assert len(loop.runs) == 1


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
    | st.sampled_from(["\ud800", object(), Path("x"), (1, 2), {3}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def test_whatever_is_asked_for_is_served_and_can_be_written(words: Words) -> None:
    log = Log()
    declared = {"look": Declared(lambda what: what, "pure"), "save": Declared(lambda what=None: None, "write")}
    caps = Capabilities(tools=declared)

    def shown(act: Any, **params: Any) -> Any:
        value = act("look", what=next(iter(params.values()), 1))
        act("save", what=value)
        return value

    guided = Loop(log, shown, mode="mixed")
    serves = dispatcher(log, caps, learner=Loop(log, shown), guided=guided, embedder=words)

    @given(
        goal=st.sampled_from(["do it", "show {a}", "İ \ud800", '"' * 50, "{"]),
        params=st.dictionaries(st.sampled_from(["a", "b", "\ud801"]), ANY, max_size=2),
    )
    @hypothesis_settings(max_examples=60)
    def served(goal: str, params: dict[str, Any]) -> None:
        before = len(log.events)
        done = serves.do(goal, params)
        assert done.ok
        given_ = next(iter(log.of(DispatchDecided)[-1].params.values()), 1)
        assert same(done.output, given_)
        for event in log.events[before:]:
            event.encode()

    served()
    assert {event.mode for event in log.of(DispatchFinished)} >= {"learner", "follower", "mixed"}
