"""Append to a subject of the log if nobody else has meanwhile: what fencing and exactly-once both stand on.

The broker compares with what the log holds of the subject. Where that was trimmed, the archive says who was last.
"""

import asyncio
from typing import TYPE_CHECKING

from morphogen.bus.errors import Disconnected, JetStreamApiError, NoResponders, RequestTimeout, StreamReplaced
from morphogen.bus.past import past
from morphogen.bus.streams import LOG, stream_info
from morphogen.schemas import untoken

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
    Raises JetStreamApiError 10071 where the subject holds another message instead, LogGap where neither log nor archive
    can tell whether it does, StreamReplaced where the log was made anew, or a BusError when it may or may not be stored.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    expected = after
    doubt = False
    while True:
        headers = {"Nats-Msg-Id": identity, "Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            return (await conn.publish_ack(subject, data, headers, max(_PAUSE, min(_ACK, deadline - loop.time())))).seq
        except JetStreamApiError as error:
            if error.err_code != WRONG_SEQUENCE or not (doubt or expected):
                raise
            newest = await newest_of(conn, subject, after)
            if newest is None and expected:  # what it follows was trimmed
                expected = 0
                continue
            # An earlier try may have been stored though its acknowledgement was lost.
            if not doubt or newest is None or newest[1] != data:
                raise
            return newest[0]
        except (Disconnected, RequestTimeout, NoResponders):
            if deadline - loop.time() <= _PAUSE:
                raise
            doubt = True
            expected = after  # a rival may come, and be trimmed, until the next try
        await asyncio.sleep(_PAUSE)
        await conn.wait_connected(max(_PAUSE, deadline - loop.time()))


async def newest_of(conn: "Connection", subject: str, after: int = 0) -> tuple[int, bytes] | None:
    """Return sequence and bytes of the newest message of a subject behind its message at `after`; None where there is none.

    It comes from the archive where the log was trimmed.

    Raises LogGap where the log was trimmed behind `after` and the archive is not here, and StreamReplaced where the log
    should have the message at `after` and does not.
    """
    there = await conn.last_message(LOG, subject)
    if there is not None:
        return there.seq, there.data
    first = (await stream_info(conn, LOG)).first_seq
    if first <= after:
        raise StreamReplaced(
            f"message {after} of {subject} is gone from the log and was not trimmed: the log was made anew, or lost it"
        )
    if first == after + 1:
        return None
    _, _, run, family, _ = subject.split(".")
    newest = None
    async for batch in past(conn, conn.settings, after=after, run=untoken(run), family=untoken(family)):
        newest = next(((one.seq, one.data) for one in reversed(batch) if one.subject == subject), newest)
    return newest
