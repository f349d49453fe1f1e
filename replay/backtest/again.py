"""One recorded run gone over again: the state folded anew, the policy asked at every decision that the log holds. Pure.

The policy learns from the recorded outcomes, where the log has them: what happened, happened, whoever decided it.
Where the run had its policy elsewhere, it is told none, as live.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from morphogen.consumers.policy import Observation, Outcome, Policy, State, decide, fold, observe
from morphogen.consumers.policy.protocol import site_of
from morphogen.consumers.policy.timeline import timeline
from morphogen.schemas import (
    Action,
    DecisionOutcome,
    DecisionProposed,
    DecisionVerdict,
    Event,
    LayerHealth,
    Observed,
    line_of,
)

from .recorded import Key, Recorded, blueprints_of

DRY_RUN = "dry_run"
REMOTE = "remote"  # a policy that decides from elsewhere is told no outcome


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What was proposed at one moment, and what the guards said."""

    action: Action
    index: int
    reason: str = ""
    approved: bool | None = None  # None: the log has no verdict
    blocked_by: str | None = None
    blueprint: str | None = None  # the menu's name of what is or would be in the slot

    @property
    def site(self) -> str | None:
        """The site that it is about."""
        return None if self.action.slot is None else site_of(self.action.slot)

    @property
    def acts(self) -> bool:
        """Tell whether something would have been done."""
        return self.action.op != "wait" and self.approved is True


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One decision of the log, and the other policy's answer to the same observation.

    `rebuilt`: the observation made anew from the events has the recorded hash. `exact`: proposal and verdict are the
    recorded ones in all that a policy says, to the bit. `decision` is None where the log has an observation but no
    proposal.
    """

    run: str
    attempt: int
    rank: int
    epoch: int
    step: int | None
    decision: str | None
    observation: str
    rebuilt: bool
    exact: bool
    recorded: Choice | None
    chosen: Choice
    logprob: float | None = None  # of the recorded action, by the policy that the log had

    @property
    def same(self) -> bool:
        """Tell whether both policies propose the same action."""
        return self.recorded is not None and self.recorded.index == self.chosen.index

    @property
    def differs(self) -> bool:
        """Tell whether what would have been done is not what was done."""
        if self.recorded is None:
            return self.chosen.acts
        return not (self.same and self.recorded.acts == self.chosen.acts) and (self.recorded.acts or self.chosen.acts)


@dataclass(frozen=True)
class Rerun:
    """A run gone over again: its decisions, and the state in which the last event left it."""

    recorded: Recorded
    moments: tuple[Moment, ...]
    state: State = field(repr=False)
    faults: tuple[str, ...] = ()  # what the policy did wrong, a line each

    @property
    def key(self) -> Key:
        """Whose story it is."""
        return self.recorded.key


@dataclass
class _Log:
    """What the log has on the decisions of one run, by name."""

    proposals: dict[str, DecisionProposed]  # by observation
    decisions: dict[str, DecisionProposed]  # the same, by decision
    verdicts: dict[str, DecisionVerdict]  # by decision
    blueprints: dict[str, str]  # by seed

    @classmethod
    def of(cls, events: Iterable[Event], blueprints: dict[str, str]) -> "_Log":
        """Take the first proposal on each observation and the first verdict on each decision."""
        found = cls({}, {}, {}, blueprints)
        for event in events:
            if isinstance(event, DecisionProposed):
                found.proposals.setdefault(event.observation, event)
                found.decisions.setdefault(event.decision, event)
            elif isinstance(event, DecisionVerdict):
                found.verdicts.setdefault(event.decision, event)
        return found


def again(recorded: Recorded, policy: Policy, *, learn: bool = True) -> Rerun:
    """Go over a run with a policy that was just made with the run's seed; without `learn` it is told no outcome."""
    order = list(timeline(recorded.told))
    log = _Log.of((told.event for told in order), blueprints_of(recorded))
    learn = learn and recorded.started.policy != REMOTE
    state, seen = State(), dict[str, Observation]()
    trail: dict[int, list[State]] = {}  # the states of each epoch, but for those that health alone tells apart
    moments: list[Moment] = []
    faults: list[str] = []
    for told in order:
        event = told.event
        if isinstance(event, Observed):
            seen[event.observation] = Observation.of(event)
            then = _state_of(event, state, trail.get(event.epoch, []))
            moments.append(_moment(recorded.key, told.step, event, seen[event.observation], then, state, policy, log))
        elif isinstance(event, DecisionOutcome):
            outcome = _outcome(event, log, seen)
            if learn and outcome is not None:
                try:
                    policy.learn(outcome)
                except (Exception, SystemExit) as error:  # noqa: BLE001  anybody's code: live it is caught too
                    faults.append(f"policy did not learn: {type(error).__name__}: {line_of(error, 200)}")
        else:
            state = fold(state, event, told.step)
            if not isinstance(event, LayerHealth):
                trail.setdefault(state.epoch, []).append(state)
    faults += [moment.chosen.reason for moment in moments if moment.chosen.blocked_by == "policy"]
    return Rerun(recorded, tuple(moments), state, tuple(faults))


