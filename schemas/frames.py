"""The bytes of the log: records, and the frames that carry many of them in one message.

A **record** is three msgpack values in a row: the length and the CRC-32 of what follows (each an unsigned 32-bit
integer in its long form, five bytes), and the event as a map. A **frame** is a map with a short head and the
records in one flat array. A producer's spool holds records in the same form, so that a frame is a head and
a slice of the spool: no event is touched between `log()` and the log.

Every value carries its own name, so that a reader in any language needs a msgpack library and this page.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from .errors import FrameError

FORMAT = 1
HEAD = struct.Struct(">BIBI")  # 0xCE length 0xCE crc32: the ten bytes before each event map
_UINT32 = 0xCE
_ARRAY32 = struct.Struct(">BI")

# What readers can hold: the columns that these become are of 32 and of 64 bits.
Whole32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Whole64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Record(msgspec.Struct, gc=False):
    """One event as it lies in the log; the body stays raw until somebody asks for it.

    `n` counts from 1 within (run, family, writer); `step` is the trainer's own; `time` is wall-clock nanoseconds;
    `cause` is the id of the event that made this one happen.
    """

    n: Whole64
    type: str
    version: Whole32
    step: int | None
    time: int
    body: msgspec.Raw
    cause: str | None = None


class Frame(msgspec.Struct):
    """A decoded message of the log: who wrote it, where it stands, and its records in order.

    `seq` is its place in the stream (0 before it is stored) and `stored` the broker's clock in nanoseconds.
    `replay` names the replay that re-published it; acting consumers ignore such frames.
    """

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
    records: list[Record]
    size: int

    def event_id(self, index: int) -> str:
        """Return the id of the record at `index`: the same for ever, whatever re-reads or re-sends it."""
        return f"{self.writer}.{self.family}.{self.records[index].n}"


class _Wire(msgspec.Struct):
    format: int
    run: str
    attempt: Whole32
    rank: Whole32
    writer: str
    family: str
    first: Whole64
    last: Whole64
    replay: str | None
    records: list[int | Record]


_decoder = msgspec.msgpack.Decoder(_Wire)
_record_decoder = msgspec.msgpack.Decoder(Record)
_encode = msgspec.msgpack.encode


def encode_record(record: Record) -> bytes:
    """Return the record with its ten-byte head."""
    payload = _encode(
        {
            "n": record.n,
            "type": record.type,
            "version": record.version,
            "step": record.step,
            "time": record.time,
            "cause": record.cause,
            "body": record.body,
        }
    )
    return HEAD.pack(_UINT32, len(payload), _UINT32, zlib.crc32(payload)) + payload


def decode_records(data: bytes | memoryview) -> Iterator[Record]:
    """Yield the records of a run of bytes, each checked against its CRC. Raises FrameError at the first bad one."""
    view, position = memoryview(data), 0
    while position < len(view):
        payload = check_record(view, position)
        if payload is None:
            raise FrameError(f"damaged record at byte {position} of {len(view)}")
        try:
            yield _record_decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FrameError(f"record at byte {position} is no event: {error}") from error
        position += HEAD.size + len(payload)


def check_record(view: memoryview, position: int) -> memoryview | None:
    """Return the event map of the record that begins at `position`, or None where no whole, intact one does."""
    if position + HEAD.size > len(view):
        return None
    mark, length, mark_crc, crc = HEAD.unpack_from(view, position)
    start = position + HEAD.size
    if mark != _UINT32 or mark_crc != _UINT32 or length == 0 or start + length > len(view):
        return None
    payload = view[start : start + length]
    return payload if zlib.crc32(payload) == crc else None


def frame_head(
    *,
    run: str,
    attempt: int,
    rank: int,
    writer: str,
    family: str,
    first: int,
    last: int,
    count: int,
    replay: str | None = None,
) -> bytes:
    """Return the bytes that go before `count` records to make a frame."""
    head = _encode(
        {
            "format": FORMAT,
            "run": run,
            "attempt": attempt,
            "rank": rank,
            "writer": writer,
            "family": family,
            "first": first,
            "last": last,
            "replay": replay,
            "records": None,
        }
    )
    return head[:-1] + _ARRAY32.pack(0xDD, 3 * count)  # the nil that stood for the records is replaced


def encode_frame(
    records: Iterable[Record],
    *,
    run: str,
    attempt: int,
    rank: int,
    writer: str,
    family: str,
    replay: str | None = None,
) -> bytes:
    """Return a whole frame of `records`, which must not be empty."""
    batch = list(records)
    head = frame_head(
        run=run,
        attempt=attempt,
        rank=rank,
        writer=writer,
        family=family,
        first=batch[0].n,
        last=batch[-1].n,
        count=len(batch),
        replay=replay,
    )
    return head + b"".join(map(encode_record, batch))


def decode_frame(data: bytes, seq: int = 0, stored: int = 0) -> Frame:
    """Read one message of the log. Raises FrameError, which says why, for anything that is not a whole frame."""
    try:
        wire = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameError(f"message {seq} of the log is not a frame: {error}") from error
    if wire.format != FORMAT:
        raise FrameError(
            f"message {seq} has frame format {wire.format}, this version reads {FORMAT}: upgrade morphogen"
        )
    records = wire.records[2::3]
    if len(wire.records) % 3 or not {Record}.issuperset(map(type, records)):
        raise FrameError(f"message {seq} of the log is not a frame: its records are not (length, crc32, event) triples")
    return Frame(
        seq, stored, wire.run, wire.attempt, wire.rank, wire.writer, wire.family,
        wire.first, wire.last, wire.replay, records, len(data),  # type: ignore[arg-type]
    )  # fmt: skip


def verify_frame(data: bytes) -> None:
    """Check every record of a frame against the CRC that its producer wrote. Raises FrameError with the first bad one."""
    frame = decode_frame(data)
    head = frame_head(
        run=frame.run, attempt=frame.attempt, rank=frame.rank, writer=frame.writer, family=frame.family,
        first=frame.first, last=frame.last, count=len(frame.records), replay=frame.replay,
    )  # fmt: skip
    count = sum(1 for _ in decode_records(memoryview(data)[len(head) :]))
    if count != len(frame.records):
        raise FrameError(
            f"frame of {frame.writer}.{frame.family} holds {count} records, its head says {len(frame.records)}"
        )
