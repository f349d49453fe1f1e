"""vLLM's messages as all its versions write them, and as nobody should."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv_index import BadPayload, VllmFeed
from morphogen.consumers.kv_index.vllm import Groups, read_batch
from morphogen.consumers.kv_index.wire import hash_list, hash_text, integer, text_or_none
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, KvGap

from .publishers import Dialect

TOKENS = list(range(100, 108))


def read(payload: bytes, **more: Any) -> Any:
    return read_batch(payload, engine="fleet", worker="w", number=3, **more)


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("batch_array", [True, False])
@pytest.mark.parametrize("version", ["first", "medium", "name", "groups", "newest"])
def test_every_layout_of_a_stored_event_is_read(version: str, array: bool, batch_array: bool) -> None:
    removed = {"first": "first", "medium": "medium"}.get(version, "groups")
    dialect = Dialect(version, removed, array=array, batch_array=batch_array)
    payload = dialect.payload(
        dialect.stored([-1, 2**63 + 5], TOKENS, 4, parent=b"\x0f" * 32), dialect.removed([7]), dialect.cleared()
    )

    batch = read(payload)

    stored, gone, cleared = batch.events
    assert isinstance(stored, KvBlocksStored)
    assert isinstance(gone, KvBlocksRemoved)
    assert isinstance(cleared, KvBlocksCleared)
    assert stored.block_hashes == [str(2**64 - 1), str(2**63 + 5)]
    assert (stored.parent, stored.block_size, stored.lora) == ("0f" * 32, 4, None)
    assert stored.tokens is not None
    assert stored.tokens.tolist() == TOKENS
    assert stored.tokens.dtype == np.int32
    assert stored.medium == (None if version == "first" else "GPU")
    assert (gone.block_hashes, gone.event_id, gone.worker, gone.engine) == (["7"], 3, "w", "fleet")
    assert batch.passed_over == 0


def test_the_bytes_of_the_published_form_are_the_bytes_read() -> None:
    wire = msgspec.msgpack.encode([12.5, [["BlockStored", [b"\xaa" * 32], None, [1, 2], 2, None, "GPU", "tuned"]], 1])
    dialect = Dialect("name", array=True)
    assert dialect.payload(dialect.stored([b"\xaa" * 32], [1, 2], 2, lora_name="tuned"), rank=1, ts=12.5) == wire

    (stored,) = read(wire).events

    assert (stored.worker, stored.block_hashes, stored.lora) == ("w/dp1", ["aa" * 32], "tuned")


def test_what_the_oldest_and_the_later_versions_say_is_understood_or_passed_over() -> None:
    oldest = msgspec.msgpack.encode([1.0, [["BlockStored", [5], None, [1, 2, 3, 4], [2, 2], 9]]])
    later = msgspec.msgpack.encode([1.0, [["BlockPinned", [5], {"new": True}], {"type": "BlockWarmed"}], 0, "more"])
    with_all = [
        "BlockStored",
        [5],
        None,
        [1, 2],
        2,
        None,
        "CPU",
        None,
        None,
        None,
        None,
        None,
        "LOCAL",
        "x",
        "s",
        9,
        [1],
    ]

    (stored,) = read(oldest).events
    assert (stored.block_size, stored.lora, stored.tokens) == (2, "#9", None)  # four tokens are not one block of two
    assert (read(later).events, read(later).passed_over) == ((), 2)
    (more,) = read(msgspec.msgpack.encode([1.0, [with_all], 0])).events
    assert (more.medium, more.tokens.tolist()) == ("CPU", [1, 2])


def test_only_the_group_of_caches_that_sees_everything_is_taken() -> None:
    dialect, groups = Dialect(), Groups()
    window = {"group_idx": 0, "kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 128}
    whole = {"group_idx": 2, "kv_cache_spec_kind": "full_attention"}

    first = read(
        dialect.payload(dialect.stored([1], [1, 2], 2, **window), dialect.stored([1], [1, 2], 2, **whole)),
        groups=groups,
    )
    later = read(dialect.payload(dialect.removed([1], group_idx=0), dialect.removed([1], group_idx=2)), groups=groups)

    assert (len(first.events), first.passed_over) == (1, 1)
    assert (len(later.events), later.passed_over) == (1, 1)


def test_what_a_block_depends_on_beside_its_tokens_is_kept_and_its_adapter_is_not_taken_for_that() -> None:
    dialect = Dialect()
    extra = [["tuned"], ["tuned", ["image", 3]], None]
    payload = dialect.payload(dialect.stored([1, 2, 3], [1, 2, 3], 1, lora_name="tuned", extra_keys=extra))

    batch = read(payload)

    assert [bool(one) for one in batch.extras[0]] == [False, True, False]


def test_blocks_told_of_by_hash_alone_and_pairs_of_tokens_have_no_tokens() -> None:
    offloaded = msgspec.msgpack.encode([1.0, [{"type": "BlockStored", "block_hashes": [1, 2], "parent_block_hash": None,
                                               "token_ids": [], "block_size": 16, "medium": "CPU"}]])  # fmt: skip
    pairs = msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, [[1, 2], [2, 3]], 2, None]]])

    assert [read(payload).events[0].tokens for payload in (offloaded, pairs)] == [None, None]


BAD = {
    "nothing": b"",
    "text": b"hello",
    "a number": msgspec.msgpack.encode(5),
    "events that are none": msgspec.msgpack.encode([1.0, "events"]),
    "an event without a type": msgspec.msgpack.encode([1.0, [[]]]),
    "a type that is a number": msgspec.msgpack.encode([1.0, [[5]]]),
    "hashes that are text": msgspec.msgpack.encode([1.0, [["BlockRemoved", ["x"]]]]),
    "hashes that are booleans": msgspec.msgpack.encode([1.0, [["BlockRemoved", [True]]]]),
    "tokens that are text": msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, ["a"], 1, None]]]),
    "tokens of two lengths": msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, [1, [2]], 1, None]]]),
    "tokens that are large": msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, [2**40], 1, None]]]),
    "tokens that are negative": msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, [-1], 1, None]]]),
    "a block of nothing": msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, [1], 0, None]]]),
    "blocks of two sizes": msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, [1], [1, 2], None]]]),
    "blocks of no size": msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, [1], [], None]]]),
    "a rank that is text": msgspec.msgpack.encode([1.0, [], "zero"]),
    "a medium that is a list": msgspec.msgpack.encode([1.0, [["BlockRemoved", [1], ["GPU"]]]]),
    "an array that says it is endless": b"\xdd\xff\xff\xff\xff",
    "a hundred thousand arrays in each other": b"\x91" * 100_000,
    "a map with lists for keys": b"\x81\x91\x01\x01",
    "a hash of eight million bytes": msgspec.msgpack.encode([1.0, [["BlockRemoved", [b"x" * 8_000_000]]]]),
    "a parent of 65 bytes": msgspec.msgpack.encode([1.0, [["BlockStored", [1], b"x" * 65, [1], 1, None]]]),
    "a rank beyond what a publisher has": msgspec.msgpack.encode([1.0, [], 1024]),
}


@pytest.mark.parametrize("payload", BAD.values(), ids=BAD.keys())
def test_a_bad_message_is_refused_in_one_line(payload: bytes) -> None:
    with pytest.raises(BadPayload) as refused:
        read(payload)

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("place", ["hashes", "size", "parent", "extra_keys", "rank"])
def test_values_nested_as_deep_as_can_be_read_end_no_feed(place: str) -> None:
    feed = VllmFeed("fleet", "w")
    for number, depth in enumerate(range(5, 1100, 7)):
        event: dict[str, Any] = {"type": "BlockStored", "block_hashes": [1], "token_ids": [1], "block_size": 1}
        mark = b"\xa4HERE"
        key = {"hashes": "block_hashes", "size": "block_size", "parent": "parent_block_hash"}.get(place, place)
        batch: list[Any] = [1.5, [{**event, key: ["HERE"] if place in ("hashes", "extra_keys") else "HERE"}], 0]
        if place == "rank":
            batch = [1.5, [event], "HERE"]
        payload = msgspec.msgpack.encode(batch).replace(mark, b"\x91" * depth + b"\x01")

        for told in feed.message(number, payload):
            told.encode()

    assert feed.counts.bad > 0
    assert feed.counts.last_bad is not None
    assert "\n" not in feed.counts.last_bad


def test_a_value_without_an_end_is_shown_by_its_kind() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]

    for read_one in (hash_text, hash_list, integer, text_or_none):
        with pytest.raises(BadPayload, match="list"):
            read_one([nested] if read_one is hash_list else nested, "it")


def test_whatever_a_message_does_to_its_reader_the_feed_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    dialect, feed = Dialect(), VllmFeed("fleet", "w")
    good = dialect.payload(dialect.stored([1], [1, 2], 2))

    def broken(*given: Any, **more: Any) -> None:
        raise ZeroDivisionError("in the\nreader")

    with monkeypatch.context() as patched:
        patched.setattr("morphogen.consumers.kv_index.vllm.read_batch", broken)
        (gap,) = feed.message(0, good)

    assert isinstance(gap, KvGap)
    assert gap.reason == "not understood: ZeroDivisionError: in the reader"
    assert len(feed.message(1, good)) == 1


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5),
              st.binary(max_size=40), st.sampled_from(["BlockStored", "BlockRemoved", "AllBlocksCleared", "type"])),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=20,
)  # fmt: skip


@given(st.one_of(st.binary(max_size=200), VALUES.map(msgspec.msgpack.encode),
                 st.lists(st.lists(VALUES, max_size=11), max_size=3).map(
                     lambda told: msgspec.msgpack.encode([1.0, [["BlockStored", *one] for one in told], 0]))))  # fmt: skip
def test_whatever_comes_is_read_or_refused(payload: bytes) -> None:
    try:
        batch = read(payload)
    except BadPayload:
        return
    for event in batch.events:
        event.encode()


@given(st.data())
def test_a_real_message_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    dialect = Dialect(array=data.draw(st.booleans()))
    good = bytearray(dialect.payload(dialect.stored([1, 2], TOKENS, 4, parent=9), dialect.removed([4])))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    payload = bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        batch = read(payload)
    except BadPayload:
        return
    for event in batch.events:
        event.encode()
