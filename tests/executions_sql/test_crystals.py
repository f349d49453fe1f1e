"""What the tables say of tools is what the registry says of the same events; what a candidate is worth is reckoned as stated."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from morphogen.consumers.crystallizer.drafting import Spending
from morphogen.consumers.crystallizer.moves import BIRTH, MOVES
from morphogen.consumers.crystallizer.registry import Registry
from morphogen.consumers.executions import wilson_lower
from morphogen.consumers.projections.builtin import tool_states
from morphogen.schemas import Event
from morphogen.schemas.crystals import (
    STATES,
    CrystalAsked,
    CrystalChecked,
    CrystalDrafted,
    CrystalFailed,
    CrystalInvoked,
    CrystalMoved,
    CrystalRegistered,
    CrystalRequested,
    CrystalShadowed,
    Guard,
    Parameter,
)
from morphogen.schemas.dispatch import Alternative, DispatchDecided, DispatchFellBack, DispatchFinished
from morphogen.schemas.executions import ExecutionFinished, ExecutionStarted
from morphogen.schemas.goals import signature, template
from morphogen.schemas.llm import LlmQueried

from .conftest import SECOND, Log

Ask = Callable[..., list[dict[str, Any]]]
Fold = Callable[..., Any]
SUM = signature("sum {column} of {path}")
TOOL = tool_states.tool_of(SUM)


def used(log: Log, times: int, *, failures: int = 0, goal: str = "sum {column} of {path}", cost: int | None = 2_000_000,
         mode: str = "learner") -> None:  # fmt: skip
    for at in range(times):
        name = f"{goal}{mode}{at}"
        log.write(ExecutionStarted(execution=name, goal=goal, template=template(goal), signature=signature(goal),
                                   norm_version=1, mode=mode))  # fmt: skip
        outcome = "failure" if at < failures else "success"
        log.write(ExecutionFinished(execution=name, outcome=outcome, judged_by="assertion", duration_ns=3 * SECOND,
                                    cost_microusd=cost))  # fmt: skip


def registered(number: int = 1, **fields: Any) -> CrystalRegistered:
    return CrystalRegistered(tool=TOOL, number=number, signature=SUM, attempt=f"a{number}", source="def run(): ...",
                             source_sha256="s", **fields)  # fmt: skip


def test_the_moves_are_those_of_the_registry() -> None:
    assert tool_states.BIRTH == BIRTH
    assert tool_states.MOVES == {state: set(then) for state, then in MOVES.items()}
    assert tool_states.MOVES.keys() == set(STATES)


def test_a_candidate_is_worth_what_is_stated(fold: Fold, ask: Ask) -> None:
    log = Log(apart=SECOND * 3600)  # two events a use: 20 uses in 38 hours
    used(log, 20, failures=1)
    log.write(CrystalRequested(attempt="a0", signature=SUM, tool=TOOL, maker="llm"),
              CrystalDrafted(attempt="a0", source="x", source_sha256="s", maker="llm", cost_microusd=7_000_000),
              CrystalFailed(attempt="a0", signature=SUM, stage="replay", reason="differs"))  # fmt: skip

    (row,) = ask(fold(log), "SELECT * FROM crystallization_candidates")

    assert (row["signature"], row["tool"], row["uses"], row["successes"], row["success"]) == (SUM, TOOL, 20, 19, 0.95)
    assert row["priority"] == pytest.approx(20 * 10 * 0.5 + 2.0 * 100 * 0.3 + 0.95 * 100 * 0.2)
    assert row["wilson_lower"] == pytest.approx(wilson_lower(19, 20))
    assert row["uses_per_day"] == pytest.approx(20 / (38 / 24))
    assert (row["saving_microusd"], row["saving_ns"], row["making_microusd"]) == (2e6, 3e9, 7e6)
    assert row["net_value_microusd"] == pytest.approx(2e6 * row["uses_per_day"] * 30 - 7e6)
    assert (row["break_even_uses"], row["horizon_days"]) == (4, 30)
    assert (row["attempts"], row["last_status"], row["last_reason"], row["tool_state"]) == (
        1,
        "failed",
        "differs",
        None,
    )


def test_who_is_no_candidate(log: Log, fold: Fold, ask: Ask) -> None:
    used(log, 4, goal="too few")
    used(log, 19, failures=1, goal="too bad")
    used(log, 5, goal="unpriced", cost=None)
    used(log, 5, goal="cheap", cost=0)
    used(log, 6)
    log.write(registered(), CrystalMoved(tool=TOOL, number=1, was="shadow", now="active", reason="good"))
    names = "SELECT template, priority, net_value_microusd, break_even_uses, tool_state FROM crystallization_candidates"
    store = fold(log)

    assert ask(store, names) == [
        {"template": "cheap", "priority": 45.0, "net_value_microusd": 0.0, "break_even_uses": 0, "tool_state": None},
        {
            "template": "unpriced",
            "priority": 45.0,
            "net_value_microusd": None,
            "break_even_uses": 0,
            "tool_state": None,
        },
    ]
    log.write(CrystalMoved(tool=TOOL, number=1, was="active", now="demoted", reason="bad"))
    assert [row["tool_state"] for row in ask(fold(log), names)] == ["demoted", None, None]


def test_a_tool_is_one_row_with_its_versions_and_what_they_did(log: Log, fold: Fold, ask: Ask) -> None:
    used(log, 5)
    log.write(
        CrystalRequested(attempt="a1", signature=SUM, tool=TOOL, by="auto", made_from=["x"], held_out=["y"]),
        CrystalDrafted(attempt="a1", source="def run(): ...", source_sha256="s", program={"op": "sum"},
                       params=[Parameter(name="column", type="str", seen=("price",))]),
        CrystalChecked(attempt="a1", stage="parse", ok=True, duration_ns=5),
        CrystalChecked(attempt="a1", stage="replay", ok=False, tried=9, matched=8, reason="slow"),
        CrystalChecked(attempt="a1", stage="replay", ok=True, tried=9, matched=9, layers=("seccomp",)),
        registered(guards=[Guard(kind="precondition", subject="column", expected=["price"])], effects=["read"]),
        registered(2, parent=1),
        CrystalShadowed(tool=TOOL, number=1, request="r", agreed=True),
        CrystalShadowed(tool=TOOL, number=1, request="r2", agreed=False, reason="differs"),
        CrystalMoved(tool=TOOL, number=1, was="shadow", now="active", reason="good", trials=2, successes=1, lower=0.1),
        CrystalMoved(tool=TOOL, number=2, was="shadow", now="active", reason="one is active"),
        CrystalInvoked(tool=TOOL, number=1, request="r3", ok=True, duration_ns=10, cpu_ns=4, rss_bytes=100),
        CrystalInvoked(tool=TOOL, number=1, request="r4", ok=False, error="no", duration_ns=30),
        CrystalInvoked(tool=TOOL, number=1, request="r5", ok=False, guard="precondition column"),
        CrystalInvoked(tool="tool_x", number=1, request="r6", ok=True),
    )  # fmt: skip
    log.write(DispatchFinished(request="r3", signature=SUM, mode="crystallized", ok=True, tool=TOOL, tool_version=1,
                               cost_microusd=0, saved_microusd=2_000_000, saved_ns=7))  # fmt: skip
    store = fold(log)

    (tool,) = ask(store, "SELECT * FROM crystals")
    assert (tool["tool"], tool["state"], tool["versions"], tool["active_version"], tool["shadow_version"]) == (
        TOOL, "active", 2, 1, 2,
    )  # fmt: skip
    assert (tool["calls"], tool["successes"], tool["failures"], tool["guard_misses"]) == (2, 1, 1, 1)
    assert (tool["shadows"], tool["agreed"], tool["served"], tool["saved_microusd"]) == (2, 1, 1, 2_000_000)
    assert tool["template"] == "sum {column} of {path}"
    one, two = ask(store, "SELECT * FROM crystal_versions ORDER BY number")
    assert (one["state"], two["state"], two["parent"]) == ("active", "shadow", 1)
    assert (one["median_ns"], one["cpu_ns"], one["effects"]) == (10.0, 4, ["read"])
    assert one["guards"] == [{"kind": "precondition", "subject": "column", "expected": ["price"]}]
    (attempt, other) = ask(store, "SELECT * FROM crystal_attempts ORDER BY attempt")
    assert (attempt["status"], attempt["number"], attempt["maker"], attempt["cost_microusd"]) == (
        "registered", 1, "synthesis", 0,
    )  # fmt: skip
    assert [(stage["stage"], stage["ok"], stage["matched"]) for stage in attempt["stages"]] == [
        ("parse", True, 0), ("replay", True, 9),
    ]  # fmt: skip
    assert (other["attempt"], other["status"], other["requested_by"]) == ("a2", "registered", None)
    assert [(row["number"], row["counted"]) for row in ask(store, "SELECT * FROM crystal_moves")] == [
        (1, True),
        (2, False),
    ]
    assert [row["counted"] for row in ask(store, "SELECT * FROM crystal_calls")] == [True, True, True, False]


def test_an_event_that_is_nested_without_end_breaks_no_table(log: Log, fold: Fold, ask: Ask) -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [{"in": deep}] if isinstance(deep, int) else [deep]
    parameter = Parameter(name="column", type="list", seen=(deep,))
    log.write(CrystalDrafted(attempt="a", source="", source_sha256="", program=deep, params=[parameter]))
    log.write(CrystalChecked(attempt="a", stage="parse", ok=True, evidence={"deep": deep}))
    store = fold(log)
    assert ask(store, "SELECT status FROM crystal_attempts") == [{"status": "drafted"}]


def test_a_request_is_one_row_with_all_that_fell_back(log: Log, fold: Fold, ask: Ask) -> None:
    log.write(
        DispatchDecided(request="r", goal="g", signature=SUM, mode="crystallized", method="exact", reason="best",
                        params={"a": 1}, tool=TOOL, tool_version=1, confidence=0.97, thresholds={"follower": 0.92},
                        alternatives=[Alternative(mode="crystallized", taken=True, reason="best")]),
        DispatchFellBack(request="r", mode="crystallized", to="follower", reason="no", guard="type column"),
        DispatchFellBack(request="r", mode="follower", to=None, reason="nothing left"),
        DispatchFinished(request="r", signature=SUM, mode="follower", ok=False, error="no", cost_microusd=3),
        DispatchDecided(request="killed", goal="g", signature=SUM, mode="learner", method="none", reason="new"),
    )  # fmt: skip

    killed, row = ask(fold(log), "SELECT * FROM dispatches ORDER BY request")

    assert (killed["status"], killed["mode"], killed["falls"]) == ("unfinished", None, 0)
    assert (row["status"], row["decided_mode"], row["mode"], row["falls"], row["guard_misses"]) == (
        "failed", "crystallized", "follower", 2, 1,
    )  # fmt: skip
    assert [fall["next_mode"] for fall in row["fell_back"]] == ["follower", None]
    assert row["alternatives"][0]["reason"] == "best"


ASKED = st.one_of(
    st.builds(CrystalAsked, attempt=st.sampled_from(["a1", "a2"]), number=st.integers(0, 1), prompt_sha256=st.just("p"),
              reserved_microusd=st.none() | st.integers(0, 9)),
    st.builds(LlmQueried, step=st.sampled_from(["crystal/a1", "crystal/a2", "other"]), attempt=st.integers(0, 1),
              backend=st.just("b"), prompt_sha256=st.just("p"), prompt=st.just(""), prompt_bytes=st.just(0),
              reply=st.none() | st.just("r"), cost_usd_micros=st.none() | st.integers(0, 9)),
)  # fmt: skip


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(ASKED, min_size=1, max_size=12))
def test_what_models_cost_is_what_the_toolsmith_reckons(events: list[Event], fold: Fold, ask: Ask) -> None:
    log = Log()
    spending = Spending()
    for event in events:
        log.write(event)
        spending.seen(event, 0)

    rows = {(row["attempt"], row["number"]): row for row in ask(fold(log), "SELECT * FROM crystal_questions")}

    assert rows.keys() == {*spending.asked, *spending.replies}
    for key, row in rows.items():
        assert (row["cost_microusd"] or 0, row["status"] == "open") == (spending.of(key), spending.open(key))


FAMILIES = st.sampled_from(["g1-a", "g1-b", "g2-a", "odd", ""])
TOOLS = FAMILIES.map(tool_states.tool_of)
NUMBERS = st.integers(0, 3)
STATE = st.sampled_from([*STATES, "gone"])
ATTEMPTS = st.sampled_from(["a1", "a2"])
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(CrystalRegistered, tool=TOOLS, number=NUMBERS, signature=FAMILIES, attempt=ATTEMPTS, source=st.just("s"),
              source_sha256=st.just("h")),
    st.builds(CrystalRegistered, tool=st.just("tool_a"), number=NUMBERS, signature=st.just("g1-a"), attempt=ATTEMPTS,
              source=st.just("s"), source_sha256=st.just("h")),
    st.builds(CrystalMoved, tool=TOOLS, number=NUMBERS, was=STATE, now=STATE, reason=st.just("r")),
    st.builds(CrystalMoved, tool=st.just("tool_a"), number=st.integers(1, 2), was=st.just("shadow"), now=st.just("active"),
              reason=st.just("r")),
    st.builds(CrystalInvoked, tool=TOOLS, number=NUMBERS, request=st.just("r"), ok=st.booleans(),
              guard=st.none() | st.just("g"), duration_ns=st.integers(0, 9), cpu_ns=st.integers(0, 9)),
    st.builds(CrystalShadowed, tool=TOOLS, number=NUMBERS, request=st.just("r"), agreed=st.booleans()),
    st.builds(CrystalRequested, attempt=ATTEMPTS, signature=FAMILIES, tool=TOOLS),
    st.builds(CrystalDrafted, attempt=ATTEMPTS, source=st.just("s"), source_sha256=st.just("h")),
    st.builds(CrystalChecked, attempt=ATTEMPTS, stage=st.sampled_from(["parse", "replay"]), ok=st.booleans()),
    st.builds(CrystalFailed, attempt=ATTEMPTS, signature=FAMILIES, stage=st.just("replay"), reason=st.just("r")),
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=st.lists(st.lists(EVENTS, min_size=1, max_size=6), min_size=1, max_size=8), cut=st.integers(1, 4))
def test_tables_and_registry_agree_whatever_comes(frames: list[list[Event]], cut: int, fold: Fold, ask: Ask) -> None:
    log = Log()
    for frame in frames:
        log.write(*frame)
    registry = Registry(event for event, _ in log.events)
    store = fold(log, cuts=range(cut, len(frames), cut))

    tools = {row["tool"]: row for row in ask(store, "SELECT * FROM crystals")}
    assert tools.keys() == registry.tools.keys()
    versions = {(row["tool"], row["number"]): row for row in ask(store, "SELECT * FROM crystal_versions")}
    assert versions.keys() == {(name, number) for name, tool in registry.tools.items() for number in tool.versions}
    for name, tool in registry.tools.items():
        assert (tools[name]["signature"], tools[name]["active_version"]) == (tool.signature, tool.active)
        for number, one in tool.versions.items():
            row = versions[name, number]
            assert (row["state"], row["calls"], row["successes"], row["guard_misses"], row["shadows"], row["agreed"]) == (
                one.state, one.calls, one.successes, one.missed, one.shadows, one.agreed,
            )  # fmt: skip
            assert ((row["duration_ns"] or 0), (row["cpu_ns"] or 0)) == (one.duration_ns, one.cpu_ns)
    attempts = {row["attempt"]: row for row in ask(store, "SELECT * FROM crystal_attempts")}
    assert attempts.keys() == registry.attempts.keys()
    for key, attempt in registry.attempts.items():
        row = attempts[key]
        assert (row["status"] in {"registered", "failed"}) == attempt.done
        assert (None if row["number"] is None else (row["tool"] if attempt.requested is None else attempt.version[0],
                row["number"])) == attempt.version  # type: ignore[index]  # fmt: skip
        assert [(one["stage"], one["ok"]) for one in row["stages"] or []] == [
            (one.stage, one.ok) for one in attempt.checked
        ]
    whole = fold(log)
    for view in ("crystals", "crystal_versions", "crystal_attempts"):
        assert whole.content_hash(view) == store.content_hash(view), view
