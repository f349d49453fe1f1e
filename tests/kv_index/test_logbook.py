"""What an engine said fits into the log, however much it was, each message whole where a frame has room for it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.bus import Bus
from morphogen.consumers.kv_index import VllmFeed
from morphogen.consumers.kv_index.logbook import Logbook, _frames
from morphogen.schemas import Event
from morphogen.schemas.kv import KvBlocksRemoved, KvBlocksStored, KvGap

from .publishers import Dialect

DIALECT = Dialect()
ROOM = 20_000


def message(number: int, blocks: int, events: int, name: int) -> list[Event]:
    """Return what a message says: so many events, of so many blocks each, with an adapter's name of so many characters."""
    told = [
        DIALECT.stored([b"h" * 32] * blocks, [], 16, parent=b"p" * 64, medium="€" * name, lora_name="é" * name)
        for _ in range(events)
    ]
    return VllmFeed("fleet", "w", "llama").message(number, DIALECT.payload(*told))


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 6), st.sampled_from([1, 30, 1000])), max_size=6))
def test_frames_have_room_for_what_is_in_them_and_messages_stay_whole(drawn: list[tuple[int, int, int]]) -> None:
    groups = [message(number, *one) for number, one in enumerate(drawn)]

    frames = list(_frames(groups, ROOM))

    assert [event for frame in frames for event, _ in frame] or not drawn
    for frame in frames:
        assert sum(len(body) for _, body in frame) <= ROOM
        assert all(event.encode() == body for event, body in frame)
    numbered = [
        {event.event_id for event, _ in frame if isinstance(event, KvBlocksStored)} - {None} for frame in frames
    ]
    assert sum(map(len, numbered)) == len(set().union(*numbered)), "a number stands in one frame"
    assert sum(len(frame) for frame in frames) == sum(map(len, groups))


def test_an_event_that_no_frame_has_room_for_is_a_gap_of_its_number() -> None:
    large = KvBlocksStored(engine="e", dialect="vllm", worker="w", block_hashes=["x" * 30_000], event_id=7)
    small = KvBlocksRemoved(engine="e", dialect="vllm", worker="w", block_hashes=["x"], event_id=8)

    (frame,) = _frames([[large], [small]], ROOM)

    (gap, _), (kept, _) = frame
    assert isinstance(gap, KvGap)
    assert (gap.engine, gap.worker, gap.first, gap.last) == ("e", "w", 7, 7)
    assert "more than the log takes" in gap.reason
    assert kept == small


def test_a_broker_that_takes_less_gets_smaller_frames(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus.conn.nc, "_max_payload", ROOM)
    book = Logbook(bus.conn, "fleet")
    groups = [message(number, 100, 2, 30) for number in range(4)]

    bus.run(book.write([*groups, message(4, 1000, 1, 1)]))

    events: list[Any] = [one.event for one in bus.events(run="kv.fleet", family="kv")]
    assert [event.event_id for event in events[:-1]] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert isinstance(events[-1], KvGap)
    assert (events[-1].first, events[-1].last) == (4, 4)
    assert book.frames > 1
