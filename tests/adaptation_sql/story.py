"""A run that grew, as the events that its grower records."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from morphogen.schemas import (
    Action,
    AdaptationFinished,
    AdaptationStarted,
    DecisionOutcome,
    DecisionProposed,
    DecisionVerdict,
    EpochMeasured,
    Event,
    GuardResult,
    Names,
    Observed,
    SiteInfo,
    SlotAlphaChanged,
    SlotContribution,
    SlotGerminated,
    SlotHealth,
    SlotRefused,
    SlotStageChanged,
)

SITES = [
    SiteInfo(site="fc1", kind="features", in_shape=[64], out_shape=[2], slots=1, params=130),
    SiteInfo(site="fc2", kind="features", in_shape=[2], out_shape=[16], slots=2, params=48),
]
ACTIONS = [
    Action(op="wait"),
    Action(op="germinate", slot="fc1#0", blueprint="mlp64"),
    Action(op="germinate", slot="fc2#0", blueprint="norm"),
    Action(op="prune", slot="fc2#0"),
]


def observed(epoch: int, observation: str, legal: Sequence[bool] = (True, True, True, False)) -> Observed:
    """Return what a policy may have seen: three nodes, two features, four actions."""
    return Observed(
        observation=observation, epoch=epoch, nodes=Names(["", "fc1", "fc2"]), kinds=Names(["global", "layer", "layer"]),
        feature_names=Names(["val_loss", "grad_norm"]),
        features=np.array([0.1, np.nan, np.nan, 0.5 + epoch, np.inf, 2], np.float32), edges=[1, 2], actions=ACTIONS,
        legal=list(legal),
    )  # fmt: skip


def decided(
    epoch: int, index: int, *, approved: bool = True, policy: str = "bandit", latency_ns: int | None = 800_000
) -> list[Event]:
    """Return observation, proposal and verdict of one decision, called `d<epoch>`."""
    blocked = None if approved else "budget"
    return [
        observed(epoch, f"o{epoch}"),
        DecisionProposed(
            decision=f"d{epoch}", epoch=epoch, policy=policy, observation=f"o{epoch}", action=ACTIONS[index], index=index,
            confidence=0.75, reason=f"because of {epoch}", scores=[0.0, 1.0, 0.5, -1.0], latency_ns=latency_ns,
        ),
        DecisionVerdict(
            decision=f"d{epoch}", approved=approved,
            guards=[GuardResult(guard="budget", passed=approved, reason="" if approved else "too many weights")],
            blocked_by=blocked,
        ),
    ]  # fmt: skip


def germinated(slot: str, epoch: int, params: int, blueprint: str) -> list[Event]:
    """Return what happens to a slot when decision `d<epoch>` puts its first seed there."""
    return [
        SlotGerminated(slot=slot, seed=f"{slot}.1", blueprint=blueprint, params=params, flops=2 * params,
                       decision=f"d{epoch}"),
        SlotStageChanged(slot=slot, seed=f"{slot}.1", from_stage="dormant", to_stage="germinated", reason="plateau",
                         decision=f"d{epoch}"),
    ]  # fmt: skip


def moved(slot: str, *stages: str, alpha: float = 0.0, initiator: str = "policy") -> list[Event]:
    """Return the changes of a slot's first seed from stage to stage."""
    return [
        SlotStageChanged(slot=slot, seed=f"{slot}.1", from_stage=a, to_stage=b, reason="", alpha=alpha, epochs_in_stage=2,
                         initiator=initiator)
        for a, b in pairwise(stages)
    ]  # fmt: skip


def measured(epoch: int, loss: float, grown: int, *, accuracy: float = 0.5) -> EpochMeasured:
    """Return the end of an epoch of a host with 166 weights."""
    return EpochMeasured(
        epoch=epoch, train_loss=loss - 0.125, val_loss=loss, val_accuracy=accuracy, params_total=166 + grown,
        params_grown=grown, learning_rate=0.01, plateau=epoch == 1, n=337,
    )  # fmt: skip


def grown_run() -> list[Event]:
    """Return a run in which one seed helped, one was pruned, one proposal was blocked, one was waiting."""
    return [
        AdaptationStarted(sites=SITES, policy="bandit", config={"every": 1}, seed=7, host_params=166, label="arm"),
        measured(0, 2.0, 0),
        *decided(0, 1),
        *germinated("fc1#0", 0, 4288, "ab" * 32),
        *moved("fc1#0", "germinated", "training", "blending"),
        SlotAlphaChanged(slot="fc1#0", seed="fc1#0.1", alpha_from=0.0, alpha_to=1.0, ramp="cosine", steps=48, decision="d0"),
        measured(1, 1.5, 4288),
        *decided(1, 2),
        *germinated("fc2#0", 1, 32, "cd" * 32),
        SlotHealth(
            slots=Names(["fc1#0", "fc2#0"]), stages=["blending", "germinated"], alpha=np.array([0.5, 0], np.float32),
            grad_norm=np.array([0.25, np.nan], np.float32), missing={"grad_norm": [1]},
        ),
        measured(2, 1.0, 4320),
        *decided(2, 2, approved=False),
        *moved("fc1#0", "blending", "holding", alpha=1.0, initiator="gate"),
        SlotContribution(slot="fc1#0", seed="fc1#0.1", split="val", n=337, alpha=1.0, loss_with=1.0, loss_without=1.75,
                         accuracy_with=0.75, accuracy_without=0.5),
        SlotContribution(slot="fc2#0", seed="fc2#0.1", split="val", n=337, alpha=1.0, loss_with=1.25, loss_without=1.0),
        *moved("fc1#0", "holding", "fossilized", alpha=1.0),
        *moved("fc2#0", "germinated", "pruned"),
        DecisionOutcome(decision="d0", slot="fc1#0", seed="fc1#0.1", blueprint="mlp64", stage="holding", epochs=2,
                        contribution=0.5, final=False),
        DecisionOutcome(decision="d0", slot="fc1#0", seed="fc1#0.1", blueprint="mlp64", stage="fossilized", epochs=3,
                        contribution=0.75, accuracy_gain=0.25, params=4288, reward=0.5, terms={"gain": 0.75, "rent": -0.25}),
        DecisionOutcome(decision="d1", slot="fc2#0", seed="fc2#0.1", blueprint="norm", stage="pruned", epochs=2,
                        contribution=-0.25, params=32, reward=-0.25),
        SlotRefused(slot="fc2#0", asked="fossilize", reason="it was pruned", decision="d3"),
        *decided(3, 0),
        measured(3, 1.0, 4288, accuracy=0.75),
        AdaptationFinished(epochs=4, germinated=2, fossilized=1, pruned=1, contributing=1, params_grown=4288,
                           measured={"test_accuracy": 0.875}),
    ]  # fmt: skip
