"""Which families come next, and on which side an execution is: pure, and the same as the tables say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.consumers.crystallizer import NotMade, Registry
from morphogen.consumers.crystallizer.packages import events_of
from morphogen.consumers.crystallizer.past import Past
from morphogen.consumers.crystallizer.planning import candidates, chosen, learnable, tried, worth_trying
from morphogen.consumers.crystallizer.splitting import LEARN, attempt_id, split
from morphogen.consumers.executions import At, Families
from morphogen.consumers.projections.sql.query import query
from morphogen.producers import executions
from morphogen.schemas import CrystalFailed, CrystalRequested

from .kit import SIGNATURE, record, trace


def families(count: int, **changes: object) -> Families:
    found = Families()
    place = 0
    for at in range(count):
        for event in events_of(trace(at, **changes)):
            place += 1
            found.seen(event, At(place, 0, place, stored_ns=place))
    return found


def test_the_candidates_are_those_of_the_view(bus: Bus, settings: Settings) -> None:
    record(settings, range(6))
    for at, (goal, cost, failures) in enumerate(
        [("Dear", 2_000_000, 0), ("Unpriced", None, 0), ("Failing", 1, 2), ("Rare", 9, 0)]
    ):
        for run in range(4 if goal == "Rare" else 20 + at):
            with executions.execution(f"{goal} task of a test", settings=settings) as ex:
                ex.asked(prompt="?", reply="!", cost_microusd=cost)
                ex.finish("done", outcome="failure" if run < failures else "success", judged_by="assertion")
    assert executions.flush(20)
    past = Past()
    past.catch_up(bus)
    ours = [
        (one.signature, one.uses, one.successes, one.success, one.wilson_lower, one.priority)
        for one in candidates(past.families, past.registry)
    ]
    shown = query(
        "SELECT signature, uses, successes, success, wilson_lower, priority FROM crystallization_candidates",
        settings=settings,
        wait=True,
    ).rows()
    assert [row[0] for row in shown] == [one[0] for one in ours]
    assert len(ours) == 3
    for row, one in zip(shown, ours, strict=True):
        assert row == pytest.approx(one) if not isinstance(row[0], str) else row[1:] == pytest.approx(one[1:])


def test_a_family_that_failed_waits_for_half_as_many_executions_again() -> None:
    found = families(9)
    registry = Registry()
    assert [makers for _, makers in chosen(found, registry, ["synthesis", "llm"])] == [["synthesis", "llm"]]
    requested = CrystalRequested(
        attempt="a",
        signature=SIGNATURE,
        tool="t",
        maker="synthesis",
        made_from=["1", "2", "3"],
        held_out=["4", "5", "6", "7"],
    )
    registry.seen(requested)
    assert tried(registry.attempts.values(), SIGNATURE, "synthesis") == 0  # it has not ended
    registry.seen(CrystalFailed(attempt="a", signature=SIGNATURE, stage="draft", reason="x"))
    assert tried(registry.attempts.values(), SIGNATURE, "synthesis") == 7
    assert [makers for _, makers in chosen(found, registry, ["synthesis", "llm"])] == [["llm"]]
    assert [makers for _, makers in chosen(families(11), registry, ["synthesis"])] == [["synthesis"]]
    assert not worth_trying(4, 0)
    assert chosen(found, registry, ["llm"], since_ns=10**9) == []


def test_what_a_tool_did_itself_is_not_learned_from() -> None:
    for mode, count in (("learner", 9), ("mixed", 9), ("crystallized", 0), ("follower", 9)):
        family = families(9, mode=mode).family(SIGNATURE)
        assert family is not None
        assert len(learnable(family)) == count
        assert learnable(family, after_ns=10**12) == []


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=5, max_size=80, unique=True),
    st.randoms(),
)
def test_the_split_is_in_halves_disjoint_and_does_not_depend_on_order(names: list[str], dice: object) -> None:
    traces = [trace(at, execution=name) for at, name in enumerate(names)]
    made, held = split(traces)
    assert sorted(one.execution for one in (*made, *held)) == sorted(names)
    assert len(made) == min(LEARN, len(names) - len(names) // 2)
    dice.shuffle(traces)  # type: ignore[attr-defined]
    again = split(traces)
    assert ([one.execution for one in again[0]], [one.execution for one in again[1]]) == (
        [one.execution for one in made],
        [one.execution for one in held],
    )


@given(st.integers(5, 90), st.sets(st.integers(0, 89), max_size=6))
def test_each_side_has_an_execution_that_was_reasoned_out(count: int, thought: set[int]) -> None:
    traces = [trace(at, mode="learner" if at in thought else "follower") for at in range(count)]
    if sum(at < count for at in thought) < 2:
        with pytest.raises(NotMade, match="were reasoned out"):
            split(traces)
        return
    made, held = split(traces)
    assert len(made) + len(held) == count
    assert len(made) == min(LEARN, count - count // 2)
    for side in (made, held):
        assert any(one.mode == "learner" for one in side)


def test_too_few_are_not_split() -> None:
    with pytest.raises(NotMade, match="4 executions may be learned from, and 5 are needed"):
        split([trace(at) for at in range(4)])


@given(st.lists(st.text(max_size=5), max_size=6, unique=True))
def test_an_attempt_is_named_after_the_set_of_its_executions(names: list[str]) -> None:
    assert attempt_id("g1-a", names, "llm") == attempt_id("g1-a", list(reversed(names)), "llm")
    assert attempt_id("g1-a", names, "llm") != attempt_id("g1-a", names, "synthesis")
    assert attempt_id("g1-a", names, "llm") != attempt_id("g1-b", names, "llm")
