"""From logits to chances: legality, predicted rewards, the floor, and how much is left open in each part of a choice."""

from typing import TYPE_CHECKING

import numpy as np

from .encode import Encoded
from .forward import GERMINATE, Thought
from .settings import OPS, Settings

if TYPE_CHECKING:
    from .encode import Flags, Floats, Indices

_NEVER = np.float32(-1e9)


def chances(thought: Thought, seen: Encoded, settings: Settings, *, explore: bool, nothing: float = 0.0) -> "Floats":
    """Return the chance of each action, float32 (actions,); illegal ones have none.

    The predicted reward of a germination, in standard deviations of the rewards seen so far (no reward
    at all is `nothing` of them), is worth `trust` of log-odds each. Exploring, the ensemble's spread is added to it, and every
    legal kind of action keeps a share.
    """
    optimism = settings.optimism if explore else 0.0
    logits = thought.logits + settings.trust * worth(thought, seen.ops, optimism, nothing)
    logits = np.where(seen.legal, logits, _NEVER)
    shares = np.exp(logits - logits.max())
    shares = np.where(seen.legal, shares, 0)
    shares = shares / shares.sum()
    if explore:
        shares = (1 - settings.floor) * shares + settings.floor * spread_evenly(seen.ops, seen.legal)
    return np.asarray(shares, np.float32)


def worth(thought: Thought, ops: "Indices", optimism: float, nothing: float = 0.0) -> "Floats":
    """Return the reward that the ensemble expects of each germination beyond `nothing`, 0 for other actions."""
    expected = -np.float32(nothing) + thought.gains.mean(axis=0) + np.float32(optimism) * thought.gains.std(axis=0)
    return np.where(ops == GERMINATE, expected, 0).astype(np.float32)


def spread_evenly(ops: "Indices", legal: "Flags") -> "Floats":
    """Return chances that are equal between the legal kinds of actions, and within each kind."""
    counts = np.bincount(ops[legal], minlength=len(OPS) + 1)
    return np.where(legal, 1 / np.maximum(1, counts[ops]) / max(1, int((counts > 0).sum())), 0).astype(np.float32)


def best(shares: "Floats", ops: "Indices") -> int:
    """Return the likeliest action of the likeliest kind; of equal ones the first."""
    kind = np.bincount(ops, weights=shares, minlength=len(OPS) + 1).argmax()
    return int(np.where(ops == kind, shares, -1).argmax())
