"""Observations of any size, made up."""

import numpy as np
from hypothesis import strategies as st

from morphogen.consumers.policy import FEATURES, Observation
from morphogen.consumers.policy.protocol import WAIT
from morphogen.schemas import Action, Names

MENU = ("norm", "rank1", "mlp16", "mlp64")


def graph(
    layers: int = 3, seed: int = 0, *, missing: float = 0.5, wild: bool = False, legal: float = 0.6, epoch: int = 3
) -> Observation:
    """Layers in a row, a slot at each; `missing` is the share of features that were not measured."""
    chance = np.random.default_rng(seed)
    names = [f"layer{at}" for at in range(layers)]
    nodes = ["run", *names, *(f"{name}#0" for name in names)]
    features = (chance.normal(size=(len(nodes), len(FEATURES))) * 10.0 ** chance.integers(-4, 5, len(FEATURES))).astype(
        np.float32
    )
    features[chance.random(features.shape) < missing] = np.nan
    if wild:
        features[chance.random(features.shape) < 0.1] = np.inf
        features[chance.random(features.shape) < 0.1] = -np.inf
        features[chance.random(features.shape) < 0.1] = np.float32(3e38)
    pairs = [(at, at + 1) for at in range(1, layers)]
    for at in range(1, layers + 1):
        pairs += [(at, at + layers), (at + layers, at)]
    actions = [WAIT]
    for name in names:
        actions += [Action(op="germinate", slot=f"{name}#0", blueprint=blueprint) for blueprint in MENU]
        actions += [Action(op=op, slot=f"{name}#0") for op in ("advance", "prune", "fossilize")]
        actions.append(Action(op="set_alpha", slot=f"{name}#0", alpha=0.5, ramp="cosine", steps=10))
    allowed = chance.random(len(actions)) < legal
    allowed[0] = True
    return Observation(
        epoch=epoch,
        nodes=Names(nodes),
        kinds=Names(["global", *["layer"] * layers, *["slot"] * layers]),
        feature_names=FEATURES,
        features=features,
        edges=np.array(pairs, np.int64).reshape(-1, 2).T,
        actions=tuple(actions),
        legal=allowed,
        params=tuple(int(at) for at in chance.integers(0, 10_000, len(actions))),
    )


graphs = st.builds(
    graph,
    layers=st.integers(0, 12),
    seed=st.integers(0, 2**32 - 1),
    missing=st.sampled_from((0.0, 0.5, 1.0)),
    wild=st.booleans(),
    legal=st.sampled_from((0.0, 0.3, 1.0)),
)
