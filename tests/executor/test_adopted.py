"""Seeds that stand in a model that was restored are taken over as they are."""

import math
from typing import Any

import torch

from morphogen.kernels.slots import restore
from morphogen.schemas import AlertRaised, HostRestored, SlotFailed


def test_a_fossilized_seed_that_is_off_for_good_stays_off_in_a_model_that_was_restored(story: Any) -> None:
    one = story(config={"strikes": 1})
    one.grown(stage="fossilized")
    for _ in range(4):
        with torch.no_grad():
            one.slots["0#0"].params()[0].fill_(math.nan)
        one.step()
    again = story(config={"strikes": 1})
    again.adopted(restore(again.model, one.slots.describe()), one.model.state_dict())
    assert [event.severity for event in again.said(AlertRaised)] == ["critical"]
    for _ in range(4):
        before = again.model[0].weight.clone()
        assert math.isfinite(again.step())
        assert not torch.equal(again.model[0].weight, before), "no step of the host is lost"
    again.epoch()
    assert again.said(SlotFailed) == [] and again.said(HostRestored) == []
    assert again.slots["0#0"].tripped is not None
