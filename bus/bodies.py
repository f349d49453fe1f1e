"""Bodies that were too large for a record: its own names a blob, from which readers bring the body back.

    async for batch in whole(conn, past(conn, settings, after=position)): ...

A blob that is gone, or damaged, is told and its record stays as it is. A broker that is away is waited for: no reader
goes past a body that it may still get.
"""

import contextlib
import logging
import re
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import msgspec

from morphogen.schemas import Frame, FrameError, Record, decode_frame, encode_frame

from .blobs import get_bytes
from .errors import BlobDamaged, BlobMissing
from .patience import patiently
from .reader import Message

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["REFERENCE", "body_of", "reference", "restored", "whole"]

REFERENCE = b"\x82\xa5$blob\xd9\x40"
"""How a body begins that is a reference: a map of two, whose `$blob` is a sha256 in hexadecimal digits."""

_REFERENCE = re.compile(re.escape(REFERENCE) + rb"([0-9a-f]{64})\xa4size")
_PORTION = 8 << 20  # bytes of bodies after which a list is handed on

_log = logging.getLogger("morphogen.bus")


def reference(body: bytes | msgspec.Raw) -> str | None:
    """Return the sha256 of the blob that a record's body refers to, None where it is the body itself."""
    found = _REFERENCE.match(body)
    return found[1].decode() if found is not None else None


async def body_of(conn: "Connection", frame: Frame, record: Record, *, follow: bool = False) -> bytes | None:
    """Return the body that a record refers to; None where its blob is gone or damaged, which is told.

    Raises Disconnected when the connection is closed, NoBroker or RequestTimeout where the broker is away, or silent,
    for a minute (never with `follow`).
    """
    sha256 = reference(record.body)
    if sha256 is None:
        return bytes(record.body)
    try:
        body = await patiently(conn, lambda: get_bytes(conn, sha256), follow=follow)
        msgspec.msgpack.decode(body, type=msgspec.Raw)  # what is no single value would make a frame none
        return body
    except (BlobMissing, BlobDamaged, msgspec.MsgspecError) as error:
        _log.warning(
            "event %s.%s.%d (%s of run %s, message %d) has no body, it lies in a blob: %s",
            frame.writer, frame.family, record.n, record.type, frame.run or "(none)", frame.seq, error,
        )  # fmt: skip
        return None


async def restored(conn: "Connection", message: Message, *, follow: bool = False) -> Message:
    """Return a message with the bodies in it that it refers to; raises what `body_of` raises."""
    try:
        frame = decode_frame(message.data, message.seq, message.stored)
    except FrameError:
        return message
    brought = False
    for record in frame.records:
        if reference(record.body) is None:
            continue
        body = await body_of(conn, frame, record, follow=follow)
        if body is not None:
            record.body, brought = msgspec.Raw(body), True
    if not brought:
        return message
    data = encode_frame(
        frame.records, run=frame.run, attempt=frame.attempt, rank=frame.rank, writer=frame.writer, family=frame.family,
        replay=frame.replay,
    )  # fmt: skip
    return message._replace(data=data, brought=len(data) - message.size)


async def whole(
    conn: "Connection | None", batches: AsyncGenerator[list[Message], None], *, follow: bool = False
) -> AsyncGenerator[list[Message], None]:
    """Yield the same messages with the bodies that they refer to, in lists of a few megabytes of those.

    Without a connection they stay as they are. Raises what `body_of` raises, and closes `batches`.
    """
    async with contextlib.aclosing(batches):
        async for batch in batches:
            if conn is None or not any(REFERENCE in message.data for message in batch):
                yield batch
                continue
            some: list[Message] = []
            size = 0
            for message in batch:
                some.append(await restored(conn, message, follow=follow) if REFERENCE in message.data else message)
                size += some[-1].brought
                if size >= _PORTION:
                    yield some
                    some, size = [], 0
            if some:
                yield some
