"""Hosts of every kind that the slots promise to grow, a seed for each of their sites, and how bits are compared."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from morphogen.kernels.slots import Slot, Slots


class Block(nn.Module):
    """Residual block with BatchNorm and in-place activations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return nn.functional.relu(x + self.bn2(self.conv2(h)), inplace=True)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Attention(nn.Module):
    """A transformer block written by hand."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.blocks = nn.ModuleList([Attention(8, 2), Attention(8, 2)])
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight  # tied

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Encoder(nn.Module):
    """torch's own layers, which in eval mode take a fast path around their parts."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.inner(x, src_key_padding_mask=padding))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 3), nn.ReLU(inplace=True), nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)
    )


HOSTS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "cnn": Cnn, "transformer": Transformer, "encoder": Encoder}

# Every site that the automatic choice finds, so that a test can go over (host, site) and a lost site is seen.
SITES: dict[str, list[str]] = {
    "mlp": ["0", "2", "5"],
    "cnn": ["stem.0", *(f"blocks.{i}{part}" for i in (0, 1) for part in ("", ".conv1", ".conv2")), "head"],
    "transformer": [*(f"blocks.{i}{part}" for i in (0, 1) for part in ("", ".qkv", ".out", ".up", ".down")), "head"],
    "encoder": [*(f"inner.layers.{i}{part}" for i in (0, 1) for part in ("", ".linear1", ".linear2")), "head"],
}
EVERY_SITE = [(host, site) for host, sites in SITES.items() for site in sites]


def host(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return HOSTS[name]().to(dtype)


def batch(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if name == "transformer":
        return torch.randint(0, 11, (4, 5), generator=generator)
    shape = {"mlp": (4, 6), "cnn": (4, 1, 8, 8), "encoder": (4, 5, 8)}[name]
    return torch.randn(shape, generator=generator).to(dtype)


def seed_for(slots: Slots, site: str, seed: int = 1) -> nn.Module:
    """A small seed from the site's input to its output; not linear, not zero, without a state of its own."""
    info = next(info for info in slots.sites if info.site == site)
    assert info.in_shape is not None and info.out_shape is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if info.kind == "image":
            stride = info.in_shape[1] // info.out_shape[1]
            return nn.Sequential(nn.Conv2d(info.in_shape[0], info.out_shape[0], 3, stride=stride, padding=1), nn.Tanh())
        return nn.Sequential(nn.Linear(info.in_shape[-1], 5), nn.Tanh(), nn.Linear(5, info.out_shape[-1]))


def grow(
    slots: Slots, site: str, stage: str = "blending", alpha: float = 0.0, blend: str = "add", number: int = 0
) -> Slot:
    """Let a seed grow at `site` up to `stage`."""
    slot = slots[f"{site}#{number}"]
    slot.germinate(seed_for(slots, site), blueprint="test", generator_seed=1, blend=blend)
    for step in ("training", "blending", "holding", "fossilized"):
        if slot.stage == stage:
            break
        slot.to(step)
        if step == "blending":
            slot.set_alpha(alpha)
    assert slot.stage == stage
    return slot


def same_bits(a: Any, b: Any) -> bool:
    """Whether two tensors hold the same bits: -0.0 is not 0.0, and a NaN is itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.detach().contiguous().view(width), b.detach().contiguous().view(width))
