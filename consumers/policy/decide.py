"""One decision: observation, proposal, guards, verdict. Pure, given a policy that is; the clock comes in."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from morphogen.schemas import Action, DecisionProposed, DecisionVerdict, Event, Observed, line_of, sound

from .features import observe
from .guards import DryRun, guards
from .observe import State, fold
from .protocol import WAIT, Observation, Policy, Proposal

Clock = Callable[[], int]


@dataclass(frozen=True)
class Decided:
    """What was seen, proposed and allowed. `action` is what is to be done: `wait` where the guards said no."""

    observation: Observation
    proposal: Proposal
    observed: Observed
    proposed: DecisionProposed
    verdict: DecisionVerdict

    @property
    def decision(self) -> str:
        """The decision's name."""
        return self.proposed.decision

    @property
    def action(self) -> Action:
        """What is to be done."""
        return self.proposed.action if self.verdict.approved else WAIT

    @property
    def events(self) -> tuple[Observed, DecisionProposed, DecisionVerdict]:
        """The three events, each caused by the one before it."""
        return self.observed, self.proposed, self.verdict


def decide(
    state: State,
    policy: Policy,
    *,
    scope: str = "",
    clock: Clock | None = None,
    dry_run: DryRun | None = None,
    seen: Observation | None = None,
) -> Decided:
    """Ask `policy` what to do after the last epoch of `state`, and the guards whether it may be.

    `scope` is what makes the decision's name unique in a log, such as the run and its attempt. `clock` (nanoseconds)
    measures how long it took to observe and to propose. `seen` is an observation that the log has already. A policy that raises or answers nonsense has its proposal
    recorded as `wait`, with the reason, and a verdict that does not approve.
    """
    began = clock() if clock is not None else None
    observation = observe(state) if seen is None else seen
    observed = observation.event()
    answer, fault = _ask(policy, observation)
    proposal = Proposal(0, reason=fault) if fault else answer
    action = observation.actions[proposal.index]
    latency = None if clock is None or began is None else clock() - began
    name = hashlib.sha256(f"{scope}\0{observation.sha256}".encode()).hexdigest()[:16]
    results = guards(state, action, proposal, dry_run)
    blocked = next((result.guard for result in results if not result.passed), None)
    return Decided(
        observation=observation,
        proposal=proposal,
        observed=observed,
        proposed=DecisionProposed(
            decision=name,
            epoch=observation.epoch,
            policy=_text(policy, "name") or type(policy).__name__,
            policy_version=_text(policy, "version"),
            observation=observation.sha256,
            action=action,
            index=proposal.index,
            logprob=proposal.logprob,
            value=proposal.value,
            entropy=proposal.entropy,
            uncertainty=proposal.uncertainty,
            confidence=proposal.confidence,
            reason=proposal.reason,
            scores=list(proposal.scores),
            latency_ns=latency,
        ),
        verdict=DecisionVerdict(
            decision=name,
            approved=blocked is None and not fault,
            guards=list(results),
            blocked_by="policy" if fault else blocked,
        ),
    )


class Decider:
    """The state of one run and the policy that decides for it: feed it events, ask it at the end of an epoch."""

    def __init__(
        self, policy: Policy, *, scope: str = "", clock: Clock | None = None, dry_run: DryRun | None = None
    ) -> None:
        self.policy = policy
        self.state = State()
        self._scope, self._clock, self._dry_run = scope, clock, dry_run

    def take(self, event: Event, step: int | None = None) -> None:
        """Fold one event of the run."""
        self.state = fold(self.state, event, step)

    def decide(self, policy: Policy | None = None) -> Decided:
        """Decide after the last epoch that was taken; `policy`, where one is given, is asked instead of its own."""
        return decide(self.state, policy or self.policy, scope=self._scope, clock=self._clock, dry_run=self._dry_run)


def _ask(policy: Policy, observation: Observation) -> tuple[Proposal, str]:
    """Return the policy's answer and what is wrong with it, one line or nothing."""
    nothing = Proposal(0)
    try:
        answer: Any = policy.decide(observation)
        if not isinstance(answer, Proposal):
            return nothing, f"policy answered with a {type(answer).__name__}, not a Proposal"
        index = answer.index
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            return nothing, f"policy chose action {index!r}, which is no position"
        if not 0 <= int(index) < len(observation.actions):
            return nothing, f"policy chose action {int(index)} of {len(observation.actions)}"
        return _clean(answer), ""
    except (Exception, SystemExit) as error:  # noqa: BLE001  a policy is anybody's code, and the run must not die of it
        return nothing, f"policy failed: {type(error).__name__}: {line_of(error, 200)}"


def _clean(answer: Proposal) -> Proposal:
    """Return the answer in plain numbers; what is none becomes None, and scores that are not one a number go."""
    numbers = {
        name: _number(getattr(answer, name)) for name in ("logprob", "value", "entropy", "uncertainty", "confidence")
    }
    scores = [float(score) for score in answer.scores]
    return replace(answer, index=int(answer.index), reason=sound(answer.reason)[:1000], scores=scores, **numbers)


def _number(value: object) -> float | None:
    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return None if math.isnan(number) else number


def _text(policy: Policy, name: str) -> str | None:
    """Return what a policy says of itself; nothing where it fails at that, for what it decides is told all the same."""
    try:
        value = getattr(policy, name, None)
    except (Exception, SystemExit):  # noqa: BLE001
        return None
    return None if value is None else sound(value)[:200]
