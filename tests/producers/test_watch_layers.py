"""Which layers are measured under which names, in models that are out of the ordinary."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from morphogen.producers.watch import LayerSample, Watch
from morphogen.producers.watch import watch as planning
from morphogen.producers.watch.layers import find_layers


def trained(
    model: nn.Module, steps: int = 2, between: Callable[[torch.optim.Optimizer], Any] = lambda _: None
) -> list[LayerSample]:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    samples: list[LayerSample] = []
    watch = Watch(model, optimizer, 1, samples.append)
    for step in range(steps):
        if step:
            between(optimizer)
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()
    watch.close()
    return samples


class Narrow(nn.Module):
    """A branch of no width beside an ordinary layer."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, 0, bias=bias), nn.Linear(0, 2, bias=bias)
        self.table, self.pair = nn.Embedding(0, 4), nn.Bilinear(4, 4, 0)
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.out(self.into(x)) + self.layer(x) + self.pair(x, x).sum()
        return output


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_of_no_width_has_no_numbers_and_the_others_go_on(
    bias: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(planning, "library", lambda: None)
    torch.manual_seed(0)
    sample = trained(Narrow(bias))[-1]

    assert sample.layers == ("into", "out", "table", "pair", "layer")
    empty = [0, 2, 3] if bias else [0, 1, 2, 3]
    assert all(sample.missing[name] == empty for name in sample.signals)
    for name, values in sample.signals.items():
        assert values is not None and np.isfinite(values).all(), name
        assert name in ("dead_share", "nonfinite") or values[4] != 0


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_model_of_nothing_is_watched_without_a_word() -> None:
    sample = trained(nn.Sequential(nn.Linear(4, 0)))[-1]
    assert set(sample.signals.values()) == {None}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_that_grows_from_nothing_is_seen_within_a_hundred_steps() -> None:
    model = nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 2))

    def widen(_: torch.optim.Optimizer) -> None:
        if model[0].out_features == 0:
            for layer, wide in ((model[0], nn.Linear(4, 3)), (model[1], nn.Linear(3, 2))):
                layer.in_features, layer.out_features = wide.in_features, wide.out_features
                layer.weight.data, layer.bias.data = wide.weight.data, wide.bias.data  # type: ignore[union-attr]

    samples = trained(model, 103, widen)
    assert samples[0].missing["weight_norm"] == [0]
    assert samples[-1].missing == {}


class Named(nn.Module):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(1, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="."), min_size=1, max_size=6), unique=True, max_size=5))
def test_every_name_can_be_written_and_stands_for_one_layer(names: list[str]) -> None:
    names = [name for name in names if not hasattr(nn.Module(), name)]
    found = [layer.name for layer in find_layers(Named(names))]
    assert len(found) == len(set(found)) == len(names)
    assert all(name.encode() for name in found)
    assert [name for name in names if name.isascii()] == [name for name in found if name in names and name.isascii()]


def test_names_that_become_the_same_are_told_apart() -> None:
    names = ["\udc80", "\\udc80", "\\udc80~2", "plain"]
    assert [layer.name for layer in find_layers(Named(names))] == ["\\udc80", "\\udc80~2", "\\udc80~2~2", "plain"]
