"""torch's transformer layers take paths around their parts in eval mode: nothing that grew may be lost there."""

import pytest
import torch
from torch import Tensor, nn

from morphogen.kernels.slots import Slots, adapt, fuse

from .hosts import SITES, Encoder, batch, grow, host, same_bits

# torch's own encoder makes nested tensors, and torch warns of them.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


def padding() -> Tensor:
    return torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True], [False] * 5])


def padded(model: nn.Module, x: Tensor) -> Tensor:
    """What a padded batch gives, where it is not padding."""
    with torch.no_grad():
        return torch.where(padding()[..., None], 0.0, model(x, padding()))


def nested(slots: Slots) -> bool:
    assert isinstance(slots.root, Encoder)
    return bool(slots.root.inner.use_nested_tensor)


@pytest.mark.parametrize("site", SITES["encoder"])
def test_a_blended_seed_counts_in_eval_mode_with_and_without_padding(site: str) -> None:
    x = batch("encoder")
    model, twin = host("encoder").eval(), host("encoder").eval()
    slots = adapt(model, example=x)
    slot = grow(slots, site, alpha=0.5)
    with torch.no_grad():
        assert not torch.allclose(model(x), twin(x))
        fast = model(x)
    slow = model(x)  # with gradients torch takes no fast path
    torch.testing.assert_close(fast, slow)
    assert not torch.allclose(padded(model, x), padded(twin, x))
    assert slot.tripped is None

    slot.set_alpha(0.0)

    assert same_bits(padded(model, x), padded(twin, x))
    with torch.no_grad():
        assert same_bits(model(x), twin(x))


def test_the_fast_paths_are_as_they_were_whenever_nothing_is_blended_in() -> None:
    slots = adapt(host("encoder").eval(), example=batch("encoder"))
    assert nested(slots)
    one, two = grow(slots, "inner.layers.0.linear1", "training"), grow(slots, "inner.layers.1")
    assert nested(slots)
    one.to("blending")
    assert nested(slots)
    one.ramp(1.0, 4)
    two.set_alpha(0.5)
    slots.tick()
    assert not nested(slots)
    one.to("pruned")
    assert not nested(slots)
    two.to("holding")
    two.to("blending")
    two.set_alpha(0.0)
    assert nested(slots)
    two.set_alpha(1.0)
    two.to("pruned")
    assert nested(slots)


def test_a_fused_encoder_runs_padded_batches() -> None:
    x = batch("encoder")
    model = host("encoder").eval()
    slots = adapt(model, example=x)
    for site in SITES["encoder"]:
        grow(slots, site, alpha=0.5)

    assert same_bits(padded(fuse(model), x), padded(model, x))


def test_a_measurement_of_a_training_seed_opens_and_closes_them() -> None:
    x = batch("encoder")
    slots = adapt(host("encoder").eval(), example=x)
    slot = grow(slots, "inner.layers.0.linear2", "training")
    before = padded(slots.model, x)
    with slot.held_at(1.0):
        assert not nested(slots)
        assert not torch.equal(padded(slots.model, x), before)

    assert nested(slots)
    assert same_bits(padded(slots.model, x), before)


def test_a_layer_alone_and_a_batch_that_comes_second_grow_too() -> None:
    for batch_first in (True, False):
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first).eval()
        x = torch.randn(5, 2, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            before = layer(x)
            slots = adapt(layer, example=x)
            slot = grow(slots, "linear1", alpha=0.0)
            assert same_bits(layer(x), before)
            slot.set_alpha(1.0)
            assert not torch.allclose(layer(x), before)
