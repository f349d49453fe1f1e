"""One decision's pass through the network in NumPy: no framework to wake up, and none of the trainer's settings apply.

The same numbers as `network.Network` gives, which trains these weights by PyTorch Geometric.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .encode import KINDS, Encoded
from .scale import Scale
from .settings import OPS, Settings

if TYPE_CHECKING:
    from .encode import Floats, Indices
    from .weights import Weights

GERMINATE = OPS.index("germinate")
_SLOPE = 0.2  # of GATv2's leaky ReLU
_EPSILON = np.float32(1e-16)  # in PyTorch Geometric's softmax


@dataclass(frozen=True, eq=False)
class Thought:
    """What the network makes of one observation.

    `logits` (actions,) before the predicted rewards, of use only where legal; `value` of the state in units of the
    rewards' spread; `gains` (members, actions) the predicted standardised reward of each germination that is legal.
    """

    logits: "Floats"
    value: float
    gains: "Floats"


def think(weights: "Weights", settings: Settings, scale: Scale, seen: Encoded) -> Thought:
    """Run the network over one observation."""
    inputs = node_inputs(scale, seen)
    nodes, whole = _trunk(weights, "act", settings, inputs, seen)
    legal = np.flatnonzero(seen.legal)
    told = _relu(seen.actions[legal] @ weights["act.action.weight"].T + weights["act.action.bias"])
    hidden = _joined(weights["score.0.weight"], nodes, told, whole, seen.places[legal])
    hidden = _relu(hidden + weights["score.0.bias"])
    kinds = whole @ weights["ops.weight"].T + weights["ops.bias"]
    logits = kinds[seen.ops] - op_counts(seen.ops, seen.legal)
    logits[legal] += hidden @ weights["score.1.weight"][0]
    if seen.rule >= 0:
        logits[seen.rule] += weights["rule"][0]
    inner = _relu(whole @ weights["value.0.weight"].T + weights["value.0.bias"])
    value = float(inner @ weights["value.1.weight"][0] + weights["value.1.bias"][0])
    gains = np.zeros((settings.members, len(seen.ops)), np.float32)
    asked = np.flatnonzero(seen.legal & (seen.ops == GERMINATE))
    if asked.size:
        gains[:, asked] = _gains(weights, settings, inputs, seen, asked)
    return Thought(logits.astype(np.float32), value, gains)


def node_inputs(scale: Scale, seen: Encoded) -> "Floats":
    """Return the input of each node: scaled values, what was measured, and its kind; float32 (nodes, 2c + 3)."""
    kinds = seen.kinds[:, None] == np.arange(len(KINDS))
    return np.concatenate([scale.inputs(seen.values), kinds], axis=1, dtype=np.float32)


def op_counts(ops: "Indices", legal: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> "Floats":
    """Return the log of how many legal actions are of the same kind: so that a kind is not likelier by its number."""
    counts = np.bincount(ops[legal], minlength=len(OPS) + 1)
    found: Floats = np.log(np.maximum(1, counts)).astype(np.float32)[ops]
    return found


def _trunk(
    weights: "Weights", trunk: str, settings: Settings, inputs: "Floats", seen: Encoded
) -> "tuple[Floats, Floats]":
    """Return what it makes of each node, (nodes, hidden), and of the whole, (hidden,)."""
    nodes = _relu(inputs @ weights[f"{trunk}.nodes.weight"].T + weights[f"{trunk}.nodes.bias"])
    is_run = seen.kinds == KINDS.index("global")
    nodes = nodes + nodes[is_run].sum(axis=0)  # what is true of the run is heard everywhere
    for at in range(settings.rounds[trunk]):
        nodes = nodes + _relu(_attend(weights, f"{trunk}.rounds.{at}", settings, nodes, seen))
    gate = nodes @ weights[f"{trunk}.pool.gate_nn.weight"][0] + weights[f"{trunk}.pool.gate_nn.bias"]
    share = np.exp(gate - gate.max())
    pooled = (share / (share.sum() + _EPSILON)) @ nodes
    runs = nodes[is_run].sum(axis=0)
    whole = _relu(np.concatenate([pooled, runs]) @ weights[f"{trunk}.whole.weight"].T + weights[f"{trunk}.whole.bias"])
    return nodes, whole


def _attend(weights: "Weights", name: str, settings: Settings, nodes: "Floats", seen: Encoded) -> "Floats":
    """GATv2 (Brody, Alon and Yahav 2021): every node listens to its neighbours."""
    source, target = seen.edges
    heads, width = settings.heads, settings.hidden // settings.heads
    left = nodes @ weights[f"{name}.lin_l.weight"].T + weights[f"{name}.lin_l.bias"]
    right = nodes @ weights[f"{name}.lin_r.weight"].T + weights[f"{name}.lin_r.bias"]
    edge = weights[f"{name}.lin_edge.weight"].T
    said = left[source]
    mixed = right[target] + said + edge[seen.edge_kinds]
    mixed = np.maximum(mixed, np.float32(_SLOPE) * mixed)
    score = mixed @ (np.repeat(np.eye(heads, dtype=np.float32), width, axis=0) * weights[f"{name}.att"].reshape(-1, 1))
    starts = np.flatnonzero(np.diff(target, prepend=-1))  # edges are sorted by target and every node hears itself
    share = np.exp(score - np.maximum.reduceat(score, starts)[target])
    share = share / (np.add.reduceat(share, starts)[target] + _EPSILON)
    heard: Floats = np.add.reduceat(said * np.repeat(share, width, axis=1), starts) + weights[f"{name}.bias"]
    return heard


def _gains(weights: "Weights", settings: Settings, inputs: "Floats", seen: Encoded, asked: "Indices") -> "Floats":
    """Return (members, asked): what is learned, and below it the fixed random functions, past all learning."""
    nodes, whole = _trunk(weights, "gain", settings, inputs, seen)
    actions, places = seen.actions[asked], seen.places[asked]
    told = _relu(actions @ weights["gain.action.weight"].T + weights["gain.action.bias"])
    first = weights["gains.0.weight"]
    flat = first.reshape(-1, first.shape[-1])
    learned = _members(weights, "gains", _joined(flat, nodes, told, whole, places))
    fixed = weights["prior.0.weight"].reshape(-1, weights["prior.0.weight"].shape[-1])
    known = np.tanh(inputs @ weights["prior.nodes.weight"].T) @ fixed[:, actions.shape[1] :].T
    below = _members(weights, "prior", actions @ fixed[:, : actions.shape[1]].T + _at(known, places))
    return learned + np.float32(settings.prior) * below


def _joined(weight: "Floats", nodes: "Floats", told: "Floats", whole: "Floats", places: "Indices") -> "Floats":
    """Return `[node of the action, action, whole] @ weight.T` without ever putting the three side by side."""
    hidden = nodes.shape[1]
    of_node, of_told, of_whole = (weight[:, at * hidden : (at + 1) * hidden] for at in range(3))
    joined: Floats = _at(nodes @ of_node.T, places) + told @ of_told.T + of_whole @ whole
    return joined


def _at(rows: "Floats", places: "Indices") -> "Floats":
    """Return the row of each place; -1 is a row of zeros."""
    return np.concatenate([rows, np.zeros((1, rows.shape[1]), np.float32)])[places]


def _members(weights: "Weights", part: str, inner: "Floats") -> "Floats":
    """Return (members, actions) from the first layer's sums, (actions, members * hidden)."""
    last = weights[f"{part}.1.weight"]
    inner = _relu(inner + weights[f"{part}.0.bias"].reshape(-1)).reshape(len(inner), *last.shape)
    return np.matmul(inner.transpose(1, 0, 2), last[:, :, None])[:, :, 0]  # type: ignore[no-any-return]


def _relu(x: "Floats") -> "Floats":
    return np.maximum(x, 0)
