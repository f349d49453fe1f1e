"""Ask somebody to do something: one write to the log is the record, its copy in the work queue the act."""

import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from morphogen.schemas import CommandIssued, Unknown, decode_event, sound, token

from ..emit import LARGEST, emit, event_id
from ..errors import CommandError, MessageTooLarge
from .worker import BACKOFF, Command, Handler, Worker, command_label, outcome_label, serve

if TYPE_CHECKING:
    from ..connection import Connection

__all__ = [
    "BACKOFF",
    "Command",
    "Handler",
    "Worker",
    "command_event_id",
    "command_label",
    "command_message_id",
    "outcome_label",
    "send",
    "serve",
]

_LONGEST = 1e9  # seconds, some thirty years: behind them lies what 64 bits of nanoseconds cannot name
_ROOM_FOR_A_REASON = 16 * 1024  # bytes; a dead letter carries the arguments and more


async def send(
    conn: "Connection",
    target: str,
    name: str,
    args: Mapping[str, Any] | None = None,
    *,
    run: str = "",
    issuer: str | None = None,
    max_deliveries: int = 5,
    expires_in: float | None = None,
    command_id: str | None = None,
    cause: str | None = None,
) -> str:
    """Issue a command and return its id, once it is stored and will be delivered.

    With a `command_id` of the caller's own, the same command may be sent again after any failure: two of one id
    within two minutes are one. `expires_in` is in seconds from when the broker stores it, by the broker's clock: a worker
    that is given it later puts it to the dead letters.
    Raises CommandError for a command that cannot be, MessageTooLarge, or a BusError when it may or may not be stored.
    """
    if not target or not name:
        raise CommandError("a command needs a target and a name")
    if args is not None and not isinstance(args, Mapping):
        raise CommandError(f"the arguments of command {name!r} are no mapping: give names and values")
    if sound(run) != run:
        raise CommandError(f"command {name!r} is for run {run!r}, which is no text: is the locale (LC_ALL) UTF-8?")
    key = command_id or uuid.uuid4().hex
    issued = CommandIssued(
        command_id=key,
        target=target,
        name=name,
        args=dict(args or {}),
        issuer=issuer,
        max_deliveries=max_deliveries,
        expires=None if expires_in is None else _moment(name, expires_in),
    )
    body = issued.encode()
    read_back = decode_event(issued.type, issued.version, body)  # as a worker will
    if isinstance(read_back, Unknown):
        raise CommandError(f"no worker could read command {name!r}: {read_back.reason}")
    if max_deliveries < 1:
        raise CommandError(f"command {name!r} asks for {max_deliveries} deliveries: ask for at least 1")
    size = len(body)
    if size > LARGEST - _ROOM_FOR_A_REASON:
        raise MessageTooLarge(
            f"command {name!r} of {size} bytes does not fit into the log: put its data into a blob and send the hash"
        )
    await emit(conn, issued, run=run, cause=cause, label=command_label(target), msg_id=command_message_id(key))
    return key


def _moment(name: str, seconds: float) -> int:
    """Return the time (unix ns) so many seconds from now."""
    if not 0 < seconds <= _LONGEST:  # which NaN is not, either
        raise CommandError(f"command {name!r} cannot expire in {seconds} s: give seconds above 0, or none")
    return time.time_ns() + int(seconds * 1e9)


def command_event_id(command_id: str) -> str:
    """Return the id of the event by which `send` issues a command."""
    return event_id(command_message_id(command_id), CommandIssued.family)


def command_message_id(command_id: str) -> str:
    """Return the message id under which `send` issues a command."""
    return f"{token(command_id)}-issued"
