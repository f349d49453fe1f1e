"""Send a command and wait for what comes of it."""

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any

from morphogen.schemas import (
    CommandAccepted,
    CommandFinished,
    DeadLetter,
    FrameError,
    MorphogenError,
    decode_event,
    decode_frame,
    token,
)

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection


class CommandFailed(MorphogenError):
    """Raised where a command was not done; the text says why, and what to do."""


async def done(conn: "Connection", target: str, name: str, args: dict[str, Any], *, timeout: float, who: str) -> Any:
    """Issue a command and return its result. Raises CommandFailed where it failed, or nobody did it in time.

    `who` is what the one that acts on it is called, for people. A command that nobody took within `timeout` seconds
    expires: it is not done later.
    """
    from morphogen.bus.commands import outcome_label, send
    from morphogen.bus.reader import read
    from morphogen.bus.streams import LOG, stream_info

    after = (await stream_info(conn, LOG)).last_seq
    key = uuid.uuid4().hex
    await send(conn, target, name, args, issuer="cli", max_deliveries=1, expires_in=timeout, command_id=key)
    subjects = [f"morphogen.log.*.outcome.{outcome_label(target)}", f"morphogen.log.*.{token('dead')}.>"]
    taken = False
    reader = read(conn, after=after, follow=True, subjects=subjects)
    try:
        async with asyncio.timeout(timeout):
            async for batch in reader:
                for message in batch:
                    for event in _events(message.data):
                        if getattr(event, "command_id", None) != key:
                            continue
                        if isinstance(event, CommandAccepted):
                            taken = True
                        elif isinstance(event, CommandFinished) and event.ok:
                            return event.result
                        elif isinstance(event, CommandFinished):
                            raise CommandFailed(f"{who}: {event.error or 'it failed and said nothing'}")
                        elif isinstance(event, DeadLetter):
                            raise CommandFailed(f"{who}: {event.reason}")
    except TimeoutError:
        what = "did not end it" if taken else "did not take it; is it running?"
        raise CommandFailed(f"{who}: {name} was issued {timeout:g} s ago, and the worker {what}") from None
    finally:
        with contextlib.suppress(Exception):
            await reader.aclose()
    raise CommandFailed(f"{who}: the log ended before {name} did")


def _events(data: bytes) -> list[Any]:
    try:
        frame = decode_frame(data)
    except FrameError:
        return []
    return [decode_event(record.type, record.version, record.body) for record in frame.records]
