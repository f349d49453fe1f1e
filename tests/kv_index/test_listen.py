"""Listening to a real publisher over real sockets, into a real broker."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus import Bus, Settings
from morphogen.bus.broker import Endpoint as Broker
from morphogen.consumers.kv_index import (
    Endpoint,
    KvIndexError,
    Listener,
    NotListening,
    PrefixIndex,
    replay_of,
    root_of,
    zmq_source,
)
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, KvGap

from .listening import DIALECT, SIZE, Listening, stored
from .publishers import Publisher, enveloped, framed, router_event, until

pytest.importorskip("zmq")


def test_what_an_engine_says_is_in_the_log_with_our_chain(
    publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher)
    for at in range(3):
        publisher.send(stored(at))
    publisher.send(DIALECT.payload(DIALECT.removed([1002]), DIALECT.cleared()))

    events = listening.wait_for(5)

    assert [type(event) for event in events] == [*[KvBlocksStored] * 3, KvBlocksRemoved, KvBlocksCleared]
    assert [event.event_id for event in events] == [0, 1, 2, 3, 3]
    assert {(event.engine, event.worker) for event in events} == {("fleet", "w")}
    index = PrefixIndex()
    for event in events[:4]:
        index.take(event)
    match = index.longest_prefix(range(12))  # type: ignore[arg-type]
    assert (match.tokens, match.holders[0].holder.worker) == (8, "w")
    counts = listening.listener.counts["w"]
    assert (counts.messages, counts.events, counts.bad, counts.gaps) == (4, 5, 0, 0)


def test_what_was_said_before_anybody_listened_is_asked_for(
    publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    for at in range(5):
        publisher.lose(stored(at))

    listening = listen(publisher)

    assert [event.event_id for event in listening.wait_for(5)] == [0, 1, 2, 3, 4]
    publisher.send(stored(5))
    assert [event.event_id for event in listening.wait_for(6)] == [0, 1, 2, 3, 4, 5]


def test_a_gap_is_filled_by_a_replay_and_nothing_comes_twice(
    publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher)
    publisher.send(stored(0))
    listening.wait_for(1)
    for at in range(1, 4):
        publisher.lose(stored(at))
    for at in range(4, 20):
        publisher.send(stored(at))

    events = listening.wait_for(20)

    assert [event.event_id for event in events] == list(range(20))
    assert [event.details["depths"] for event in events] == [[at + 1] for at in range(20)]
    assert listening.events(KvGap) == []


def test_a_gap_that_cannot_be_filled_is_an_event(listen: Callable[..., Listening]) -> None:
    publisher = Publisher(buffer=2)
    try:
        listening = listen(publisher)
        publisher.send(stored(0))
        listening.wait_for(1)
        for at in range(1, 6):
            publisher.lose(stored(at))
        publisher.send(stored(6))
        (gap,) = listening.wait_for(1, KvGap)

        assert (gap.first, gap.last, gap.received) == (1, 4, 5)
        assert gap.reason == "the publisher kept no more"
        assert [one.event_id for one in listening.wait_for(3, KvBlocksStored)] == [0, 5, 6]
        assert any("messages 1 to 4 are lost" in line for line in listening.lines)
        assert listening.listener.counts["w"].lost == 4
    finally:
        publisher.close()


@pytest.mark.parametrize("tail", [1, 0])
def test_what_an_answer_had_no_room_for_is_asked_for_again(
    listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    monkeypatch.setattr(zmq_source, "_SILENCE", 0.5)
    publisher = Publisher(room=4, tail=tail)
    try:
        for at in range(10):
            publisher.lose(stored(at))
        listening = listen(publisher)

        assert [event.event_id for event in listening.wait_for(10)] == list(range(10))
        assert publisher.asked == [0, 3, 6]
        assert listening.listener.counts["w"].lost == 0
    finally:
        publisher.close()


def test_without_a_replay_socket_a_gap_says_so(publisher: Publisher, listen: Callable[..., Listening]) -> None:
    listening = listen(publisher, replay=None)
    publisher.send(stored(0))
    publisher.lose(stored(1))
    publisher.send(stored(2))

    (gap,) = listening.wait_for(1, KvGap)

    assert (gap.first, gap.last, gap.reason) == (1, 1, "the publisher has no replay socket")


def test_of_more_messages_than_are_taken_at_once_none_is_lost(
    publisher: Publisher, listen: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.consumers.kv_index.listen._AT_ONCE", 2)
    listening = listen(publisher, replay=None)
    for at in range(200):
        publisher.send(stored(at))

    assert [event.event_id for event in listening.wait_for(200)] == list(range(200))


def test_a_replay_socket_that_is_silent_holds_nothing_up_for_long(listen: Callable[..., Listening]) -> None:
    publisher = Publisher(replay=False)
    try:
        listening = listen(publisher)
        publisher.send(stored(0))
        publisher.lose(stored(1))
        publisher.send(stored(2))

        (gap,) = listening.wait_for(1, KvGap)

        assert gap.reason == "the replay socket does not answer"
    finally:
        publisher.close()


def test_an_engine_that_begins_anew_holds_nothing_of_before(
    publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher)
    publisher.send(stored(0))
    publisher.send(stored(1))
    listening.wait_for(2)
    publisher.restart()
    publisher.wait_for_subscriber()
    publisher.send(stored(0))

    events = listening.wait_for(4)

    assert [type(event) for event in events[2:]] == [KvBlocksCleared, KvBlocksStored]
    assert events[2].details == {"reason": "restarted"}
    assert any("began anew" in line for line in listening.lines)


def test_a_silent_engine_is_asked_now_and_then(publisher: Publisher, listen: Callable[..., Listening]) -> None:
    listening = listen(publisher, quiet=0.2)
    publisher.send(stored(0))
    listening.wait_for(1)
    publisher.lose(stored(1))

    assert [event.event_id for event in listening.wait_for(2)] == [0, 1]


def test_hostile_messages_are_counted_and_said_and_the_next_good_one_is_taken(
    publisher: Publisher, listen: Callable[..., Listening]
) -> None:
    listening = listen(publisher)
    publisher.send_raw(b"one part")
    publisher.send_raw(b"123", b"a number of three bytes")
    publisher.send_raw(b"1", b"2", b"3", b"4", b"5")
    large = DIALECT.payload(DIALECT.stored([b"x" * 8_000_000], list(range(SIZE)), SIZE))
    for payload in (b"\xff" * 50, b"\x91" * 100_000, b"", large):
        publisher.send(payload)
    publisher.send(stored(0))

    gaps = listening.wait_for(4, KvGap)
    (good,) = listening.wait_for(1, KvBlocksStored)

    assert [(gap.first, gap.last) for gap in gaps] == [(at, at) for at in range(4)]
    assert all("not understood" in gap.reason for gap in gaps)
    assert good.event_id == 4
    counts = listening.listener.counts["w"]
    assert (counts.bad, counts.messages) == (4, 5)
    assert any("were not understood" in line for line in listening.lines)
    assert not listening.future.done()


def test_only_the_topic_that_is_asked_for_is_heard(publisher: Publisher, listen: Callable[..., Listening]) -> None:
    listening = listen(publisher, topic="another")
    publisher.send(stored(0))
    time.sleep(0.3)

    assert listening.events() == []


def test_dynamos_events_come_over_zmq_and_over_nats(bus: Bus, settings: Settings, publisher: Publisher) -> None:
    over_zmq = Listening(bus, settings, Endpoint(address=publisher.address), dialect="dynamo", block_size=16)
    url = bus.conn.endpoint.urls[0]
    over_nats = Listening(
        bus,
        settings,
        Endpoint(address=_with_token(bus, url), topic="namespace.x.kv-events", worker="n"),
        dialect="dynamo",
        block_size=16,
    )
    publisher.wait_for_subscriber()
    try:
        publisher.send_raw(
            (7).to_bytes(8, "big"), (0).to_bytes(8, "big"), framed(enveloped(router_event(5, 0, "cleared")))
        )
        bus.run(
            bus.conn.nc.publish(
                "namespace.x.kv-events", enveloped(router_event(6, 1, {"removed": {"block_hashes": [1]}}))
            )
        )

        events = over_zmq.wait_for(2)

        assert {(type(event), event.worker) for event in events} == {(KvBlocksCleared, "5"), (KvBlocksRemoved, "6")}
    finally:
        over_zmq.stop()
        over_nats.stop()


def test_a_broker_that_goes_away_is_waited_for(
    publisher: Publisher, listen: Callable[..., Listening], settings: Settings
) -> None:
    from morphogen.bus import broker as brokers

    listening = listen(publisher)
    publisher.send(stored(0))
    listening.wait_for(1)
    brokers.down(settings)
    for at in range(1, 6):
        publisher.send(stored(at))
    brokers.ensure(settings)

    assert [event.event_id for event in listening.wait_for(6)] == list(range(6))


def test_a_listener_that_was_killed_goes_on_where_it_was_and_nothing_is_twice(
    settings: Settings, broker: Broker, publisher: Publisher, bus: Bus, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "morphogen.cli", "serve", "kv-events", "--from", publisher.address, "--replay",
        publisher.replay_address, "--engine", "fleet", "--worker", "w",
    ]  # fmt: skip

    def events() -> list[Any]:
        return [one.event for one in bus.events(run="kv.fleet", family="kv")]

    for life in range(2):
        with subprocess.Popen(
            command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                publisher.wait_for_subscriber(60)
                for at in range(3):
                    publisher.send(stored(4 * life + at))
                until(lambda life=life: len(events()) >= 4 * life + 3, 60)
            finally:
                process.send_signal(signal.SIGKILL)
        publisher.send(stored(4 * life + 3))  # nobody hears it
    command_once = [*command, "--once"]
    done = subprocess.run(command_once, env=os.environ, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert [event.event_id for event in events()] == list(range(8))
    assert [event.details["depths"] for event in events()] == [[at + 1] for at in range(8)]


def test_once_says_where_nothing_could_be_asked_for(bus: Bus, settings: Settings) -> None:
    silent = Publisher(replay=False)
    try:
        for endpoint, options, says in (
            (Endpoint(address=silent.address, replay=silent.replay_address), {}, "does not answer"),
            (Endpoint(address=silent.address), {}, "has no replay socket"),
            (Endpoint(address=silent.address), {"dialect": "dynamo", "block_size": 16}, "has no replay socket"),
        ):
            with pytest.raises(NotListening, match=says):
                bus.run(Listener(bus.conn, settings, "fleet", [endpoint], **options).run(once=True))
    finally:
        silent.close()


def test_a_broker_that_is_not_there_is_not_waited_for(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morphogen.consumers.kv_index.sources._FIRST", 0.5)
    endpoint = Endpoint(address="nats://127.0.0.1:1", topic="a")
    listener = Listener(bus.conn, settings, "fleet", [endpoint], dialect="dynamo", block_size=16)

    with pytest.raises(NotListening, match=r"cannot be listened to: .*Connect call failed") as refused:
        bus.run(asyncio.wait_for(listener.run(), 5))

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("tcp://*:5557", "write tcp://127.0.0.1:5557"),
        ("127.0.0.1:5557", "no endpoint"),
        ("tcp://127.0.0.1", "has no port"),
        ("tcp://127.0.0.1:0", "has no port from 1 to 65535"),
        ("tcp://127.0.0.1:99999", "has no port from 1 to 65535"),
        (f"tcp://127.0.0.1:{'9' * 5000}", "has no port from 1 to 65535"),
        ("http://x", "no endpoint"),
        ("nats://127.0.0.1:4222", "name the subject"),
    ],
)
def test_an_endpoint_that_is_none_is_refused_in_one_line(address: str, says: str, settings: Settings) -> None:
    more: dict[str, Any] = {"dialect": "dynamo", "block_size": 16} if address.startswith("nats") else {}
    with pytest.raises(NotListening, match=says.replace("*", r"\*")) as refused:
        Listener(None, settings, "fleet", [Endpoint(address=address)], **more)  # type: ignore[arg-type]

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_where_replays_are_is_the_following_port_where_there_is_one() -> None:
    assert replay_of("tcp://127.0.0.1:5557") == "tcp://127.0.0.1:5558"
    assert [replay_of(one) for one in ("tcp://h:65535", "tcp://h:0", "tcp://h:99999", "tcp://h", "ipc:///a:1")] == [
        None
    ] * 5


@pytest.mark.parametrize(
    ("engine", "more", "says"),
    [
        ("", {}, "engine '' is no name"),
        ("a\nb", {}, "engine 'a.nb' is no name"),
        ("\udcff", {}, "is no name"),
        ("e" * 257, {}, "is no name"),
        ("e", {"model": " "}, "model ' ' is no name"),
        ("e", {"dialect": "dynamo"}, "give --block-size"),
        ("e", {"dialect": "dynamo", "block_size": 0}, "give --block-size"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    engine: str, more: dict[str, Any], says: str, settings: Settings
) -> None:
    with pytest.raises(NotListening, match=says) as refused:
        Listener(None, settings, engine, [Endpoint(address="tcp://127.0.0.1:1")], **more)  # type: ignore[arg-type]

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        (Endpoint(address="nats://127.0.0.1:4222", topic="a"), "give --dialect dynamo"),
        (Endpoint(address="tcp://127.0.0.1:1", topic="\udcff"), "topic"),
        (Endpoint(address="tcp://127.0.0.1:1", worker=""), "worker '' is no name"),
    ],
)
def test_an_endpoint_that_says_nothing_of_this_dialect_is_refused(
    endpoint: Endpoint, says: str, settings: Settings
) -> None:
    with pytest.raises(NotListening, match=says):
        Listener(None, settings, "fleet", [endpoint])  # type: ignore[arg-type]


def test_two_publishers_of_which_one_is_named_as_a_rank_of_the_other_are_refused(settings: Settings) -> None:
    def both(one: str, other: str) -> Listener:
        names = enumerate((one, other), 1)
        return Listener(None, settings, "fleet", [Endpoint(address=f"tcp://h:{at}", worker=name) for at, name in names])  # type: ignore[arg-type]

    for pair in (("pod", "pod/dp1"), ("pod/dp0/dp12", "pod/dp0")):
        with pytest.raises(NotListening, match="taken for a rank"):
            both(*pair)
    for pair in (("pod/dp0", "pod/dp1"), ("pod", "pod/dpx"), ("pod", "pod-1")):
        both(*pair)


def test_two_publishers_of_one_name_and_a_dialect_that_is_none_are_refused(settings: Settings) -> None:
    both = [Endpoint(address="tcp://127.0.0.1:1", worker="w"), Endpoint(address="tcp://127.0.0.1:2", worker="w")]

    with pytest.raises(NotListening, match="a name of its own"):
        Listener(None, settings, "fleet", both)  # type: ignore[arg-type]
    with pytest.raises(NotListening, match="no dialect 'latin'"):
        Listener(None, settings, "fleet", both[:1], dialect="latin")  # type: ignore[arg-type]


def test_without_its_packages_the_extra_is_named_in_one_line(
    bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(NotListening, match=r"pip install 'morphogen\[kv\]'"):
        bus.run(Listener(bus.conn, settings, "fleet", [Endpoint(address="tcp://127.0.0.1:1")]).run())
    monkeypatch.setitem(sys.modules, "xxhash", None)
    with pytest.raises(KvIndexError, match=r"pip install 'morphogen\[kv\]'"):
        PrefixIndex().longest_prefix(list(range(64)), root=root_of("llama", by_hash=True), block=16)


def _with_token(bus: Bus, url: str) -> str:
    token = bus.conn.endpoint.token
    return url.replace("nats://", f"nats://{token}@") if token else url
