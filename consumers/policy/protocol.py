"""What a policy is shown, what it answers, and what it is told afterwards.

A policy never sees the model, the clock or a global random generator. It is a pure function of its own state, its seed
and the observation, so that the log can ask it again. Anything with `name`, `version`, `decide` and `learn` is one.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import msgspec
import numpy as np

from morphogen.schemas import Action, Names, Observed

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float32]
    Indices: TypeAlias = npt.NDArray[np.int64]
    Flags: TypeAlias = npt.NDArray[np.bool_]

RUN = "run"  # the name of the one node of kind `global`, always the first
STAGES = (
    "dormant", "germinated", "training", "blending", "holding", "fossilized", "pruned", "embargoed", "resetting",
)  # fmt: skip
ACTIVE = frozenset({"germinated", "training", "blending", "holding"})  # a seed that is not judged yet
WAIT = Action(op="wait")


@dataclass(frozen=True, eq=False)
class Observation:
    """A graph of layers and slots, what may be done, and which of it is legal. Action 0 is `wait` and always legal.

    `features` is float32 of shape (nodes, features), NaN where a thing was not measured or means nothing for a node;
    `edges` is int64 of shape (2, edges), positions in `nodes`, in the direction of the data; `params` says how many
    parameters an action would add.
    """

    epoch: int
    nodes: Names
    kinds: Names
    feature_names: Names
    features: "Floats"
    edges: "Indices"
    actions: tuple[Action, ...]
    legal: "Flags"
    params: tuple[int, ...] = ()

    @classmethod
    def of(cls, event: Observed) -> "Observation":
        """Return what an event of the log says was shown."""
        shape = (len(event.nodes), len(event.feature_names))
        return cls(
            epoch=event.epoch,
            nodes=event.nodes,
            kinds=event.kinds,
            feature_names=event.feature_names,
            features=np.asarray(event.features, np.float32).reshape(shape),
            edges=np.asarray(event.edges, np.int64).reshape(2, -1),
            actions=tuple(event.actions),
            legal=np.asarray(event.legal, np.bool_),
            params=tuple(event.params),
        )

    def event(self) -> Observed:
        """Return this as the event that records it; `of` reads it back with equal bits."""
        return Observed(
            observation=self.sha256,
            epoch=self.epoch,
            nodes=self.nodes,
            kinds=self.kinds,
            feature_names=self.feature_names,
            features=np.ascontiguousarray(self.features, np.float32).reshape(-1),
            edges=self.edges.reshape(-1).tolist(),
            actions=list(self.actions),
            legal=self.legal.tolist(),
            params=list(self.params),
        )

    @cached_property
    def sha256(self) -> str:
        """The hash of all that was shown; equal bits, equal hash."""
        told = (self.epoch, self.nodes.values, self.kinds.values, self.feature_names.values, self.params)
        digest = hashlib.sha256(msgspec.msgpack.encode(told))
        digest.update(_digest(self.actions))
        canonical = np.where(np.isnan(self.features), np.float32(np.nan), self.features).astype("<f4")
        for part in (canonical, self.edges.astype("<i8"), self.legal.astype("|b1")):
            digest.update(repr(part.shape).encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @cached_property
    def row(self) -> dict[str, int]:
        """The position of each slot and of `run` in `nodes`; a layer is found by `layer_row`."""
        return {node: at for at, (node, kind) in enumerate(zip(self.nodes, self.kinds, strict=True)) if kind != "layer"}

    @cached_property
    def layer_row(self) -> dict[str, int]:
        """The position of each layer in `nodes`."""
        return {node: at for at, (node, kind) in enumerate(zip(self.nodes, self.kinds, strict=True)) if kind == "layer"}

    @cached_property
    def column(self) -> dict[str, int]:
        """The position of each feature in `feature_names`."""
        return {name: at for at, name in enumerate(self.feature_names)}

    def value(self, feature: str, node: str = RUN) -> float | None:
        """Return one number of the run or of a slot; None where it was not measured or there is no such feature."""
        at, column = self.row.get(node), self.column.get(feature)
        if at is None or column is None:
            return None
        found = float(self.features[at, column])
        return None if math.isnan(found) else found

    def values(self, feature: str) -> dict[str, float]:
        """Return one feature of all slots, NaN where it was not measured."""
        rows = [self.row[slot] for slot in self.slots]
        return dict(zip(self.slots, self.features[rows, self.column[feature]].tolist(), strict=True))

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """The slots, in their order."""
        return tuple(node for node, kind in zip(self.nodes, self.kinds, strict=True) if kind == "slot")

    @cached_property
    def stages(self) -> dict[str, str]:
        """Where each slot stands in its life, by slot."""
        columns = [self.column[f"stage.{stage}"] for stage in STAGES]
        rows = [self.row[slot] for slot in self.slots]
        at = (self.features[np.ix_(rows, columns)] == 1).argmax(axis=1).tolist()
        return {slot: STAGES[place] for slot, place in zip(self.slots, at, strict=True)}

    def stage(self, slot: str) -> str:
        """Return where a slot stands in its life."""
        return self.stages[slot]

    @cached_property
    def choices(self) -> tuple[int, ...]:
        """The positions of the legal actions."""
        return tuple(np.flatnonzero(self.legal).tolist())

    def index(self, op: str, slot: str | None = None, blueprint: str | None = None) -> int | None:
        """Return the position of the first legal action of this kind, or None."""
        for at in self.choices:
            action = self.actions[at]
            if action.op == op and slot in {None, action.slot} and blueprint in {None, action.blueprint}:
                return at
        return None


_digests: dict[int, tuple[tuple[Action, ...], bytes]] = {}


def _digest(actions: tuple[Action, ...]) -> bytes:
    """Return the hash of actions; a run offers the same tuple at every epoch."""
    known = _digests.get(id(actions))
    if known is None or known[0] is not actions:
        if len(_digests) >= 64:
            _digests.clear()
        known = _digests[id(actions)] = (actions, hashlib.sha256(msgspec.msgpack.encode(actions)).digest())
    return known[1]


@lru_cache(maxsize=4096)
def site_of(slot: str) -> str:
    """Return the site of a slot: `<site>#<number>` without the number."""
    return slot.rpartition("#")[0] or slot


@dataclass(frozen=True)
class Proposal:
    """What a policy wants: the position of an action in the observation, and how it came to it."""

    index: int
    reason: str = ""
    logprob: float | None = None
    value: float | None = None
    entropy: float | None = None
    uncertainty: float | None = None
    confidence: float | None = None
    scores: Sequence[float] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a decision that was carried out. What was not measured is None.

    `contribution` is the loss that the seed takes away (counterfactual: alpha 0 against alpha as it is);
    `observation` is the hash of what the policy was shown, `seen` the thing itself where it is at hand.
    """

    decision: str
    epoch: int  # of the decision
    observation: str
    index: int
    action: Action
    reward: float | None = None
    contribution: float | None = None
    accuracy_gain: float | None = None
    slot: str | None = None
    seed: str | None = None
    stage: str = ""
    epochs: int = 0  # since the decision
    params: int = 0
    logprob: float | None = None
    value: float | None = None
    terms: dict[str, float] = field(default_factory=dict)
    final: bool = True
    seen: Observation | None = None


@runtime_checkable
class Policy(Protocol):
    """Decides for one run. `version` is the sha256 of the checkpoint that it began with, None where there is none."""

    @property
    def name(self) -> str:
        """What the log calls it."""

    @property
    def version(self) -> str | None:
        """The sha256 of the checkpoint that it began with, or None."""

    def decide(self, observation: Observation) -> Proposal:
        """Choose one of the legal actions; the same state, seed and observation give the same answer."""

    def learn(self, outcome: Outcome) -> None:
        """Take in what came of a decision; the same outcomes in the same order give the same state."""
