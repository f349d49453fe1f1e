"""What is folded stays the same network; what cannot be folded stays a branch."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from morphogen.kernels.slots import SlotError, Slots, adapt, fuse

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


def blended(model: nn.Module, *sites: str, out: int = 6) -> Slots:
    slots = adapt(model, list(sites), example=X)
    for site in sites:
        slots[f"{site}#0"].germinate(nn.Linear(6, out), blueprint="linear")
        for stage in ("training", "blending"):
            slots[f"{site}#0"].to(stage)
        slots[f"{site}#0"].set_alpha(0.7)
    return slots


def branches(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if type(module).__name__ == "Branch"]


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_parameter_that_is_computed_is_not_folded_into(name: str) -> None:
    model = nn.Sequential(nn.Linear(6, 6))
    parametrize.register_parametrization(model[0], name, Twice())
    blended(model, "0")

    torch.testing.assert_close(fuse(model)(X), model(X))


def test_a_seed_with_a_hook_is_not_folded() -> None:
    model = nn.Sequential(nn.Linear(6, 6))
    slots = blended(model, "0")
    slots["0#0"].seed.register_forward_hook(_doubled)

    torch.testing.assert_close(fuse(model)(X), model(X))


def _doubled(module: nn.Module, args: object, output: Tensor) -> Tensor:
    return output * 2


@pytest.mark.parametrize("learns", [True, False])
def test_the_bias_that_a_fold_adds_learns_where_the_weight_does(learns: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 6, bias=False)).requires_grad_(learns)
    blended(model, "0")

    assert {name: p.requires_grad for name, p in fuse(model).named_parameters()} == {
        "0.weight": learns,
        "0.bias": learns,
    }


class Tied(nn.Module):
    """Uses the weight of one of its layers by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.encoder = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(torch.tanh(self.encoder(self.first(x))), self.encoder.weight.t())


def test_with_an_example_what_would_change_the_model_is_left_a_branch() -> None:
    model = Tied()
    blended(model, "first", "encoder")
    expected = model(X)
    flags = [module.training for module in model.modules()]

    assert not torch.allclose(fuse(model)(X), expected), "a use that no module tells of"
    checked = fuse(model, X)
    torch.testing.assert_close(checked(X), expected)
    assert branches(checked) == ["encoder.branch"]
    assert [module.training for module in model.modules()] == flags
    assert branches(fuse(nn.Sequential(model.first), (X,))) == []


def test_an_example_that_the_model_does_not_run_on_is_refused_in_one_line() -> None:
    model = Tied()
    blended(model, "encoder")
    with pytest.raises(SlotError, match="the model does not run on the example: ") as told:
        fuse(model, torch.zeros(2, 5))
    assert "\n" not in str(told.value)
