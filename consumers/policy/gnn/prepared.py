"""What is the same from one decision of a run to the next, worked out once: who hears whom, and what is on offer."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .encode import Flags, Floats, Indices
    from .weights import Weights

_ROOM = 8  # offers that are kept
_EMPTY_PLACES = 4  # of a table, for each edge, beyond which the sorted edges are gone through instead


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Whom each node hears, as a table of shape (most, nodes): sums over neighbours are then sums over its rows.

    `source` says who, `kinds` over which kind of edge; `empty` marks the places of nodes that hear fewer.
    """

    source: "Indices"
    kinds: "Indices"
    empty: "Flags"

    @classmethod
    def of(cls, edges: "Indices", kinds: "Indices", count: int) -> "Neighbours | None":
        """Return the table of edges that are sorted by target; None where hubs would leave most of it empty."""
        source, target = edges
        heard = np.bincount(target, minlength=count)
        most = int(heard.max(initial=0))
        if most * count > _EMPTY_PLACES * max(1, target.size):
            return None
        row = np.arange(target.size) - np.repeat(np.cumsum(heard) - heard, heard)
        table = cls(
            np.zeros((most, count), np.int64), np.zeros((most, count), np.int64), np.ones((most, count), np.bool_)
        )
        table.source[row, target], table.kinds[row, target], table.empty[row, target] = source, kinds, False
        return table


@dataclass(frozen=True, eq=False)
class Offer:
    """What the first layers make of each action by itself, (actions, units): to choose it, to expect of it, below that."""

    score: "Floats"
    gains: "Floats"
    prior: "Floats"

    @classmethod
    def of(cls, weights: "Weights", actions: "Floats") -> "Offer":
        """Work it out for these features of actions."""
        hidden = weights["act.action.weight"].shape[0]
        fixed = _flat(weights["prior.0.weight"])
        told = {
            trunk: np.maximum(actions @ weights[f"{trunk}.action.weight"].T + weights[f"{trunk}.action.bias"], 0)
            for trunk in ("act", "gain")
        }
        middle = slice(hidden, 2 * hidden)
        return cls(
            told["act"] @ weights["score.0.weight"][:, middle].T,
            told["gain"] @ _flat(weights["gains.0.weight"])[:, middle].T,
            actions @ fixed[:, : actions.shape[1]].T,
        )


_offers: "OrderedDict[tuple[int, int], tuple[Weights, Floats, Offer]]" = OrderedDict()


def offer(weights: "Weights", actions: "Floats") -> Offer:
    """Return what `Offer.of` does; kept for the same weights and the same array, neither of which may change."""
    if actions.flags.writeable:
        return Offer.of(weights, actions)
    key = id(weights), id(actions)
    known = _offers.get(key)
    if known is None or known[0] is not weights or known[1] is not actions:
        known = _offers[key] = weights, actions, Offer.of(weights, actions)
        while len(_offers) > _ROOM:
            _offers.popitem(last=False)
    return known[2]


def _flat(weight: "Floats") -> "Floats":
    return weight.reshape(-1, weight.shape[-1])
