"""Measured health of seeds."""

import math

import pytest
import torch

from morphogen.kernels.slots import adapt, health, watch_outputs

from .hosts import batch, grow, host


def test_nothing_is_measured_before_anything_has_happened() -> None:
    slots = adapt(host("mlp"), example=batch("mlp"))
    assert health(slots) == {}
    slot = grow(slots, "0", "training")
    found = health(slots)[slot.id]

    assert (found.slot, found.seed) == ("0#0", "0#0.1")
    assert found.weight_norm is not None and found.weight_norm > 0
    assert [found.grad_norm, found.grad_ratio, found.output_mean, found.output_variance, found.nonfinite] == [None] * 5


def test_gradients_weights_and_outputs_are_what_they_are() -> None:
    model, x = host("mlp"), batch("mlp")
    slots = adapt(model, example=x)
    slot = grow(slots, "0", "training")
    watch_outputs(slots)
    model(x).square().sum().backward()
    found = health(slots)[slot.id]

    mine = torch.cat([p.grad.flatten() for p in slot.params() if p.grad is not None]).double()
    theirs = torch.cat([p.grad.flatten() for p in (model[0].weight, model[0].bias)]).double()  # type: ignore[index]
    assert slot.seed is not None
    output = slot.seed(x).detach().double()
    assert found.grad_norm == pytest.approx(float(mine.norm()))
    assert found.grad_ratio == pytest.approx(float(mine.square().mean().sqrt() / theirs.square().mean().sqrt()))
    assert found.weight_norm == pytest.approx(
        math.sqrt(sum(float(p.detach().double().square().sum()) for p in slot.params()))
    )
    assert found.output_mean == pytest.approx(float(output.mean()))
    assert found.output_variance == pytest.approx(float(output.var(correction=0)))
    assert found.nonfinite == 0


def test_an_output_is_measured_when_asked_in_train_mode_and_given_out_once() -> None:
    model, x = host("mlp"), batch("mlp")
    slots = adapt(model, example=x)
    slot = grow(slots, "0", alpha=0.5)
    watch_outputs(slots)
    model.eval()(x)
    assert health(slots)[slot.id].output_mean is None
    model.train()(x)
    assert health(slots)[slot.id].output_mean is not None
    model(x)
    assert health(slots)[slot.id].output_mean is None


def test_what_is_not_finite_is_counted() -> None:
    model, x = host("mlp"), batch("mlp")
    slots = adapt(model, example=x)
    slot = grow(slots, "0", "training")
    model(x).sum().backward()
    gradient = slot.params()[0].grad
    assert gradient is not None
    gradient[0, :2] = torch.tensor([float("nan"), float("inf")])

    assert health(slots)[slot.id].nonfinite == 2
    assert math.isnan(health(slots)[slot.id].grad_norm or 0)


def test_a_host_without_a_gradient_gives_no_ratio() -> None:
    model, x = host("mlp"), batch("mlp")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    slots = adapt(model, example=x)
    slot = grow(slots, "5", alpha=0.5)
    model(x).sum().backward()
    found = health(slots)[slot.id]

    assert found.grad_norm is not None and found.grad_ratio is None


def test_nothing_is_left_behind_when_a_seed_is_gone() -> None:
    model = host("mlp")
    slots = adapt(model, example=batch("mlp"))
    slot = grow(slots, "0", alpha=0.5)
    watch_outputs(slots)
    slot.to("pruned")
    watch_outputs(slots)

    assert health(slots) == {}
    assert not any(module._forward_hooks for module in model.modules())


def test_a_seed_that_is_run_under_vmap_is_not_measured_and_not_cut_off() -> None:
    model, x = host("mlp"), batch("mlp")
    slots = adapt(model, example=x)
    slot = grow(slots, "5", "blending", alpha=0.5)
    watch_outputs(slots)
    site, given = model[5].train(), torch.randn(4, 8)  # type: ignore[index]
    expected = site(given)
    watch_outputs(slots)

    each = torch.func.vmap(lambda row: site(row[None]))(given)

    assert slot.tripped is None
    torch.testing.assert_close(each[:, 0], expected)
    assert health(slots)[slot.id].output_mean is not None, "of the pass before it"
