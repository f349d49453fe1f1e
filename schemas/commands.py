"""Commands, what became of them, and dead letters.

A command is an event like any other, in family `command`, and an item in the work queue under the same id. What becomes
of it is told in family `outcome`; what nobody could do lands in family `dead`.
"""

from typing import Any

import msgspec

from .event import Event


class CommandIssued(Event, type="command.issued", version=1):
    """Somebody asks `target` to do `name`. Its id is the id of this event."""

    command_id: str
    target: str
    name: str
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    issuer: str | None = None
    max_deliveries: int = 5
    expires: int | None = None  # unix nanoseconds by the issuer's clock, to be compared with the event's own time


class CommandAccepted(Event, type="outcome.accepted", version=1):
    """A worker took a command into its hands; `delivery` counts its tries from 1."""

    command_id: str
    worker: str
    delivery: int


class CommandFinished(Event, type="outcome.finished", version=1):
    """A worker is done with a try: with a result, or with an error that may be retried."""

    command_id: str
    worker: str
    delivery: int
    ok: bool
    result: Any = None
    error: str | None = None
    duration: float | None = None  # seconds


class DeadLetter(Event, type="dead.letter", version=1):
    """A command that nobody could do: why, after how many tries, and all that is needed to try again."""

    command_id: str
    target: str
    name: str
    reason: str
    deliveries: int
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    issued: int | None = None  # unix nanoseconds


class DeadResolved(Event, type="outcome.resolved", version=1):
    """A dead letter was retried (as `retried_as`) or dropped by a person."""

    command_id: str
    action: str  # retried | dropped
    retried_as: str | None = None
    by: str | None = None
