"""A log that was made anew while somebody is at work on it: the listener fills it again, the index folds it from its start."""

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest

from morphogen.bus import Bus, Settings, watch
from morphogen.bus.errors import StreamReplaced
from morphogen.bus.streams import LOG, ensure_streams, stream_info
from morphogen.consumers.kv_index import IndexServer, logbook, longest_prefix
from morphogen.consumers.kv_index.logbook import Logbook
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksStored, KvGap

from .listening import Listening, stored
from .publishers import Publisher, until

CLEARED = KvBlocksCleared(engine="fleet", dialect="vllm", worker="w")


@pytest.fixture(autouse=True)
def seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WATCH_EVERY", 0.1)


def make_anew(bus: Bus, settings: Settings) -> None:
    """Take the broker's folder away, and return when the one that follows is connected to; nobody has made its streams."""
    generation, before = bus.conn.generation, bus.conn.endpoint.pid
    assert before is not None
    settings.broker_dir.rename(settings.home / "gone")
    until(lambda: bus.conn.generation > generation)
    os.kill(before, signal.SIGKILL)  # nobody else would: its files are not deleted


def test_all_that_the_publisher_still_has_is_in_the_new_log_once(
    bus: Bus, settings: Settings, publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher)
    for at in range(3):
        publisher.send(stored(at))
    listening.wait_for(3)
    make_anew(bus, settings)
    publisher.send(stored(3))

    events = listening.wait_for(4)

    assert [event.event_id for event in events] == [0, 1, 2, 3]
    assert [event.details["depths"] for event in events] == [[1], [2], [3], [4]]
    assert any("the log was made anew" in line for line in listening.lines)
    assert listening.listener.counts["w"].messages == 8  # those of the old log are counted on


def test_a_silent_publisher_is_written_of_again_too(
    bus: Bus, settings: Settings, publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher, quiet=0.2)
    publisher.send(stored(0))
    listening.wait_for(1)
    make_anew(bus, settings)

    until(lambda: any("the log was made anew" in line for line in listening.lines))
    assert [event.event_id for event in listening.wait_for(1)] == [0]


def test_a_log_that_another_client_made_anew_is_noticed_over_the_same_connection(
    bus: Bus, publisher: Publisher, listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logbook, "_PAUSE", 0.1)
    conn, listening = bus.conn, listen(publisher)
    for at in range(3):
        publisher.send(stored(at))
    listening.wait_for(3)
    generation = conn.generation

    async def make_anew() -> None:
        await conn.js(f"STREAM.DELETE.{LOG}")
        await ensure_streams(conn)

    bus.run(make_anew())
    time.sleep(0.2)
    publisher.send(stored(3))

    assert [event.event_id for event in listening.wait_for(4)] == [0, 1, 2, 3]
    assert conn.generation == generation


def test_what_cannot_be_had_for_the_new_log_is_a_gap_there(
    bus: Bus, settings: Settings, publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher, replay=None, quiet=0.2)
    for at in range(3):
        publisher.send(stored(at))
    listening.wait_for(3)
    make_anew(bus, settings)
    until(lambda: any("the log was made anew" in line for line in listening.lines))

    (gap,) = listening.wait_for(1)

    assert isinstance(gap, KvGap)
    assert (gap.first, gap.last) == (0, 2)
    assert "made anew" in gap.reason
    publisher.send(stored(3))
    assert [event.event_id for event in listening.wait_for(1, KvBlocksStored)] == [3]
    assert len(listening.events()) == 2


def test_a_book_of_one_log_writes_nothing_into_another(bus: Bus, settings: Settings) -> None:
    book = Logbook(bus.conn, "fleet")
    bus.run(book.write([[CLEARED]]))
    make_anew(bus, settings)

    with pytest.raises(StreamReplaced, match="another is in its place"):
        bus.run(asyncio.wait_for(book.write([[CLEARED]]), 20))
    assert bus.run(stream_info(bus.conn, LOG)).last_seq == 0


def test_the_index_is_that_of_the_log_that_is_there_now(
    bus: Bus, settings: Settings, publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    server = IndexServer(bus.conn, settings)
    serving = bus.start(server.run())
    bus.run(asyncio.wait_for(server.ready.wait(), 20))
    listening = listen(publisher, replay=None)
    for at in range(2):
        publisher.send(stored(at))
    until(lambda: len(server.index) == 2)
    make_anew(bus, settings)
    publisher.send(stored(2))
    until(lambda: len(listening.events()) == 1)  # a gap
    publisher.send(stored(3))
    until(lambda: len(listening.events()) == 2)
    until(lambda: len(server.index) == 0)  # both logs have two messages
    until(lambda: server.seq == bus.stream_info().last_seq)

    assert not serving.done()
    assert len(server.index) == 0
    assert bus.run(longest_prefix(bus.conn, range(8))).blocks == 0  # type: ignore[arg-type]
