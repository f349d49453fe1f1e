"""An executor does what was decided, step by step, and refuses what is not legal or not possible."""

import math
from typing import Any

import pytest
import torch

from morphogen.consumers.executor import fold_all
from morphogen.kernels.slots import Stage
from morphogen.schemas import (
    Action,
    SlotAlphaChanged,
    SlotContribution,
    SlotGate,
    SlotGerminated,
    SlotHealth,
    SlotRefused,
    SlotStageChanged,
)


def test_a_seed_goes_through_its_life_and_every_step_is_told(story: Any) -> None:
    one = story()
    one.grown(stage="fossilized")
    assert [(event.from_stage, event.to_stage) for event in one.said(SlotStageChanged)] == [
        ("dormant", "germinated"),
        ("germinated", "training"),
        ("training", "blending"),
        ("blending", "holding"),
        ("holding", "fossilized"),
    ]
    assert [event.gate for event in one.said(SlotGate)] == ["G1", "G2", "G3", "G5"]
    (germinated,) = one.said(SlotGerminated)
    assert germinated.decision == "d0"
    assert germinated.params == sum(p.numel() for p in one.slots["0#0"].params())
    assert one.slots["0#0"].alpha == 1.0
    assert one.executor.counts["fossilized"] == 1


def test_what_grows_learns_and_changes_what_the_model_gives(story: Any) -> None:
    grown, bare = story(), story()
    grown.grown(stage="holding")
    for _ in range(3):
        bare.epoch()
    inputs = grown.inputs
    grown.model.eval(), bare.model.eval()
    assert not torch.equal(grown.model(inputs), bare.model(inputs))
    assert any(bool(p.abs().sum() > 0) for p in grown.slots["0#0"].params())


def test_nothing_is_left_of_a_seed_that_was_pruned_and_its_slot_is_free_again(story: Any) -> None:
    one = story()
    one.grown(stage="blending")
    assert one.epoch(Action(op="prune", slot="0#0")) == [True]
    assert one.slots["0#0"].stage == Stage.EMBARGOED
    assert one.clean()
    one.epoch()
    assert one.slots["0#0"].stage == Stage.DORMANT
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16")) == [True]
    assert one.slots["0#0"].seed_id == "0#0.2"


def test_a_dormant_model_has_no_hook_anywhere(story: Any) -> None:
    one = story()
    one.epoch()
    assert one.clean()


def test_the_host_trains_to_the_same_bits_as_alone_while_a_seed_only_trains(story: Any) -> None:
    grown, bare = story(norm=True), story(norm=True)
    for number in range(5):
        grown.epoch(*([Action(op="germinate", slot="0#0", blueprint="mlp16")] if number == 1 else []))
        bare.epoch()
    assert grown.slots["0#0"].stage == Stage.TRAINING
    names = bare.model.state_dict()
    assert all(torch.equal(grown.model.state_dict()[name], value) for name, value in names.items())


def test_a_ramp_is_one_event_and_goes_on_with_the_optimizers_steps(story: Any) -> None:
    one = story(config={"ramp_epochs": 2.0})
    one.grown(stage="blending")
    (event,) = one.said(SlotAlphaChanged)
    assert (event.alpha_from, event.alpha_to, event.steps, event.ramp) == (0.0, 1.0, 6, "linear")
    alphas = []
    for _ in range(7):
        one.step()
        alphas.append(one.slots["0#0"].alpha)
    assert alphas == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])


def test_alpha_moves_at_once_or_over_steps_and_a_ramp_takes_a_holding_seed_back_to_blending(story: Any) -> None:
    one = story()
    one.grown(stage="holding")
    assert one.epoch(Action(op="set_alpha", slot="0#0", alpha=0.5, steps=0)) == [True]
    assert (one.slots["0#0"].alpha, one.slots["0#0"].stage) == (0.5, Stage.HOLDING)
    assert one.epoch(Action(op="set_alpha", slot="0#0", alpha=1, steps=3, ramp="cosine")) == [True]
    assert one.slots["0#0"].stage == Stage.BLENDING
    one.epoch()
    assert one.slots["0#0"].alpha == 1.0


REFUSED = [
    (Action(op="germinate", slot="9#0", blueprint="mlp16"), "no slot"),
    (Action(op="germinate", slot="0#0", blueprint="unheard"), "menu"),
    (Action(op="germinate", slot="0#0"), "menu"),
    (Action(op="advance", slot="0#0"), "does not advance"),
    (Action(op="prune", slot="0#0"), "nothing to prune"),
    (Action(op="fossilize", slot="0#0"), "holding"),
    (Action(op="set_alpha", slot="0#0", alpha=0.5), "blending or holding"),
    (Action(op="set_alpha", slot="0#0", alpha=math.nan), "from 0 to 1"),
    (Action(op="set_alpha", slot="0#0", alpha=-1.0), "from 0 to 1"),
    (Action(op="resetting", slot="0#0"), "no action"),
    (Action(op="advance"), "no slot"),
    ("prune 0#0", "an action is expected"),
    (None, "an action is expected"),
]


