"""The account of a run: rewards folded from its events."""

from typing import Any

import pytest

from morphogen.consumers.policy import Ledger, Limits, Weights, config_of
from morphogen.schemas import (
    AdaptationStarted,
    EpochMeasured,
    Event,
    HostRestored,
    SlotAlphaChanged,
    SlotContribution,
    SlotFailed,
    SlotGerminated,
    SlotStageChanged,
)

FREE = Weights(rent=0.0, churn=0.0)


def _epochs(first: int, last: int, accuracy: float) -> list[Event]:
    return [EpochMeasured(epoch=epoch, val_loss=1.0, val_accuracy=accuracy) for epoch in range(first, last)]


def _seed(slot: str, gain: float, stage: str = "fossilized") -> list[Event]:
    return [
        SlotGerminated(slot=slot, seed=f"{slot}.1", blueprint="0", params=10),
        SlotContribution(
            slot=slot,
            seed=f"{slot}.1",
            split="val",
            n=1,
            alpha=1.0,
            loss_with=1.0,
            loss_without=1.0,
            accuracy_with=0.9,
            accuracy_without=0.9 - gain,
        ),
        SlotStageChanged(slot=slot, seed=f"{slot}.1", from_stage="holding", to_stage=stage, reason=""),
    ]


def _ledger(*events: Event, weights: Weights = FREE) -> Ledger:
    config = config_of(Limits(), {}, reward=weights)
    ledger = Ledger().take(AdaptationStarted(sites=[], policy="none", config=config, host_params=10))
    for event in events:
        ledger = ledger.take(event)
    return ledger


def test_the_weights_are_those_of_the_config() -> None:
    assert _ledger().weights == FREE


def test_a_seed_is_credited_what_the_run_has_gained_since_before_the_first_germination() -> None:
    ledger = _ledger(*_epochs(0, 20, 0.6), *_seed("a#0", 0.5), *_epochs(20, 30, 0.8))

    after, found, judged = ledger.judge("a#0", "fossilized")

    assert judged.accuracy_alone == pytest.approx(0.6)
    assert judged.accuracy_now == 0.8
    assert found.terms["gain"] == pytest.approx(0.2)
    assert after.credited == pytest.approx(0.2)
    assert ledger.credited == 0


@pytest.mark.parametrize("order", [("a#0", "b#0"), ("b#0", "a#0")])
def test_seeds_share_the_gain_in_proportion_whoever_is_judged_first(order: tuple[str, str]) -> None:
    ledger = _ledger(*_epochs(0, 20, 0.6), *_seed("a#0", 0.3), *_seed("b#0", 0.1), *_epochs(20, 30, 0.8))
    gains = {}
    for slot in order:
        ledger, found, _ = ledger.judge(slot, "fossilized")
        gains[slot] = found.terms["gain"]

    assert gains == {"a#0": pytest.approx(0.15), "b#0": pytest.approx(0.05)}


def test_a_seed_that_is_judged_twice_is_paid_once() -> None:
    ledger = _ledger(*_epochs(0, 20, 0.6), *_seed("a#0", 0.1), *_epochs(20, 30, 0.8))
    ledger, first, _ = ledger.judge("a#0", "fossilized")
    _, second, _ = ledger.judge("a#0", "fossilized")

    assert first.terms["gain"] == pytest.approx(0.1)
    assert second.terms["gain"] == 0


def test_a_pruned_seed_takes_no_share() -> None:
    ledger = _ledger(*_epochs(0, 20, 0.6), *_seed("a#0", 0.3, "pruned"), *_seed("b#0", 0.1), *_epochs(20, 30, 0.7))
    _, found, _ = ledger.judge("b#0", "fossilized")

    assert found.terms["gain"] == pytest.approx(0.1)


def test_moves_failures_and_rollbacks_are_those_of_the_seed() -> None:
    def alpha(slot: str) -> SlotAlphaChanged:
        return SlotAlphaChanged(slot=slot, seed="", alpha_from=0, alpha_to=1, ramp="linear", steps=0)

    def failed(slot: str) -> SlotFailed:
        return SlotFailed(slot=slot, seed=None, error="nonfinite", message="", recovery="cut", recovered=True)

    events: list[Any] = [*_seed("a#0", 0.1), alpha("a#0"), alpha("a#0"), alpha("a#0"), failed("a#0"), failed("z#9")]
    events += [HostRestored(reason="nonfinite", snapshot_step=None, slots=["a#0", "z#9"])]
    _, found, judged = _ledger(*events, weights=Weights()).judge("a#0", "pruned")

    assert (judged.alpha_moves, judged.failures, judged.rollbacks) == (3, 1, 1)
    assert found.terms["churn"] == pytest.approx(-0.03)
    ledger = _ledger(*events, *_seed("a#0", 0.1))
    assert ledger.judge("a#0", "pruned")[2].failures == 0, "the next seed of the slot begins anew"


def test_a_slot_that_nothing_is_known_of_is_worth_nothing() -> None:
    _, found, _ = _ledger().judge("a#0", "fossilized")

    assert found.total == 0
