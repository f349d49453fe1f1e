"""The decision: the cheapest mode that holds, and a reason for each that does not."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from morphogen.consumers.dispatch import DispatchConfig
from morphogen.consumers.dispatch.decide import NO_MODE, Asked, Offer, Offers, against, choose, decide
from morphogen.schemas.executions import MODES

CONFIG = DispatchConfig()


def of(*offers: Offer) -> Offers:
    def given_(mode: str, full: bool) -> Sequence[Offer]:
        return [one for one in offers if one.mode == mode]

    return given_


def offer(mode: str, confidence: float = 0.99, **more: object) -> Offer:
    return Offer(mode=mode, confidence=confidence, method="exact", signature="g1-a", similarity=1.0, **more)  # type: ignore[arg-type]


ALL = [offer(mode) for mode in MODES]


def test_the_modes_are_taken_from_the_cheapest_on() -> None:
    for at, mode in enumerate(MODES):
        choice = choose(of(*ALL[at:]), CONFIG)
        assert choice.mode == mode
        assert [one.mode for one in choice.alternatives] == list(MODES)
        assert [one.taken for one in choice.alternatives] == [one == mode for one in MODES]
        assert all(one.reason for one in choice.alternatives)


@pytest.mark.parametrize(
    ("mode", "confidence", "taken"),
    [
        ("crystallized", 0.92, True), ("crystallized", 0.9199, False), ("follower", 0.92, True), ("follower", 0.91, False),
        ("mixed", 0.75, True), ("mixed", 0.7499, False), ("learner", 0.2, True), ("learner", 0.19, False),
        ("orchestrator", 0.0, True), ("follower", float("nan"), False),
    ],
)  # fmt: skip
def test_the_thresholds_are_those_of_the_configuration(mode: str, confidence: float, taken: bool) -> None:
    choice = choose(of(offer(mode, confidence)), CONFIG)
    assert (choice.mode == mode) is taken
    if not taken:
        lost = next(one for one in choice.alternatives if one.mode == mode)
        assert "is below" in lost.reason


def test_a_tool_needs_its_guards_whatever_its_confidence() -> None:
    refused = offer("crystallized", 1.0, refusal="guard 'type n' is missed: str is not int", guard="type n")
    choice = choose(of(refused, offer("follower")), CONFIG)
    assert choice.mode == "follower"
    assert choice.missed == refused
    assert choice.alternatives[0].reason.startswith("guard")
    forced = choose(of(refused, offer("follower")), CONFIG, forced="crystallized")
    assert forced.mode == "follower"


def test_a_forced_mode_needs_no_confidence_but_its_budget() -> None:
    weak = offer("learner", 0.01, expected_microusd=500)
    assert choose(of(offer("follower"), weak), CONFIG, forced="learner").mode == "learner"
    poor = choose(of(offer("follower"), weak), CONFIG, forced="learner", left_microusd=499)
    assert poor.mode == NO_MODE
    assert poor.alternatives[1].reason == "the request asks for learner"
    assert "expected to cost 500" in poor.alternatives[3].reason


@pytest.mark.parametrize(
    ("expected", "cap", "left", "taken"),
    [
        (500, None, 500, True), (501, None, 500, False), (501, 100, 500, False), (400, 900, 500, True),
        (None, 501, 500, False), (None, 500, 500, True), (None, None, 0, True), (0, None, 0, True), (10**9, 10**9, None, True),
    ],
)  # fmt: skip
def test_what_is_expected_to_cost_too_much_is_refused_before_it_starts(
    expected: int | None, cap: int | None, left: int | None, taken: bool
) -> None:
    one = offer("learner", expected_microusd=expected, cap_microusd=cap)
    assert (against(one, CONFIG, left, is_forced=False) is None) is taken


def test_the_first_offer_that_holds_is_taken_and_the_first_tells_why_not() -> None:
    exact = offer("follower", 0.5)
    near = Offer(mode="follower", confidence=0.95, method="embedding", signature="g1-b", similarity=0.97)
    choice = choose(of(exact, near), CONFIG)
    assert choice.offer == near
    assert "similarity 0.970" in choice.reason
    assert "0.500 is below" in choose(of(exact, offer("follower", 0.6)), CONFIG).alternatives[1].reason


def test_nothing_that_could_serve_is_a_decision_too() -> None:
    asked = Asked(request="r", goal="do it", signature="g1-a", params={"n": 1}, budget_microusd=7)
    event, choice = decide(asked, of(), CONFIG)
    assert (event.mode, choice.offer) == (NO_MODE, None)
    assert len(event.alternatives) == 5
    assert all(mode in event.reason for mode in MODES)
    assert (event.budget_microusd, event.params, event.thresholds["mixed"]) == (7, {"n": 1}, 0.75)


OFFERS = st.lists(
    st.builds(
        Offer,
        mode=st.sampled_from(MODES),
        confidence=st.none() | st.floats(allow_nan=True),
        refusal=st.none() | st.just("it is refused"),
        method=st.sampled_from(["exact", "embedding", "none"]),
        expected_microusd=st.none() | st.integers(0, 100),
        cap_microusd=st.none() | st.integers(0, 100),
    ),
    max_size=8,
)


@given(
    offers=OFFERS,
    left=st.none() | st.integers(0, 100),
    forced=st.none() | st.sampled_from(MODES),
    tried=st.sets(st.sampled_from(MODES)),
)
@hypothesis_settings(max_examples=80)
def test_whatever_is_offered_the_choice_is_sound_and_tells_all_five(
    offers: list[Offer], left: int | None, forced: str | None, tried: set[str]
) -> None:
    choice = choose(of(*offers), CONFIG, left_microusd=left, forced=forced, tried=tried)
    assert [one.mode for one in choice.alternatives] == list(MODES)
    assert all(one.reason for one in choice.alternatives)
    assert sum(one.taken for one in choice.alternatives) == (choice.offer is not None)
    allowed = [
        mode for mode in MODES if mode not in tried and (forced is None or MODES.index(mode) >= MODES.index(forced))
    ]
    good = [
        one for one in offers
        if one.mode in allowed and against(one, CONFIG, left, is_forced=one.mode == forced) is None
    ]  # fmt: skip
    if choice.offer is None:
        assert not good
    else:
        assert choice.offer in good
        assert all(MODES.index(choice.mode) <= MODES.index(one.mode) for one in good)
