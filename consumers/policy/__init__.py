"""Deciding what should grow: from the log to an observation, from there to a proposal, past the guards to a verdict.

Pure but for `serve` and `checkpoint`: no clock, no global randomness, no I/O. Knows neither the model nor the executor;
they meet by the events of `schemas.adaptation`. Needs numpy; the learned policy and checkpoints need an extra.
"""

from .checkpoint import load_checkpoint, save_checkpoint
from .credit import credited
from .decide import Decided, Decider, decide
from .errors import CheckpointError, PolicyError
from .features import FEATURES, observe
from .guards import DryRun, guards
from .ledger import Ledger
from .legal import refusal
from .limits import Dish, Limits, Setting, Weights, config_of
from .observe import State, fold
from .plateau import plateau
from .protocol import Observation, Outcome, Policy, Proposal
from .registry import load_policy, names, options_of, save_policy
from .reward import Judged, Reward, expected_alone, reward
from .timeline import Told, timeline

__all__ = [
    "FEATURES",
    "CheckpointError",
    "Decided",
    "Decider",
    "Dish",
    "DryRun",
    "Judged",
    "Ledger",
    "Limits",
    "Observation",
    "Outcome",
    "Policy",
    "PolicyError",
    "Proposal",
    "Reward",
    "Setting",
    "State",
    "Told",
    "Weights",
    "config_of",
    "credited",
    "decide",
    "expected_alone",
    "fold",
    "guards",
    "load_checkpoint",
    "load_policy",
    "names",
    "observe",
    "options_of",
    "plateau",
    "refusal",
    "reward",
    "save_checkpoint",
    "save_policy",
    "timeline",
]
