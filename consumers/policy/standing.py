"""What archive and log have of a run that asks for a policy: its events, and what was decided for it already."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from morphogen.bus.bodies import whole
from morphogen.bus.commands import command_message_id
from morphogen.bus.frames import frames as sound_frames
from morphogen.bus.past import past
from morphogen.bus.reader import Message
from morphogen.bus.streams import put_copy
from morphogen.schemas import (
    CommandIssued,
    DecisionProposed,
    Event,
    Frame,
    decode_event,
)

from .protocol import Observation, Outcome, Proposal
from .timeline import Told

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

FAMILIES = ("adaptation", "slot", "health", "run")
"""The families that a policy is shown something of."""


class Sent(NamedTuple):
    """The command of a decision as the log has it, and what it asks for."""

    op: str
    message: Message


@dataclass
class Standing:
    """What the log has of one attempt of a run: what was told; what was proposed and sent, by decision."""

    attempt: int
    told: list[Told] = field(default_factory=list)
    proposed: dict[str, DecisionProposed] = field(default_factory=dict)
    sent: dict[str, Sent] = field(default_factory=dict)
    begun: bool = False

    def take(self, frame: Frame, message: Message) -> None:
        """Take in a frame of the run, in the log's order, with the message that it came by."""
        if frame.family in FAMILIES:
            if frame.attempt == self.attempt:
                self.begun = True
                self.told += events(frame)
            return
        for told in events(frame) if self.begun else ():  # what was decided before is of an earlier attempt
            if isinstance(told.event, DecisionProposed):
                self.proposed[told.event.decision] = told.event
            elif isinstance(told.event, CommandIssued) and told.event.command_id in self.proposed:
                self.sent[told.event.command_id] = Sent(told.event.name, message)

    @property
    def last(self) -> DecisionProposed | None:
        """The newest decision whose command is in the log."""
        return max((self.proposed[one] for one in self.sent), key=lambda one: one.epoch, default=None)


class Again:
    """A policy that proposes what is in the log: who was killed before a command went out may have had another policy."""

    def __init__(self, said: DecisionProposed) -> None:
        self.name, self.version = said.policy, said.policy_version
        self._said = said

    def decide(self, observation: Observation) -> Proposal:
        """Return what was proposed for this very observation."""
        said = self._said
        return Proposal(
            index=said.index,
            reason=said.reason,
            logprob=said.logprob,
            value=said.value,
            entropy=said.entropy,
            uncertainty=said.uncertainty,
            confidence=said.confidence,
            scores=said.scores,
        )

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing: it is asked once."""


async def standing(conn: "Connection", run: str, attempt: int, *, after: int, upto: int, young: int) -> Standing:
    """Return what archive and log have of a run's attempt after a sequence, up to another one.

    A command stored at `young` (unix ns) or later is given to the work queue, which refuses one that it has had: who
    issued it may have been killed between the two. Raises LogGap where neither has all that was asked for.
    """
    found = Standing(attempt)
    families = {*FAMILIES, DecisionProposed.family, CommandIssued.family}
    async for batch in whole(conn, past(conn, conn.settings, after=after, upto=upto, run=run, family=families)):
        for message in batch:
            for frame in frames([message]):
                found.take(frame, message)
    for decision, (_, message) in found.sent.items():
        if message.stored >= young:
            name = command_message_id(decision)
            await put_copy(conn, message.subject, message.data, message_id=name, log_seq=message.seq)
    return found


def frames(batch: Iterable[Message]) -> Iterator[Frame]:
    """Return what the first process of a run has recorded itself."""
    return (frame for frame in sound_frames(batch) if frame.replay is None and frame.rank == 0)


def events(frame: Frame) -> Iterator[Told]:
    """Yield the events of a frame that can be read."""
    for index, record in enumerate(frame.records):
        event = decode_event(record.type, record.version, record.body)
        if isinstance(event, Event):
            yield Told(frame.family, record.n, record.time, record.step, event, frame.event_id(index))
