"""The counterfactual: the same batches with and without a seed."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from morphogen.kernels.slots import Contribution, Evaluation, SlotError, adapt, contribution

from .hosts import HOSTS, SITES, batch, grow, host, same_bits


def loss(model: nn.Module, name: str) -> float:
    with torch.no_grad():
        return float(model(batch(name, seed=9)).square().mean())


@pytest.mark.parametrize("name", HOSTS)
def test_a_contribution_is_the_loss_without_minus_the_loss_with(name: str) -> None:
    model, twin = host(name).eval(), host(name).eval()
    slots = adapt(model, example=batch(name))
    slot = grow(slots, SITES[name][0], alpha=0.5)
    present = loss(model, name)

    found = contribution(slots, slot.id, lambda m: Evaluation(loss=loss(m, name), accuracy=0.5, n=4))

    assert (found.loss_with, found.loss_without) == (present, loss(twin, name))
    assert found.gain == found.loss_without - found.loss_with != 0
    assert (found.slot, found.seed, found.alpha, found.n) == (slot.id, f"{slot.id}.1", 0.5, 4)
    assert found.accuracy_gain == 0.0
    assert slot.alpha == 0.5 and loss(model, name) == present


@pytest.mark.parametrize("stage", ["germinated", "training"])
def test_a_seed_that_is_not_blended_yet_is_measured_at_alpha_1(stage: str) -> None:
    model, other = host("mlp").eval(), host("mlp").eval()
    slots = adapt(model, example=batch("mlp"))
    slot = grow(slots, "0", stage)
    full = adapt(other, example=batch("mlp"))
    grow(full, "0", alpha=1.0)
    found = contribution(slots, slot.id, lambda m: loss(m, "mlp"))

    assert (found.alpha, found.loss_with) == (1.0, loss(other, "mlp"))
    assert (slot.stage, slot.alpha) == (stage, 0.0)
    assert same_bits(model(batch("mlp")), host("mlp").eval()(batch("mlp")))


def test_both_runs_start_from_the_same_random_state_and_leave_no_trace() -> None:
    model = nn.Sequential(host("cnn"), nn.Dropout(0.5)).train()
    model.get_submodule("0.blocks").eval()
    slots = adapt(model, example=batch("cnn"))
    slot = grow(slots, "0.blocks.0", alpha=0.5)
    seen: list[Any] = []

    def evaluate(m: nn.Module) -> float:
        assert not m.training and not torch.is_grad_enabled()
        m.train()  # a careless evaluation
        m(batch("cnn"))
        seen.append(torch.rand(3))
        return float(seen[-1].sum())

    flags = [module.training for module in model.modules()]
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    found = contribution(slots, slot.id, evaluate)

    assert torch.equal(seen[0], seen[1]) and found.gain == 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_evaluation_that_raises_leaves_everything_as_it_was() -> None:
    slots = adapt(host("mlp").train(), example=batch("mlp"))
    slot = grow(slots, "0", "training")

    with pytest.raises(ZeroDivisionError):
        contribution(slots, slot.id, lambda m: 1 / 0)
    assert (slot.stage, slot.alpha, slots.model.training) == ("training", 0.0, True)
    assert same_bits(slots.model.eval()(batch("mlp")), host("mlp").eval()(batch("mlp")))


def test_a_seed_that_is_cut_off_while_it_is_measured_has_no_gain() -> None:
    slots = adapt(host("mlp"), example=batch("mlp"))
    slot = grow(slots, "0", alpha=0.5)
    with torch.no_grad():
        slot.params()[0].fill_(float("nan"))
    found = contribution(slots, slot.id, lambda m: (loss(m, "mlp"), 0.5))

    assert found.tripped is not None and found.gain is None and found.accuracy_gain is None
    assert found.loss_with == found.loss_without


def test_without_a_seed_there_is_nothing_to_measure() -> None:
    with pytest.raises(SlotError, match="no seed stands here"):
        contribution(adapt(host("mlp")), "0#0", lambda m: 0.0)


def test_an_accuracy_that_was_not_measured_has_no_gain() -> None:
    found = Contribution(slot="a#0", seed="a#0.1", alpha=1.0, n=1, loss_with=1.0, loss_without=1.5)

    assert found.accuracy_gain is None and found.gain == 0.5


def test_a_seed_that_a_graph_cuts_off_while_it_is_measured_has_no_gain() -> None:
    torch.compiler.reset()
    model, x = nn.Sequential(nn.Linear(6, 3)), batch("mlp")
    compiled = torch.compile(model, backend="eager")
    slots = adapt(compiled, example=x)
    slot = grow(slots, "0", "training")
    with torch.no_grad():
        slot.params()[0].fill_(float("nan"))
    found = contribution(slots, slot.id, lambda m: float(m(x).square().mean()))
    torch.compiler.reset()

    assert found.tripped is not None and found.gain is None
