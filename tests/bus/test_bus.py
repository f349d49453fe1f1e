"""The plain face of the bus: from any thread, after a fork, and to a bounded end."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import morphogen.bus
from morphogen.bus import Bus, Settings
from morphogen.bus.commands.issue import Command
from morphogen.bus.errors import BusError, Disconnected, ForkedBus, NoBroker, NoResponders, RequestTimeout
from morphogen.bus.requests import respond
from morphogen.bus.streams import LOG
from morphogen.schemas import LogLine


def line(text: str) -> LogLine:
    return LogLine(level="info", message=text, logger="test", fields={})


def test_importing_the_room_loads_nothing_heavy_and_every_public_name_is_there() -> None:
    code = "import sys, morphogen.bus as b; print([m for m in ('nats', 'pyarrow', 'duckdb') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert sorted(morphogen.bus.__all__) == morphogen.bus.__all__
    for name in morphogen.bus.__all__:
        assert getattr(morphogen.bus, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_of_the_sort"):
        _ = morphogen.bus.nothing_of_the_sort  # type: ignore[attr-defined,unused-ignore]


def test_events_are_written_read_and_followed(settings: Settings) -> None:
    with Bus.open(settings) as bus:
        for number in range(3):
            bus.emit(line(str(number)), run="r", msg_id=f"m{number}", cause="why")
        bus.run(bus.conn.publish_ack("morphogen.log.r.log.0-0", b"noise"))
        seen = list(bus.events(family="log"))
        tail = bus.events(after=2, follow=True)
        third = next(tail)
        tail.close()  # type: ignore[attr-defined]

        assert [event.event.message for event in seen if isinstance(event.event, LogLine)] == ["0", "1", "2"]
        assert [event.place for event in seen] == [(1, 0), (2, 0), (3, 0)]
        assert (third.id, third.record.cause, third.frame.run) == (seen[2].id, "why", "r")
        assert bus.stream_info().last_seq == 4
        assert sum(len(batch) for batch in bus.read(upto=2)) == 2


def test_an_event_with_a_subject_of_its_own_is_stored_once_however_late_it_comes_again(settings: Settings) -> None:
    with Bus.open(settings) as bus:
        config = bus.run(bus.conn.js(f"STREAM.INFO.{LOG}"))["config"]
        bus.run(bus.conn.js(f"STREAM.UPDATE.{LOG}", {**config, "duplicate_window": 100_000_000}))
        first, forgotten = bus.emit(line("a"), msg_id="alone", label=None), bus.emit(line("b"), msg_id="shared")
        time.sleep(0.5)  # the broker forgets ids by a timer of its own
        again, stored = bus.emit(line("a"), msg_id="alone", label=None), bus.emit(line("b"), msg_id="shared")
        seen = list(bus.events(family="log"))

    assert (first.duplicate, again.duplicate, again.seq, again.stream) == (False, True, first.seq, first.stream)
    assert (stored.duplicate, stored.seq > forgotten.seq) == (False, True)
    assert [one.id for one in seen] == [seen[0].id, seen[1].id, seen[1].id]


def test_commands_dead_letters_blobs_and_requests_have_their_plain_calls(settings: Settings, tmp_path: Path) -> None:
    done = threading.Event()

    def work(command: Command) -> None:
        if command.args.get("bad"):
            raise ValueError("bad")
        done.set()

    async def chunks(payload: bytes) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield payload

    with Bus.open(settings) as bus:
        with bus.serve("job", {"do": work}, backoff=(0.05,)) as serving:
            bus.send("job", "do", {"n": 1})
            assert done.wait(10)
            key = bus.send("job", "do", {"bad": True}, max_deliveries=1)
            deadline = time.monotonic() + 10
            while not bus.dead.list() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not serving.wait(0.01)
        assert serving.wait(1)
        assert bus.dead.show(key).body.reason == "ValueError: bad"
        retried = bus.dead.retry(key)
        assert retried.startswith(key)
        with pytest.raises(BusError):
            bus.dead.drop(key)

        sha256 = bus.blobs.put(b"some bytes")
        assert bus.blobs.get(sha256) == b"some bytes"
        assert bus.blobs.get_file(sha256, tmp_path / "copy") == 10
        assert bus.blobs.put(tmp_path / "copy") == sha256
        assert bus.blobs.exists(sha256)
        assert bus.blobs.delete(sha256)

        bus.run(respond(bus.conn, "t.chunks", chunks))
        assert bus.request("t.chunks", b"ab") == b"ababab"
        assert list(bus.request_stream("t.chunks", b"ab")) == [b"ab"] * 3
        with pytest.raises(NoResponders):
            bus.request("t.nobody")


def test_many_threads_may_use_one_bus(settings: Settings) -> None:
    with Bus.open(settings) as bus:
        errors: list[BaseException] = []

        def write(writer: int) -> None:
            try:
                for number in range(20):
                    bus.emit(line(str(number)), msg_id=f"{writer}-{number}")
            except BaseException as error:  # noqa: BLE001  a thread has nobody to raise to
                errors.append(error)

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(list(bus.events())) == 80


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_told_to_open_its_own(settings: Settings) -> None:
    with Bus.open(settings) as bus:
        bus.emit(line("parent"), msg_id="parent")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                try:
                    bus.stream_info()
                except ForkedBus:
                    bus.close()
                    with Bus.open(settings) as own:
                        status = 0 if own.stream_info().last_seq == 1 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        bus.emit(line("again"), msg_id="again")
        assert bus.stream_info().last_seq == 2


def test_closing_wakes_who_waits_and_takes_bounded_time(settings: Settings) -> None:
    bus = Bus.open(settings)
    errors: list[BaseException] = []

    def tail() -> None:
        try:
            for _ in bus.events(follow=True):
                pass
        except BaseException as error:  # noqa: BLE001  a thread has nobody to raise to
            errors.append(error)

    thread = threading.Thread(target=tail)
    thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    bus.close()
    bus.close()
    thread.join(5)

    assert time.monotonic() - began < 5
    assert not thread.is_alive()
    assert [type(error) for error in errors] == [Disconnected]
    with pytest.raises(Disconnected, match="open another"):
        bus.stream_info()
    assert "closed" in repr(bus)


def test_a_deadline_and_a_call_from_within_are_one_line(settings: Settings) -> None:
    with Bus.open(settings) as bus:
        with pytest.raises(RequestTimeout, match=r"0\.05 s"):
            bus.run(asyncio.sleep(10), timeout=0.05)

        async def inside() -> None:
            bus.stream_info()

        with pytest.raises(BusError, match="wait for itself"):
            bus.run(inside())


def test_no_broker_is_told_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(NoBroker):
        Bus.open(url="nats://127.0.0.1:1", home=tmp_path)
    assert time.monotonic() - began < 5
