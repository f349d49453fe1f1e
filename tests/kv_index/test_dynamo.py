"""Dynamo's events, whichever way they are wrapped."""

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv_index import BadPayload, DynamoFeed, PrefixIndex
from morphogen.consumers.kv_index.dynamo import read_message
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, KvGap

from .publishers import by_place, enveloped, framed, router_event

STORED = {"stored": {"parent_hash": None, "start_position": 0, "blocks": [
    {"block_hash": 2**64 - 1, "tokens_hash": 11, "mm_extra_info": None}, {"block_hash": 5, "tokens_hash": 12}]}}  # fmt: skip
REMOVED = {"removed": {"block_hashes": [5]}}


def token_hash(tokens: list[int], seed: int = 1337) -> int:
    xxhash = pytest.importorskip("xxhash")
    return int(xxhash.xxh3_64_intdigest(struct.pack(f"<{len(tokens)}I", *tokens), seed=seed))


WRAPPED = {
    "JSON": lambda one: json.dumps(one).encode(),
    "msgpack with names": msgspec.msgpack.encode,
    "msgpack by position": lambda one: msgspec.msgpack.encode(by_place(one)),
    "an envelope": enveloped,
    "an envelope in a frame": lambda one: framed(enveloped(one)),
    "an envelope in JSON": lambda one: json.dumps({"topic": "t", "publisher_id": 1, "sequence": 2,
                                                   "payload": list(json.dumps(one).encode())}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_every_form_of_an_event_is_read(wrap: Any) -> None:
    told = [
        read_message(wrap(router_event(9, number, data)), engine="fleet", block_size=2)
        for number, data in enumerate([STORED, REMOVED, "cleared"])
    ]

    (stored,), (removed,), (cleared,) = told
    assert isinstance(stored.event, KvBlocksStored)
    assert stored.event.block_hashes == [str(2**64 - 1), "5"]
    assert (stored.token_hashes, stored.number, stored.event.worker) == ((11, 12), 0, "9")
    assert (stored.event.block_size, stored.event.parent, stored.event.medium) == (2, None, None)
    assert isinstance(removed.event, KvBlocksRemoved)
    assert (removed.event.block_hashes, removed.event.event_id) == (["5"], 1)
    assert isinstance(cleared.event, KvBlocksCleared)


def test_ranks_and_tiers_are_told_apart_and_lists_of_events_are_read() -> None:
    both = [router_event(9, 0, REMOVED, rank=2, tier="host_pinned"), router_event(8, 4, {"cleared": None})]

    first, second = read_message(json.dumps(both).encode(), engine="fleet")

    assert isinstance(first.event, KvBlocksRemoved)
    assert (first.event.worker, first.event.medium) == ("9/dp2", "host_pinned")
    assert isinstance(second.event, KvBlocksCleared)


def test_a_prompt_is_matched_by_the_hashes_of_its_blocks() -> None:
    feed, index = DynamoFeed("fleet", 4, "llama"), PrefixIndex()
    tokens = list(range(50, 62))
    blocks = [{"block_hash": 70 + at, "tokens_hash": token_hash(tokens[4 * at : 4 * at + 4])} for at in range(3)]
    first = {"stored": {"parent_hash": None, "start_position": 0, "blocks": blocks[:2]}}
    more = {"stored": {"parent_hash": 71, "start_position": 8, "blocks": blocks[2:]}}
    for number, data in enumerate([first, more]):
        for event in feed.message(-1, framed(enveloped(router_event(3, number, data)))):
            index.take(event)

    match = index.longest_prefix([*tokens, 1, 2, 3, 4])

    assert (match.blocks, match.tokens, match.holders[0].holder.worker) == (3, 12, "3")
    assert index.longest_prefix([0, *tokens]).blocks == 0
    for event in feed.message(-1, enveloped(router_event(3, 2, {"removed": {"block_hashes": [72]}}))):
        index.take(event)
    assert index.longest_prefix(tokens).tokens == 8


def test_numbers_that_are_missing_are_a_gap_and_numbers_that_come_again_are_not_taken() -> None:
    feed = DynamoFeed("fleet")

    def send(number: int, worker: int = 1) -> list[Any]:
        return feed.message(-1, enveloped(router_event(worker, number, REMOVED)))

    assert [type(event) for event in send(0)] == [KvBlocksRemoved]
    assert [type(event) for event in send(1)] == [KvBlocksRemoved]
    gap, _ = send(5)
    assert isinstance(gap, KvGap)
    assert (gap.first, gap.last, gap.received, gap.worker) == (2, 4, 5, "1")
    assert send(5) == send(3) == []
    assert feed.counts.doubles == 2
    late, _ = send(40, worker=2)
    assert (late.first, late.last, late.reason) == (1, 39, "heard of only now")


def test_a_number_that_no_worker_reaches_silences_nobody() -> None:
    feed = DynamoFeed("fleet")

    def send(number: int) -> list[Any]:
        return feed.message(-1, enveloped(router_event(1, number, REMOVED)))

    send(1)
    assert send(2**64 - 1) == []
    assert feed.counts.bad == 1
    assert "event_id" in str(feed.counts.last_bad)
    assert [type(event) for event in send(2)] == [KvBlocksRemoved]


@pytest.mark.parametrize(("before", "number"), [(2**39, 2), (5000, 3000), (7, 1), (1, 0)])
def test_a_worker_that_counts_from_far_below_began_anew_and_holds_nothing_of_before(before: int, number: int) -> None:
    live, past = DynamoFeed("fleet", 4, "llama"), []
    for event_id, data in ((before, STORED), (number, REMOVED), (number + 1, REMOVED)):
        past += live.message(-1, enveloped(router_event(1, event_id, data)))

    cleared = next(event for event in past if isinstance(event, KvBlocksCleared))
    assert (cleared.worker, cleared.event_id, cleared.details) == ("1", None, {"reason": "restarted"})
    assert live.counts.restarts == 1
    assert past[-1].event_id == number + 1
    again = DynamoFeed("fleet", 4, "llama")
    for event in past:
        again.take(event)
    assert again._numbers == live._numbers == {"1": number + 1}
    cut = DynamoFeed("fleet", 4, "llama")
    for event in past[: past.index(cleared) + 1]:
        cut.take(event)
    assert cut._numbers == {}, "a listener that died there takes what comes next"


def test_a_message_that_is_a_little_late_is_not_a_worker_that_began_anew() -> None:
    feed = DynamoFeed("fleet")
    for number in (5000, 4500):
        told = feed.message(-1, enveloped(router_event(1, number, REMOVED)))

    assert told == []
    assert (feed.counts.doubles, feed.counts.restarts) == (1, 0)


def test_blocks_of_one_hash_are_a_gap_of_that_number_and_the_next_message_is_taken() -> None:
    feed = DynamoFeed("fleet", 4)
    twice = {
        "stored": {
            "parent_hash": None,
            "blocks": [{"block_hash": 1, "tokens_hash": 2}, {"block_hash": 1, "tokens_hash": 3}],
        }
    }

    (gap,) = feed.message(-1, enveloped(router_event(1, 1, twice)))

    assert isinstance(gap, KvGap)
    assert (gap.first, gap.last) == (1, 1)
    assert len(feed.message(-1, enveloped(router_event(1, 2, REMOVED)))) == 1


def test_blocks_with_images_have_no_chain() -> None:
    feed = DynamoFeed("fleet", 4)
    blocks = [
        {"block_hash": 1, "tokens_hash": 2, "mm_extra_info": {"mm_objects": [{"mm_hash": 5, "offsets": [[0, 2]]}]}}
    ]

    (stored,) = feed.message(-1, enveloped(router_event(1, 0, {"stored": {"parent_hash": None, "blocks": blocks}})))

    assert isinstance(stored, KvBlocksStored)
    assert stored.hashes == b""


BAD = {
    "nothing": b"",
    "no worker": json.dumps({"event": {"event_id": 1, "data": "cleared"}}).encode(),
    "no event": json.dumps({"worker_id": 1}).encode(),
    "a kind that is not known": json.dumps(router_event(1, 1, {"moved": {}})).encode(),
    "two kinds at once": json.dumps(router_event(1, 1, {"stored": {}, "removed": {}})).encode(),
    "blocks that are none": json.dumps(router_event(1, 1, {"stored": {"parent_hash": None, "blocks": [5]}})).encode(),
    "a number below zero": json.dumps(router_event(1, -1, "cleared")).encode(),
    "a frame that is cut": framed(enveloped(router_event(1, 1, "cleared")))[:-3],
    "a frame that says too much": b"\x01\xff\xff\xff\xff" + b"x",
    "envelopes without an end": b"".join([b"\x81\xa7payload\xc4\x0a\x81\xa7payload\xc0"]),
    "a hundred thousand lists in each other": b"[" * 100_000,
}


@pytest.mark.parametrize("payload", BAD.values(), ids=BAD.keys())
def test_a_bad_message_is_refused_in_one_line_and_counted(payload: bytes) -> None:
    with pytest.raises(BadPayload) as refused:
        read_message(payload, engine="fleet")
    assert "\n" not in str(refused.value)

    feed = DynamoFeed("fleet")
    assert feed.message(-1, payload) == []
    assert (feed.counts.bad, feed.counts.last_bad) == (1, str(refused.value))


@given(st.data())
def test_a_real_message_with_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    wrap = data.draw(st.sampled_from(sorted(WRAPPED)))
    good = bytearray(WRAPPED[wrap](router_event(9, 3, data.draw(st.sampled_from([STORED, REMOVED, "cleared"])))))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    feed = DynamoFeed("fleet", 2)

    for event in feed.message(-1, bytes(good[: data.draw(st.integers(0, len(good)))])):
        event.encode()