@pytest.mark.parametrize(("action", "reason"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_not_legal_is_refused_with_a_reason_and_nothing_happens(story: Any, action: Any, reason: str) -> None:
    one = story()
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    applied = one.executor.apply(action, decision="d")
    assert not applied.done
    (refused,) = one.said(SlotRefused)
    assert reason in refused.reason
    assert "\n" not in refused.reason
    assert refused.decision == "d"
    assert one.clean()
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"max_active": 1}, "not judged yet"),
        ({"max_fossilized": 1}, "seeds that stand"),
        ({"max_params": 10}, "grown parameters"),
        ({"max_flops": 10}, "grown FLOPs"),
    ],
)
def test_bounds_hold_whoever_asks(story: Any, bounds: dict[str, int], reason: str) -> None:
    one = story(bounds=bounds)
    done = one.epoch(
        Action(op="germinate", slot="0#0", blueprint="mlp16"), Action(op="germinate", slot="2#0", blueprint="mlp16")
    )
    assert not all(done)
    assert reason in one.said(SlotRefused)[0].reason


def test_a_gate_that_was_not_measured_does_not_open(story: Any) -> None:
    one = story(bounds={"min_holding": 0})
    one.grown(stage="holding")
    assert one.epoch(Action(op="fossilize", slot="0#0"), evaluate=None) == [False]
    assert one.said(SlotContribution) == []
    assert "contributes" in one.said(SlotGate)[-1].checks_failed
    assert one.said(SlotGate)[-1].measured["contribution"] is None


def test_a_contribution_of_an_earlier_epoch_opens_no_gate(story: Any) -> None:
    one = story(bounds={"min_contribution": -1e9})
    one.grown(stage="holding")
    one.epoch()
    assert one.said(SlotContribution)
    assert one.epoch(Action(op="fossilize", slot="0#0"), evaluate=None) == [False]
    assert one.epoch(Action(op="fossilize", slot="0#0")) == [True]


def test_a_seed_too_young_does_not_advance(story: Any) -> None:
    one = story(bounds={"min_training": 3})
    one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
    assert one.epoch(Action(op="advance", slot="0#0")) == [False]
    assert "epochs_in_training" in one.said(SlotGate)[-1].checks_failed


def test_the_gradient_is_known_to_the_gate_though_the_program_has_cleared_it(story: Any) -> None:
    one = story()
    one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
    for _ in range(3):
        one.step()
    one.optimizer.zero_grad(set_to_none=True)
    one.executor.end_epoch(one.number, val_loss=0.5)
    (health,) = one.said(SlotHealth)
    assert health.grad_norm[0] > 0
    assert health.grad_ratio[0] > 0
    assert one.executor.apply(Action(op="advance", slot="0#0")).done


def test_by_its_gates_alone_a_seed_is_kept_where_it_helps_and_pruned_where_it_does_not(story: Any) -> None:
    for threshold, kept in ((-1e9, True), (1e9, False)):
        one = story(config={"auto": True, "patience": 2}, bounds={"min_contribution": threshold})
        one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
        for _ in range(8):
            one.epoch()
        ends = [event.to_stage for event in one.said(SlotStageChanged)]
        assert ("fossilized" in ends) is kept
        assert ("pruned" in ends) is not kept
        assert {event.initiator for event in one.said(SlotStageChanged)} <= {"policy", "gate", "timeout"}


def test_a_seed_that_stays_too_long_in_a_stage_is_pruned(story: Any) -> None:
    one = story(config={"stage_timeout": 2})
    one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
    one.epoch()
    one.epoch()
    pruned = next(event for event in one.said(SlotStageChanged) if event.to_stage == "pruned")
    assert pruned.initiator == "timeout"
    assert "2 epochs in training" in pruned.reason


def test_schedulers_momentum_and_groups_are_undisturbed(story: Any) -> None:
    one = story(optimizer=lambda params: torch.optim.SGD(params, 0.1, momentum=0.9))
    scheduler = torch.optim.lr_scheduler.StepLR(one.optimizer, 1, gamma=0.5)
    one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
    groups = len(one.optimizer.param_groups)
    one.epoch(Action(op="advance", slot="0#0"))
    scheduler.step()
    assert one.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    assert len(one.optimizer.param_groups) == groups == 1


def test_the_same_seed_grows_the_same_weights(story: Any) -> None:
    stories = [story(), story()]
    for one in stories:
        one.grown(stage="holding")
    first, second = (one.model.state_dict() for one in stories)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_no_global_generator_is_drawn_from(story: Any) -> None:
    one = story()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one.grown(stage="fossilized")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fold_of_the_events_is_what_stands(story: Any) -> None:
    one = story(slots=2)
    one.epoch(
        Action(op="germinate", slot="0#0", blueprint="mlp16"), Action(op="germinate", slot="2#1", blueprint="rank1")
    )
    one.epoch(Action(op="advance", slot="0#0"), Action(op="prune", slot="2#1"))
    one.epoch(Action(op="advance", slot="0#0"))
    one.epoch(Action(op="set_alpha", slot="0#0", alpha=0.25, steps=5, ramp="sigmoid"))
    one.epoch()
    started = one.executor.states
    from morphogen.schemas import AdaptationStarted

    again = fold_all([AdaptationStarted(sites=list(one.slots.sites), policy="test"), *one.events])
    assert again == started
    for slot_id, slot in one.slots.items():
        assert again[slot_id].stage == slot.stage
        assert again[slot_id].seed == slot.seed_id
        assert again[slot_id].alpha == slot.alpha
        assert again[slot_id].germinated == slot.germinated
