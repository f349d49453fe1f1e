"""A network that grows while it trains: what was seen, proposed, allowed, done to a slot, and what came of it.

A *site* is a module of the host beside which something may grow; a *slot* is a place at a site, named
`<site>#<number>`; a *seed* is what grows in a slot, named `<slot>.<number>`, counted from 1. Proposal, verdict,
mutation and outcome are events of their own, linked by `decision` and by the envelope's cause. What was not measured
is None, never 0. Accuracies and shares are from 0 to 1; latencies are nanoseconds; losses are means over a split.
"""

from typing import Any

import msgspec

from .event import Event
from .values import Names, Vector


class SiteInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A module of the host that can be grown at; shapes leave out the batch, and are None until it was called."""

    site: str
    kind: str  # features | sequence | image
    in_shape: list[int] | None
    out_shape: list[int] | None
    slots: int
    params: int


class AdaptationStarted(Event, type="adaptation.started", version=1):
    """A run may grow from here on: where, by which policy, within what limits."""

    sites: list[SiteInfo]
    policy: str
    policy_version: str | None = None  # sha256 of the checkpoint that the policy began with
    config: dict[str, Any] = msgspec.field(default_factory=dict)
    seed: int = 0
    host_params: int = 0
    label: str | None = None  # what the user calls this kind of run, such as the arm of an experiment


class EpochMeasured(Event, type="adaptation.epoch", version=1):
    """An epoch ended: the host and all that has grown, as one."""

    epoch: int
    train_loss: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    params_total: int = 0
    params_grown: int = 0
    learning_rate: float | None = None
    plateau: bool = False
    n: int | None = None  # samples of the validation split


class AdaptationFinished(Event, type="adaptation.finished", version=1):
    """A run grows no more: what grew, and whatever was measured at the end (`measured` by name)."""

    epochs: int
    germinated: int
    fossilized: int
    pruned: int
    contributing: int  # fossilized seeds whose measured contribution is above zero
    params_grown: int
    rollbacks: int = 0
    measured: dict[str, float] = msgspec.field(default_factory=dict)


class SlotGerminated(Event, type="slot.germinated", version=1):
    """A seed stands in a slot."""

    slot: str
    seed: str
    blueprint: str  # content address
    params: int
    flops: int | None = None  # of one forward pass of one sample
    rng_seed: int = 0
    artifact: str | None = None  # content address of the weights that it began with; None for fresh ones
    decision: str | None = None


class SlotStageChanged(Event, type="slot.stage_changed", version=1):
    """A slot went from one stage of its life to the next one."""

    slot: str
    seed: str | None
    from_stage: str
    to_stage: str
    reason: str
    initiator: str = "policy"  # policy | gate | governor | timeout | user
    alpha: float = 0.0
    epochs_in_stage: int = 0  # spent in the stage that it left
    decision: str | None = None


class SlotGate(Event, type="slot.gate", version=1):
    """A gate between two stages was asked; a check of something that was not measured has failed."""

    slot: str
    seed: str
    gate: str
    passed: bool
    checks_passed: list[str] = msgspec.field(default_factory=list)
    checks_failed: list[str] = msgspec.field(default_factory=list)
    measured: dict[str, float | None] = msgspec.field(default_factory=dict)


class SlotAlphaChanged(Event, type="slot.alpha_changed", version=1):
    """A ramp of a slot's alpha began; the ramp is a pure function of the steps since then."""

    slot: str
    seed: str
    alpha_from: float
    alpha_to: float
    ramp: str  # linear | cosine | sigmoid
    steps: int  # optimizer steps from one to the other; 0 is at once
    blend: str = "add"  # add | multiply | gate
    decision: str | None = None


class SlotHealth(Event, type="slot.health", version=1):
    """All seeds of a run at the end of an epoch: one number a seed, in the order of `slots`; as in `health.layer`.

    `missing[signal]` lists the positions that were not measured.
    """

    slots: Names
    stages: list[str]
    alpha: Vector
    grad_norm: Vector | None = None
    grad_ratio: Vector | None = None  # of the seed to its host module, each per root of its number of weights
    weight_norm: Vector | None = None
    output_mean: Vector | None = None
    output_variance: Vector | None = None
    nonfinite: Vector | None = None
    epochs_in_stage: Vector | None = None
    missing: dict[str, list[int]] = msgspec.field(default_factory=dict)


class SlotContribution(Event, type="slot.contribution", version=1):
    """The same batches with the slot's alpha as it is and with alpha 0."""

    slot: str
    seed: str
    split: str
    n: int
    alpha: float
    loss_with: float | None
    loss_without: float | None
    accuracy_with: float | None = None
    accuracy_without: float | None = None


class SlotRefused(Event, type="slot.refused", version=1):
    """Something was asked of a slot that is not legal or not possible, and was not done."""

    slot: str | None
    asked: str
    reason: str
    decision: str | None = None


