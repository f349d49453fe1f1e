"""A host that seeds came to and left many times is the host that it was; odd hosts grow, or say why not."""

import gc
import random

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from morphogen.kernels.slots import adapt, join, leave

from .hosts import SITES, batch, grow, host, same_bits


def test_many_seeds_leave_nothing_behind() -> None:
    model, twin, x = host("encoder").eval(), host("encoder").eval(), batch("encoder")
    optimizer = torch.optim.Adam(model.parameters())
    slots = adapt(model, slots=2, example=x)
    chance = random.Random(0)

    def cycle(count: int) -> int:
        for _ in range(count):
            site, stage = (
                chance.choice(SITES["encoder"]),
                chance.choice(["germinated", "training", "blending", "holding"]),
            )
            slot = grow(slots, site, stage, alpha=chance.choice([0.0, 0.5]), number=chance.choice([0, 1]))
            join(optimizer, slot)
            leave(optimizer, slot)
            for there in ("pruned", "embargoed", "resetting", "dormant"):
                slot.to(there)
        gc.collect()
        return sum(issubclass(type(found), Tensor | nn.Module | type) for found in gc.get_objects())

    few = cycle(10)
    many = cycle(80)

    assert many <= few + 5
    assert [vars(a).keys() for a in model.modules()] == [vars(b).keys() for b in twin.modules()]
    assert len(optimizer.param_groups[0]["params"]) == len(list(twin.parameters()))
    assert same_bits(model(x), twin(x))


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_parametrized_host_grows_and_is_what_it_was_afterwards() -> None:
    x, model = batch("mlp"), host("mlp").eval()
    parametrize.register_parametrization(model[0], "weight", Twice())  # type: ignore[index]
    before, kind = model(x), type(model[0])  # type: ignore[index]
    slots = adapt(model, "0", example=x)
    slot = grow(slots, "0", alpha=0.5)
    assert not torch.equal(model(x), before)
    slot.to("pruned")

    assert type(model[0]) is kind and torch.equal(model(x), before)  # type: ignore[index]
    parametrize.remove_parametrizations(model[0], "weight")  # type: ignore[index]
    assert type(model[0]) is nn.Linear  # type: ignore[index]


def test_a_host_that_is_parametrized_after_it_grew_lives_on() -> None:
    x, model = batch("mlp"), host("mlp").eval()
    slots = adapt(model, "0", example=x)
    slot = grow(slots, "0", alpha=0.5)
    parametrize.register_parametrization(model[0], "weight", Twice())  # type: ignore[index]
    grown = model(x)
    slot.to("pruned")
    twin = host("mlp").eval()
    with torch.no_grad():
        twin[0].weight.mul_(2)  # type: ignore[index,union-attr,operator]

    assert same_bits(model(x), twin(x)) and not torch.equal(model(x), grown)
    assert isinstance(model[0], nn.Linear)  # type: ignore[index]


def test_the_users_hooks_see_what_host_and_seeds_give_together() -> None:
    x, model = batch("mlp"), host("mlp").eval()
    seen: list[Tensor] = []
    model[2].register_forward_hook(lambda _, __, output: seen.append(output.detach().clone()))  # type: ignore[index]
    slots = adapt(model, example=x)
    model(x)
    grow(slots, "2", alpha=0.5)
    model(x)

    assert not torch.equal(seen[-1], seen[-2])


def test_the_whole_model_moves_between_dtypes_with_its_seeds() -> None:
    model = host("cnn")
    slots = adapt(model, example=batch("cnn"))
    slot = grow(slots, "blocks.0", alpha=0.3, blend="gate")
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        model.to(dtype)
        assert model(batch("cnn", dtype)).dtype == dtype
        assert {parameter.dtype for parameter in slot.params()} == {dtype}
        assert slot.tripped is None
