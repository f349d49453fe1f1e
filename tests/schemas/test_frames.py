"""The bytes of the log round-trip, and damage is seen."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas import (
    FrameError,
    Record,
    decode_event,
    decode_frame,
    decode_records,
    encode,
    encode_frame,
    encode_record,
    frame_head,
    verify_frame,
)

bodies = st.dictionaries(
    st.text(max_size=8), st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=9))
)
records = st.builds(
    Record,
    n=st.integers(1, 2**40),
    type=st.text(max_size=20),
    version=st.integers(1, 2**31 - 1),
    step=st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    time=st.integers(0, 2**63 - 1),
    cause=st.one_of(st.none(), st.text(max_size=20)),
    body=bodies.map(lambda body: msgspec.Raw(encode(body))),
)
heads = st.fixed_dictionaries(
    {
        "run": st.text(max_size=20),
        "attempt": st.integers(0, 2**31 - 1),
        "rank": st.integers(0, 2**31 - 1),
        "writer": st.text("0123456789abcdef", min_size=16, max_size=16),
        "family": st.text(max_size=10),
        "replay": st.one_of(st.none(), st.text(max_size=10)),
    }
)


@given(heads, st.lists(records, min_size=1, max_size=20))
def test_a_frame_round_trips(head: dict[str, object], batch: list[Record]) -> None:
    data = encode_frame(batch, **head)  # type: ignore[arg-type]

    frame = decode_frame(data, seq=7, stored=9)

    assert batch == frame.records
    assert (frame.seq, frame.stored, frame.size) == (7, 9, len(data))
    assert all(getattr(frame, name) == value for name, value in head.items())
    assert (frame.first, frame.last) == (batch[0].n, batch[-1].n)
    verify_frame(data)


@given(st.lists(records, min_size=1, max_size=5), st.data())
def test_one_flipped_bit_in_a_record_is_seen(batch: list[Record], data: st.DataObject) -> None:
    raw = bytearray(b"".join(map(encode_record, batch)))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8

    with pytest.raises(FrameError):
        list(decode_records(bytes(raw)))


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_in_one_line(raw: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        decode_frame(raw, seq=3)

    assert "message 3" in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.lists(records, min_size=1, max_size=3), st.data())
def test_a_cut_frame_is_refused(batch: list[Record], data: st.DataObject) -> None:
    whole = encode_frame(batch, run="r", attempt=1, rank=0, writer="0" * 16, family="f")

    with pytest.raises(FrameError):
        decode_frame(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(heads, st.lists(records, min_size=1, max_size=3), st.data())
def test_a_changed_byte_gives_a_frame_or_a_frame_error(
    head: dict[str, object], batch: list[Record], data: st.DataObject
) -> None:
    spoiled = bytearray(encode_frame(batch, **head))  # type: ignore[arg-type]
    spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.sampled_from((0xFF, 0xC1, 0x80, 0x00)))
    try:
        for record in decode_frame(bytes(spoiled)).records:
            decode_event("health.layer", 1, record.body)
    except FrameError:
        return


def test_a_frame_of_a_later_format_says_what_to_do() -> None:
    data = encode_frame(
        [Record(1, "a", 1, None, 0, msgspec.Raw(b"\x80"))], run="", attempt=0, rank=0, writer="", family=""
    )
    later = data.replace(b"\xa6format\x01", b"\xa6format\x02")

    with pytest.raises(FrameError, match="upgrade morphogen"):
        decode_frame(later)


def test_records_that_are_no_triples_are_refused() -> None:
    head = frame_head(run="", attempt=0, rank=0, writer="", family="", first=1, last=1, count=1)

    with pytest.raises(FrameError, match="triples"):
        decode_frame(head + b"\x01\x02\x03")


def test_a_flipped_bit_inside_a_frame_is_found_by_verify() -> None:
    data = bytearray(
        encode_frame(
            [Record(1, "a", 1, None, 0, msgspec.Raw(encode({"x": 1.0})))],
            run="",
            attempt=0,
            rank=0,
            writer="",
            family="",
        )
    )
    at = bytes(data).index(b"\xcb?\xf0") + 2  # inside the float 1.0
    data[at] ^= 1

    decode_frame(bytes(data))
    with pytest.raises(FrameError, match="damaged record"):
        verify_frame(bytes(data))
