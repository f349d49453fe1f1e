"""Append to a subject of the log if nobody else has meanwhile: what fencing and exactly-once both stand on."""

import asyncio
from typing import TYPE_CHECKING

from morphogen.bus.errors import Disconnected, JetStreamApiError, NoResponders, RequestTimeout
from morphogen.bus.streams import LOG

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

WRONG_SEQUENCE = 10071
_ACK = 5.0  # seconds
_PAUSE = 0.1


async def append_after(
    conn: "Connection", subject: str, data: bytes, *, identity: str, after: int, patience: float
) -> int:
    """Store `data` as the message of `subject` that follows the one at sequence `after` (0: the first); return its sequence.

    A lost broker is waited for, for at most `patience` seconds, and a doubt settled by looking at what the subject holds.
    Raises JetStreamApiError 10071 where the subject holds another message instead, or a BusError when it may
    or may not be stored.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    headers = {"Nats-Msg-Id": identity, "Nats-Expected-Last-Subject-Sequence": str(after)}
    doubt = False
    while True:
        try:
            return (await conn.publish_ack(subject, data, headers, max(_PAUSE, min(_ACK, deadline - loop.time())))).seq
        except JetStreamApiError as error:
            if error.err_code != WRONG_SEQUENCE or not doubt:
                raise
            # An earlier try may have been stored though its acknowledgement was lost.
            newest = await conn.last_message(LOG, subject)
            if newest is None or newest.data != data:
                raise
            return newest.seq
        except (Disconnected, RequestTimeout, NoResponders):
            if deadline - loop.time() <= _PAUSE:
                raise
            doubt = True
        await asyncio.sleep(_PAUSE)
        await conn.wait_connected(max(_PAUSE, deadline - loop.time()))
