"""Compiled or not, the same calls leave the same bytes; and each of these reads back as what was given."""

import hashlib
import math
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.bus.spool import Kind, records
from morphogen.bus.spool.records import PlainRecords, Records, room_for
from morphogen.schemas.frames import decode_records

compiled = pytest.mark.skipif(Records is PlainRecords, reason="the records were not compiled here")
both = pytest.mark.parametrize("kind", [Records, PlainRecords], ids=["as built", "plain"])
SCALARS = Kind("metrics.scalars", 1)
VALUES = b"\x81\xa6values"

INTS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-40, 140), st.sampled_from([0, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, -128, -129, -(2**15), -(2**15) - 1, -(2**31), -(2**31) - 1, -(2**63)])
)  # fmt: skip
NAMES = st.one_of(st.text(max_size=6), st.text(min_size=28, max_size=36), st.text("aé☃", min_size=100, max_size=300))
ODD = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(2**63, 2**70),
    st.text(max_size=3),
    st.just(np.float64(0.5)),
    st.just("\ud800"),
)


def room(size: int = 1 << 20) -> bytearray:
    return bytearray(size)


def test_the_library_was_built_from_the_source_beside_it() -> None:
    library = sys.modules.get("morphogen.bus.spool._records")
    if library is None:
        pytest.skip("the records were not compiled here")
    source = Path(records.__file__).with_name("_records.c")
    assert library.SOURCE == hashlib.sha256(source.read_bytes()).hexdigest(), "build it again: pip install -e ."


@compiled
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, st.floats() | INTS, min_size=1, max_size=40), INTS, st.integers(0, 2**64 - 1))
def test_numbers_leave_the_same_bytes_compiled_or_not(values: dict[str, float], step: int, time_ns: int) -> None:
    one, other = room(), room()
    fast, slow = Records(one), PlainRecords(other)
    for classes in (fast, slow):
        classes.first = 7
        assert classes.append_numbers(SCALARS.middle, step, time_ns, VALUES, values) == 7
        assert classes.append(SCALARS.middle, step, time_ns, VALUES + msgspec.msgpack.encode(values)) == 8
        assert classes.put(SCALARS.rest(step, time_ns, None) + VALUES + msgspec.msgpack.encode(values)) == 9

    assert one == other
    assert (fast.end, fast.count) == (slow.end, slow.count)
    first, second, third = decode_records(memoryview(one)[: fast.end])
    assert [first.n, second.n, third.n] == [7, 8, 9]
    assert first.body == second.body == third.body
    assert (first.step, first.time) == (second.step, second.time) == (third.step, third.time) == (step, time_ns)
    assert repr(msgspec.msgpack.decode(first.body)) == repr({"values": values})


@both
@pytest.mark.parametrize("size", [1, 15, 16, 40, 65_535, 65_536])
def test_a_map_of_any_length_reads_back(kind: type[PlainRecords], size: int) -> None:
    space = room(4 << 20)
    values = {f"m{i}": float(i) for i in range(size)}

    assert kind(space).append_numbers(SCALARS.middle, 1, 5, VALUES, values) == 0, "the first counter is `first`, here 0"

    (record,) = decode_records(memoryview(space)[: int.from_bytes(space[1:5]) + 10])
    assert msgspec.msgpack.decode(record.body) == {"values": values}


@both
@given(st.dictionaries(st.text(max_size=3), st.floats()), st.text(max_size=3), ODD)
def test_what_is_no_plain_number_is_not_written(
    kind: type[PlainRecords], good: dict[str, object], name: str, odd: object
) -> None:
    space = room(4096)
    written = kind(space)
    written.first = 1
    for values in ({**good, name: odd}, {name: odd, **good, "z" * 9: odd}, {**good, 3: 1.0}, {}, [("a", 1.0)], None):
        if isinstance(odd, int) and not isinstance(odd, bool) and odd < 2**64 and kind is PlainRecords:
            continue  # it takes an int of 64 bits without a sign at once; the compiled one leaves it to its caller
        assert written.append_numbers(SCALARS.middle, 1, 5, VALUES, values) == -1

    assert (written.end, written.count, any(space)) == (0, 0, False)


@both
@pytest.mark.parametrize("key", ["\ud800", "a\ud800b"])
def test_a_name_that_is_no_text_is_not_written(kind: type[PlainRecords], key: str) -> None:
    assert kind(room(4096)).append_numbers(SCALARS.middle, 1, 5, VALUES, {key: 1.0}) == -1


@both
@pytest.mark.parametrize(
    ("step", "time_ns"), [(None, 5), ("x", 5), (2**63, 5), (1.5, 5), (1, -1), (1, 2**64), (1, None)]
)
def test_an_odd_step_or_time_raises_and_leaves_nothing(kind: type[PlainRecords], step: Any, time_ns: Any) -> None:
    space = room(4096)
    written = kind(space)
    for call in (
        lambda: written.append(SCALARS.middle, step, time_ns, b"\x80"),
        lambda: written.append_numbers(SCALARS.middle, step, time_ns, VALUES, {"a": 1.0}),
    ):
        with pytest.raises((TypeError, OverflowError, struct.error)):
            call()
    assert not any(space)


