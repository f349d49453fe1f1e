"""An evaluation that fails costs what it was to measure, and nothing else."""

from typing import Any

from torch import nn

from morphogen.schemas import (
    AdaptationFinished,
    AlertRaised,
    DecisionProposed,
    EpochMeasured,
    SlotFailed,
)

from .planned import ANY_GAIN, Planned, kept


def test_an_evaluation_that_raises_is_told_and_the_training_goes_on(loop: Any) -> None:
    one = loop()

    def fails(model: nn.Module) -> float:
        raise OSError("the data is away")

    grower = one.grow(policy="none", evaluate=fails, config={"most_failures": 3})
    one.epochs(5, lambda loss: grower.epoch(train_loss=loss))
    assert [event.recovered for event in one.run.all(SlotFailed)] == [False] * 3  # then growth is off
    assert len(one.run.all(AlertRaised)) == 1
    assert not one.optimizer._optimizer_step_pre_hooks


def test_an_epoch_whose_evaluation_fails_counts_and_nothing_grows_unmeasured(loop: Any) -> None:
    one = loop()
    calls = []

    def sometimes(model: nn.Module) -> Any:
        calls.append(model)
        return None if len(calls) == 3 else one.evaluate(model)

    grower = one.grow(policy=kept(), evaluate=sometimes, budget=ANY_GAIN, config={"ramp_epochs": 1.0})
    one.epochs(10, lambda loss: grower.epoch(train_loss=loss))
    grower.finish()
    measured = [event.val_loss is not None for event in one.run.all(EpochMeasured)]
    assert len(measured) == 10 and measured.count(False) == 1 and not measured[2]
    assert len(one.run.all(SlotFailed)) == 1
    assert grower.slots["0#0"].stage == "fossilized"


def test_an_evaluation_that_fails_while_a_contribution_is_measured_costs_that_measurement_alone(loop: Any) -> None:
    one, fails = loop(), False

    def sometimes(model: nn.Module) -> Any:
        if fails:
            raise OSError("the data is away")
        return one.evaluate(model)

    grower = one.grow(policy=kept(), evaluate=sometimes, budget={**ANY_GAIN, "calm": 0}, config={"ramp_epochs": 1.0})
    one.epochs(6, lambda loss: grower.epoch(train_loss=loss))
    assert grower.slots["0#0"].stage == "holding"
    fails, last = True, one.run.all(EpochMeasured)[-1].val_loss
    one.epochs(1, lambda loss: grower.epoch(train_loss=loss, val_loss=last))
    assert [event.message.partition(":")[0] for event in one.run.all(SlotFailed)] == ["evaluate"]
    assert len(one.run.all(DecisionProposed)) == 7, "the policy is asked all the same"
    fails = False
    one.epochs(1, lambda loss: grower.epoch(train_loss=loss))
    assert grower.slots["0#0"].stage == "fossilized"


def test_too_many_failures_of_the_evaluation_alone_switch_growth_off(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy=kept(), budget=ANY_GAIN, config={"ramp_epochs": 1.0, "most_failures": 2})
    one.epochs(6, lambda loss: grower.epoch(train_loss=loss))
    grower._evaluate = lambda model: None
    one.epochs(4, lambda loss: grower.epoch(train_loss=loss, val_loss=0.5))
    assert [event.message.partition(":")[0] for event in one.run.all(SlotFailed)] == ["evaluate"] * 2
    assert len(one.run.all(EpochMeasured)) == 8
    assert not one.optimizer._optimizer_step_pre_hooks


def test_an_evaluation_that_fails_at_the_end_leaves_what_it_did_not_judge_and_the_end_is_told(loop: Any) -> None:
    one = loop()
    plan = {epoch: what for epoch, what in kept().plan.items() if epoch < 7}
    grower = one.grow(policy=Planned(plan), budget=ANY_GAIN, config={"ramp_epochs": 1.0})
    one.epochs(6, lambda loss: grower.epoch(train_loss=loss))
    grower._evaluate = lambda model: None
    one.epochs(1, lambda loss: grower.epoch(train_loss=loss))
    grower.finish()
    assert grower.slots["0#0"].stage == "holding"
    (finished,) = one.run.all(AdaptationFinished)
    assert (finished.fossilized, finished.pruned) == (0, 0)
