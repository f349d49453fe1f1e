"""From recorded outcomes to probabilities."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from morphogen.consumers.dispatch import DispatchConfig, DispatchError
from morphogen.consumers.dispatch.calibrate import PRIOR, Tally, belief, fit

OUTCOMES = st.lists(st.tuples(st.floats(-1.5, 1.5) | st.just(math.nan), st.booleans()), max_size=40)


def test_without_outcomes_no_likeness_reaches_what_following_needs() -> None:
    curve = fit([])
    assert curve(1.0) < DispatchConfig().follower
    assert curve(0.9) == pytest.approx(0.75, abs=0.06)
    assert curve(0.5) < 0.05


@given(outcomes=OUTCOMES)
@hypothesis_settings(max_examples=60)
def test_more_alike_is_never_worth_less_and_order_does_not_matter(outcomes: list[tuple[float, bool]]) -> None:
    curve = fit(outcomes)
    values = [curve(at / 20) for at in range(-20, 21)]
    assert all(0.0 <= value <= 1.0 for value in values)
    assert values == sorted(values)
    assert fit(list(reversed(outcomes))) == curve


@given(good=st.integers(0, 300), bad=st.integers(0, 300), at=st.sampled_from([0.6, 0.8, 0.95]))
@hypothesis_settings(max_examples=30)
def test_many_outcomes_at_one_likeness_draw_the_curve_to_their_share(good: int, bad: int, at: float) -> None:
    curve = fit([(at, True)] * good + [(at, False)] * bad)
    more = fit([(at, True)] * (good + 50) + [(at, False)] * bad)
    less = fit([(at, True)] * good + [(at, False)] * (bad + 50))
    assert less(at) <= curve(at) + 1e-9
    assert curve(at) <= more(at) + 1e-9


def test_the_curve_follows_two_hundred_outcomes() -> None:
    right = [(0.95, index % 20 != 0) for index in range(100)]
    wrong = [(0.75, index % 10 == 0) for index in range(100)]
    curve = fit(right + wrong)
    assert curve(0.95) == pytest.approx(0.95, abs=0.04)
    assert curve(0.75) == pytest.approx(0.10, abs=0.06)


@given(trials=st.integers(0, 1000), share=st.floats(0, 1), prior=st.floats(0.01, 0.99))
def test_belief_lies_between_the_prior_and_what_was_seen(trials: int, share: float, prior: float) -> None:
    successes = round(trials * share)
    seen = successes / trials if trials else prior
    value = belief(Tally(trials, successes), prior, 2.0)
    assert min(seen, prior) - 1e-9 <= value <= max(seen, prior) + 1e-9


def test_a_tally_counts_and_takes_back() -> None:
    tally = Tally().plus(True).plus(False)
    assert tally == Tally(2, 1)
    assert tally.minus(True) == Tally(1, 0)
    assert Tally().minus(True) == Tally(0, 0)


def test_the_prior_is_well_formed() -> None:
    assert all(0 < chance < 1 and weight > 0 for _, chance, weight in PRIOR)


@pytest.mark.parametrize(
    "settings",
    [
        {"follower": 1.5},
        {"mixed": 0.95},
        {"crystallized": 0.5},
        {"prior_weight": 0.0},
        {"matches": -1},
        {"near_trials": -1},
        {"follower": True},
        {"learner": "0.2"},
        {"prior_weight": math.inf},
        {"prior_weight": math.nan},
        {"prior_weight": "2"},
        {"matches": 1.5},
        {"matches": True},
        {"near_trials": 1.0},
        {"shadow": "no"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_in_one_line(settings: dict[str, Any]) -> None:
    with pytest.raises(DispatchError) as refused:
        DispatchConfig(**settings)
    assert "\n" not in str(refused.value)
