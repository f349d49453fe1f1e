"""Seeds join an optimizer in the middle of a run, and leave it."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from morphogen.kernels.slots import JoinError, adapt, join, leave, restore

from .hosts import batch, grow, host, same_bits, seed_for


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        optimizer.zero_grad()
        model(batch("mlp", seed=step)).square().mean().backward()
        optimizer.step()


def adam(model: nn.Module, *, named: bool = False) -> torch.optim.Adam:
    first, rest = ("0.weight", "0.bias"), [(n, p) for n, p in model.named_parameters() if not n.startswith("0.")]
    mine: list[Any] = [(n, p) for n, p in model.named_parameters() if n in first]
    return torch.optim.Adam(
        [
            {"params": mine if named else [p for _, p in mine], "lr": 1e-2},
            {"params": rest if named else [p for _, p in rest]},
        ],
        lr=1e-3,
    )


@pytest.mark.parametrize("named", [False, True])
def test_a_seed_joins_the_group_of_its_host_and_nothing_else_changes(named: bool) -> None:
    model = host("mlp")
    slots = adapt(model, example=batch("mlp"))
    optimizer = adam(model, named=named)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(model, optimizer, 3)
    scheduler.step()
    held = {parameter: copy.deepcopy(state) for parameter, state in optimizer.state.items()}
    rates = [group["lr"] for group in optimizer.param_groups]
    sizes = [len(group["params"]) for group in optimizer.param_groups]

    one, two = grow(slots, "0", "training"), grow(slots, "5", "training")
    join(optimizer, one)
    join(optimizer, two)
    join(optimizer, two)  # a second time is no harm

    assert [len(group["params"]) for group in optimizer.param_groups] == [sizes[0] + 4, sizes[1] + 4]
    assert all(any(parameter is other for other in optimizer.param_groups[0]["params"]) for parameter in one.params())
    assert [group["lr"] for group in optimizer.param_groups] == rates
    assert all(torch.equal(optimizer.state[p][key], held[p][key]) for p in held for key in held[p])
    if named:
        names = dict(model.named_parameters())
        for group in optimizer.param_groups:
            assert all(names[name] is p for name, p in zip(group["param_names"], group["params"], strict=True))
    weights = [parameter.detach().clone() for parameter in one.params()]
    train(model, optimizer, 2)
    scheduler.step()
    assert all(not torch.equal(now, before) for now, before in zip(one.params(), weights, strict=True))
    assert [group["lr"] for group in optimizer.param_groups] == [rate / 2 for rate in rates]


def test_a_seed_leaves_with_its_state_and_the_rest_goes_on_to_the_same_bits() -> None:
    model, twin = host("mlp"), host("mlp")
    slots = adapt(model, example=batch("mlp"))
    optimizer, other = adam(model), adam(twin)
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    train(model, optimizer, 2)
    train(twin, other, 2)
    slot = grow(slots, "0", "training")
    join(optimizer, slot)
    train(model, optimizer, 3, start=2)
    train(twin, other, 3, start=2)
    gone = slot.params()
    leave(optimizer, slot)
    slot.to("pruned")
    train(model, optimizer, 3, start=5)
    train(twin, other, 3, start=5)

    assert [len(group["params"]) for group in optimizer.param_groups] == sizes
    assert not any(parameter in optimizer.state for parameter in gone)
    assert all(same_bits(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_parameters_kept_from_a_seed_that_is_gone_can_leave_too() -> None:
    model = host("mlp")
    slots = adapt(model, example=batch("mlp"))
    optimizer = adam(model)
    slot = grow(slots, "0", "training")
    join(optimizer, slot)
    kept = slot.params()
    slot.to("pruned")
    leave(optimizer, kept)

    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("way", ["made after it was restored", "joined after it was restored"])
@pytest.mark.parametrize("named", [False, True])
def test_the_checkpoint_of_a_grown_model_and_its_optimizer_goes_round(way: str, named: bool) -> None:
    def build(blueprint: str, seed: int) -> nn.Module:
        return seed_for(adapt(host("mlp"), example=batch("mlp")), blueprint, seed)

    model = host("mlp")
    slots = adapt(model, slots=2, example=batch("mlp"))
    optimizer = adam(model, named=named)
    train(model, optimizer, 1)
    for site, number in (("5", 0), ("0", 1), ("0", 0)):
        slot = slots[f"{site}#{number}"]
        slot.germinate(build(site, 3 + number), blueprint=site, generator_seed=3 + number)
        slot.to("training")
        join(optimizer, slot)
        train(model, optimizer, 2)
    slots["0#0"].to("blending")
    slots["0#0"].ramp(1.0, 8, "cosine")
    slots.tick()
    leave(optimizer, slots["5#0"])
    slots["5#0"].to("pruned")
    description, weights, state = slots.describe(), model.state_dict(), copy.deepcopy(optimizer.state_dict())

    fresh = host("mlp")
    if way.startswith("made"):
        again = restore(fresh, description, build)
        other = adam(fresh, named=named)
        if not named:  # both groups in the order of the model: the second one by construction
            other = torch.optim.Adam(
                [
                    {"params": [p for n, p in fresh.named_parameters() if n.startswith("0.")], "lr": 1e-2},
                    {"params": [p for n, p in fresh.named_parameters() if not n.startswith("0.")]},
                ],
                lr=1e-3,
            )
        else:
            for slot in again.active():
                leave(other, slot)
                join(other, slot)
    else:
        other = adam(fresh, named=named)
        again = restore(fresh, description, build)
        for slot in again.active():
            join(other, slot)
    fresh.load_state_dict(weights)
    other.load_state_dict(state)
    assert again.describe() == description

    for m, o, s in ((model, optimizer, slots), (fresh, other, again)):
        for step in range(4):
            train(m, o, 1, start=20 + step)
            s.tick()
    now = fresh.state_dict()
    assert all(torch.equal(value, now[key]) for key, value in model.state_dict().items())


def test_a_frozen_host_lets_its_seed_join_the_nearest_group() -> None:
    model = host("mlp")
    for parameter in model[0].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    slots = adapt(model, example=batch("mlp"))
    slot = grow(slots, "0", "training")
    join(optimizer, slot)

    assert all(any(p is other for other in optimizer.param_groups[0]["params"]) for p in slot.params())


def test_an_optimizer_that_cannot_take_a_seed_says_so() -> None:
    model = host("mlp")
    slots = adapt(model, example=batch("mlp"))
    with pytest.raises(JoinError, match="no seed stands here"):
        join(torch.optim.SGD(model.parameters(), lr=0.1), slots["0#0"])
    slot = grow(slots, "0", "training")

    with pytest.raises(JoinError, match="one state for all"):
        join(torch.optim.LBFGS(list(model.parameters())), slot)
    with pytest.raises(JoinError, match="trains nothing of the model"):
        join(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), slot)
    with pytest.raises(JoinError, match="matrices only"):
        join(torch.optim.Muon([model[2].weight], lr=0.1), slot)  # type: ignore[index,union-attr]
