"""Seeds in regions of activation checkpointing, which run a second time inside the backward pass."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from morphogen.kernels.slots import Slot, adapt
from morphogen.kernels.slots.cutoff import NONFINITE

from .hosts import same_bits


class Net(nn.Module):
    def __init__(self, checkpointed: bool) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)) for _ in range(2)]
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(6, 2)
        self.checkpointed = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        output: Tensor = self.head(x)
        return output


class Seed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 6))
        self.fault: str | None = None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        if self.fault == "raise" and float(x.detach().abs().max()) > 5:
            raise ValueError("out of sorts")
        return torch.where(x > 5, torch.nan, y) if self.fault == "nan" else y


def grown(checkpointed: bool, site: str = "blocks.0", stage: str = "training") -> tuple[Net, Slot]:
    torch.manual_seed(0)
    model = Net(checkpointed)
    slot = adapt(model, site, example=torch.randn(2, 6))[f"{site}#0"]
    slot.germinate(Seed(), blueprint="seed")
    for step in ("training", "blending", "holding", "fossilized"):
        if slot.stage == stage:
            break
        slot.to(step)
        if step == "blending":
            slot.set_alpha(0.5)
    return model, slot


def learn(model: Net, *batches: Tensor) -> list[Tensor | None]:
    """One backward pass through the outputs of all batches."""
    model.zero_grad()
    sum(model(x).square().mean() for x in batches).backward()  # type: ignore[union-attr]
    return [parameter.grad for parameter in model.parameters()]


def same(one: list[Tensor | None], other: list[Any]) -> bool:
    return all(a is b is None or same_bits(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("stage", ["training", "blending", "fossilized"])
@pytest.mark.parametrize("site", ["blocks.0", "blocks.0.0", "blocks.0.2"])
def test_a_seed_learns_as_it_does_without_checkpointing(site: str, stage: str, early: bool) -> None:
    x = torch.randn(4, 6)
    plain, _ = grown(False, site, stage)
    model, slot = grown(True, site, stage)
    expected = learn(plain, x, 2 * x)
    with set_checkpoint_early_stop(early):
        found = learn(model, x, 2 * x)

    assert slot.tripped is None
    assert same(found, expected)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize(("fault", "reason"), [("raise", "exception: ValueError"), ("nan", "nonfinite")])
@pytest.mark.parametrize("stage", ["training", "blending"])
@pytest.mark.parametrize("site", ["blocks.0", "blocks.0.0"])
def test_a_seed_that_is_cut_off_leaves_the_backward_pass_whole(
    site: str, stage: str, fault: str, reason: str, early: bool
) -> None:
    x = torch.randn(4, 6).clamp(-1, 1)
    (plain, known), (model, slot) = grown(False, site, stage), grown(True, site, stage)
    for one in (known, slot):
        assert isinstance(one.seed, Seed)
        one.seed.fault = fault
    expected = learn(plain, x, 100 * x)
    with set_checkpoint_early_stop(early):
        found = learn(model, x, 100 * x)
        assert same(found, expected)
        assert slot.tripped is not None and slot.tripped.startswith(reason) and slot.tripped == known.tripped
        assert same(learn(model, x, x), learn(plain, x, x)), "it stays off"


def test_who_reads_between_the_passes_that_a_seed_was_cut_off_leaves_the_backward_pass_whole() -> None:
    x = torch.randn(4, 6)
    plain, _ = grown(False, stage="blending")
    model, slot = grown(True, stage="blending")
    loss = model(x).square().mean()
    assert slot.graft is not None
    slot.graft.trips.fill_(NONFINITE)  # as a GPU does, where the pass leaves the reason
    assert slot.tripped == "nonfinite: the seed's output"
    loss.backward()

    assert same([parameter.grad for parameter in model.parameters()], learn(plain, x))
