"""The way of a decision: proposal, guards, verdict; whatever a policy does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.policy import (
    Decider,
    Limits,
    Observation,
    Outcome,
    Proposal,
    State,
    decide,
    fold,
    guards,
    load_policy,
)
from morphogen.consumers.policy.protocol import WAIT
from morphogen.schemas import Action, EpochMeasured, HostRestored, SlotFailed, decode_event


class Told:
    """A policy that answers as it is told to."""

    name = "told"
    version = None

    def __init__(self, answer: Callable[[Observation], Any]) -> None:
        self._answer = answer

    def decide(self, observation: Observation) -> Proposal:
        return self._answer(observation)  # type: ignore[no-any-return]

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing."""


def _ready(play: Any, **limits: Any) -> State:
    ran = play(load_policy("none"), epochs=12, limits=Limits(horizon=60, **limits)).run()
    return ran.decider.state  # type: ignore[no-any-return]


def _first(observation: Observation) -> Proposal:
    index = observation.index("germinate")
    assert index is not None
    return Proposal(index, "now", logprob=-1.0, uncertainty=0.5)


def test_a_decision_is_three_events_that_name_each_other(play: Any) -> None:
    ticks = iter(range(0, 1000, 250))
    decided = decide(_ready(play), Told(_first), scope="run 1", clock=lambda: next(ticks))

    observed, proposed, verdict = decided.events
    assert observed.observation == proposed.observation
    assert proposed.decision == verdict.decision == decided.decision
    assert proposed.action == decided.action == observed.actions[proposed.index]
    assert (proposed.reason, proposed.logprob, proposed.latency_ns) == ("now", -1.0, 250)
    assert verdict.approved
    assert [guard.guard for guard in verdict.guards] == ["legal", "budget", "cooldown", "stability", "uncertainty"]
    for event in decided.events:
        assert decode_event(event.type, event.version, event.encode()).encode() == event.encode()  # type: ignore[union-attr]


def test_the_name_of_a_decision_depends_on_the_run(play: Any) -> None:
    state = _ready(play)
    one, same, other = (decide(state, Told(_first), scope=scope) for scope in ("a", "a", "b"))

    assert one.decision == same.decision != other.decision


def test_waiting_needs_no_guard(play: Any) -> None:
    decided = decide(_ready(play), load_policy("none"))

    assert decided.verdict.approved
    assert decided.verdict.guards == []
    assert decided.action == WAIT


def _raise(observation: Observation) -> Proposal:
    raise RuntimeError("two\nlines")


@pytest.mark.parametrize(
    "answer",
    [
        _raise,
        lambda seen: None,
        lambda seen: Proposal(-1),
        lambda seen: Proposal(10**9),
        lambda seen: Proposal("advance"),  # type: ignore[arg-type]
        lambda seen: Proposal(float("nan")),  # type: ignore[arg-type]
        lambda seen: Proposal(True),
        lambda seen: Proposal(0, scores=[object()]),  # type: ignore[list-item]
        lambda seen: Proposal(0, value="much"),  # type: ignore[arg-type]
    ],
)
def test_a_policy_that_fails_or_answers_nonsense_has_the_run_wait(play: Any, answer: Any) -> None:
    decided = decide(_ready(play), Told(answer))

    assert decided.action == WAIT
    assert not decided.verdict.approved
    assert decided.verdict.blocked_by == "policy"
    assert decided.proposed.reason.startswith("policy ")
    assert "\n" not in decided.proposed.reason


def test_numbers_of_a_policy_are_recorded_plain_and_what_is_none_is_none(play: Any) -> None:
    decided = decide(_ready(play), Told(lambda seen: Proposal(np.int64(0), value=np.float32(2), logprob=float("nan"))))  # type: ignore[arg-type]

    assert (decided.proposed.index, decided.proposed.value, decided.proposed.logprob) == (0, 2.0, None)


def test_a_policy_cannot_change_what_it_is_shown(play: Any) -> None:
    def meddle(observation: Observation) -> Proposal:
        observation.features[:] = 0
        return Proposal(0)

    decided = decide(_ready(play), Told(meddle))

    assert "read-only" in decided.proposed.reason
    assert decided.observation.sha256 == decide(_ready(play), load_policy("none")).observation.sha256


@pytest.fixture(scope="session")
def grown(play: Any) -> State:
    return play(load_policy("heuristic"), {"layers.0|mlp16": 0.3}, epochs=14).run().decider.state  # type: ignore[no-any-return]


