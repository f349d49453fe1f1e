"""What is blended in changes what the model gives, at every site of every host, and by the formula."""

import pytest
import torch
from torch import Tensor, nn

from morphogen.kernels.slots import adapt, join

from .hosts import EVERY_SITE, HOSTS, batch, grow, host, same_bits, seed_for


def formula(blend: str, h: Tensor, s: Tensor, alpha: float, gate: float = 0.0) -> Tensor:
    if blend == "multiply":
        return h * (1 + alpha * torch.tanh(s))
    if blend == "gate":
        alpha *= torch.sigmoid(torch.tensor(gate, dtype=torch.float64)).item()
    return torch.lerp(h, h + s, alpha)


def by_formula(name: str, site: str, blend: str, alpha: float, x: Tensor, *, train: bool) -> Tensor:
    """The same host, where a hook of the test does what the slot should."""
    twin = host(name, torch.float64).train(train)
    slots = adapt(twin, example=x)
    seed = seed_for(slots, site).to(torch.float64).train(train)
    twin.get_submodule(site).register_forward_hook(lambda _, given, h: formula(blend, h, seed(given[0]), alpha))
    return twin(x)


BLENDS = ["add", "multiply", "gate"]


@pytest.mark.parametrize(
    ("name", "site", "blend"), [(*place, BLENDS[number % 3]) for number, place in enumerate(EVERY_SITE)]
)
def test_a_blended_seed_changes_the_output_by_the_formula(name: str, site: str, blend: str) -> None:
    x = batch(name, torch.float64)
    for train in (True, False):
        model = host(name, torch.float64).train(train)
        before = model(x)
        grow(adapt(model, example=x), site, alpha=0.3, blend=blend)
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                given = model(x)
                assert (given - before).abs().max() > 1e-6, "an adaptation that changes nothing"
                torch.testing.assert_close(
                    given, by_formula(name, site, blend, 0.3, x, train=train), rtol=1e-9, atol=1e-11
                )


@pytest.mark.parametrize(("name", "site"), EVERY_SITE)
def test_a_blended_seed_changes_the_output_in_every_precision(name: str, site: str) -> None:
    dtype = torch.bfloat16 if len(site) % 2 else torch.float32
    x, model = batch(name, dtype), host(name, dtype).eval()
    with torch.no_grad():
        before = model(x)
        grow(adapt(model, example=x), site, alpha=1.0)

        assert model(x).dtype == before.dtype
        assert not torch.equal(model(x), before)


@pytest.mark.parametrize("name", HOSTS)
def test_under_autocast_host_and_seed_agree_on_a_dtype(name: str) -> None:
    x, model = batch(name), host(name)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        for info in (slots := adapt(model, example=x)).sites:
            grow(slots, info.site, alpha=0.5)
        given = model(x)
        given.float().square().mean().backward()

    assert given.dtype == before.dtype
    assert not torch.equal(given, before)
    assert all(slot.tripped is None for slot in slots.active())
    assert all(parameter.grad is not None for slot in slots.active() for parameter in slot.params())


def test_the_seeds_of_one_site_all_count_in_the_order_of_their_slots() -> None:
    x = batch("mlp", torch.float64)
    model = host("mlp", torch.float64).eval()
    slots = adapt(model, slots=3, example=x)
    h = model[0](x).clone()
    for number, blend in ((2, "add"), (0, "add"), (1, "multiply")):  # germinated out of order
        grow(slots, "0", alpha=0.5, blend=blend, number=number)
    s = slots["0#0"].seed(x)  # type: ignore[misc]

    expected = formula("add", formula("multiply", formula("add", h, s, 0.5), s, 0.5), s, 0.5)

    torch.testing.assert_close(model[0](x), expected)


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 1.0])
def test_alpha_is_exact_in_every_precision(alpha: float) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        slots = adapt(host("mlp", torch.float32), example=batch("mlp"))
        slot = grow(slots, "0", alpha=alpha)
        slots.model.to(dtype)
        assert slot.graft is not None
        assert slot.alpha == alpha == float(slot.graft.alpha)


def test_the_seed_of_a_straight_through_gets_the_gradient_of_full_blending() -> None:
    x = batch("mlp", torch.float64)
    for blend in ("add", "multiply", "gate"):
        models = [host("mlp", torch.float64).eval() for _ in range(2)]
        one, two = (adapt(model, example=x) for model in models)
        training = grow(one, "5", "training", blend=blend)  # the last layer: its gradient does not depend on its output
        full = grow(two, "5", "blending", alpha=1.0, blend=blend)
        weights = torch.linspace(-1, 1, 4, dtype=torch.float64)
        for model in models:
            (model(x) * weights).sum().backward()

        for ours, theirs in zip(training.params(), full.params(), strict=True):
            assert ours.grad is not None and theirs.grad is not None
            torch.testing.assert_close(ours.grad, theirs.grad)
        assert any(parameter.grad.abs().max() > 0 for parameter in training.params() if parameter.grad is not None)


def test_a_straight_through_seed_learns_and_its_blending_then_lowers_the_loss() -> None:
    x = batch("mlp", seed=3)
    goal = torch.randn(4, 4, generator=torch.Generator().manual_seed(5))
    model = host("mlp").eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    slots = adapt(model, example=x)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    slot = grow(slots, "5", "training")
    join(optimizer, slot)
    before = model(x)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), goal).backward()
        optimizer.step()
    assert same_bits(model(x), before)

    slot.to("blending")
    slot.set_alpha(0.5)

    assert torch.nn.functional.mse_loss(model(x), goal) < torch.nn.functional.mse_loss(before, goal)


@pytest.mark.parametrize("isolate", [True, False])
def test_isolation_keeps_the_seeds_gradient_from_the_layers_before(isolate: bool) -> None:
    x = batch("mlp")
    model, twin = host("mlp").eval(), host("mlp").eval()
    slots = adapt(model, example=x)
    slot = slots["2#0"]
    slot.germinate(seed_for(slots, "2"), blueprint="test", isolate=isolate)
    for stage in ("training", "blending"):
        slot.to(stage)
    slot.set_alpha(0.5)
    twin[2].register_forward_hook(lambda _, __, h: h + 0.5 * slot.seed(twin_input[0].detach()))  # type: ignore[misc]
    twin_input: list[Tensor] = []
    twin[2].register_forward_pre_hook(lambda _, given: twin_input.append(given[0]))
    for m in (model, twin):
        m(x).sum().backward()

    assert torch.equal(model[0].weight.grad, twin[0].weight.grad) == isolate


def test_a_ramp_may_go_on_between_forward_and_backward_of_other_batches() -> None:
    model, x = host("cnn"), batch("cnn")
    slots = adapt(model, example=x)
    slot = grow(slots, "blocks.0.conv1", alpha=0.0)
    slot.ramp(1.0, 4)
    for _ in range(5):
        slots.tick()
        model(x).sum().backward()

    assert slot.alpha == 1.0
    assert all(parameter.grad is not None for parameter in slot.params())


def test_a_shared_module_grows_wherever_it_is_called() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    slots = adapt(model, example=torch.zeros(1, 4))

    assert list(slots) == ["0#0"]
    grow(slots, "0", alpha=1.0)
    assert model[0] is model[2] is shared