def _state_of(event: Observed, state: State, trail: Sequence[State]) -> State | None:
    """Return the state that an observation was made of; None where the events give none that has its hash.

    It is the one at hand where the run decided for itself. A policy elsewhere sees what has arrived, a little late: then it
    is an earlier one of the same epoch.
    """
    candidates = [state] if state.epoch == event.epoch else []
    candidates += reversed(trail)
    return next((one for one in candidates if observe(one).sha256 == event.observation), None)


def _moment(
    key: Key,
    step: int | None,
    event: Observed,
    seen: Observation,
    then: State | None,
    now: State,
    policy: Policy,
    log: _Log,
) -> Moment:
    was = log.proposals.get(event.observation)
    verdict = None if was is None else log.verdicts.get(was.decision)
    state = now if then is None else then
    decided = decide(state, policy, seen=seen, dry_run=_dry_run(was, verdict))
    chosen = _choice(decided.proposed, decided.verdict, state, log)
    recorded = None if was is None else _choice(was, verdict, state, log)
    exact = (
        was is not None
        and _said(was) == _said(decided.proposed)
        and (verdict is None or _judged(verdict) == _judged(decided.verdict))
    )
    return Moment(
        run=key.run, attempt=key.attempt, rank=key.rank, epoch=event.epoch, step=step,
        decision=None if was is None else was.decision, observation=event.observation, rebuilt=then is not None, exact=exact,
        recorded=recorded, chosen=chosen, logprob=None if was is None else was.logprob,
    )  # fmt: skip


def _choice(proposed: DecisionProposed, verdict: DecisionVerdict | None, state: State, log: _Log) -> Choice:
    slot = state.slots.get(proposed.action.slot or "")
    standing = None if slot is None or slot.seed is None else log.blueprints.get(slot.seed, slot.blueprint)
    return Choice(
        action=proposed.action,
        index=proposed.index,
        reason=proposed.reason,
        approved=None if verdict is None else verdict.approved,
        blocked_by=None if verdict is None else verdict.blocked_by,
        blueprint=proposed.action.blueprint or standing,
    )


def _dry_run(was: DecisionProposed | None, verdict: DecisionVerdict | None) -> Callable[[Action], str | None] | None:
    """Return what the log's own dry run said of its action; one of another action cannot be had, and stops nothing."""
    if was is None or verdict is None:
        return None
    result = next((one for one in verdict.guards if one.guard == DRY_RUN), None)
    if result is None:
        return None
    return lambda action: result.reason if action == was.action and not result.passed else None


def _said(proposed: DecisionProposed) -> bytes:
    """Return all that a policy says in a proposal; its name in the log and how long it took are not part of it."""
    return msgspec.structs.replace(proposed, decision="", latency_ns=None).encode()


def _judged(verdict: DecisionVerdict) -> bytes:
    return msgspec.structs.replace(verdict, decision="").encode()


def _outcome(event: DecisionOutcome, log: _Log, seen: dict[str, Observation]) -> Outcome | None:
    """Return an outcome as the policy was told it; None where the log does not have the decision."""
    was = log.decisions.get(event.decision)
    if was is None:
        return None
    return Outcome(
        decision=event.decision, epoch=was.epoch, observation=was.observation, index=was.index, action=was.action,
        reward=event.reward, contribution=event.contribution, accuracy_gain=event.accuracy_gain, slot=event.slot,
        seed=event.seed, stage=event.stage, epochs=event.epochs, params=event.params, logprob=was.logprob, value=was.value,
        terms=event.terms, final=event.final, seen=seen.get(was.observation),
    )  # fmt: skip
