"""Dead letters: commands that nobody could do, kept until a person retries or drops them.

Each act has an id that follows from the letter, and the letter goes last: whoever is killed in the middle, or
does it twice, ends with one new command and one outcome in the log.
"""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphogen.schemas import CommandIssued, DeadLetter, DeadResolved, FrameError, decode_event, decode_frame, token

from ..emit import emit, event_id
from ..errors import CommandError, JetStreamApiError
from ..reader import Message, read
from ..streams import DEAD, put_copy
from .issue import command_event_id, command_label, command_message_id, outcome_label, send
from .workqueue import waiting

if TYPE_CHECKING:
    from ..connection import Connection

__all__ = ["Letter", "drop", "letters", "retry", "show"]

_CLOCK_SLACK = 60_000_000_000  # ns by which the clocks of a cluster's servers may differ
_NO_MESSAGE = (10037, 10043, 10057)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: its place among them, when it came (unix ns), whose run, its event's id, and what it says."""

    seq: int
    stored: int
    run: str
    event_id: str
    body: DeadLetter


async def letters(conn: "Connection", *, run: str | None = None) -> list[Letter]:
    """Return all dead letters, oldest first."""
    found: list[Letter] = []
    async for batch in read(conn, stream="dead", run=run):
        found.extend(letter for message in batch if (letter := _letter(message)) is not None)
    return found


async def show(conn: "Connection", key: int | str) -> Letter:
    """Return the letter at a place, else of a command id (the newest of it). Raises CommandError where there is none."""
    held = await letters(conn)
    found = [letter for letter in held if str(letter.seq) == str(key)] or [
        letter for letter in held if letter.body.command_id == key
    ]
    if not found:
        raise CommandError(f"there is no dead letter {key!s:.200}: run `morphogen dead list`")
    return found[-1]


async def retry(conn: "Connection", key: int | str, *, by: str | None = None) -> str:
    """Issue the letter's command anew, take the letter away, and return the new command's id.

    The new command has the same target, name and arguments, does not expire, and has the letter as its cause.
    Raises CommandError where there is no such letter, or where it is of a message that could not be read.
    """
    letter = await show(conn, key)
    body = letter.body
    if not body.name:
        raise CommandError(f"dead letter {letter.seq} holds a message that could not be read: drop it")
    fresh = f"{body.command_id}~{letter.seq}"
    earlier = await _find(conn, letter, CommandIssued.family, command_label(body.target), command_event_id(fresh))
    if earlier is not None:
        await _finish_retry(conn, letter, fresh, earlier)
    else:
        await send(
            conn,
            body.target,
            body.name,
            body.args,
            run=letter.run,
            issuer=by,
            command_id=fresh,
            cause=letter.event_id,
        )
    await _resolve(conn, letter, "retried", fresh, by)
    return fresh


async def drop(conn: "Connection", key: int | str, *, by: str | None = None) -> None:
    """Take the letter away for good; the log keeps the record. Raises CommandError where there is no such letter."""
    await _resolve(conn, await show(conn, key), "dropped", None, by)


async def _finish_retry(conn: "Connection", letter: Letter, command_id: str, earlier: Message) -> None:
    """Make sure that the command of an earlier retry, which the log has, was also given to the workers."""
    subject = f"{command_label(letter.body.target)}.{token(letter.run)}"
    async for message in waiting(conn, f"morphogen.command.{subject}"):
        if command_id in _command_ids(message.data):
            return
    for family, label in (("outcome", outcome_label(letter.body.target)), ("dead", command_label(letter.body.target))):
        async for batch in read(conn, subjects=[_subject(letter, family, label)], after=earlier.seq):
            if any(command_id in _command_ids(message.data) for message in batch):
                return
    await put_copy(conn, earlier.subject, earlier.data, message_id=command_message_id(command_id), log_seq=earlier.seq)


async def _resolve(conn: "Connection", letter: Letter, action: str, retried_as: str | None, by: str | None) -> None:
    body = letter.body
    event = DeadResolved(command_id=body.command_id, action=action, retried_as=retried_as, by=by)
    msg_id = f"{token(body.command_id)}-{letter.seq}-resolved"
    label = command_label(body.target)
    # The log refuses an id for two minutes; whoever resumes later looks for himself.
    if await _find(conn, letter, event.family, label, event_id(msg_id, event.family)) is None:
        await emit(conn, event, run=letter.run, cause=letter.event_id, label=label, msg_id=msg_id)
    try:
        await conn.js(f"STREAM.MSG.DELETE.{DEAD}", {"seq": letter.seq, "no_erase": True})
    except JetStreamApiError as error:
        if error.err_code not in _NO_MESSAGE:  # another process was faster
            raise


async def _find(conn: "Connection", letter: Letter, family: str, label: str, wanted: str) -> Message | None:
    """Return the log's message that holds the event `wanted`, if it was written since the letter came."""
    async for batch in read(conn, subjects=[_subject(letter, family, label)], since_ns=letter.stored - _CLOCK_SLACK):
        for message in batch:
            with contextlib.suppress(FrameError):
                if decode_frame(message.data, message.seq).event_id(0) == wanted:
                    return message
    return None


def _subject(letter: Letter, family: str, label: str) -> str:
    return f"morphogen.log.{token(letter.run)}.{token(family)}.{label}"


def _command_ids(data: bytes) -> set[str]:
    with contextlib.suppress(FrameError):
        records = decode_frame(data).records
        events = (decode_event(record.type, record.version, record.body) for record in records)
        return {str(getattr(event, "command_id", "")) for event in events}
    return set()


def _letter(message: Message) -> Letter | None:
    with contextlib.suppress(FrameError):
        frame = decode_frame(message.data, message.seq, message.stored)
        for index, record in enumerate(frame.records):
            event = decode_event(record.type, record.version, record.body)
            if isinstance(event, DeadLetter):
                return Letter(message.seq, message.stored, frame.run, frame.event_id(index), event)
    return None
