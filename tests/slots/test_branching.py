"""A fused branch finds the host's input however the host is called, and takes nothing from the host."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from morphogen.kernels.slots import Slots, adapt, fuse, restore

from .hosts import same_bits

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def curved(*_: object) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6))


def blended(model: nn.Module, site: str, x: Any = X) -> Slots:
    slots = adapt(model, site, example=x)
    slots[f"{site}#0"].germinate(curved(), blueprint="curved")
    for stage in ("training", "blending"):
        slots[f"{site}#0"].to(stage)
    slots[f"{site}#0"].set_alpha(0.7)
    return slots


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(input=x))


class Both(Named):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(input=torch.tanh(self.inner(x)))


class Chain(nn.Sequential):
    def forward(self, mask: Tensor | None, x: Tensor) -> Tensor:  # type: ignore[override]
        for link in self:
            x = link(x)
        return x if mask is None else x * mask


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Chain(nn.Linear(6, 6), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(None, x)


class Indexed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Sequential(nn.Linear(6, 6)), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.inner[0][0].weight.norm() * len(self.inner)


class Open(nn.Module):
    """Takes whatever it is given."""

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)) * 2


class Opened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Open()
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner("name", 3, None, other=[x], hidden=x))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("model", [Named, Both, Masked, Indexed, Opened])
def test_a_host_may_be_called_in_any_way_also_before_its_seed_has_run(model: Callable[[], nn.Module]) -> None:
    grown = model()
    slots = blended(grown, "inner")
    again = model()
    restore(again, slots.describe(), curved)
    again.load_state_dict(grown.state_dict())
    plain = fuse(again)
    expected = grown(X)

    assert same_bits(plain(X), expected)
    assert same_bits(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(plain))))(X), expected)
    for strict in (False, True):
        assert same_bits(torch.export.export(plain, (X,), strict=strict).module()(X), expected)
    assert same_bits(torch.jit.trace(plain, X)(X), expected)


class Many(nn.Module):
    def forward(self, a: Any = None, b: Any = None, c: Any = None, d: Any = None) -> Tensor:
        return sum((part for part in (a, b, c, d) if isinstance(part, Tensor)), torch.zeros(4, 6))


class Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = Many(), nn.Linear(6, 6)
        self.args: list[Any] = [X]
        self.kwargs: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(*self.args, **self.kwargs) + 0 * x)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(["tensor", "other", None, 3]), max_size=4), st.integers(0, 4), st.randoms())
def test_the_branch_sees_what_the_seed_saw(values: list[Any], cut: int, order: Any) -> None:
    model = Caller()
    blended(model, "inner")
    plain = fuse(model)
    tensors = {"tensor": X, "other": X + 1}
    call = [tensors.get(value, value) if isinstance(value, str) else value for value in [*values[:3], "tensor"]]
    named = list(zip("abcd"[cut:], call[cut:], strict=False))
    order.shuffle(named)
    for one in (model, plain):
        one.args, one.kwargs = call[:cut], dict(named)

    assert same_bits(plain(X), model(X))


@pytest.mark.parametrize("inner", [Chain, nn.Sequential])
def test_a_sequential_keeps_its_class_its_links_and_its_names(inner: type[nn.Sequential]) -> None:
    model = Masked() if inner is Chain else Indexed()
    before = list(model.state_dict())
    blended(model, "inner")
    host = fuse(model).inner

    assert type(host) is inner and len(host) == len(list(host)) == 2
    assert [type(link) for link in host] == [type(link) for link in model.inner]
    assert [key for key in fuse(model).state_dict() if "branch" not in key] == before
    assert type(host[:1]) is inner and host[-1] is list(host.children())[-1]
    assert sum(p.numel() for p in fuse(model).parameters()) == sum(p.numel() for p in model.parameters())


def test_an_empty_sequential_and_one_alone_carry_a_branch_too() -> None:
    for inner in (nn.Sequential(), nn.Sequential(nn.Sequential())):
        model = nn.Sequential(inner, nn.Linear(6, 6))
        blended(model, "0")
        assert same_bits(fuse(model)(X), model(X))
    alone = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    blended(alone, ".")
    plain = fuse(alone)
    assert type(plain) is nn.Sequential and same_bits(plain(X), alone(X))


def linear() -> nn.Module:
    return nn.Linear(6, 6)


@pytest.mark.parametrize("inner", [linear, curved])
def test_a_chain_and_the_last_link_of_it_may_both_carry_a_branch(inner: Callable[[], nn.Module]) -> None:
    """The branch of the chain stands in the link, not in a seed of the link's."""
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)))
    slots = adapt(model, [".", "0", "0.1"], 2, example=X)
    for name, slot in slots.items():
        slot.germinate(inner() if name == "0.1#0" else curved(), blueprint="any")
        for stage in ("training", "blending"):
            slot.to(stage)
        slot.set_alpha(0.5)
    expected = model(X)
    plain = fuse(model)

    torch.testing.assert_close(plain(X), expected)
    assert {name.rpartition(".")[0] for name, part in plain.named_modules() if type(part).__name__ == "Branch"} == {
        "0.1"
    }
    torch.testing.assert_close(plain.double()(X.double()).float(), expected)


def test_parts_of_a_seed_that_are_held_in_eval_mode_stay_in_it() -> None:
    model = nn.Sequential(nn.Linear(6, 6))
    slots = adapt(model, example=X)
    slot = slots["0#0"]
    slot.germinate(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), blueprint="norm")
    for stage in ("training", "blending"):
        slot.to(stage)
    slot.set_alpha(1.0)
    slot.seed[1].eval()

    assert same_bits(fuse(model)(X), model(X))
