"""Ramps of alpha."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from morphogen.kernels.slots import CURVES, Ramp, Slot, SlotError, adapt

ALPHA = st.floats(0, 1)
RAMPS = st.builds(Ramp, start=ALPHA, end=ALPHA, steps=st.integers(0, 300), curve=st.sampled_from(CURVES))


def blending() -> Slot:
    slot = adapt(nn.Sequential(nn.Linear(3, 2)), example=torch.zeros(1, 3))["0#0"]
    slot.germinate(nn.Linear(3, 2), blueprint="linear")
    slot.to("training")
    slot.to("blending")
    return slot


@given(RAMPS)
def test_a_ramp_begins_and_ends_exactly_and_never_turns(ramp: Ramp) -> None:
    values = [ramp.at(step) for step in range(ramp.steps + 3)]

    assert values[0] == (ramp.start if ramp.steps else ramp.end)
    assert values[ramp.steps :] == [ramp.end] * 3
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=ramp.end < ramp.start)


@pytest.mark.parametrize("curve", CURVES)
def test_a_ramp_is_half_way_in_the_middle(curve: str) -> None:
    assert Ramp(start=0.2, end=0.6, steps=10, curve=curve).at(5) == pytest.approx(0.4)


def test_the_three_curves_differ() -> None:
    assert len({Ramp(start=0, end=1, steps=8, curve=curve).at(1) for curve in CURVES}) == 3


@given(RAMPS)
def test_a_slot_follows_its_ramp_step_by_step_in_number_and_buffer(ramp: Ramp) -> None:
    slot = blending()
    slot.set_alpha(ramp.start)
    slot.ramp(ramp.end, ramp.steps, ramp.curve)
    assert slot.graft is not None

    for step in range(ramp.steps + 2):
        assert slot.alpha == ramp.at(step) == float(slot.graft.alpha)
        assert slot.target == ramp.end
        slot.slots.tick()
    assert slot.ramp_state() is None


def test_a_new_ramp_begins_where_alpha_is() -> None:
    slot = blending()
    slot.ramp(1.0, 10)
    for _ in range(5):
        slot.tick()
    slot.ramp(0.0, 5)

    assert slot.alpha == 0.5
    slot.tick()
    assert slot.alpha == 0.4


def test_setting_alpha_or_going_on_ends_a_ramp() -> None:
    slot = blending()
    slot.ramp(1.0, 10)
    slot.tick()
    slot.set_alpha(0.5)
    slot.tick()
    assert slot.alpha == 0.5

    slot.to("holding")
    slot.ramp(0.7, 10)
    slot.to("fossilized")
    slot.tick()
    assert slot.alpha == 0.5


@pytest.mark.parametrize(
    "wrong", [{"end": 1.5}, {"end": float("nan")}, {"start": -0.1}, {"steps": -1}, {"curve": "cubic"}], ids=str
)
def test_what_is_no_ramp_is_refused(wrong: dict[str, float | int | str]) -> None:
    with pytest.raises(SlotError, match="ramp"):
        Ramp(**{"start": 0.0, "end": 1.0, "steps": 3, "curve": "linear"} | wrong)  # type: ignore[arg-type]


def test_an_alpha_out_of_range_changes_nothing() -> None:
    slot = blending()
    slot.set_alpha(0.3)

    for alpha in (-0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(SlotError):
            slot.set_alpha(alpha)
    assert slot.alpha == 0.3
