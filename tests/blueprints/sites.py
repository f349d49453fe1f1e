"""Sites of every kind that the tests of this room share, and a strategy for blueprints of all kinds."""

import random

import torch
from hypothesis import strategies as st

from morphogen.kernels.blueprints import Blueprint, Shape, validate
from morphogen.kernels.blueprints.errors import BlueprintError
from morphogen.kernels.blueprints.search import mutate
from morphogen.kernels.blueprints.templates import templates

SITES: list[tuple[str, Shape, Shape]] = [
    ("features", (64,), (2,)),
    ("features", (2,), (10,)),
    ("features", (1,), (4,)),
    ("features", (24,), (24,)),
    ("sequence", (16, 32), (16, 48)),
    ("sequence", (9, 8), (9, 8)),
    ("sequence", (None, 12), (None, 12)),
    ("sequence", (16, 32), (7,)),
    ("image", (3, 8, 8), (16, 8, 8)),
    ("image", (8, 8, 8), (16, 4, 4)),
    ("image", (3, 8, 8), (5, 6, 6)),
    ("image", (3, 4, 4), (5, 8, 8)),
    ("image", (8, 7, 9), (8, 4, 5)),
    ("image", (4, 8, 8), (10,)),
    ("image", (10,), (4, 6, 6)),
]


def batch(shape: Shape, count: int = 3, length: int = 5) -> torch.Tensor:
    size = (count, *(extent or length for extent in shape))
    return torch.randn(size, generator=torch.Generator().manual_seed(5))


@st.composite
def blueprints(draw: st.DrawFn) -> Blueprint:
    """Return a template for some site, after some valid mutations."""
    _, given, wanted = draw(st.sampled_from(SITES))
    found = draw(st.sampled_from(templates(given, wanted)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 6))):
        try:
            changed = mutate(found, rng)
            validate(changed, given, wanted)
        except BlueprintError:
            continue
        if len(changed.nodes) <= 12:
            found = changed
    return found
