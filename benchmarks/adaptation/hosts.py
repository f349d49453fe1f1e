"""Hosts of the experiment: small networks, each too narrow for its data, with the setting that it is trained in."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from splits import SPLITS, WINDOW, Split, alphabet_size
from torch import Tensor, nn


def narrow(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return three linear layers with a bottleneck of `hidden` units and tanh between them."""
    layers = [nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers)


def narrow_cnn() -> nn.Sequential:
    """Return two strided convolutions of two channels and a linear head, for images of 8x8."""
    convolutions = [nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8, 10))


class Block(nn.Module):
    """One causal attention head and one narrow feed-forward part, each before a residual sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.second_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, width)
        self.narrow = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return a sequence of the same shape."""
        query, key, value = self.mix(self.norm(x)).chunk(3, dim=-1)
        mixed: Tensor = x + self.out(nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True))
        wide: Tensor = torch.relu(self.widen(self.second_norm(mixed)))
        out: Tensor = mixed + self.narrow(wide)
        return out


class CharacterModel(nn.Module):
    """A transformer of one block that names the next character at every place of a window."""

    def __init__(self, alphabet: int, width: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(alphabet, width)
        self.places = nn.Embedding(WINDOW, width)
        self.block = Block(width)
        self.head = nn.Linear(width, alphabet)

    def forward(self, codes: Tensor) -> Tensor:
        """Return scores of shape (batch, window, alphabet)."""
        places = torch.arange(codes.shape[1], device=codes.device)
        scores: Tensor = self.head(self.block(self.letters(codes) + self.places(places)))
        return scores


@dataclass(frozen=True, kw_only=True)
class Host:
    """A network, its data, and how it is trained: fixed before any arm is run, the same for all arms."""

    name: str
    data: str
    build: Callable[[], nn.Module]
    epochs: int = 100
    learning_rate: float = 1e-2
    batch: int = 64

    def model(self, seed: int) -> nn.Module:
        """Return the network with the weights that `seed` gives; the global generator stays as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()

    def split(self, seed: int) -> Split:
        """Return the data that `seed` gives."""
        return SPLITS[self.data](seed)


HOSTS = {
    host.name: host
    for host in (
        Host(name="digits", data="digits", build=lambda: narrow(64, 2, 10)),
        Host(name="cnn", data="digit-images", build=narrow_cnn),
        Host(name="wine", data="wine", build=lambda: narrow(13, 1, 3)),
        Host(name="moons", data="moons", build=lambda: narrow(2, 1, 2)),
        Host(name="spirals", data="spirals", build=lambda: narrow(2, 3, 3)),
        Host(name="characters", data="characters", build=lambda: CharacterModel(alphabet_size(), 8), epochs=60),
    )
}
