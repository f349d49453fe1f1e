"""Growth goes on from a checkpoint."""

from typing import Any

import pytest
import torch
from torch import nn

from morphogen.consumers.adaptation import GrowthError
from morphogen.consumers.executor import fold_all
from morphogen.kernels.slots import Cutoff, join, restore
from morphogen.schemas import (
    AdaptationFinished,
    SlotFailed,
    SlotGerminated,
    SlotStageChanged,
)

from .planned import ANY_GAIN, Planned, kept


def test_growth_goes_on_in_a_model_that_was_restored_from_a_checkpoint(loop: Any) -> None:
    first = loop()
    policy = kept()
    policy.plan |= {8: ("germinate", "3#0", "mlp16"), 10: ("advance", "3#0", None)}
    grower = first.grow(policy=policy, budget=ANY_GAIN, config={"ramp_epochs": 1.0})
    first.epochs(11, lambda loss: grower.epoch(train_loss=loss))
    assert {slot_id: str(slot.stage) for slot_id, slot in grower.slots.items()} == {
        "0#0": "fossilized",
        "3#0": "blending",
    }
    saved = (grower.slots.describe(), first.model.state_dict(), first.optimizer.state_dict())

    second = loop()
    slots = restore(second.model, saved[0])
    second.model.load_state_dict(saved[1])
    second.optimizer = torch.optim.Adam(second.model.parameters(), 1e-2)
    second.optimizer.load_state_dict(saved[2])
    again = second.grow(
        policy=Planned({2: ("advance", "3#0", None), 3: ("fossilize", "3#0", None)}), sites=slots, budget=ANY_GAIN
    )
    states = fold_all(event for event, *_ in second.run.told)
    for slot_id, slot in slots.items():
        assert (states[slot_id].stage, states[slot_id].alpha) == (slot.stage, slot.alpha)
        assert states[slot_id].seed == slot.seed_id
    second.epochs(5, lambda loss: again.epoch(train_loss=loss))
    assert {str(slot.stage) for slot in slots.values()} == {"fossilized"}
    assert slots["3#0"].alpha == 1.0
    held = second.optimizer.param_groups[0]["params"]
    assert len({id(p) for p in held}) == len(held) == len(list(second.model.parameters()))
    again.finish()
    assert second.run.all(SlotFailed) == []
    with pytest.raises(GrowthError, match="another model"):
        loop().grow(sites=slots)


def test_a_restored_model_is_cut_off_where_the_settings_say(loop: Any) -> None:
    first = loop()
    grower = first.grow(policy=kept(), budget=ANY_GAIN, config={"ramp_epochs": 1.0, "explode": 0.5})
    first.epochs(3, lambda loss: grower.epoch(train_loss=loss))
    second = loop()
    slots = restore(second.model, grower.slots.describe(), cutoff=Cutoff(floor=0.5))
    second.grow(policy="none", sites=slots, config={"explode": 0.5})
    assert slots.cutoff == Cutoff(exploding=0.5, floor=0.5)
    assert [slot.graft.cutoff for slot in slots.active()] == [slots.cutoff]


def test_a_model_with_groups_of_its_own_goes_on_with_its_optimizer(loop: Any) -> None:
    """Weights that decay and biases that do not: the groups are those of the host, and then its seeds join them."""

    def grouped(model: nn.Module) -> torch.optim.Optimizer:
        decays = [[p for p in model.parameters() if (p.ndim > 1) is wanted] for wanted in (True, False)]
        groups = [{"params": params, "weight_decay": decay} for params, decay in zip(decays, (0.1, 0.0), strict=True)]
        return torch.optim.AdamW(groups, lr=1e-2)

    def twice() -> Any:
        policy = kept()
        policy.plan |= {2: ("germinate", "3#0", "mlp16"), 4: ("advance", "3#0", None)}
        return policy

    first = loop()
    first.optimizer = grouped(first.model)
    grower = first.grow(policy=twice(), budget={**ANY_GAIN, "max_active": 2}, config={"ramp_epochs": 1.0})
    first.epochs(6, lambda loss: grower.epoch(train_loss=loss))
    assert len(grower.slots.active()) == 2

    second = loop()
    second.optimizer = grouped(second.model)
    slots = restore(second.model, grower.slots.describe())
    for slot in slots.active():
        join(second.optimizer, slot)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    names = [{p: name for name, p in one.model.named_parameters()} for one in (first, second)]
    for before, after in zip(first.optimizer.param_groups, second.optimizer.param_groups, strict=True):
        assert [names[0][p] for p in before["params"]] == [names[1][p] for p in after["params"]]
    for p, name in names[1].items():
        state = first.optimizer.state[next(q for q, same in names[0].items() if same == name)]
        assert torch.equal(second.optimizer.state[p]["exp_avg"], state["exp_avg"])


def test_what_was_taken_over_from_a_checkpoint_counts_as_the_log_has_it(loop: Any) -> None:
    first = loop()
    policy = kept()
    policy.plan |= {8: ("germinate", "3#0", "mlp16")}
    grower = first.grow(policy=policy, budget=ANY_GAIN, config={"ramp_epochs": 1.0})
    first.epochs(10, lambda loss: grower.epoch(train_loss=loss))

    second = loop()
    again = second.grow(policy="none", sites=restore(second.model, grower.slots.describe()))
    second.epochs(2, lambda loss: again.epoch(train_loss=loss))
    again.finish()
    (finished,) = second.run.all(AdaptationFinished)
    stages = [event.to_stage for event in second.run.all(SlotStageChanged)]
    assert (finished.germinated, finished.fossilized, finished.pruned) == (2, 1, 1)
    assert finished.germinated == len(second.run.all(SlotGerminated))
    assert [stages.count(stage) for stage in ("fossilized", "pruned")] == [1, 1]
