"""Dead letters: commands that nobody could do, kept until a person retries or drops them.

Each act has an id that follows from the letter, and the letter goes last: whoever is killed in the middle, or
does it twice, ends with one new command and one outcome in the log.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphogen.schemas import CommandIssued, DeadLetter, DeadResolved, FrameError, decode_event, decode_frame, token

from ..emit import emit, event_id
from ..errors import CommandError, JetStreamApiError
from ..reader import Message, read
from ..streams import DEAD, put_copy, stored_message
from .issue import command_event_id, command_label, command_message_id, outcome_label, send
from .workqueue import waiting

if TYPE_CHECKING:
    from ..connection import Connection

__all__ = ["Letter", "chosen", "done_before", "drop", "drop_letter", "letters", "retry", "retry_letter", "show"]

_CLOCK_SLACK = 60_000_000_000  # ns by which the clocks of a cluster's servers may differ
_NO_MESSAGE = (10037, 10043, 10057)
_PLACE = re.compile(r"[1-9][0-9]{0,18}")  # what a stream can count


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: its place among them, when it came (unix ns), whose run, its event's id, and what it says."""

    seq: int
    stored: int
    run: str
    event_id: str
    body: DeadLetter


async def letters(conn: "Connection", *, run: str | None = None, target: str | None = None) -> list[Letter]:
    """Return the dead letters of a run and a target, or all, oldest first."""
    found: list[Letter] = []
    async for batch in read(conn, stream="dead", run=run):
        found.extend(letter for message in batch if (letter := _letter(message)) is not None)
    return [letter for letter in found if target is None or letter.body.target == target]


async def show(conn: "Connection", key: int | str) -> Letter:
    """Return the letter at a place, else of a command id (the newest of it). Raises CommandError where there is none."""
    (found,) = await chosen(conn, [key])
    return found


async def chosen(conn: "Connection", keys: Iterable[int | str]) -> list[Letter]:
    """Return the letters that are meant, each as `show` finds it, once. Raises CommandError where there is none for a key."""
    found: dict[int, Letter] = {}
    held: dict[str, Letter] | None = None
    for key in keys:
        letter = await _at(conn, int(key)) if _PLACE.fullmatch(str(key)) else None
        if letter is None:
            if held is None:
                held = {one.body.command_id: one for one in await letters(conn)}
            letter = held.get(str(key))
        if letter is None:
            raise CommandError(f"there is no dead letter {key!s:.200}: run `morphogen dead list`")
        found[letter.seq] = letter
    return list(found.values())


async def retry(conn: "Connection", key: int | str, *, by: str | None = None) -> str:
    """Issue the letter's command anew, take the letter away, and return the new command's id.

    The new command has the same target, name and arguments, does not expire, and has the letter as its cause.
    Raises CommandError where there is no such letter, or where it is of a message that could not be read.
    """
    letter = await show(conn, key)
    return await retry_letter(conn, letter, await done_before(conn, [letter]), by=by)


async def drop(conn: "Connection", key: int | str, *, by: str | None = None) -> None:
    """Take the letter away for good; the log keeps the record. Raises CommandError where there is no such letter."""
    letter = await show(conn, key)
    await drop_letter(conn, letter, await done_before(conn, [letter]), by=by)


async def retry_letter(
    conn: "Connection", letter: Letter, before: Mapping[str, Message], *, by: str | None = None
) -> str:
    """Do what `retry` does with a letter; `before` is what `done_before` has found of it and of others."""
    body = letter.body
    if not body.name:
        raise CommandError(f"dead letter {letter.seq} holds a message that could not be read: drop it")
    fresh = _fresh(letter)
    earlier = before.get(command_event_id(fresh))
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
    await _resolve(conn, letter, before, "retried", fresh, by)
    return fresh


async def drop_letter(
    conn: "Connection", letter: Letter, before: Mapping[str, Message], *, by: str | None = None
) -> None:
    """Do what `drop` does with a letter; `before` is what `done_before` has found of it and of others."""
    await _resolve(conn, letter, before, "dropped", None, by)


async def done_before(conn: "Connection", letters: Sequence[Letter]) -> dict[str, Message]:
    """Return what the log has of earlier retries and drops of letters that were broken off: messages by event id.

    The log is read once for all letters of a run and target, from the oldest of them on.
    """
    wanted: dict[str, set[str]] = {}  # event ids by subject
    since: dict[str, int] = {}
    for letter in letters:
        label = command_label(letter.body.target)
        for family, event in (
            (CommandIssued.family, command_event_id(_fresh(letter))),
            (DeadResolved.family, event_id(_resolution(letter), DeadResolved.family)),
        ):
            subject = _subject(letter, family, label)
            wanted.setdefault(subject, set()).add(event)
            since[subject] = min(since.get(subject, letter.stored), letter.stored)
    found: dict[str, Message] = {}
    for subject, events in wanted.items():
        async for batch in read(conn, subjects=[subject], since_ns=since[subject] - _CLOCK_SLACK):
            for message in batch:
                with contextlib.suppress(FrameError):
                    if (event := decode_frame(message.data, message.seq).event_id(0)) in events:
                        found[event] = message
    return found


async def _at(conn: "Connection", seq: int) -> Letter | None:
    """Return the letter at a place, None where there is none."""
    found = await stored_message(conn, DEAD, seq=seq)
    return None if found is None else _letter(Message(seq, found.stored_ns, found.subject, found.data))


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


async def _resolve(
    conn: "Connection",
    letter: Letter,
    before: Mapping[str, Message],
    action: str,
    retried_as: str | None,
    by: str | None,
) -> None:
    body = letter.body
    event = DeadResolved(command_id=body.command_id, action=action, retried_as=retried_as, by=by)
    msg_id = _resolution(letter)
    # The log refuses an id for two minutes; whoever resumes later looks for himself.
    if event_id(msg_id, event.family) not in before:
        label = command_label(body.target)
        await emit(conn, event, run=letter.run, cause=letter.event_id, label=label, msg_id=msg_id)
    try:
        await conn.js(f"STREAM.MSG.DELETE.{DEAD}", {"seq": letter.seq, "no_erase": True})
    except JetStreamApiError as error:
        if error.err_code not in _NO_MESSAGE:  # another process was faster
            raise


def _fresh(letter: Letter) -> str:
    """Return the id of the command that a retry issues."""
    return f"{letter.body.command_id}~{letter.seq}"


def _resolution(letter: Letter) -> str:
    """Return the message id of the event that tells what became of a letter."""
    return f"{token(letter.body.command_id)}-{letter.seq}-resolved"


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