@given(st.integers(0, 10**6))
def test_whatever_a_policy_chooses_only_what_is_legal_is_approved(grown: State, index: int) -> None:
    decided = decide(grown, Told(lambda seen: Proposal(index % len(seen.actions))))

    at = decided.proposed.index
    assert decided.verdict.approved == bool(decided.observation.legal[at])
    assert decided.verdict.approved or decided.action == WAIT


GERMINATE = Action(op="germinate", slot="layers.0#0", blueprint="mlp16")


def _blocked(state: State, action: Action = GERMINATE, **given: Any) -> dict[str, str]:
    return {result.guard: result.reason for result in guards(state, action, **given) if not result.passed}


@pytest.mark.parametrize(
    ("limits", "guard"),
    [
        ({"max_params": 399}, "budget"),
        ({"max_active": 0}, "budget"),
        ({"earliest": 50}, "cooldown"),
        ({"last_call": 59}, "cooldown"),
    ],
)
def test_budgets_and_cooldowns_are_guarded(play: Any, limits: dict[str, Any], guard: str) -> None:
    assert set(_blocked(_ready(play, **limits))) == {"legal", guard}


def _epoch(**measured: Any) -> EpochMeasured:
    return EpochMeasured(epoch=12, **measured)


@pytest.mark.parametrize(
    "measured",
    [
        {"val_loss": 3.1},
        {"val_loss": float("nan")},
        {"val_loss": 1.0, "train_loss": float("inf")},
        {},
    ],
)
def test_nothing_grows_while_the_loss_explodes_or_was_not_measured(play: Any, measured: dict[str, Any]) -> None:
    state = fold(_ready(play), _epoch(**measured))

    assert set(_blocked(state)) == {"stability"}
    assert _blocked(state, WAIT) == {}


def test_nothing_grows_soon_after_trouble_but_a_seed_may_always_be_pruned(play: Any) -> None:
    state = play(load_policy("heuristic"), epochs=10).run().decider.state
    failed = SlotFailed(slot=None, seed=None, error="nonfinite", message="", recovery="cut", recovered=True)
    for event in (failed, HostRestored(reason="nonfinite", snapshot_step=None)):
        troubled = fold(state, event)
        assert "stability" in _blocked(troubled, Action(op="advance", slot="layers.0#0"))
        assert _blocked(troubled, Action(op="prune", slot="layers.0#0")) == {}


def test_a_policy_that_is_too_uncertain_is_held_back(play: Any) -> None:
    state = _ready(play, max_uncertainty=0.4)

    assert set(_blocked(state, proposal=Proposal(1, uncertainty=0.5))) == {"uncertainty"}
    assert _blocked(state, proposal=Proposal(1, uncertainty=0.3)) == {}
    assert _blocked(state, proposal=Proposal(1)) == {}


def test_a_dry_run_has_the_last_word_and_is_asked_only_when_all_else_is_well(play: Any) -> None:
    asked: list[Action] = []

    def dry_run(action: Action) -> str | None:
        asked.append(action)
        return "the copy diverged"

    assert _blocked(_ready(play), dry_run=dry_run) == {"dry_run": "the copy diverged"}
    assert "dry_run" not in _blocked(_ready(play, max_active=0), dry_run=dry_run)
    assert _blocked(_ready(play), WAIT, dry_run=dry_run) == {}
    assert asked == [GERMINATE]


def test_a_dry_run_that_fails_is_a_no(play: Any) -> None:
    def dry_run(action: Action) -> str | None:
        raise ValueError("out of memory")

    assert _blocked(_ready(play), dry_run=dry_run) == {"dry_run": "ValueError: out of memory"}


def test_a_decider_that_has_seen_nothing_waits() -> None:
    for name in ("none", "random", "fixed", "heuristic", "bandit"):
        assert Decider(load_policy(name)).decide().action == WAIT


def test_what_a_policy_says_can_be_written_into_the_log_whatever_it_says(play: Any) -> None:
    def fails(_: Observation) -> Proposal:
        raise RuntimeError("half a pair: \udc80")

    state = _ready(play)
    for answer in (lambda _: Proposal(0, reason="half a pair: \ud800"), fails):
        decided = decide(state, Told(answer))
        assert "half a pair: \\ud" in decided.proposed.reason
        event = decided.proposed
        assert decode_event(event.type, event.version, event.encode()) == event
