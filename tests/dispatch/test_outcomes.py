"""What outcomes count for whom."""

import pytest

from morphogen.consumers.dispatch import DispatchState
from morphogen.consumers.dispatch.calibrate import Tally
from morphogen.consumers.dispatch.outcomes import Outcomes
from morphogen.schemas.dispatch import DispatchCompared, DispatchDecided, DispatchFellBack, DispatchFinished
from morphogen.schemas.event import Event
from morphogen.schemas.executions import ExecutionFeedback, ExecutionFinished, ExecutionStarted

OWN, OTHER = "g1-own", "g1-other"


def served(
    request: str, mode: str, *, ok: bool = True, failed: str | None = None, matched: str = OWN, similarity: float = 1.0,
    refused: bool = False, guard: str | None = None,
) -> list[Event]:  # fmt: skip
    method = "exact" if matched == OWN else "embedding"
    first = failed or mode
    events: list[Event] = [
        DispatchDecided(
            request=request,
            goal="g",
            signature=OWN,
            mode=first,
            method=method,
            reason="",
            matched=matched,
            similarity=similarity,
        )
    ]
    if failed is not None:
        events.append(
            DispatchFellBack(
                request=request,
                mode=failed,
                to=mode,
                reason="",
                refused=refused,
                guard=guard,
                execution=f"{request}-{failed}",
            )
        )
    events.append(DispatchFinished(request=request, signature=OWN, mode=mode, ok=ok, execution=f"{request}-{mode}"))
    return events


def folded(*events: Event) -> Outcomes:
    outcomes = Outcomes()
    for event in events:
        outcomes.seen(event)
    return outcomes


def test_the_mode_that_served_succeeded_and_the_one_before_it_failed() -> None:
    outcomes = folded(*served("r1", "learner", failed="follower"), *served("r2", "follower"))
    assert outcomes.tally(OWN, OWN, "follower") == Tally(2, 1)
    assert outcomes.tally(OWN, OWN, "learner") == Tally(1, 1)
    assert not outcomes.open


@pytest.mark.parametrize("why", [{"refused": True}, {"guard": "type n"}])
def test_a_refusal_and_a_missed_guard_are_no_failures(why: dict[str, object]) -> None:
    outcomes = folded(*served("r1", "learner", failed="follower", **why))  # type: ignore[arg-type]
    assert outcomes.tally(OWN, OWN, "follower") == Tally()
    assert outcomes.fell_back == 1


def test_a_goal_out_of_reach_speaks_against_no_cheap_mode() -> None:
    events = served("r1", "learner", failed="follower", ok=False)
    events.insert(-1, DispatchFellBack(request="r1", mode="learner", to=None, reason="", execution="r1-learner"))
    outcomes = folded(*events)
    assert outcomes.tally(OWN, OWN, "follower") == Tally()
    assert outcomes.excused(OWN, OWN, "follower") == 1
    assert outcomes.tally(OWN, OWN, "learner") == Tally(1, 0)


def test_the_newest_feedback_counts_before_what_the_mode_said() -> None:
    outcomes = folded(*served("r1", "follower"))
    for outcome, tally, overturned in [
        ("failure", Tally(1, 0), 1),
        ("failure", Tally(1, 0), 1),
        ("success", Tally(1, 1), 0),
    ]:
        outcomes.seen(ExecutionFeedback(execution="r1-follower", outcome=outcome))
        assert outcomes.tally(OWN, OWN, "follower") == tally
        assert outcomes.overturned(OWN, OWN, "follower") == overturned
    early = folded(ExecutionFeedback(execution="r1-follower", outcome="failure"), *served("r1", "follower"))
    assert early.tally(OWN, OWN, "follower") == Tally(1, 0)
    assert early.overturned(OWN, OWN, "follower") == 1


def test_near_matches_teach_the_curve_and_their_own_pair() -> None:
    compared = DispatchCompared(
        request="r9", signature=OWN, matched=OTHER, mode="follower", method="embedding", agreed=False, similarity=0.9
    )
    outcomes = folded(*served("r1", "follower", matched=OTHER, similarity=0.95), compared, compared)
    assert outcomes.tally(OWN, OTHER, "follower") == Tally(2, 1)
    assert outcomes.tally(OWN, OWN, "follower") == Tally()
    assert sorted(outcomes.near) == [(0.9, False), (0.95, True)]
    before = outcomes.curve(0.95)
    outcomes.seen(ExecutionFeedback(execution="r1-follower", outcome="failure"))
    assert outcomes.curve(0.95) < before


def test_a_request_that_was_decided_and_never_ended_stays_open() -> None:
    outcomes = folded(*served("r1", "follower")[:-1], *served("r2", "follower"))
    assert list(outcomes.open) == ["r1"]


def test_what_was_told_is_not_counted_again_when_the_log_says_it() -> None:
    from morphogen.consumers.executions import At

    events: list[Event] = [
        ExecutionStarted(execution="x", goal="g", template="g", signature=OWN, norm_version=1, mode="learner"),
        ExecutionFinished(execution="x", outcome="success", duration_ns=10, cost_microusd=5),
        *served("r1", "follower"),
    ]
    told, read = DispatchState(), DispatchState()
    for event in events:
        told.told(event)
    for at, event in enumerate(events, 1):
        told.seen(event, At(at, 0))
        read.seen(event, At(at, 0))
    for state in (told, read):
        assert state.outcomes.tally(OWN, OWN, "follower") == Tally(1, 1)
        assert state.outcomes.finished == 1
        assert (state.mean(OWN, "learner").microusd, state.mean(OWN, "learner").ns) == (5, 10)
        assert state.known() == {OWN}
    assert told.position == len(events)


def test_an_unpriced_run_has_no_mean_cost_and_a_cancelled_one_counts_nowhere() -> None:
    state = DispatchState()
    for name, outcome, cost in [("x", "cancelled", 5), ("y", "success", None)]:
        state.told(ExecutionStarted(execution=name, goal="g", template="g", signature=OWN, norm_version=1))
        state.told(ExecutionFinished(execution=name, outcome=outcome, duration_ns=10, cost_microusd=cost))
    assert (state.mean(OWN, "learner").microusd, state.mean(OWN, "learner").ns) == (None, 10)
    assert state.waited(OWN) == 10  # it served no request: its own runs stand in
    assert state.waited("unknown") is None
    assert state.mean("unknown", "learner").ns is None
