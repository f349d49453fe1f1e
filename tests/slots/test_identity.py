"""A slot that is dormant, not blended yet, or at alpha 0 gives the host's own bits."""

import pytest
import torch
from torch import Tensor, nn

from morphogen.kernels.slots import Slots, adapt

from .hosts import EVERY_SITE, HOSTS, SITES, batch, grow, host, same_bits

SILENT = ["germinated", "training", "blending", "holding", "fossilized"]  # at alpha 0


def run(model: nn.Module, x: Tensor, *, train: bool, grad: bool, autocast: bool = False) -> Tensor:
    model.train(train)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return model(x)


@pytest.mark.parametrize("name", HOSTS)
def test_the_automatic_sites_are_the_ones_that_the_tests_go_over(name: str) -> None:
    assert [info.site for info in adapt(host(name), example=batch(name)).sites] == SITES[name]


@pytest.mark.parametrize("name", HOSTS)
def test_a_dormant_slot_leaves_nothing_in_the_model(name: str) -> None:
    model, twin = host(name), host(name)
    adapt(model, slots=3, example=batch(name))

    assert [type(module) for module in model.modules()] == [type(module) for module in twin.modules()]
    assert all(vars(a).keys() == vars(b).keys() for a, b in zip(model.modules(), twin.modules(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    state, before = model.state_dict(), twin.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[key], before[key]) for key in state)


@pytest.mark.parametrize("stage", ["training", "blending"])
@pytest.mark.parametrize(("name", "site"), EVERY_SITE)
def test_a_silent_seed_leaves_every_bit(name: str, site: str, stage: str) -> None:
    model, twin, x = host(name), host(name), batch(name)
    grow(adapt(model, example=x), site, stage)
    for train in (True, False):
        for grad in (True, False):
            given = run(model, x, train=train, grad=grad)
            assert same_bits(given, run(twin, x, train=train, grad=grad)), (train, grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stage", SILENT)
@pytest.mark.parametrize("name", HOSTS)
def test_many_silent_seeds_leave_every_bit_in_every_precision(name: str, stage: str, dtype: torch.dtype) -> None:
    model, twin, x = host(name, dtype), host(name, dtype), batch(name, dtype)
    slots = adapt(model, slots=3, example=x)
    for site in SITES[name]:
        for number, blend in enumerate(("add", "multiply", "gate")):
            grow(slots, site, stage, blend=blend, number=number)

    for train in (True, False):
        for grad in (True, False):
            for autocast in (True, False) if dtype == torch.float32 else (False,):
                given = run(model, x, train=train, grad=grad, autocast=autocast)
                assert same_bits(given, run(twin, x, train=train, grad=grad, autocast=autocast)), (
                    train,
                    grad,
                    autocast,
                )
    after = model.state_dict()
    kept = {key: value for key, value in twin.state_dict().items() if value.is_floating_point()}
    assert all(same_bits(value, after[key]) for key, value in kept.items())


class Zeros(nn.Module):
    """Gives zeros of both signs, infinities and NaN: what a blend by arithmetic would change."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


@pytest.mark.parametrize("stage", SILENT)
@pytest.mark.parametrize("blend", ["add", "multiply", "gate"])
def test_negative_zero_infinity_and_nan_of_the_host_are_kept(stage: str, blend: str) -> None:
    x = torch.tensor([[-0.0, 0.0, float("inf"), float("nan"), -float("inf"), 1e-45]])
    slots = adapt(nn.Sequential(Zeros()), sites=Zeros, example=torch.zeros(1, 6))
    grow(slots, "0", stage, blend=blend)

    assert same_bits(slots.model(x), x)


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("stage", ["germinated", "training"])
def test_a_host_trains_to_the_same_bits_with_seeds_that_are_not_blended_yet(name: str, stage: str) -> None:
    model, twin = host(name), host(name)
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-2) for m in (model, twin)]
    slots = adapt(model, example=batch(name))
    for site in SITES[name]:
        grow(slots, site, stage)
    for step in range(5):
        for m, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            m(batch(name, seed=step)).square().mean().backward()
            optimizer.step()

    after = model.state_dict()
    assert all(same_bits(value, after[key]) for key, value in twin.state_dict().items() if value.is_floating_point())
    grown = [parameter.grad is not None for slot in slots.active() for parameter in slot.params()]
    assert all(grown) if stage == "training" else not any(grown)


def test_a_pruned_slot_leaves_the_host_as_it_was() -> None:
    for name in HOSTS:
        model, twin, x = host(name), host(name), batch(name)
        slots: Slots = adapt(model, slots=2, example=x)
        for site in SITES[name]:
            for number in (0, 1):
                grow(slots, site, "blending", alpha=0.5, number=number)
        for slot in slots.values():
            slot.to("pruned")

        assert [type(module) for module in model.modules()] == [type(module) for module in twin.modules()]
        assert all(vars(a).keys() == vars(b).keys() for a, b in zip(model.modules(), twin.modules(), strict=True))
        assert same_bits(run(model, x, train=False, grad=False), run(twin, x, train=False, grad=False))


def test_germination_draws_nothing_from_the_generators() -> None:
    model, x = host("cnn"), batch("cnn")
    state = torch.random.get_rng_state()
    slots = adapt(model, example=x)
    seeds = [grow(slots, site, "blending", alpha=0.5) for site in SITES["cnn"]]

    assert seeds and torch.equal(torch.random.get_rng_state(), state)