class SlotFailed(Event, type="slot.failed", version=1):
    """Something of ours went wrong in a slot, and what was done. `recovered` only where it was then seen to work."""

    slot: str | None
    seed: str | None
    error: str  # nonfinite | exploding | exception | shape | memory | timeout | load | checksum | device
    message: str
    recovery: str  # retry | fallback | cut | rollback | quarantine | escalate
    recovered: bool
    attempt: int = 1
    blueprint: str | None = None


class HostRestored(Event, type="slot.host_restored", version=1):
    """The weights went back to the last good state."""

    reason: str  # nonfinite | exploding | lost_sense
    snapshot_step: int | None
    loss: float | None = None
    threshold: float | None = None
    slots: list[str] = msgspec.field(default_factory=list)  # that were cut off with it
    decision: str | None = None


class BreakerChanged(Event, type="slot.breaker_changed", version=1):
    """A circuit breaker opened, closed, or lets one try through."""

    name: str
    from_state: str  # closed | open | half_open
    to_state: str
    failures: int


class ArtifactQuarantined(Event, type="slot.quarantined", version=1):
    """A blueprint or an artifact failed too often and is not used any more in this run."""

    blueprint: str
    reason: str
    failures: int


class AlertRaised(Event, type="alert.raised", version=1):
    """A person should look."""

    severity: str  # warning | critical
    subject: str
    message: str
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a policy may do. `op` is wait, germinate, set_alpha, advance, prune or fossilize."""

    op: str
    slot: str | None = None
    blueprint: str | None = None  # the name in the menu of this run, for germinate
    alpha: float | None = None
    ramp: str | None = None
    steps: int | None = None


class Observed(Event, type="decision.observed", version=1):
    """What a policy was shown, whole: the graph, the actions, and which of them were legal.

    `features` is a matrix, row after row: one row a node, `feature_names` its columns; NaN is what was not measured.
    `edges` holds pairs of positions in `nodes`. `observation` is the sha256 of all this.
    """

    observation: str
    epoch: int
    nodes: Names
    kinds: Names  # layer | slot | global, a node each
    feature_names: Names
    features: Vector
    edges: list[int]
    actions: list[Action]
    legal: list[bool]
    params: list[int] = msgspec.field(default_factory=list)  # that an action would add, one each


class DecisionProposed(Event, type="decision.proposed", version=1):
    """A policy wants `action`; `decision` names it from here on. Actions count in the order of the observation."""

    decision: str
    epoch: int
    policy: str
    observation: str
    action: Action
    index: int  # of the action in the observation
    policy_version: str | None = None
    logprob: float | None = None
    value: float | None = None
    entropy: float | None = None
    uncertainty: float | None = None
    confidence: float | None = None
    reason: str = ""
    scores: list[float] = msgspec.field(default_factory=list)  # an action each, where the policy has them
    latency_ns: int | None = None


class GuardResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one guard said."""

    guard: str
    passed: bool
    reason: str = ""


class DecisionVerdict(Event, type="decision.verdict", version=1):
    """The guards let a proposal through, or not."""

    decision: str
    approved: bool
    guards: list[GuardResult]
    blocked_by: str | None = None


class DecisionOutcome(Event, type="decision.outcome", version=1):
    """What came of a decision that was carried out: when its seed was judged, or when the run ended.

    `contribution` is the measured one in loss (above zero: the seed lowers it), None where it was never measured.
    """

    decision: str
    slot: str | None
    seed: str | None
    blueprint: str | None
    stage: str  # where the seed stood
    epochs: int  # since the decision
    contribution: float | None = None
    accuracy_gain: float | None = None
    params: int = 0
    reward: float | None = None
    terms: dict[str, float] = msgspec.field(default_factory=dict)  # of the reward, weights applied
    final: bool = True


class PolicyUpdated(Event, type="policy.updated", version=1):
    """A policy learned; its new checkpoint is `policy_version`. What was not computed is left out of `measured`."""

    policy: str
    policy_version: str
    previous: str | None
    samples: int
    experiences: int  # in all, since the policy was made
    measured: dict[str, float] = msgspec.field(default_factory=dict)
    checkpoint: str | None = None  # URI


class BlueprintProposed(Event, type="blueprint.proposed", version=1):
    """A generator offers a blueprint for a site, with what it expects of it."""

    request: str
    site: str
    rank: int
    blueprint: str
    name: str
    spec: bytes  # the blueprint itself
    origin: str  # template | search
    params: int
    flops: int
    latency_ns: int | None = None
    gain: float | None = None
    parents: list[str] = msgspec.field(default_factory=list)


class BlueprintMeasured(Event, type="blueprint.measured", version=1):
    """A blueprint was built: what is true of it."""

    blueprint: str
    built: bool
    request: str | None = None
    error: str | None = None
    params: int | None = None
    flops: int | None = None
    latency_ns: int | None = None  # median of one forward pass at `batch`
    batch: int | None = None
    device: str = "cpu"
