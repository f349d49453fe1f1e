"""The values that cross: both directions agree with msgspec, and hostile bytes end in one fault."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.sandbox.channel import Garbage
from morphogen.kernels.sandbox.inside.codec import MAX_DEPTH, Uncrossable, decode, encode
from morphogen.kernels.sandbox.messages import decode_said

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(), st.binary(max_size=300),
    st.sampled_from([0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, -1, -32, -33, -128, -129, -32768, -32769, -(2**31)]),
)  # fmt: skip
KEYS = st.one_of(st.text(max_size=20), st.integers(-(2**63), 2**64 - 1))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner)), max_leaves=30
)


@given(VALUES)
def test_what_is_written_is_read_again_and_msgspec_reads_the_same(value: Any) -> None:
    data = encode(value, 1 << 24)

    assert decode(data) == value
    assert msgspec.msgpack.decode(data) == value
    assert decode(msgspec.msgpack.encode(value)) == value


@pytest.mark.parametrize("size", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_every_length_has_its_head(size: int) -> None:
    for value in ("x" * size, b"x" * size, [None] * size, dict.fromkeys(range(size))):
        assert decode(encode(value, 1 << 24)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_one_fault(data: bytes) -> None:
    for read in (decode, lambda data: decode(data, 10)):
        with contextlib.suppress(Uncrossable):
            read(data)
    with contextlib.suppress(Garbage):
        decode_said(data)


@given(VALUES, st.data())
def test_any_damage_is_a_value_or_one_fault(value: Any, data: st.DataObject) -> None:
    whole = bytearray(encode({"t": "done", "value": value, "printed": "", "cut": False}, 1 << 24))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for read in (decode, decode_said):
        with contextlib.suppress(Uncrossable, Garbage):
            read(cut)


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * 10**6 + b"\xc0",
        b"\xdd\x00\x0f\xff\xff" + b"\xc0" * 0xFFFFF, b"\x81\x91\x01\x02", b"\x81\xc3\x01", b"\x81\xcb" + bytes(9), b"\xc1", b"\xd4\x01\x01",
        b"\xa1\xff", b"\xc0\xc0", b"", b"\xca\x00\x00\x00\x00",
    ],
    ids=range(15),
)  # fmt: skip
def test_hostile_bytes_are_one_fault(data: bytes) -> None:
    with pytest.raises(Uncrossable):
        decode(data)
    with pytest.raises(Garbage):
        decode_said(data)


def test_depth_is_bounded_on_both_sides() -> None:
    value: Any = None
    for _ in range(MAX_DEPTH):
        value = [value]

    assert decode(encode(value, 1000)) == value
    with pytest.raises(Uncrossable, match="nested deeper"):
        encode([value], 1000)
    with pytest.raises(Uncrossable, match="nested too deep"):
        decode(msgspec.msgpack.encode([value]))
