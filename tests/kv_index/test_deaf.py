"""A connection that libzmq gives up without a word is opened anew: the listener hears on, and what was missed is asked for."""

import time
from collections.abc import Callable

import pytest
import zmq

from morphogen.bus import Bus, Settings
from morphogen.consumers.kv_index import Endpoint, zmq_source
from morphogen.schemas.kv import KvBlocksStored, KvGap

from .listening import Listening, stored
from .publishers import Publisher, until

LARGE = b"x" * 2_000


@pytest.fixture(autouse=True)
def little_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_source, "LARGEST", 1_000)


def test_a_message_that_is_too_large_costs_only_itself(
    publisher: Publisher, listen: Callable[..., Listening], caplog: pytest.LogCaptureFixture
) -> None:
    listening = listen(publisher)
    publisher.send(stored(0))
    listening.wait_for(1)
    publisher.send(LARGE)
    publisher.wait_for_subscriber()
    publisher.send(stored(2))

    (gap,) = listening.wait_for(1, KvGap)

    assert (gap.first, gap.last) == (1, 1)
    assert "not understood: ZMQ refuses it" in gap.reason
    assert [one.event_id for one in listening.wait_for(2, KvBlocksStored)] == [0, 2]
    assert listening.listener.counts["w"].bad == 1
    assert len([one for one in caplog.messages if "sent what ZMQ refuses" in one]) == 1


def test_what_follows_it_in_a_replay_is_had(publisher: Publisher, listen: Callable[..., Listening]) -> None:
    for payload in (stored(0), LARGE, LARGE, stored(3), LARGE, stored(5)):
        publisher.lose(payload)

    listening = listen(publisher)

    assert [one.event_id for one in listening.wait_for(3, KvBlocksStored)] == [0, 3, 5]
    assert [(gap.first, gap.last) for gap in listening.events(KvGap)] == [(1, 1), (2, 2), (4, 4)]


def test_a_newest_message_that_is_too_large_is_no_restart(
    publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher, quiet=0.2)
    publisher.send(stored(0))
    publisher.lose(LARGE)
    listening.wait_for(1, KvGap)
    asked = len(publisher.asked)
    until(lambda: len(publisher.asked) > asked + 4)
    publisher.send(stored(2))

    assert [one.event_id for one in listening.wait_for(2, KvBlocksStored)] == [0, 2]
    assert len(listening.events()) == 3
    assert listening.listener.counts["w"].restarts == 0


def test_without_a_replay_socket_the_next_number_shows_what_was_refused(
    publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher, replay=None)
    for payload in (stored(0), LARGE):
        publisher.send(payload)
    publisher.wait_for_subscriber()
    publisher.send(stored(2))

    assert [one.event_id for one in listening.wait_for(2, KvBlocksStored)] == [0, 2]
    assert [(gap.first, gap.last) for gap in listening.events(KvGap)] == [(1, 1)]


def test_a_port_at_which_something_else_was_becomes_a_publisher(
    bus: Bus, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as other:
        port = other.bind_to_random_port("tcp://127.0.0.1")
        listening = Listening(bus, settings, Endpoint(address=f"tcp://127.0.0.1:{port}", worker="w"))
        until(lambda: "is no publisher of ZMQ" in caplog.text)
        time.sleep(1)  # in which it is tried more than once
    publisher = Publisher(port=port)
    try:
        publisher.wait_for_subscriber()
        publisher.send(stored(0))

        assert [one.event_id for one in listening.wait_for(1)] == [0]
        assert caplog.text.count("is no publisher of ZMQ") == 1
    finally:
        listening.stop()
        publisher.close()


@pytest.mark.parametrize("kind", [zmq.ROUTER, zmq.PULL], ids=["silent", "another kind"])
def test_a_replay_socket_that_does_not_answer_is_told_of_once(
    kind: int,
    publisher: Publisher,
    listen: Callable[..., Listening],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zmq_source, "_SILENCE", 0.2)
    asked: list[int] = []
    with zmq.Context() as context, context.socket(kind) as other:
        address = f"tcp://127.0.0.1:{other.bind_to_random_port('tcp://127.0.0.1')}"
        listening = listen(publisher, replay=address, quiet=0.05)
        (source,) = listening.listener._endpoints.values()
        assert isinstance(source, zmq_source.ZmqSource)
        ask = source._ask
        monkeypatch.setattr(source, "_ask", lambda endpoint, start: asked.append(start) or ask(endpoint, start))
        until(lambda: len(asked) > 3)
        listening.stop()

    assert [one for one in caplog.messages if "does not answer" in one] == [
        f"{address} does not answer: nothing can be had again from there"
    ]
