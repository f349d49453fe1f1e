"""The life of a slot, generated from the one table."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from morphogen.kernels.slots import BLENDED, LEGAL, SEEDED, LifecycleError, Slot, Stage, adapt, refusal

PAIRS = [(here, there) for here in Stage for there in Stage]


def path_to(stage: Stage) -> list[Stage]:
    """The shortest way from dormant to `stage` by the table."""
    ways = {Stage.DORMANT: [Stage.DORMANT]}
    while stage not in ways:
        ways = {there: [*way, there] for here, way in ways.items() for there in LEGAL[here]} | ways
    return ways[stage][1:]


def step(slot: Slot, stage: Stage) -> None:
    if stage == Stage.GERMINATED:
        slot.germinate(nn.Linear(3, 2), blueprint="linear")
    else:
        slot.to(stage, "a test")


def slot_at(stage: Stage) -> Slot:
    slot = adapt(nn.Sequential(nn.Linear(3, 2)), example=torch.zeros(1, 3))["0#0"]
    for there in path_to(stage):
        step(slot, there)
    return slot


def test_every_stage_is_in_the_table_and_can_be_reached() -> None:
    assert set(LEGAL) == set(Stage)
    for stage in Stage:
        assert slot_at(stage).stage == stage


@pytest.mark.parametrize(("here", "there"), PAIRS, ids=lambda stage: str(stage))
def test_a_slot_takes_the_steps_of_the_table_and_refuses_all_others_with_a_reason(here: Stage, there: Stage) -> None:
    slot = slot_at(here)
    before = (slot.stage, slot.seed, slot.alpha, slot.germinated)

    if there in LEGAL[here]:
        step(slot, there)
        assert slot.stage == there
        assert slot.epochs_in_stage == 0
        assert (slot.seed is not None) == (there in SEEDED)
    else:
        with pytest.raises(LifecycleError) as refused:
            step(slot, there)
        text = str(refused.value)
        assert text.startswith("0#0: ") and "\n" not in text
        assert refusal(here, there) is not None and text.endswith(str(refusal(here, there)))
        assert (slot.stage, slot.seed, slot.alpha, slot.germinated) == before


@pytest.mark.parametrize(("here", "there"), PAIRS, ids=lambda stage: str(stage))
def test_a_refusal_is_there_exactly_where_the_table_has_no_step(here: Stage, there: Stage) -> None:
    assert (refusal(here, there) is None) == (there in LEGAL[here])
    assert (refusal(str(here), str(there)) is None) == (there in LEGAL[here])


@given(st.text(), st.sampled_from(list(Stage)))
def test_what_is_no_stage_is_refused(text: str, stage: Stage) -> None:
    if text not in list(Stage):
        assert "is no stage" in str(refusal(stage, text))
        assert "is no stage" in str(refusal(text, stage))


def test_a_seed_comes_by_germinate_alone() -> None:
    slot = slot_at(Stage.DORMANT)

    with pytest.raises(LifecycleError, match="germinate"):
        slot.to(Stage.GERMINATED)


def test_what_has_fossilized_stays() -> None:
    assert LEGAL[Stage.FOSSILIZED] == ()
    with pytest.raises(LifecycleError, match="final"):
        slot_at(Stage.FOSSILIZED).to("pruned")


@pytest.mark.parametrize("stage", list(Stage), ids=str)
def test_alpha_changes_while_blending_or_holding_alone(stage: Stage) -> None:
    slot = slot_at(stage)

    if stage in (Stage.BLENDING, Stage.HOLDING):
        slot.set_alpha(0.25)
        assert slot.alpha == 0.25
    else:
        with pytest.raises(LifecycleError, match="blending or holding"):
            slot.set_alpha(0.25)
        assert slot.alpha == 0.0
    assert stage not in BLENDED or slot.seed is not None


def test_a_slot_grows_again_after_it_was_pruned_and_counts_its_seeds() -> None:
    slot = slot_at(Stage.RESETTING)
    slot.to("dormant")

    slot.germinate(nn.Linear(3, 2), blueprint="second", generator_seed=4)

    assert slot.seed_id == "0#0.2"
    assert (slot.blueprint, slot.generator_seed, slot.alpha) == ("second", 4, 0.0)


@given(st.lists(st.sampled_from(list(Stage)), max_size=30))
def test_no_walk_leaves_the_table_or_loses_the_seed(walk: list[Stage]) -> None:
    slot = slot_at(Stage.DORMANT)
    host = slot.host
    for stage in walk:
        here = slot.stage
        try:
            step(slot, stage)
        except LifecycleError:
            assert slot.stage == here
        else:
            assert stage in LEGAL[here]
        assert (slot.seed is not None) == (slot.stage in SEEDED) == (type(host) is not nn.Linear)
        assert slot.host is host
