"""Alpha is one number: the buffer, the level that eager code looks at, and what is fused never come apart."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from morphogen.kernels.slots import Slots, adapt, contribution, fuse, graft
from morphogen.kernels.slots.fastpaths import settle

from .hosts import batch, grow, host, same_bits

X = batch("mlp")
WAY = ("training", "blending", "holding", "fossilized")


def latest(average: torch.Tensor, new: torch.Tensor, number: object) -> torch.Tensor:
    return new.clone()


@pytest.mark.parametrize("at", ["germinated", *WAY])
def test_a_copy_whose_buffers_follow_is_the_same_network_whatever_stage_it_was_made_in(at: str) -> None:
    model = host("mlp").eval()
    slot = grow(adapt(model, example=X), "0", at, alpha=0.2)
    average = AveragedModel(model, avg_fn=latest)
    for stage in WAY:
        if stage in WAY[WAY.index(at) + 1 if at in WAY else 0 :]:
            slot.to(stage)
        if slot.stage == "blending":
            slot.set_alpha(1.0)
    for _ in range(2):
        average.update_parameters(model)
    average.eval()

    assert same_bits(average(X), model(X))
    assert same_bits(fuse(average)(X), fuse(model)(X))


def test_where_reading_waits_for_the_device_a_copy_does_not_go_by_the_versions_of_its_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graft, "_at_hand", lambda tensor: False)
    model = host("mlp").eval()
    slot = grow(adapt(model, example=X), "0", alpha=0.0)
    for alpha in (0.3, 0.0):
        slot.set_alpha(alpha)
    assert slot.graft is not None
    version, copied = slot.graft.alpha._version, copy.deepcopy(model)
    slot.set_alpha(1.0)
    buffer = copied[0].grown["0"].alpha
    while buffer._version < version:
        buffer.copy_(slot.graft.alpha)

    assert same_bits(copied(X), model(X))


def write(slots: Slots, model: nn.Module, how: str, alpha: float) -> None:
    slot = slots["0#0"]
    graft = slot.graft
    assert graft is not None
    if how == "set":
        slot.set_alpha(alpha)
    elif how == "ramp":
        slot.ramp(alpha, 2)
        slots.tick()
    elif how == "buffer":
        with torch.no_grad():
            graft.alpha.fill_(alpha)
    elif how == "data":
        graft.alpha.data.fill_(alpha)
    elif how == "load":
        state = copy.deepcopy(model.state_dict())
        state["0.grown.0.alpha"].fill_(alpha)
        model.load_state_dict(state, assign=alpha > 0.5)
    elif how == "convert":
        model.double().half().float()
    else:
        contribution(slots, slot.id, lambda m: float(m(X).square().mean()))


@settings(deadline=None, max_examples=12)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "ramp", "buffer", "data", "load", "convert", "measure"]),
            st.sampled_from([0.0, 0.3, 1.0]),
        ),
        max_size=6,
    )
)
def test_whoever_writes_alpha_there_is_one(writes: list[tuple[str, float]]) -> None:
    model = host("mlp").eval()
    slots = adapt(model, example=X)
    slot = grow(slots, "0", "holding", alpha=0.5)
    for how, alpha in writes:
        write(slots, model, how, alpha)
        graft = slot.graft
        assert graft is not None
        assert slot.alpha == graft.level == float(graft.alpha)
        assert graft.alpha.dtype == torch.float64
        assert same_bits(fuse(model)(X), model(X))
        assert slots.shadow()["0#0"].alpha == slot.alpha


def test_a_state_dict_that_is_assigned_leaves_the_alpha_of_its_model_alone() -> None:
    models = [host("mlp").eval(), host("mlp").eval()]
    slots = [grow(adapt(model, example=X), "0", alpha=0.3) for model in models]
    models[1].load_state_dict(models[0].state_dict(), assign=True)
    slots[1].set_alpha(1.0)

    assert (slots[0].alpha, slots[1].alpha) == (0.3, 1.0)


def test_memory_that_is_shared_stays_shared() -> None:
    model = host("mlp")
    slot = grow(adapt(model, example=X), "0", alpha=0.3)
    model.share_memory()

    assert slot.graft is not None and slot.graft.alpha.is_shared()


def encoder() -> tuple[nn.TransformerEncoder, torch.Tensor]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2), torch.randn(3, 5, 8)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("copies", [lambda model: model, copy.deepcopy], ids=["itself", "copy"])
def test_a_state_dict_that_raises_alpha_closes_the_fast_paths(copies: Callable[[nn.Module], Any]) -> None:
    model, x = encoder()
    slots = adapt(model.eval(), example=x)
    slot = grow(slots, "layers.0.linear1", alpha=0.0)
    other = copies(model)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
    with torch.no_grad():
        silent = other(x)
        slot.set_alpha(1.0)
        expected, padded = model(x), model(x, src_key_padding_mask=padding)
        state = copy.deepcopy(model.state_dict())
        slot.set_alpha(0.0)
        other.load_state_dict(state)
        assert not torch.allclose(expected, silent)
        assert same_bits(other(x), expected)
        assert same_bits(other(x, src_key_padding_mask=padding), padded)
        assert other.use_nested_tensor is False
        state["layers.0.linear1.grown.0.alpha"].zero_()
        other.load_state_dict(state)
        assert same_bits(other(x), silent)
        assert other.use_nested_tensor is True


def test_an_encoder_without_seeds_and_a_fused_one_carry_no_hook() -> None:
    model, x = encoder()
    slots = adapt(model.eval(), example=x)
    slot = grow(slots, "layers.0.linear1", alpha=1.0)
    settle(model)
    assert len(model._load_state_dict_post_hooks) == 1
    assert not fuse(model)._load_state_dict_post_hooks
    slot.to("pruned")
    assert not model._load_state_dict_post_hooks


def test_a_layer_alone_takes_no_fast_path_after_a_state_dict_has_raised_alpha() -> None:
    layer, x = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval(), torch.randn(3, 5, 8)
    slot = grow(adapt(layer, example=x), "linear1", alpha=1.0)
    state = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        expected = layer(x)
        slot.set_alpha(0.0)
        assert not torch.allclose(layer(x), expected)
        layer.load_state_dict(state)
        assert same_bits(layer(x), expected)
