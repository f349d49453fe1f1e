"""What a seed is worth, and that it cannot be had without helping the run: one test a known way to cheat."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.policy import Judged, Weights, expected_alone, reward

HELPFUL = Judged(
    stage="fossilized",
    accuracy_with=0.8,
    accuracy_without=0.6,
    accuracy_now=0.8,
    accuracy_alone=0.6,
    params=100,
    host_params=100,
)


def _with(judged: Judged, **changes: Any) -> Judged:
    return Judged(**{**{name: getattr(judged, name) for name in judged.__struct_fields__}, **changes})


def test_a_seed_that_helps_is_paid_its_contribution_less_its_rent() -> None:
    found = reward(HELPFUL)

    assert found.terms["gain"] == pytest.approx(0.2)
    assert found.terms["rent"] == pytest.approx(-0.005)
    assert found.total == pytest.approx(math.fsum(found.terms.values()))


def test_ransom_a_host_that_cannot_live_without_a_seed_is_worth_nothing_if_the_run_is_no_better() -> None:
    taken = _with(HELPFUL, accuracy_without=0.1, accuracy_now=0.6, accuracy_with=0.6)

    assert reward(taken).total < 0
    assert reward(taken).total < reward(HELPFUL).total


def test_turntabling_moving_alpha_up_and_down_never_pays() -> None:
    totals = [reward(_with(HELPFUL, alpha_moves=moves)).total for moves in range(6)]

    assert totals[0] == totals[1], "the one move that blends a seed is free"
    assert totals[1:] == sorted(totals[1:], reverse=True)
    assert len(set(totals[1:])) == 5


def test_farming_many_seeds_that_do_nothing_cost_more_than_none() -> None:
    idle = _with(HELPFUL, accuracy_without=0.8)

    assert reward(idle).total < 0
    assert 10 * reward(idle).total < reward(idle).total
    assert reward(_with(idle, stage="pruned")).terms["gain"] == 0


def test_farming_a_gain_that_is_cut_in_pieces_or_counted_twice_is_paid_once() -> None:
    credited, paid = 0.0, []
    for left in range(4, -1, -1):  # five seeds, each of which would take the whole gain with it
        found = reward(_with(HELPFUL, credited=credited, rivals=0.2 * left))
        credited += found.credited
        paid.append(found.terms["gain"])

    assert sum(paid) == pytest.approx(0.2)
    assert paid == pytest.approx([0.04] * 5), "who is judged first is not paid more"


def _curve(floor: float, rate: float, epochs: int) -> list[float]:
    return [floor + (1 - floor) * math.exp(-rate * epoch) for epoch in range(epochs)]


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("begun", [15, 20, 30])
def test_early_germination_what_the_host_learns_alone_is_not_the_seeds(rate: float, begun: int) -> None:
    losses = _curve(0.2, rate, 60)
    alone = expected_alone(losses[:begun], 10)
    assert alone is not None
    now = losses[begun + 9]
    there = Judged(
        stage="fossilized", loss_with=now, loss_without=2 * now, loss_now=now, loss_alone=alone, host_params=1
    )
    naive = (losses[begun - 1] - now) / losses[begun - 1]

    assert reward(there).terms["gain"] < 0.05
    assert reward(there).terms["gain"] < 0.5 * naive + 0.01


def test_early_germination_before_there_is_a_past_to_compare_with_pays_nothing() -> None:
    assert expected_alone(_curve(0.2, 0.1, 9), 10) is None
    early = _with(HELPFUL, accuracy_alone=None)

    assert reward(early).terms["gain"] == 0


def test_a_loss_that_falls_while_a_seed_does_nothing_is_not_its_gain() -> None:
    beside = Judged(stage="fossilized", loss_with=0.2, loss_without=0.2, loss_now=0.2, loss_alone=1.0, host_params=1)

    assert reward(beside).total <= 0


def test_the_dip_of_blending_teaches_nobody_to_wait() -> None:
    assert "delta" not in Judged.__struct_fields__
    assert reward(HELPFUL).total > 0, "whatever the loss did on the way"


def test_keeping_a_seed_that_harms_is_worse_than_pruning_it_and_waiting_is_zero() -> None:
    harmful = _with(HELPFUL, accuracy_with=0.5)

    assert reward(harmful).total < reward(_with(harmful, stage="pruned")).total < 0


def test_failures_and_rollbacks_outweigh_what_they_bring() -> None:
    broken = reward(_with(HELPFUL, failures=1, rollbacks=1))

    assert broken.terms["failure"] == -0.1
    assert broken.terms["rollback"] == -0.5
    assert broken.total < 0


def test_without_accuracy_the_gain_is_a_share_of_the_loss() -> None:
    found = reward(
        Judged(stage="holding", loss_with=1.0, loss_without=2.0, loss_now=1.0, loss_alone=4.0, host_params=1)
    )

    assert found.terms["gain"] == pytest.approx(0.5)


def test_the_weights_count() -> None:
    assert reward(HELPFUL, Weights(gain=2.0, rent=0.0)).total == pytest.approx(0.4)
    assert reward(_with(HELPFUL, latency_share=1.0)).terms["latency"] == pytest.approx(-0.02)


numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.floats(-10, 10)


@given(
    st.builds(
        Judged,
        stage=st.sampled_from(["training", "blending", "holding", "fossilized", "pruned"]),
        loss_with=numbers,
        loss_without=numbers,
        accuracy_with=numbers,
        accuracy_without=numbers,
        loss_now=numbers,
        accuracy_now=numbers,
        loss_alone=numbers,
        accuracy_alone=numbers,
        credited=st.floats(0, 1),
        params=st.integers(0, 10**9),
        host_params=st.integers(0, 10**9),
        latency_share=numbers,
        alpha_moves=st.integers(0, 100),
        failures=st.integers(0, 9),
        rollbacks=st.integers(0, 9),
    )
)
def test_nothing_unmeasured_pays_and_every_reward_is_a_number(judged: Judged) -> None:
    found = reward(judged)

    assert math.isfinite(found.total)
    pairs = ((judged.loss_with, judged.loss_without), (judged.accuracy_with, judged.accuracy_without))
    if not any(all(one is not None and math.isfinite(one) for one in pair) for pair in pairs):
        assert found.total <= 0
    assert 0 <= found.credited


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.floats(0, 0.5))
def test_no_seed_is_credited_more_than_it_contributes_nor_more_than_the_run_has_gained(
    with_it: float, without: float, now: float, alone: float, credited: float
) -> None:
    found = reward(
        _with(
            HELPFUL,
            accuracy_with=with_it,
            accuracy_without=without,
            accuracy_now=now,
            accuracy_alone=alone,
            credited=credited,
        )
    )

    assert found.credited <= max(0.0, with_it - without)
    assert found.credited <= max(0.0, now - alone - credited)


def test_a_curve_goes_on_as_it_does() -> None:
    assert expected_alone([1.0] * 20, 10) == 1.0
    assert expected_alone([], 10) is None
    assert expected_alone([1.0, None, math.nan] * 9, 10) is None
    fast = _curve(0.1, 0.1, 80)
    expected = expected_alone(fast[:30], 20)
    assert expected is not None
    assert fast[49] - 0.1 <= expected < fast[49] + 0.01
    rising = expected_alone([1 - loss for loss in fast[:30]], 20, higher=True)
    assert rising == pytest.approx(1 - expected)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1])
def test_what_a_host_learns_by_itself_is_not_underrated(rate: float) -> None:
    losses = _curve(0.2, rate, 80)
    for begun in range(15, 50):
        for ahead in (0, 5, 10):
            expected = expected_alone(losses[begun - 15 : begun], ahead, epoch=begun - 1)
            assert expected is not None
            assert expected <= losses[begun - 1 + ahead] + 0.03


@given(st.lists(st.none() | st.floats(), max_size=30), st.integers(-5, 200), st.booleans())
def test_an_expectation_is_a_number_and_never_worse_than_standing_still(
    curve: list[float | None], ahead: int, higher: bool
) -> None:
    expected = expected_alone(curve, ahead, higher=higher)

    known = [value for value in curve if value is not None and math.isfinite(value)]
    assert (expected is None) == (len(known) < 10)
    if expected is not None and max(map(abs, known)) < 1e9:
        now = math.fsum(known[-5:]) / 5
        assert expected >= now if higher else expected <= now
