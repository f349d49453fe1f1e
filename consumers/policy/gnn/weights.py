"""The weights of the network by name, made by a generator of their own."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .encode import ACTION_FEATURES, EDGE_KINDS, KINDS
from .settings import OPS, Settings

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float32]
    Weights: TypeAlias = dict[str, Floats]

TRUNKS = ("act", "gain")
FIXED = "prior"  # names that begin so are never trained


def shapes(settings: Settings, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of every weight. A trunk reads the graph; one is for acting, one for predicting rewards."""
    hidden, heads, members = settings.hidden, settings.heads, settings.members
    for trunk in TRUNKS:
        yield f"{trunk}.nodes.weight", (hidden, 2 * columns + len(KINDS))
        yield f"{trunk}.nodes.bias", (hidden,)
        for at in range(settings.rounds[trunk]):
            name = f"{trunk}.rounds.{at}"
            yield f"{name}.att", (1, heads, hidden // heads)
            yield f"{name}.bias", (hidden,)
            for side in ("lin_l", "lin_r"):
                yield f"{name}.{side}.weight", (hidden, hidden)
                yield f"{name}.{side}.bias", (hidden,)
            yield f"{name}.lin_edge.weight", (hidden, EDGE_KINDS)
        yield f"{trunk}.pool.gate_nn.weight", (1, hidden)
        yield f"{trunk}.pool.gate_nn.bias", (1,)
        yield f"{trunk}.whole.weight", (hidden, 2 * hidden)
        yield f"{trunk}.whole.bias", (hidden,)
        yield f"{trunk}.action.weight", (hidden, ACTION_FEATURES)
        yield f"{trunk}.action.bias", (hidden,)
    yield "score.0.weight", (hidden, 3 * hidden)
    yield "score.0.bias", (hidden,)
    yield "score.1.weight", (1, hidden)
    yield "ops.weight", (len(OPS) + 1, hidden)
    yield "ops.bias", (len(OPS) + 1,)
    yield "rule", (1,)
    yield "value.0.weight", (hidden, hidden)
    yield "value.0.bias", (hidden,)
    yield "value.1.weight", (1, hidden)
    yield "value.1.bias", (1,)
    for part in ("gains", FIXED):
        yield f"{part}.0.weight", (members, hidden // 2, 3 * hidden if part == "gains" else ACTION_FEATURES + hidden)
        yield f"{part}.0.bias", (members, hidden // 2)
        yield f"{part}.1.weight", (members, hidden // 2)
    yield f"{FIXED}.nodes.weight", (hidden, 2 * columns + len(KINDS))


def fresh(settings: Settings, columns: int, seed: int) -> "Weights":
    """Return new weights: Glorot's uniform ones, small last layers, and the habits of `settings` as the ops' biases."""
    chance = np.random.default_rng([seed, 0x6E6E])
    found: Weights = {}
    for name, shape in shapes(settings, columns):
        if name.endswith(".bias"):
            found[name] = np.zeros(shape, np.float32)
            continue
        fan_in, fan_out = shape[-1], shape[-2] if len(shape) > 1 else 1
        if name in {"gains.1.weight", f"{FIXED}.1.weight"}:
            fan_out = 1
        bound = math.sqrt(6 / (fan_in + fan_out))
        if name in {"score.1.weight", "ops.weight", "value.1.weight", "gains.1.weight"}:
            bound *= 0.1
        found[name] = chance.uniform(-bound, bound, shape).astype(np.float32)
    found["rule"] = np.array([settings.rule], np.float32)
    found["ops.bias"] = np.array([*(settings.habits.get(op, 0.0) for op in OPS), -4.0], np.float32)
    found[f"{FIXED}.0.bias"] = chance.uniform(-1, 1, found[f"{FIXED}.0.bias"].shape).astype(np.float32)
    return found
