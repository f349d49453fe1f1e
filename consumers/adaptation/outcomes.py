"""What came of the decisions that were carried out: told when a seed is judged, or when the run ends."""

from dataclasses import dataclass

from morphogen.consumers.executor import Seedling
from morphogen.consumers.policy import Observation, Outcome, Reward
from morphogen.consumers.policy.ledger import Ledger
from morphogen.schemas import Action, DecisionOutcome, Event


@dataclass(frozen=True)
class Carried:
    """A decision that was carried out. `seed` is what it was about; what the policy saw is there where it was asked here."""

    decision: str
    action: Action
    epoch: int
    seed: str | None
    cause: str | None  # the id of its verdict, or of the command
    observation: str = ""
    index: int = -1
    logprob: float | None = None
    value: float | None = None
    seen: Observation | None = None


@dataclass(frozen=True)
class Told:
    """An outcome for the log and the same for the policy."""

    event: DecisionOutcome
    outcome: Outcome
    cause: str | None


class Outcomes:
    """Decisions that wait for their outcome, and the account of who is credited with what."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._waiting: list[Carried] = []

    def take(self, event: Event) -> None:
        """Take an event of the run into the account."""
        self._ledger = self._ledger.take(event)

    def carried(self, decision: Carried) -> None:
        """Take note of a decision that was carried out."""
        self._waiting.append(decision)

    def judged(self, seedling: Seedling, epoch: int, *, final: bool) -> list[Told]:
        """Return the outcomes of all decisions about a seed, as it was judged after `epoch`.

        The reward of its life belongs to the decision that germinated it; the others have none of their own. What is
        not final is told again: a seed that was kept has the rest of the run before it.
        """
        about = [one for one in self._waiting if one.seed == seedling.seed]
        ledger, found, _ = self._ledger.judge(seedling.slot, seedling.stage, latency_share=seedling.latency)
        if final:
            self._ledger = ledger
            self._waiting = [one for one in self._waiting if one.seed != seedling.seed]
        return [_told(one, seedling, epoch, found, final) for one in about]


def _told(one: Carried, seedling: Seedling, epoch: int, found: Reward, final: bool) -> Told:
    measured = seedling.contribution
    owner = one.action.op == "germinate"
    event = DecisionOutcome(
        decision=one.decision,
        slot=seedling.slot,
        seed=seedling.seed,
        blueprint=seedling.address,
        stage=seedling.stage,
        epochs=epoch - one.epoch,
        contribution=None if measured is None else measured.gain,
        accuracy_gain=None if measured is None else measured.accuracy_gain,
        params=seedling.params,
        reward=found.total if owner else None,
        terms=dict(found.terms) if owner else {},
        final=final,
    )
    outcome = Outcome(
        decision=one.decision,
        epoch=one.epoch,
        observation=one.observation,
        index=one.index,
        action=one.action,
        reward=event.reward,
        contribution=event.contribution,
        accuracy_gain=event.accuracy_gain,
        slot=event.slot,
        seed=event.seed,
        stage=event.stage,
        epochs=event.epochs,
        params=event.params,
        logprob=one.logprob,
        value=one.value,
        terms=event.terms,
        final=final,
        seen=one.seen,
    )
    return Told(event, outcome, one.cause)
