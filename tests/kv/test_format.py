"""The bytes of a state: what was written is read, and whatever else is there is refused in one line."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.kernels.kv import Header, KvError, KvMismatch, KvRefused, KvState
from morphogen.kernels.kv.format import (
    PAGE,
    START_BYTES,
    encode_header,
    finish,
    pack_tokens,
    payload_offset,
    read_start,
)
from morphogen.schemas.kv import Fingerprint, Lora

MADE = Fingerprint(
    engine="llama.cpp",
    build="a build",
    state_version=3,
    weights="ab" * 32,
    arch="llama",
    vocab="cd" * 32,
    type_k="f16",
    type_v="q8_0",
    layers=2,
    heads_kv=2,
    head_dim=32,
    rope={"base": 10_000.0, "type": 0},
    loras=(Lora(sha256="ef" * 32, scale=0.5),),
    extra={"streams": 1},
)
IDS = st.integers(0, 2**31 - 1)
tokens = st.lists(IDS, min_size=1, max_size=200)
payloads = st.binary(min_size=0, max_size=9000)


def state_of(ids: list[int], payload: bytes, **more: Any) -> bytearray:
    """Return the bytes of a state."""
    encoded = encode_header(Header(fingerprint=MADE, tokens=pack_tokens(ids), layout=0, **more))
    room = bytearray(payload_offset(encoded) + len(payload))
    room[payload_offset(encoded) :] = payload
    finish(memoryview(room), encoded, len(payload))
    return room


@given(ids=tokens, payload=payloads, slack=st.integers(0, 5000), details=st.dictionaries(st.text(), IDS))
def test_what_was_written_is_read(ids: list[int], payload: bytes, slack: int, details: dict[str, int]) -> None:
    room = state_of(ids, payload, details=details, logits=b"\0\0\x80?")

    state = KvState.read(bytes(room) + bytes(slack))

    assert (state.tokens.tolist(), state.count, bytes(state.verify())) == (ids, len(ids), payload)
    assert (state.fingerprint, state.header.details, state.size) == (MADE, details, len(room))
    assert state.logits is not None
    assert state.logits.tolist() == [1.0]
    assert state.start.payload_offset % PAGE == 0
    assert state.checksum == KvState.read(room).checksum


@given(ids=tokens, payload=payloads, data=st.data())
def test_no_byte_can_change_unseen(ids: list[int], payload: bytes, data: st.DataObject) -> None:
    room = state_of(ids, payload)
    state = KvState.read(room)
    seen = [*range(START_BYTES + state.start.header_size), *range(state.start.payload_offset, len(room))]
    place = data.draw(st.sampled_from(seen))
    room[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(KvRefused) as caught:
        KvState.read(room).verify()

    assert "\n" not in str(caught.value)


@given(ids=tokens, payload=st.binary(min_size=1, max_size=9000), data=st.data())
def test_no_part_of_a_state_is_taken_for_one(ids: list[int], payload: bytes, data: st.DataObject) -> None:
    room = state_of(ids, payload)

    with pytest.raises(KvRefused):
        KvState.read(room[: data.draw(st.integers(0, len(room) - 1))])


@given(st.binary(max_size=400))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(KvRefused):
        KvState.read(data)
    with pytest.raises(KvRefused):
        KvState.read(b"MGKVSTA\0\x01\0\x01\0" + data)


@given(
    encoded=st.binary(max_size=300) | st.recursive(st.none() | IDS | st.binary(), st.lists).map(msgspec.msgpack.encode)
)
@settings(max_examples=60)
def test_a_header_that_is_none_is_refused_though_its_checksum_fits(encoded: bytes) -> None:
    room = bytearray(payload_offset(encoded) + 10)
    finish(memoryview(room), encoded, 10)

    with pytest.raises(KvRefused):
        read_start(memoryview(room))


def test_deep_and_large_headers_are_refused() -> None:
    deep = b"\x91" * 100_000 + b"\xc0"
    room = bytearray(payload_offset(deep))
    finish(memoryview(room), deep, 0)
    with pytest.raises(KvRefused):
        KvState.read(room)
    with pytest.raises(KvRefused, match="is more than the"):
        encode_header(Header(fingerprint=MADE, tokens=bytes(80 << 20), layout=0))
    room = state_of([1], b"x")
    room[12:16] = b"\xff\xff\xff\xff"
    with pytest.raises(KvRefused, match="a header of 4294967295 bytes"):
        KvState.read(room)


def test_details_that_are_no_plain_data_are_told() -> None:
    with pytest.raises(KvError, match="the details of a state cannot be written"):
        state_of([1], b"x", details={"a": 2**70})
    with pytest.raises(KvError, match="the details of a state cannot be written"):
        state_of([1], b"x", details={"a": object()})


def test_a_later_format_is_refused_by_its_number() -> None:
    room = state_of([1, 2], b"payload")
    room[8] = 2

    with pytest.raises(KvRefused, match=r"format 2\.1 is not read here, only 1\.1: upgrade"):
        KvState.read(room)


def test_fields_that_a_later_version_adds_to_the_header_are_passed_over() -> None:
    fields = msgspec.msgpack.decode(encode_header(Header(fingerprint=MADE, tokens=pack_tokens([7]), layout=0)))
    encoded = msgspec.msgpack.encode(fields | {"later": [1, 2]})
    room = bytearray(payload_offset(encoded))
    finish(memoryview(room), encoded, 0)

    assert KvState.read(room).tokens.tolist() == [7]


@given(weights=st.text(max_size=200), layers=st.integers(0, 99))
def test_a_mismatch_is_one_line_with_the_field_expected_and_actual(weights: str, layers: int) -> None:
    from morphogen.schemas.kv import differences

    found = differences(MADE, msgspec.structs.replace(MADE, layers=layers, type_k="q4_0"))
    with contextlib.suppress(KvMismatch):
        raise KvMismatch(found)
    error = KvMismatch(found)

    assert (error.field, error.expected, error.actual) == ("type_k", "f16", "q4_0")
    assert str(error).startswith("this state needs type_k f16, the context has q4_0")
    assert ("and 1 more: layers" in str(error)) == (layers != 2)