@both
@pytest.mark.parametrize("bodies", [[0], [3, 0, 900], [70_000]])
def test_the_last_byte_of_the_room_is_used_and_not_one_behind_it(kind: type[PlainRecords], bodies: list[int]) -> None:
    rests = [SCALARS.rest(1, 5, None) + msgspec.msgpack.encode(bytes(size)) for size in bodies]
    needed = sum(map(room_for, rests))

    for short in (0, 1):
        behind = bytearray(needed + 64)
        written = kind(memoryview(behind)[: needed - short])  # type: ignore[arg-type]
        written.first = 1
        got = [written.put(rest) for rest in rests]

        assert got[:-1] == list(range(1, len(rests)))
        assert got[-1] == (0 if short else len(rests))
        assert not any(behind[needed:])
        assert len(list(decode_records(memoryview(behind)[: written.end]))) == len(rests) - short


@both
@pytest.mark.parametrize("size", range(60, 200, 7))
def test_numbers_that_do_not_fit_leave_nothing(kind: type[PlainRecords], size: int) -> None:
    behind = bytearray(size + 64)
    written = kind(memoryview(behind)[:size])
    written.first = 1

    n = written.append_numbers(SCALARS.middle, 1, 5, VALUES, {"a": 1.0, "b" * 20: 2, "c": 3.0})

    assert not any(behind[written.end :])
    assert (n, written.count) in ((0, 0), (1, 1))


@both
def test_a_sealed_one_takes_nothing_more(kind: type[PlainRecords]) -> None:
    written = kind(room(4096))
    written.first = 1
    assert written.append(SCALARS.middle, 1, 5, b"\x80") == 1
    end = written.end

    written.seal()

    assert written.append(SCALARS.middle, 1, 5, b"\x80") == 0
    assert written.append_numbers(SCALARS.middle, 1, 5, VALUES, {"a": 1.0}) == 0
    assert written.put(SCALARS.rest(1, 5, None) + b"\x80") == 0
    assert (written.count, written.end, written.size) == (1, end, end)


@both
@given(st.lists(st.integers(0, 300), min_size=1, max_size=600), st.data())
def test_what_fits_in_a_budget(kind: type[PlainRecords], sizes: list[int], data: st.DataObject) -> None:
    written = kind(room())
    ends, end = [], 0
    for size in sizes:
        rest = bytes(size)
        written.put(rest)
        ends.append(end := end + room_for(rest))
    index = data.draw(st.integers(0, len(sizes) - 1))
    budget = data.draw(st.integers(0, 2 * (end - (ends[index - 1] if index else 0))))

    stop = written.within(index, budget)

    start = ends[index - 1] if index else 0
    fitting = [i for i in range(index, len(ends)) if ends[i] <= start + budget]
    assert stop == (fitting[-1] + 1 if fitting else index + 1)
    assert [written.end_of(i) for i in range(len(ends))] == ends
    for beyond in (-1, len(ends)):
        with pytest.raises(IndexError):
            written.end_of(beyond)


@both
@given(st.binary(max_size=5000))
def test_the_checksum_is_that_of_zlib(kind: type[PlainRecords], rest: bytes) -> None:
    space = room(8192)
    written = kind(space)
    written.put(rest)

    assert int.from_bytes(space[6:10]) == zlib.crc32(space[10 : written.end])


@compiled
def test_wrong_arguments_are_refused_and_not_read() -> None:
    written: Any = Records(room(4096))
    for call in (
        lambda: Records(b"read only"),  # type: ignore[arg-type]
        lambda: Records(),  # type: ignore[call-arg]
        lambda: written.__init__(room()),
        lambda: written.append("middle", 1, 5, b""),
        lambda: written.append(b"", 1, 5, "body"),
        lambda: written.append(b"", 1),
        lambda: written.append_numbers(b"", 1, 5, None, {}),
        lambda: written.append_numbers(b"", 1),
        lambda: written.put("x"),
        lambda: written.within(0, 5),
        lambda: written.within("x", 5),
        lambda: written.end_of("x"),
    ):
        with pytest.raises((TypeError, BufferError, IndexError)):
            call()
    assert (written.end, written.count) == (0, 0)


@compiled
def test_the_room_is_held_and_let_go() -> None:
    space = room(4096)
    written = Records(space)
    with pytest.raises(BufferError):
        space.clear()
    del written
    space.clear()


def test_nan_and_infinities_keep_their_bits() -> None:
    space = room(4096)
    written = Records(space)
    odd = struct.unpack(">d", bytes.fromhex("7ff8dead0000beef"))[0]
    values = {"a": math.nan, "b": -math.inf, "c": -0.0, "d": odd}
    assert written.append_numbers(SCALARS.middle, 1, 5, VALUES, values) == 0

    (record,) = decode_records(memoryview(space)[: written.end])
    kept = msgspec.msgpack.decode(record.body)["values"]
    assert [struct.pack(">d", v) for v in kept.values()] == [struct.pack(">d", v) for v in values.values()]
