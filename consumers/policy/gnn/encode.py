"""From an observation to numbers: the columns that the network knows, by name, and what each action is about.

Nothing that is not a number goes on: a value that was not measured becomes 0 with a 0 beside it that says so, infinities
are cut, and magnitudes are squeezed by sign(x)*log(1+|x|).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from morphogen.schemas import Action, Names

from ..protocol import Observation, site_of
from ..raising import raise_seeds
from .prepared import Neighbours
from .settings import OPS

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float32]
    Indices: TypeAlias = npt.NDArray[np.int64]
    Flags: TypeAlias = npt.NDArray[np.bool_]

KINDS = ("global", "layer", "slot")
FORWARD, BACKWARD, ITSELF = range(3)
EDGE_KINDS = 3
CUT = 12.0  # of squeezed magnitudes: e**12
_HASHED = 8
_OP = {op: at for at, op in enumerate(OPS)}
_RAMPS = ("linear", "cosine", "sigmoid")
ACTION_FEATURES = (len(OPS) + 1) + (1 + 2 * _HASHED + 2) + 2 + 1 + len(_RAMPS) + 1 + 3 + 1


@dataclass(frozen=True, eq=False)
class Encoded:
    """One observation for the network, not scaled yet.

    `values` float32 (nodes, columns), NaN where not measured; `kinds` (nodes,) into KINDS or -1; `edges` (2, all edges),
    sorted by target, every node its own neighbour; `edge_kinds` (all edges,); `actions` float32 (actions,
    ACTION_FEATURES); `places` (actions,) the node that an action is about, -1 for none; `ops` (actions,) into OPS,
    len(OPS) for an unknown one; `legal` (actions,); `rule` the action that the common rule for raising seeds would
    take, -1 where it has nothing to say. `neighbours` are the edges as a table, None where that does not pay; `offered`
    are the actions without what the rule would take.
    """

    epoch: int
    values: "Floats"
    kinds: "Indices"
    edges: "Indices"
    edge_kinds: "Indices"
    actions: "Floats"
    places: "Indices"
    ops: "Indices"
    legal: "Flags"
    rule: int = -1
    neighbours: Neighbours | None = None
    offered: "Floats | None" = None

    @property
    def choices(self) -> int:
        """How many actions were legal."""
        return int(self.legal.sum())

    def only(self, index: int) -> "Encoded":
        """Return the same graph with one action alone."""
        at = slice(index, index + 1)
        return replace(
            self,
            actions=self.actions[at],
            places=self.places[at],
            ops=self.ops[at],
            legal=self.legal[at],
            rule=0 if self.rule == index else -1,
            offered=None,
        )


def encode(observation: Observation, columns: Iterable[str]) -> Encoded:
    """Return what the network is shown; a column that the observation lacks counts as not measured."""
    rule = _rule(observation)
    edges, edge_kinds, neighbours = _edges(np.asarray(observation.edges, np.int64).tobytes(), len(observation.nodes))
    kinds, offered, places, ops = _offered(
        observation.nodes, observation.kinds, observation.actions, observation.params
    )
    actions = offered
    if rule >= 0:
        actions = offered.copy()
        actions[rule, -1] = 1.0
    return Encoded(
        epoch=observation.epoch,
        values=_values(observation, tuple(columns)),
        kinds=kinds,
        edges=edges,
        edge_kinds=edge_kinds,
        actions=actions,
        places=places,
        ops=ops,
        legal=np.array(observation.legal, np.bool_),
        rule=rule,
        neighbours=neighbours,
        offered=offered,
    )


def _values(observation: Observation, columns: tuple[str, ...]) -> "Floats":
    known = _positions(observation.feature_names, columns)
    found = np.full((len(observation.nodes), len(columns)), np.nan, np.float32)
    present = known >= 0
    raw = np.asarray(observation.features, np.float32)[:, known[present]]
    measured = ~np.isnan(raw)
    told = raw[measured]
    raw = raw.copy()
    raw[measured] = np.clip(np.copysign(np.log1p(np.abs(told)), told), -CUT, CUT)
    found[:, present] = raw
    return found


@lru_cache(maxsize=16)
def _positions(names: Names, columns: tuple[str, ...]) -> "Indices":
    at = {name: place for place, name in enumerate(names)}
    return np.array([at.get(column, -1) for column in columns], np.int64)


@lru_cache(maxsize=16)
def _edges(told: bytes, count: int) -> "tuple[Indices, Indices, Neighbours | None]":
    given = np.frombuffer(told, np.int64).reshape(2, -1)
    everyone = np.arange(count, dtype=np.int64)
    edges = np.concatenate([given, given[::-1], np.stack([everyone, everyone])], axis=1)
    kinds = np.repeat(np.array([FORWARD, BACKWARD, ITSELF], np.int64), [given.shape[1], given.shape[1], count])
    order = np.argsort(edges[1], kind="stable")
    edges, kinds = edges[:, order], kinds[order]
    return edges, kinds, Neighbours.of(edges, kinds, count)


@lru_cache(maxsize=16)
def _offered(
    nodes: Names, kinds: Names, actions: tuple[Action, ...], params: tuple[int, ...]
) -> "tuple[Indices, Floats, Indices, Indices]":
    """Return kinds of nodes, features of actions, their nodes and their ops: the same from epoch to epoch of a run."""
    coded = np.array([KINDS.index(kind) if kind in KINDS else -1 for kind in kinds], np.int64)
    at: dict[str | None, int] = {}
    for place, (node, kind) in enumerate(zip(nodes, kinds, strict=True)):
        if kind == "slot" or node not in at:
            at[node] = place
    for slot in {action.slot for action in actions} - at.keys():
        at[slot] = -1 if slot is None else at.get(site_of(slot), -1)
    places = np.array([at[action.slot] for action in actions], np.int64)
    found = np.zeros((len(actions), ACTION_FEATURES), np.float32)
    if actions:
        found[:, :-5] = np.stack([_words(one.op, one.blueprint, one.alpha, one.ramp, one.steps) for one in actions])
    if len(params) == len(actions):
        found[:, -5] = np.log1p(np.maximum(0, np.array(params, np.float64))) / 10
    of = np.append(coded, -1)[places]
    found[:, -4], found[:, -3], found[:, -2] = of == KINDS.index("slot"), of == KINDS.index("layer"), of == -1
    ops = np.array([_OP.get(action.op, len(OPS)) for action in actions], np.int64)
    for array in (coded, found, places, ops):
        array.setflags(write=False)
    return coded, found, places, ops


def _rule(observation: Observation) -> int:
    """Return what the common rule would do; it does not prune what has not helped yet, that is to be learned."""
    if "stage.dormant" not in observation.column:
        return -1
    raised = raise_seeds(observation, judge=False)
    return -1 if raised is None else raised.index


@lru_cache(maxsize=4096)
def _words(op: str, blueprint: str | None, alpha: float | None, ramp: str | None, steps: int | None) -> "Floats":
    ops = [0.0] * (len(OPS) + 1)
    ops[_OP.get(op, len(OPS))] = 1.0
    measure = [0.0, 0.0] if alpha is None or not np.isfinite(alpha) else [1.0, float(np.clip(alpha, -1, 2))]
    ramps = [float(ramp == name) for name in _RAMPS]
    return np.array([*ops, *_name(blueprint), *measure, np.log1p(max(0, steps or 0)) / 8, *ramps], np.float32)


def _name(blueprint: str | None) -> list[float]:
    """Return numbers for a blueprint's name: of its family (`mlp64` is an `mlp`), of the whole, and of its size.

    They come from a hash, so that a name which was never seen has its own place, near to its family.
    """
    if blueprint is None:
        return [0.0] * (1 + 2 * _HASHED + 2)
    number = re.search(r"\d+", blueprint)
    family = re.sub(r"\d+", "", blueprint)
    size = [0.0, 0.0] if number is None else [1.0, float(np.log1p(int(number.group()[:9]))) / 8]
    return [1.0, *_signs(family), *_signs(blueprint), *size]


def _signs(text: str) -> list[float]:
    bits = hashlib.sha256(text.encode()).digest()[0]
    return [1.0 if bits >> at & 1 else -1.0 for at in range(_HASHED)]
