"""One message follows another one: through lost acknowledgements, trims, rivals, and a log that is made anew."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from morphogen.bus import Bus, streams
from morphogen.bus.errors import Disconnected, JetStreamApiError, RequestTimeout, StreamReplaced
from morphogen.producers.loops.append import append_after
from morphogen.schemas import LogLine, Record, encode_frame

RUN = "r"
SUBJECT = f"morphogen.log.{RUN}.log.loop"
Publish = Callable[..., Any]


def frame(n: int) -> bytes:
    record = Record(n, LogLine.type, LogLine.version, None, n, LogLine(message=str(n)).encode())  # type: ignore[arg-type]
    return encode_frame([record], run=RUN, attempt=1, rank=0, writer="a" * 16, family=LogLine.family)


def append(bus: Bus, n: int, after: int) -> int:
    return bus.run(append_after(bus.conn, SUBJECT, frame(n), identity=f"{n}.{after}", after=after, patience=5.0))


def told(bus: Bus) -> list[int]:
    return [seen.record.n for seen in bus.past(family=LogLine.family)]


def test_what_was_stored_though_its_acknowledgement_was_lost_is_there_once_also_behind_a_trim(
    bus: Bus, trimmed: Callable[[Bus], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = bus.conn.publish_ack
    lose = [True]

    async def deaf(*args: Any) -> Any:
        stored = await publish(*args)
        if lose:
            lose.clear()
            raise RequestTimeout("no acknowledgement")
        return stored

    monkeypatch.setattr(bus.conn, "publish_ack", deaf)
    first = append(bus, 1, 0)
    lose.append(True)
    second = append(bus, 2, first)
    trimmed(bus)
    lose.append(True)
    assert append(bus, 3, second) == second + 1
    assert told(bus) == [1, 2, 3]


def test_a_rival_that_came_and_was_trimmed_while_the_broker_was_away_has_won(
    bus: Bus, settings: Any, trimmed: Callable[[Bus], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = append(bus, 1, 0)
    trimmed(bus)
    tries: list[str] = []
    publish = bus.conn.publish_ack

    async def away(subject: str, data: bytes, headers: dict[str, str], timeout: float) -> Any:
        tries.append(headers["Nats-Expected-Last-Subject-Sequence"])
        if len(tries) == 2:
            await asyncio.to_thread(rival)
            raise Disconnected("the broker went away")
        return await publish(subject, data, headers, timeout)

    def rival() -> None:
        with Bus.open(settings) as other:
            append(other, 2, first)
            trimmed(other)

    monkeypatch.setattr(bus.conn, "publish_ack", away)
    with pytest.raises(JetStreamApiError):
        append(bus, 3, first)
    assert tries[:2] == [str(first), "0"]
    assert told(bus) == [1, 2]


@pytest.mark.parametrize("messages", [0, 10])
def test_in_a_log_that_was_made_anew_nothing_follows_what_the_old_one_had(bus: Bus, messages: int) -> None:
    last = append(bus, 2, append(bus, 1, 0))
    bus.run(bus.conn.js(f"STREAM.DELETE.{streams.LOG}"))
    bus.run(streams.ensure_streams(bus.conn))
    for n in range(messages):
        bus.emit(LogLine(message="another"), msg_id=f"other.{n}")
    with pytest.raises(StreamReplaced, match="made anew"):
        append(bus, 3, last)
    assert len(told(bus)) == messages
