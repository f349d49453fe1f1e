"""Write one event straight into the log: for commands, outcomes and dead letters, which no spool carries."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from morphogen.schemas import Event, Record, encode_frame, token

from .connection import PubAck
from .errors import Disconnected, JetStreamApiError, MessageTooLarge, RequestTimeout
from .streams import LOG, publish_copied

if TYPE_CHECKING:
    from .connection import Connection

COPIED = ("command", "dead")  # families whose events also go into a stream of their own
LARGEST = 480 * 1024  # bytes of a body; what is larger goes into a blob and by reference
_PAUSE = 0.1
_TAKEN = 10071  # the subject holds a message already


async def emit(
    conn: "Connection",
    event: Event,
    *,
    run: str = "",
    cause: str | None = None,
    label: str | None,
    msg_id: str,
    step: int | None = None,
    timeout: float = 10.0,
) -> PubAck:
    """Store `event` as a frame of its own and return the log's acknowledgement.

    `msg_id` names the event for ever: its writer and its id (`event_id(msg_id, family)`) derive from it. The log takes
    it once within DUPLICATE_WINDOW_S; what comes again later is stored again under the same id: tables count it once,
    and a service passes over it while it remembers it.

    `label` is the last token of the subject. None gives the event a subject of its own: the log takes it once however
    late it comes again, for as long as it holds it. That is for events that are few, since the broker keeps each
    subject in memory, and for no commands.

    Within `timeout` seconds a lost broker is waited for and the same bytes are sent again. Raises MessageTooLarge,
    NoBroker, or PublishTimeout when it may or may not be stored: emit it again to be sure.
    """
    body = event.encode()
    if len(body) > LARGEST:
        raise MessageTooLarge(
            f"a {event.type} event of {len(body)} bytes does not fit into the log ({LARGEST}): put its data into a blob"
        )
    record = Record(1, event.type, event.version, step, time.time_ns(), msgspec.Raw(body), cause)
    data = encode_frame([record], run=run, attempt=0, rank=0, writer=writer_of(msg_id), family=event.family)
    lane = f"morphogen.log.{token(run)}.{token(event.family)}"
    if label is None:
        return await _publish_alone(conn, f"{lane}.{writer_of(msg_id)}", data, msg_id=msg_id, timeout=timeout)
    return await publish_once(conn, f"{lane}.{label}", data, msg_id=msg_id, timeout=timeout)


async def publish_once(
    conn: "Connection",
    subject: str,
    data: bytes,
    *,
    msg_id: str,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
) -> PubAck:
    """Publish under a message id until it is acknowledged, over a lost broker too, for at most `timeout` seconds.

    `headers` go with the log's message. Commands and dead letters of the log go into their own stream as well.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    copied = subject.startswith("morphogen.log.") and subject.split(".")[3] in COPIED
    while True:
        patience = max(0.1, min(deadline - loop.time(), 5.0))
        try:
            if copied:
                return await publish_copied(conn, subject, data, message_id=msg_id, headers=headers, timeout=patience)
            return await conn.publish_ack(subject, data, {**(headers or {}), "Nats-Msg-Id": msg_id}, patience)
        except (Disconnected, RequestTimeout):
            if deadline - loop.time() <= _PAUSE:
                raise
        await asyncio.sleep(_PAUSE)
        await conn.wait_connected(max(_PAUSE, deadline - loop.time()))


async def _publish_alone(conn: "Connection", subject: str, data: bytes, *, msg_id: str, timeout: float) -> PubAck:
    """Publish what is to be the only message of its subject for ever."""
    first = {"Nats-Expected-Last-Subject-Sequence": "0"}
    try:
        return await publish_once(conn, subject, data, msg_id=msg_id, headers=first, timeout=timeout)
    except JetStreamApiError as error:
        if error.err_code != _TAKEN or (there := await conn.last_message(LOG, subject)) is None:
            raise
        return PubAck(there.seq, True, LOG)


def writer_of(msg_id: str) -> str:
    """Return the writer (16 hex digits) of the frame that `emit` makes under this message id."""
    return hashlib.sha256(msg_id.encode()).hexdigest()[:16]


def event_id(msg_id: str, family: str) -> str:
    """Return the id of the event that `emit` writes under this message id, such as a cause for the next."""
    return f"{writer_of(msg_id)}.{family}.1"
