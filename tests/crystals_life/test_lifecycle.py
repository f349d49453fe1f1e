"""Promotion, demotion, rollback, retirement and making anew: decided from the log alone."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.crystallizer.careers import Career, Careers
from morphogen.consumers.crystallizer.lifecycle import (
    DAY_NS,
    Life,
    Newer,
    again,
    decide,
    fallen,
    lacking,
    promotable,
    rolled_back,
)
from morphogen.consumers.crystallizer.moves import legal
from morphogen.consumers.crystallizer.past import Past
from morphogen.consumers.crystallizer.worker import by_hand
from morphogen.consumers.executions import wilson_lower
from morphogen.schemas import (
    CrystalInvoked,
    CrystalMoved,
    CrystalRegistered,
    CrystalShadowed,
    Event,
    ExecutionFeedback,
    ExecutionStarted,
)

SIGNATURE = "g1-0123456789abcdef"
TOOL = "tool_0123456789abcdef"


def registered(number: int = 1, replayed: int = 10) -> CrystalRegistered:
    return CrystalRegistered(
        tool=TOOL,
        number=number,
        signature=SIGNATURE,
        attempt=f"a-{number}",
        source="def run():\n    return 1\n",
        source_sha256="sha256:0",
        provenance={"replayed": replayed},
    )


def shadowed(request: str, agreed: bool = True, number: int = 1) -> CrystalShadowed:
    return CrystalShadowed(
        tool=TOOL, number=number, request=request, agreed=agreed, reason="" if agreed else "7 is not 8"
    )


def invoked(request: str, ok: bool = True, number: int = 1, guard: str | None = None) -> CrystalInvoked:
    return CrystalInvoked(tool=TOOL, number=number, request=request, ok=ok, guard=guard)


def moved(number: int, was: str, now: str) -> CrystalMoved:
    return CrystalMoved(tool=TOOL, number=number, was=was, now=now, reason="told")


def folded(*events: Event) -> Careers:
    careers = Careers()
    for at, event in enumerate(events):
        careers.seen(event, at)
    return careers


def decided(careers: Careers, **changes: object) -> list[tuple[int, str, str]]:
    asked = {"now_ns": 100, "family_used_ns": 50, "life": Life(), **changes}
    return [(one.number, one.was, one.now) for one in decide(careers.of(TOOL), **asked)]  # type: ignore[arg-type]


def test_a_version_is_promoted_once_enough_shadow_runs_agreed() -> None:
    events: list[Event] = [registered(), shadowed("r0"), shadowed("r1")]
    assert decided(folded(*events)) == []
    assert lacking(folded(*events).versions[TOOL, 1], Life()) == "it has 2 shadow runs, and 3 are asked for"
    events.append(shadowed("r2"))
    assert decided(folded(*events)) == [(1, "shadow", "active")]
    (move,) = decide(folded(*events).of(TOOL), now_ns=9, family_used_ns=9)
    assert (move.successes, move.trials) == (13, 13)
    assert move.lower == wilson_lower(13, 13)


def test_few_held_out_executions_ask_for_more_shadow_runs() -> None:
    events: list[Event] = [registered(replayed=2), *(shadowed(f"r{n}") for n in range(3))]
    assert decided(folded(*events)) == []
    assert "lower bound" in str(lacking(folded(*events).versions[TOOL, 1], Life()))
    events += [shadowed(f"s{n}") for n in range(4)]
    assert decided(folded(*events)) == [(1, "shadow", "active")]


def test_one_disagreement_in_shadow_is_enough_against_promotion_for_ever() -> None:
    events: list[Event] = [registered(), *(shadowed(f"r{n}") for n in range(9)), shadowed("bad", agreed=False)]
    assert decided(folded(*events)) == [(1, "shadow", "demoted")]
    (move,) = decide(folded(*events).of(TOOL), now_ns=9, family_used_ns=9)
    assert "7 is not 8" in move.reason
    assert not promotable(folded(*events).versions[TOOL, 1], Life())


def test_a_new_version_takes_the_place_of_the_active_one_which_is_told_to_leave_first() -> None:
    careers = folded(
        registered(1), moved(1, "shadow", "active"), registered(2), *(shadowed(f"r{n}", number=2) for n in range(3))
    )
    assert decided(careers) == [(1, "active", "superseded"), (2, "shadow", "active")]


def test_three_failures_in_a_row_demote_and_bring_the_version_before_back() -> None:
    careers = folded(
        registered(1),
        moved(1, "shadow", "active"),
        registered(2, replayed=40),
        moved(1, "active", "superseded"),
        moved(2, "shadow", "active"),
        *(invoked(f"r{n}", number=2) for n in range(40)),
        *(invoked(f"f{n}", ok=False, number=2) for n in range(3)),
    )
    assert decided(careers) == [(2, "active", "demoted"), (1, "superseded", "active")]


def test_a_version_that_had_failed_itself_does_not_come_back() -> None:
    careers = folded(
        registered(1),
        moved(1, "shadow", "active"),
        *(invoked(f"o{n}", ok=False) for n in range(3)),
        registered(2),
        moved(1, "active", "superseded"),
        moved(2, "shadow", "active"),
        *(invoked(f"f{n}", ok=False, number=2) for n in range(3)),
    )
    assert decided(careers) == [(2, "active", "demoted")]


def test_a_falling_bound_demotes_without_a_row_of_failures() -> None:
    events: list[Event] = [registered(replayed=5), moved(1, "shadow", "active")]
    for at in range(20):
        events.append(invoked(f"r{at}", ok=at % 2 == 0))
        if decided(folded(*events)):
            break
    career = folded(*events).versions[TOOL, 1]
    assert career.failing < Life().failures
    assert "lower bound" in str(fallen(career, Life()))
    successes, trials = career.newest(Life().window)
    assert wilson_lower(successes, trials) < Life().demote_lower


def test_guards_that_are_missed_are_counted_and_held_against_nobody() -> None:
    careers = folded(
        registered(), moved(1, "shadow", "active"), *(invoked(f"r{n}", ok=False, guard="type price") for n in range(20))
    )
    career = careers.versions[TOOL, 1]
    assert (career.misses, career.calls, career.failed) == (20, 0, 0)
    assert decided(careers) == []
    anew = again(career, Newer(successes=5, replayed=5))
    assert anew is not None
    assert anew.reason == "the guards of version 1 were missed 20 times"
    assert not anew.newer_only


def test_a_later_judgement_takes_the_place_of_what_a_call_said_of_itself() -> None:
    events: list[Event] = [registered(replayed=3), moved(1, "shadow", "active")]
    for at in range(3):
        events += [
            invoked(f"r{at}"),
            ExecutionStarted(
                execution=f"x{at}",
                goal="g",
                template="g",
                signature=SIGNATURE,
                norm_version=1,
                mode="crystallized",
                request=f"r{at}",
            ),
        ]
    assert decided(folded(*events)) == []
    events += [ExecutionFeedback(execution=f"x{at}", outcome="failure") for at in range(3)]
    assert folded(*events).versions[TOOL, 1].failed == 3
    assert decided(folded(*events)) == [(1, "active", "demoted")]
    events += [ExecutionFeedback(execution="x2", outcome="success")]
    assert folded(*events).versions[TOOL, 1].failed == 2


@pytest.mark.parametrize("left", [True, False])
def test_a_tool_that_nobody_asked_for_in_the_days_that_are_set_is_retired(left: bool) -> None:
    careers = folded(registered(), moved(1, "shadow", "active"))
    used = 5 * DAY_NS if left else None
    assert decided(careers, now_ns=29 * DAY_NS, family_used_ns=used) == []
    assert decided(careers, now_ns=36 * DAY_NS, family_used_ns=used) == [(1, "active", "retired")]


def test_a_person_may_roll_back_and_there_must_be_something_to_roll_back_to() -> None:
    careers = folded(
        registered(1),
        moved(1, "shadow", "active"),
        registered(2),
        moved(1, "active", "superseded"),
        moved(2, "shadow", "active"),
    )
    assert [(one.number, one.now) for one in rolled_back(careers.of(TOOL), "by hand")] == [
        (2, "demoted"),
        (1, "active"),
    ]
    assert rolled_back(folded(registered(1), moved(1, "shadow", "active")).of(TOOL), "by hand") == []


def test_another_try_in_shadow_begins_without_what_was_held_against_it() -> None:
    careers = folded(
        registered(),
        shadowed("bad", agreed=False),
        moved(1, "shadow", "demoted"),
        moved(1, "demoted", "shadow"),
        *(shadowed(f"r{n}") for n in range(3)),
    )
    assert decided(careers) == [(1, "shadow", "active")]


@pytest.mark.parametrize(
    ("career", "newer", "said"),
    [
        ({"state": "demoted"}, Newer(successes=5), "was demoted"),
        ({"state": "demoted"}, Newer(successes=4), None),
        ({"state": "retired"}, Newer(successes=50, differed=3, replayed=9), None),
        ({"state": "active"}, Newer(successes=9, replayed=9, differed=1), "does not reproduce 1 of 9"),
        ({"state": "active"}, Newer(successes=9, steps_then=4, steps_now=3), "25% fewer steps"),
        ({"state": "active"}, Newer(successes=9, steps_then=4, steps_now=4, ns_then=100, ns_now=50), "50% less time"),
        ({"state": "active"}, Newer(successes=9, steps_then=4, steps_now=4, ns_then=100, ns_now=75), None),
        ({"state": "active"}, Newer(successes=9, replayed=9), None),
        ({"state": "shadow"}, Newer(successes=9, replayed=9, differed=9), None),
        ({"state": "shadow"}, Newer(successes=9, unguarded=4), None),
        ({"state": "shadow"}, Newer(successes=9, unguarded=5), "kept it from 5 of 9"),
        ({"state": "active"}, Newer(successes=9, unguarded=2), "missed 2 times"),
    ],
)
def test_a_tool_is_made_anew_for_a_reason(career: dict[str, str], newer: Newer, said: str | None) -> None:
    one = Career(tool=TOOL, signature=SIGNATURE, number=1, attempt="a-1", **career)  # type: ignore[arg-type]
    anew = again(one, newer)
    assert anew is None if said is None else anew is not None and said in anew.reason


_EVENTS = st.lists(
    st.one_of(
        st.integers(1, 3).map(registered),
        st.builds(shadowed, st.sampled_from("abcdef"), st.booleans(), st.integers(1, 3)),
        st.builds(
            invoked, st.sampled_from("abcdef"), st.booleans(), st.integers(1, 3), st.sampled_from([None, "type x"])
        ),
        st.builds(
            ExecutionFeedback, execution=st.sampled_from("abcdef"), outcome=st.sampled_from(["success", "failure"])
        ),
    ),
    max_size=40,
)


@given(_EVENTS, st.integers(0, 100 * DAY_NS))
def test_whatever_the_log_says_every_move_is_legal_and_one_version_is_active_at_most(
    events: list[Event], now: int
) -> None:
    careers = Careers()
    for at, event in enumerate(events):
        careers.seen(event, at)
        for one in decide(careers.of(TOOL), now_ns=now, family_used_ns=0):
            before = careers.versions[TOOL, one.number]
            assert before.state == one.was
            assert legal(one.was, one.now)
            careers.seen(one, at)
            assert sum(each.state == "active" for each in careers.of(TOOL)) <= 1
    twice = copy.deepcopy(careers)
    for career in careers.versions.values():
        assert 0 <= career.failed <= career.calls
        assert career.successes <= career.trials
        twice.seen(registered(career.number), 10**9)  # told twice, it changes nothing
    assert twice.versions == careers.versions


def settled(careers: Careers, at: int) -> dict[int, str]:
    """Decide until nothing changes; return the state of each version."""
    for turn in range(10):
        moves = decide(careers.of(TOOL), now_ns=at, family_used_ns=at)
        if not moves:
            return {one.number: one.state for one in careers.of(TOOL)}
        for one in moves:
            careers.seen(one, at + turn)
    raise AssertionError("it never comes to rest")


_LIVES = st.lists(
    st.tuples(st.sampled_from(["agrees", "fails", "works", "disagrees"]), st.integers(1, 3), st.booleans()),
    min_size=1,
    max_size=6,
)


def lived(lives: list[tuple[str, int, bool]]) -> Careers:
    """Fold three versions that do something by threes; a service decides in between where it is said to be there."""
    careers = folded(registered(1), registered(2), registered(3))
    for at, (does, number, served) in enumerate(lives, 1):
        for run in (f"{at}.0", f"{at}.1", f"{at}.2"):
            beside = does in {"agrees", "disagrees"}
            event = shadowed(run, does == "agrees", number) if beside else invoked(run, does == "works", number)
            careers.seen(event, at)
        if served:
            settled(careers, at)
    return careers


@given(st.integers(0, 3), _LIVES)
def test_a_decision_that_is_cut_between_any_two_moves_comes_to_the_same(
    first: int, lives: list[tuple[str, int, bool]]
) -> None:
    careers = lived([*(("agrees", number + 1, True) for number in range(first)), *lives])
    moves = decide(careers.of(TOOL), now_ns=100, family_used_ns=100)
    whole = settled(copy.deepcopy(careers), 100)
    for cut in range(1, len(moves)):
        halfway = copy.deepcopy(careers)
        for one in moves[:cut]:
            halfway.seen(one, 100)
        assert settled(halfway, 200) == whole


def test_a_kill_between_the_two_moves_of_a_demotion_costs_no_tool() -> None:
    careers = folded(
        registered(1),
        moved(1, "shadow", "active"),
        registered(2),
        moved(1, "active", "superseded"),
        moved(2, "shadow", "active"),
        *(invoked(f"f{n}", ok=False, number=2) for n in range(3)),
    )
    first, _ = decide(careers.of(TOOL), now_ns=100, family_used_ns=50)
    careers.seen(first, 100)
    careers.seen(invoked("still running", ok=False, number=2), 101)
    assert decided(careers) == [(1, "superseded", "active")]


def test_a_version_that_a_person_put_away_brings_none_back() -> None:
    careers = folded(
        registered(1),
        moved(1, "shadow", "active"),
        registered(2),
        moved(1, "active", "superseded"),
        moved(2, "shadow", "active"),
        *(invoked(f"f{n}", ok=False, number=2) for n in range(3)),
        moved(2, "active", "demoted"),
    )
    assert decided(careers) == []


def test_the_reason_of_a_person_is_never_taken_for_a_decision() -> None:
    past = Past()
    past.careers = folded(
        registered(1),
        moved(1, "shadow", "active"),
        registered(2),
        moved(1, "active", "superseded"),
        moved(2, "shadow", "active"),
    )
    (put_away,) = by_hand(past, TOOL, 2, "demoted", "its newest 3 runs failed")
    past.careers.seen(put_away, 100)
    assert decided(past.careers) == []


def test_an_older_version_does_not_wait_in_shadow_of_a_newer_one_for_ever() -> None:
    careers = folded(registered(1), registered(2), moved(2, "shadow", "active"))
    assert decided(careers) == [(1, "shadow", "retired")]
    careers = folded(
        registered(1),
        shadowed("bad", agreed=False),
        moved(1, "shadow", "demoted"),
        registered(2),
        moved(2, "shadow", "active"),
        moved(1, "demoted", "shadow"),
    )
    assert decided(careers) == []  # a person has put it there since


@given(st.integers(0, 200), st.integers(0, 60), st.integers(0, 60))
def test_nothing_is_promoted_below_the_bound(replayed: int, agreed: int, disagreed: int) -> None:
    one = Career(
        tool=TOOL,
        signature=SIGNATURE,
        number=1,
        attempt="a",
        replayed=replayed,
        shadows=agreed + disagreed,
        agreed=agreed,
    )
    assert promotable(one, Life()) == (lacking(one, Life()) is None)
    if promotable(one, Life()):
        assert disagreed == 0
        assert agreed >= Life().shadows
        assert wilson_lower(one.successes, one.trials) >= Life().promote_lower
