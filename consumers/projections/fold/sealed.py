"""Frames whose records stay bytes: each is checked to be whole, and says where its records begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from struct import Struct
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from morphogen.schemas import Record, decode_frame
from morphogen.schemas.frames import FORMAT

from .envelopes import RECORD_HEAD, Envelopes, read
from .lockstep import PAD, Ints

if TYPE_CHECKING:
    from .opening import Message

LEAST = 1 << 15
"""Bytes from which reading many records at once is worth its calls."""

_SIDE_BY_SIDE = 16  # frames from which it is quicker to go through all of them at once
_BEFORE, _ARRAY32, _ARRAY_HEAD = b"\xa7records", b"\xdd", 5
_LENGTH = Struct(">I")


class _Head(msgspec.Struct, gc=False):
    format: int
    run: str
    attempt: int
    rank: int
    writer: str
    family: str
    first: int
    last: int
    replay: str | None
    records: msgspec.Raw  # that they are whole msgpack is all that is asked of them here


_decoder = msgspec.msgpack.Decoder(_Head)


@dataclass(eq=False)
class SealedFrame:
    """A frame whose records are not made into objects until somebody asks for them."""

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
    data: bytes

    @cached_property
    def records(self) -> list[Record]:
        """The records as objects."""
        return decode_frame(self.data, self.seq, self.stored).records


def sealed(messages: "Sequence[Message]") -> tuple[list[SealedFrame], Envelopes] | None:
    """Return the frames of messages, and the envelopes of all their records; None where they cannot be read in step."""
    frames: list[SealedFrame] = []
    places: list[int] = []
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
                head.last, head.replay, len(data), values // 3, data,
            )
        )  # fmt: skip
        places.append(begin + place + _ARRAY_HEAD)
        begin += len(data)
    data = b"".join([*(message.data for message in messages), PAD])
    starts = _starts(data, np.array(places, np.int64), np.array([frame.count for frame in frames], np.int64))
    envelopes = None if starts is None else read(data, starts)
    return None if envelopes is None else (frames, envelopes)


def _starts(data: bytes, places: Ints, counts: Ints) -> Ints | None:
    """Return where each record begins, by the lengths that they say; None where one says what cannot be."""
    end = len(data) - len(PAD)
    if len(places) < _SIDE_BY_SIDE:
        found = []
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            at = place
            for _ in range(count):
                if at >= end:
                    return None
                found.append(at)
                at += RECORD_HEAD + _LENGTH.unpack_from(data, at + 1)[0]
        return np.array(found, np.int64)
    starts = np.empty(int(counts.sum()), np.int64)
    lengths = np.ndarray((len(data) - 3,), ">u4", data, strides=(1,))
    order = np.argsort(-counts, kind="stable")
    slot, now, counts = (np.cumsum(counts) - counts)[order], places[order], counts[order]
    left = np.searchsorted(
        -counts, -np.arange(counts[0]), side="left"
    ).tolist()  # frames that have a record of that number
    for number in range(int(counts[0])):
        if left[number] < len(now):
            slot, now = slot[: left[number]], now[: left[number]]
        starts[slot + number] = now
        now = np.minimum(now + lengths[now + 1] + RECORD_HEAD, end)  # one that ends there is no record, and is seen so
    return starts
