"""One decision's pass through the network in NumPy: no framework to wake up, and none of the trainer's settings apply.

The same numbers as `network.Network` gives, which trains these weights by PyTorch Geometric.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .encode import KINDS, Encoded
from .prepared import Neighbours, Offer, offer
from .scale import Scale
from .scratch import SCRATCH
from .settings import OPS, Settings

if TYPE_CHECKING:
    from .encode import Floats, Indices
    from .weights import Weights

GERMINATE = OPS.index("germinate")
_SLOPE = 0.2  # of GATv2's leaky ReLU
_ALONE = 1 << 17  # multiplications; OpenBLAS has a second thread help from twice as many on
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
    inputs = node_inputs(scale, seen, SCRATCH.array("inputs", len(seen.values), 2 * seen.values.shape[1] + len(KINDS)))
    nodes, whole = _trunk(weights, "act", settings, inputs, seen)
    legal = np.flatnonzero(seen.legal)
    told = offer(weights, seen.actions if seen.offered is None else seen.offered)
    # the one action that is not what it was offered as
    fresh = None if seen.offered is None or seen.rule < 0 else Offer.of(weights, seen.actions[seen.rule, None])
    hidden = _at(_times(nodes, weights["score.0.weight"][:, : settings.hidden]), seen.places[legal], "hidden")
    hidden += _rows(told.score, legal, seen.rule, None if fresh is None else fresh.score)
    hidden += weights["score.0.weight"][:, 2 * settings.hidden :] @ whole
    hidden += weights["score.0.bias"]
    np.maximum(hidden, 0, out=hidden)
    kinds = whole @ weights["ops.weight"].T + weights["ops.bias"]
    logits = kinds[seen.ops] - op_counts(seen.ops, seen.legal)
    logits[legal] += hidden @ weights["score.1.weight"][0]
    if seen.rule >= 0:
        logits[seen.rule] += weights["rule"][0]
    inner = _relu(whole @ weights["value.0.weight"].T + weights["value.0.bias"])
    value = float(inner @ weights["value.1.weight"][0] + weights["value.1.bias"][0])
    gains = np.zeros((settings.members, len(seen.ops)), np.float32)
    asked = legal[seen.ops[legal] == GERMINATE]
    if asked.size:
        gains[:, asked] = _gains(weights, settings, inputs, seen, asked, told, fresh)
    return Thought(logits.astype(np.float32), value, gains)


def node_inputs(scale: Scale, seen: Encoded, into: "Floats | None" = None) -> "Floats":
    """Return the input of each node: scaled values, what was measured, and its kind; float32 (nodes, 2c + 3)."""
    nodes, columns = seen.values.shape
    found = np.empty((nodes, 2 * columns + len(KINDS)), np.float32) if into is None else into
    scale.inputs(seen.values, found[:, : 2 * columns])
    found[:, 2 * columns :] = seen.kinds[:, None] == np.arange(len(KINDS))
    return found


def op_counts(ops: "Indices", legal: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> "Floats":
    """Return the log of how many legal actions are of the same kind: so that a kind is not likelier by its number."""
    counts = np.bincount(ops[legal], minlength=len(OPS) + 1)
    found: Floats = np.log(np.maximum(1, counts)).astype(np.float32)[ops]
    return found


def _trunk(
    weights: "Weights", trunk: str, settings: Settings, inputs: "Floats", seen: Encoded
) -> "tuple[Floats, Floats]":
    """Return what it makes of each node, (nodes, hidden), and of the whole, (hidden,)."""
    nodes = _relu(_times(inputs, weights[f"{trunk}.nodes.weight"]) + weights[f"{trunk}.nodes.bias"])
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
    heads, width = settings.heads, settings.hidden // settings.heads
    left = _times(nodes, weights[f"{name}.lin_l.weight"]) + weights[f"{name}.lin_l.bias"]
    right = _times(nodes, weights[f"{name}.lin_r.weight"]) + weights[f"{name}.lin_r.bias"]
    edge = np.ascontiguousarray(weights[f"{name}.lin_edge.weight"].T)
    spread = np.repeat(np.eye(heads, dtype=np.float32), width, axis=1)  # of each head over its units
    asks = spread.T * weights[f"{name}.att"].reshape(-1, 1)
    if seen.neighbours is None:
        heard = _heard_along(seen, left, right, edge, asks, spread)
    else:
        heard = _heard_from(seen.neighbours, left, right, edge, asks, spread)
    return heard + weights[f"{name}.bias"]


def _heard_from(
    heard: Neighbours, left: "Floats", right: "Floats", edge: "Floats", asks: "Floats", spread: "Floats"
) -> "Floats":
    """Return what each node hears, by the table of its neighbours; `asks` (units, heads) scores what is said."""
    shape = *heard.source.shape, left.shape[1]
    said = left.take(heard.source, axis=0, out=SCRATCH.array("said", *shape), mode="clip")
    mixed = edge.take(heard.kinds, axis=0, out=SCRATCH.array("mixed", *shape), mode="clip")
    mixed += said
    mixed += right
    other = np.multiply(mixed, np.float32(_SLOPE), out=SCRATCH.array("other", *shape))
    score = np.maximum(mixed, other, out=mixed) @ asks
    score[heard.empty] = -np.inf
    share = np.exp(score - score.max(axis=0))
    share /= share.sum(axis=0) + _EPSILON
    said *= np.matmul(share, spread, out=other)
    found: Floats = said.sum(axis=0)
    return found


def _heard_along(
    seen: Encoded, left: "Floats", right: "Floats", edge: "Floats", asks: "Floats", spread: "Floats"
) -> "Floats":
    """Return the same, by the edges one after the other, which are sorted by target; every node hears itself."""
    source, target = seen.edges
    said = left.take(source, axis=0)
    mixed = right.take(target, axis=0) + said + edge.take(seen.edge_kinds, axis=0)
    score = np.maximum(mixed, np.float32(_SLOPE) * mixed) @ asks
    starts = np.flatnonzero(np.diff(target, prepend=-1))
    share = np.exp(score - np.maximum.reduceat(score, starts)[target])
    share = share / (np.add.reduceat(share, starts)[target] + _EPSILON)
    found: Floats = np.add.reduceat(said * (share @ spread), starts)
    return found


def _gains(
    weights: "Weights",
    settings: Settings,
    inputs: "Floats",
    seen: Encoded,
    asked: "Indices",
    told: Offer,
    fresh: Offer | None,
) -> "Floats":
    """Return (members, asked): what is learned, and below it the fixed random functions, past all learning."""
    nodes, whole = _trunk(weights, "gain", settings, inputs, seen)
    hidden, places = settings.hidden, seen.places[asked]
    flat = weights["gains.0.weight"].reshape(-1, 3 * hidden)
    inner = _at(_times(nodes, flat[:, :hidden]), places, "inner")
    inner += _rows(told.gains, asked, seen.rule, None if fresh is None else fresh.gains)
    inner += flat[:, 2 * hidden :] @ whole
    learned = _members(weights, "gains", inner)
    fixed = weights["prior.0.weight"].reshape(-1, seen.actions.shape[1] + hidden)[:, seen.actions.shape[1] :]
    inner = _at(_times(np.tanh(_times(inputs, weights["prior.nodes.weight"])), fixed), places, "inner")
    inner += _rows(told.prior, asked, seen.rule, None if fresh is None else fresh.prior)
    return learned + np.float32(settings.prior) * _members(weights, "prior", inner)


def _at(rows: "Floats", places: "Indices", name: str) -> "Floats":
    """Return the row of each place, in the array of this name; -1 is a row of zeros."""
    found = rows.take(places, axis=0, out=SCRATCH.array(name, len(places), rows.shape[1]), mode="clip")
    found[places < 0] = 0
    return found


def _rows(offered: "Floats", wanted: "Indices", rule: int, fresh: "Floats | None") -> "Floats":
    """Return the rows of the wanted actions; that of `rule` is `fresh`, where there is one."""
    out = SCRATCH.array("rows", len(wanted), offered.shape[1])
    found = offered.take(wanted, axis=0, out=out, mode="clip")
    if fresh is not None:
        found[wanted == rule] = fresh
    return found


def _members(weights: "Weights", part: str, inner: "Floats") -> "Floats":
    """Return (members, actions) from the first layer's sums, (actions, members * hidden)."""
    last = weights[f"{part}.1.weight"]
    inner += weights[f"{part}.0.bias"].reshape(-1)
    np.maximum(inner, 0, out=inner)
    inner = inner.reshape(len(inner), *last.shape)
    return np.matmul(inner.transpose(1, 0, 2), last[:, :, None])[:, :, 0]  # type: ignore[no-any-return]


def _times(rows: "Floats", weight: "Floats") -> "Floats":
    """Return `rows @ weight.T`, by so few rows at a time that BLAS does not wake its threads for it.

    Waiting for them takes longer than the work, and on a busy machine many times as long.
    """
    count, step = len(rows), max(1, _ALONE // max(1, weight.size))
    if count <= step:
        return rows @ weight.T
    found = np.empty((count, len(weight)), np.float32)
    for first in range(0, count, step):
        np.matmul(rows[first : first + step], weight.T, out=found[first : first + step])
    return found


def _relu(x: "Floats") -> "Floats":
    return np.maximum(x, 0)
