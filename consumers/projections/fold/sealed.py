"""Frames whose records stay bytes: each is checked to be whole, and says where its records begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from morphogen.schemas.frames import FORMAT, Whole32, Whole64

from .envelopes import Envelopes, read
from .lockstep import PAD
from .starts import record_starts

if TYPE_CHECKING:
    from .opening import Message

LEAST = 1 << 15
"""Bytes from which reading many records at once is worth its calls."""

_BEFORE, _ARRAY32, _ARRAY_HEAD = b"\xa7records", b"\xdd", 5


class _Head(msgspec.Struct, gc=False):
    format: int
    run: str
    attempt: Whole32
    rank: Whole32
    writer: str
    family: str
    first: Whole64
    last: Whole64
    replay: str | None
    records: msgspec.Raw  # that they are whole msgpack is all that is asked of them here


_decoder = msgspec.msgpack.Decoder(_Head)


@dataclass(eq=False)
class SealedFrame:
    """A frame whose records stay bytes: how many there are, and what the frame says of all of them."""

    seq: int
    stored: int
    run: str
    attempt: int
    rank: int
    writer: str
    family: str
    first: int
    last: int
    replay: str | None
    size: int
    count: int


def sealed(messages: "Sequence[Message]") -> tuple[list[SealedFrame], Envelopes] | None:
    """Return the frames of messages, and the envelopes of all their records; None where they cannot be read in step."""
    frames: list[SealedFrame] = []
    places: list[int] = []
    ends: list[int] = []
    begin = 0
    for message in messages:
        data = message.data
        try:
            head = _decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        place = len(data) - len(head.records)
        if head.format != FORMAT or data[place - len(_BEFORE) : place + 1] != _BEFORE + _ARRAY32:
            return None
        values = int.from_bytes(data[place + 1 : place + _ARRAY_HEAD], "big")
        if not values or values % 3:
            return None
        frames.append(
            SealedFrame(
                message.seq, message.stored, head.run, head.attempt, head.rank, head.writer, head.family, head.first,
                head.last, head.replay, message.size, values // 3,
            )
        )  # fmt: skip
        places.append(begin + place + _ARRAY_HEAD)
        begin += len(data)
        ends.append(begin)
    data = b"".join([*(message.data for message in messages), PAD])
    counts = np.array([frame.count for frame in frames], np.int64)
    starts = record_starts(data, np.array(places, np.int64), np.array(ends, np.int64), counts)
    envelopes = None if starts is None else read(data, starts)
    return None if envelopes is None else (frames, envelopes)
