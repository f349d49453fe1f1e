"""The index as a process of its own: it has read the log, follows it, and answers."""

import asyncio
import signal
import subprocess
import sys
import time
from typing import Any

import msgspec
import numpy as np
import pytest

from morphogen.bus import Bus, Settings
from morphogen.bus.broker import Endpoint as Broker
from morphogen.bus.errors import MessageTooLarge, ServiceError
from morphogen.consumers.kv_index import BadQuestion, IndexServer, NoIndex, VllmFeed, ask, longest_prefix, root_of
from morphogen.consumers.kv_index.logbook import Logbook
from morphogen.consumers.kv_index.service import SUBJECT
from morphogen.schemas import Event, Record, encode_frame
from morphogen.schemas.kv import KvBlocksCleared

from .publishers import Dialect, until

DIALECT = Dialect()
TEXT = list(range(64))


def said(at: int, worker: str = "w") -> list[Event]:
    """Return what an engine says of the first `at` blocks of the text."""
    stored = DIALECT.stored([1000 + i for i in range(at)], TEXT[: 16 * at], 16)
    return VllmFeed("fleet", worker, "llama").message(0, DIALECT.payload(stored))


class Serving:
    """A server in the background of a bus."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self.bus = bus
        self.server = IndexServer(bus.conn, settings)
        self.book = Logbook(bus.conn, "fleet")
        self.future = bus.start(self.server.run())
        bus.run(asyncio.wait_for(self.server.ready.wait(), 20))

    def write(self, *groups: list[Event]) -> None:
        self.bus.run(self.book.write(groups))


def test_the_server_answers_of_the_past_and_of_what_comes(bus: Bus, settings: Settings) -> None:
    bus.run(Logbook(bus.conn, "fleet").write([said(2)]))
    serving = Serving(bus, settings)

    match = bus.run(longest_prefix(bus.conn, TEXT))

    assert (match.tokens, match.block, match.root) == (32, 16, root_of("llama"))
    assert [(held.holder.engine, held.holder.worker) for held in match.holders] == [("fleet", "w")]
    serving.write(said(4, "v"), [KvBlocksCleared(engine="fleet", dialect="vllm", worker="w")])
    until(lambda: serving.server.seq >= bus.stream_info().last_seq)
    answer = bus.run(ask(bus.conn, np.array(TEXT, np.int64), root=root_of("llama")))
    assert (answer.match.tokens, answer.blocks) == (64, 4)
    assert [held.holder.worker for held in answer.match.holders] == ["v"]
    assert answer.seq == bus.stream_info().last_seq
    assert serving.server.answered == 2


def test_without_a_server_the_question_fails_at_once_and_says_what_to_do(bus: Bus) -> None:
    begun = time.monotonic()

    with pytest.raises(NoIndex, match="serve kv-index"):
        bus.run(longest_prefix(bus.conn, TEXT))

    assert time.monotonic() - begun < 3


def test_questions_that_are_none_are_refused_and_the_next_one_is_answered(bus: Bus, settings: Settings) -> None:
    Serving(bus, settings)

    for payload in (b"", b"\xff", msgspec.msgpack.encode({"tokens": "text"}), msgspec.msgpack.encode({"tokens": b"abc"}),
                    msgspec.msgpack.encode({"tokens": b"", "block": 0})):  # fmt: skip
        with pytest.raises(ServiceError, match=r"no question|no int32|at least one") as refused:
            bus.request(SUBJECT, payload)
        assert "\n" not in str(refused.value)
    with pytest.raises(BadQuestion):
        bus.run(longest_prefix(bus.conn, ["a"]))  # type: ignore[list-item]
    assert bus.run(longest_prefix(bus.conn, TEXT)).blocks == 0


@pytest.mark.parametrize(
    ("tokens", "asked", "says"),
    [
        ([1], {"block": 0}, "at least one token"),
        ([1], {"block": 2**70}, "at most"),
        ([1], {"root": "\ud800"}, "UTF-8"),
        ({1, 2}, {}, "no order"),
        (np.zeros(2**20 + 1, np.int32), {}, "ask with its beginning"),
    ],
    ids=["block 0", "block 2^70", "half a character", "a set", "too long"],
)
def test_a_question_that_is_none_is_refused_before_it_is_sent(
    tokens: Any, asked: dict[str, Any], says: str, bus: Bus
) -> None:
    with pytest.raises(BadQuestion, match=says):
        bus.run(longest_prefix(bus.conn, tokens, **asked))


def test_a_question_that_the_broker_does_not_take_or_the_server_refuses_is_a_bad_one(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (MessageTooLarge("raise its max_payload"), ServiceError("BadQuestion", "ask with its beginning")):

        async def failing(*given: Any, error: Exception = error) -> bytes:
            raise error

        monkeypatch.setattr("morphogen.consumers.kv_index.service.call", failing)
        with pytest.raises(BadQuestion, match="ask with its beginning"):
            bus.run(longest_prefix(bus.conn, TEXT))


def test_frames_that_are_none_and_those_that_a_replay_sends_again_change_nothing(bus: Bus, settings: Settings) -> None:
    serving = Serving(bus, settings)
    bus.run(bus.conn.publish_ack("morphogen.log.kv=2Efleet.kv.0-0", b"no frame"))
    (event,) = said(2, "ghost")
    record = Record(1, event.type, event.version, None, 1, msgspec.Raw(event.encode()))
    again = encode_frame([record], run="kv.fleet", attempt=0, rank=0, writer="a" * 16, family="kv", replay="r1")
    bus.run(bus.conn.publish_ack("morphogen.log.kv=2Efleet.kv.0-0", again))
    serving.write(said(1))
    until(lambda: serving.server.seq >= bus.stream_info().last_seq)

    assert [holder.worker for holder in serving.server.index.holders] == ["w"]
    assert not serving.future.done()


def test_the_verb_serves_until_it_is_told_to_end(settings: Settings, broker: Broker, bus: Bus) -> None:
    bus.run(Logbook(bus.conn, "fleet").write([said(3)]))
    command = [sys.executable, "-m", "morphogen.cli", "serve", "kv-index"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "answering over 3 blocks of 1 holders\n"
        assert bus.run(longest_prefix(bus.conn, TEXT)).tokens == 48
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (0, "answered 1 questions\n", "")
