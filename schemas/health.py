"""How the layers of a model fare in one step, as vectors over its layers."""

import msgspec

from .event import Event
from .values import Names, Vector

SIGNALS = (
    "grad_norm",
    "weight_norm",
    "update_ratio",
    "activation_mean",
    "activation_variance",
    "dead_share",
    "nonfinite",
)


class LayerHealth(Event, type="health.layer", version=1, high_rate=True):
    """All layers of one step; every vector has one float32 a layer, in the order of `layers`.

    A vector is None where the signal was not measured for any layer. Where it was not measured for some,
    `missing[signal]` lists their positions, and what the vector holds there means nothing.
    """

    layers: Names
    grad_norm: Vector | None = None
    weight_norm: Vector | None = None
    update_ratio: Vector | None = None
    activation_mean: Vector | None = None
    activation_variance: Vector | None = None
    dead_share: Vector | None = None
    nonfinite: Vector | None = None
    missing: dict[str, list[int]] = msgspec.field(default_factory=dict)
