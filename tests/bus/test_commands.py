"""A command is done once, by one worker, or ends among the dead letters with the reason."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.commands import dead
from morphogen.bus.commands.issue import Command, Worker, command_event_id, send
from morphogen.bus.connection import Connection
from morphogen.bus.emit import publish_once, writer_of
from morphogen.bus.errors import CommandError, MessageTooLarge
from morphogen.bus.reader import read
from morphogen.bus.streams import COMMANDS, stream_info
from morphogen.schemas import CommandFinished, CommandIssued, Event, Record, decode_event, decode_frame, encode_frame

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]

WORKER = """
import asyncio, os, sys, time
from morphogen.bus.commands import serve
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings

folder = sys.argv[1]

def hang(command):
    with open(os.path.join(folder, f"{command.id}.{command.delivery}"), "w"):
        pass
    time.sleep(60)

async def main():
    conn = await connect(Settings.from_environ(), name="doomed")
    await serve(conn, "job", {"hang": hang}, name="doomed", ack_wait=1.0)

asyncio.run(main())
"""


class Serving:
    """A worker in the background of a story."""

    def __init__(self, conn: Connection, handlers: dict[str, Any], **options: Any) -> None:
        self.worker = Worker(conn, "job", handlers, **{"backoff": (0.05,), "name": "w", **options})
        self.task = asyncio.create_task(self.worker.run())

    async def __aenter__(self) -> Worker:
        return self.worker

    async def __aexit__(self, *_: object) -> None:
        self.worker.stop()
        await asyncio.wait_for(self.task, 10)


async def outcomes(conn: Connection, family: str = "outcome") -> list[tuple[Event, str | None]]:
    found = []
    async for batch in read(conn, family=family):
        for message in batch:
            for record in decode_frame(message.data).records:
                event = decode_event(record.type, record.version, record.body)
                assert isinstance(event, Event)
                found.append((event, record.cause))
    return found


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def queue_is_empty(conn: Connection) -> bool:
    return (await stream_info(conn, COMMANDS)).messages == 0


def test_a_command_reaches_its_handler_and_its_outcome_the_log(on_bus: OnBus) -> None:
    seen: list[tuple[Command, bool]] = []

    def grow(command: Command) -> dict[str, Any]:
        seen.append((command, threading.current_thread() is threading.main_thread()))
        return {"layers": 3}

    async def prune(command: Command) -> None:
        seen.append((command, threading.current_thread() is threading.main_thread()))

    async def story(conn: Connection) -> None:
        async with Serving(conn, {"grow": grow, "prune": prune}):
            first = await send(conn, "job", "grow", {"by": 2}, run="run 1.*", issuer="me")
            second = await send(conn, "job", "prune")
            await until(lambda: queue_is_empty(conn))
        grown, pruned = sorted(seen, key=lambda pair: pair[0].name)

        assert grown == (
            Command(
                id=first, target="job", name="grow", args={"by": 2}, run="run 1.*", delivery=1,
                cause=command_event_id(first), issuer="me",
            ),
            False,
        )  # fmt: skip
        assert (pruned[0].id, pruned[1]) == (second, True)
        found = await outcomes(conn)
        assert [event.type for event, _ in found if event.command_id == first] == [  # type: ignore[attr-defined]
            "outcome.accepted",
            "outcome.finished",
        ]
        assert {cause for _, cause in found} == {command_event_id(first), command_event_id(second)}
        finished = next(e for e, _ in found if e.type == "outcome.finished" and e.command_id == first)  # type: ignore[attr-defined]
        assert (finished.ok, finished.result, finished.worker) == (True, {"layers": 3}, "w")  # type: ignore[attr-defined]

    on_bus(story)


def test_the_same_id_is_one_command(on_bus: OnBus) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        for _ in range(3):
            assert await send(conn, "job", "do", command_id="été 1") == "été 1"
        async with Serving(conn, {"do": lambda command: done.append(command.id)}):
            await until(lambda: queue_is_empty(conn))
        assert done == ["été 1"]
        assert len(await outcomes(conn, "command")) == 1

    on_bus(story)


def test_what_cannot_be_a_command_is_refused_at_the_door(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        with pytest.raises(CommandError, match="target"):
            await send(conn, "", "do")
        with pytest.raises(CommandError, match="at least 1"):
            await send(conn, "job", "do", max_deliveries=0)
        with pytest.raises(MessageTooLarge, match="blob"):
            await send(conn, "job", "do", {"data": "x" * 500_000})
        assert await queue_is_empty(conn)

    on_bus(story)


def test_a_failing_handler_is_tried_again_and_then_buried_with_its_reason(on_bus: OnBus) -> None:
    tries: dict[str, int] = {}

    def fragile(command: Command) -> str:
        tries[command.id] = command.delivery
        if command.args.get("heals") and command.delivery == 2:
            return "well"
        raise OSError("no\nspace")

    def hopeless(command: Command) -> None:
        tries[command.id] = command.delivery
        raise CommandError("never possible")

    async def story(conn: Connection) -> None:
        async with Serving(conn, {"fragile": fragile, "hopeless": hopeless}, concurrency=3):
            heals = await send(conn, "job", "fragile", {"heals": True})
            fails = await send(conn, "job", "fragile", max_deliveries=3, run="r")
            never = await send(conn, "job", "hopeless")
            await until(lambda: queue_is_empty(conn))
        assert tries == {heals: 2, fails: 3, never: 1}
        letters = {letter.body.command_id: letter for letter in await dead.letters(conn)}
        assert set(letters) == {fails, never}
        assert (letters[fails].body.reason, letters[fails].body.deliveries) == ("OSError: no space", 3)
        assert letters[fails].run == "r"
        assert letters[never].body.reason == "CommandError: never possible"
        in_log = [(event, cause) for event, cause in await outcomes(conn, "dead")]
        assert {cause for _, cause in in_log} == {command_event_id(fails), command_event_id(never)}

    on_bus(story)


class Unspeakable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("cannot parse caf\udce9.txt"), "ValueError: cannot parse caf\\udce9.txt"),
        (Unspeakable(), "Unspeakable: <Unspeakable>"),
    ],
    ids=["stray bytes", "no text"],
)
def test_an_error_that_cannot_be_told_as_it_is_still_is_the_reason(
    on_bus: OnBus, error: Exception, reason: str
) -> None:
    tries = []

    def fails(command: Command) -> None:
        tries.append(command.delivery)
        raise error

    async def story(conn: Connection) -> None:
        async with Serving(conn, {"fails": fails}, ack_wait=1.0):
            await send(conn, "job", "fails", max_deliveries=2)
            await until(lambda: queue_is_empty(conn))
        (letter,) = await dead.letters(conn)
        assert (tries, letter.body.reason) == ([1, 2], reason)

    on_bus(story)


def test_expired_unknown_and_unreadable_ones_are_buried_unrun(on_bus: OnBus) -> None:
    ran: list[str] = []

    async def story(conn: Connection) -> None:
        late = await send(conn, "job", "do", {"n": 1}, expires_in=0.01)
        strange = await send(conn, "job", "dance")
        await publish_once(conn, "morphogen.log.r.command.to-job", b"noise", msg_id="noise")
        foreign = Record(1, "command.issued", 99, None, 1, b"\x80", None)  # type: ignore[arg-type]
        import msgspec

        foreign.body = msgspec.Raw(b"\x80")
        newer = encode_frame([foreign], run="r", attempt=0, rank=0, writer=writer_of("x"), family="command")
        await publish_once(conn, "morphogen.log.r.command.to-job", newer, msg_id="newer")
        await asyncio.sleep(0.05)
        async with Serving(conn, {"do": lambda command: ran.append(command.id)}):
            await until(lambda: queue_is_empty(conn))
        letters = await dead.letters(conn)
        reasons = {letter.body.command_id: letter.body for letter in letters}

        assert ran == []
        assert len(letters) == 4
        assert "expired" in reasons[late].reason
        assert reasons[late].args == {"n": 1}
        assert "nobody knows a command 'dance'" in reasons[strange].reason
        unreadable = [letter for letter in letters if not letter.body.name]
        assert base64.b64decode(unreadable[0].body.args["message"]) == b"noise"
        assert "not a frame" in unreadable[0].body.reason
        assert "version 99" in unreadable[1].body.reason
        with pytest.raises(CommandError, match="drop it"):
            await dead.retry(conn, unreadable[0].seq)

    on_bus(story)


def test_a_replayed_command_is_not_an_order(on_bus: OnBus) -> None:
    ran: list[str] = []

    async def story(conn: Connection) -> None:
        await send(conn, "job", "do", command_id="past")
        async for batch in read(conn, family="command"):
            frame = decode_frame(batch[0].data)
        told = encode_frame(
            frame.records, run="", attempt=0, rank=0, writer=frame.writer, family="command", replay="replay-1"
        )
        await publish_once(conn, "morphogen.log.=.command.to-job", told, msg_id="told-again")
        async with Serving(conn, {"do": lambda command: ran.append(command.id)}):
            await until(lambda: queue_is_empty(conn))
        assert ran == ["past"]
        assert await dead.letters(conn) == []

    on_bus(story)


def test_a_long_handler_is_not_given_to_somebody_else(on_bus: OnBus) -> None:
    ran: list[str] = []

    async def slow(command: Command) -> None:
        ran.append(command.id)
        await asyncio.sleep(2.5)

    async def story(conn: Connection) -> None:
        async with Serving(conn, {"slow": slow}, ack_wait=1.0), Serving(conn, {"slow": slow}, ack_wait=1.0):
            only = await send(conn, "job", "slow")
            await until(lambda: queue_is_empty(conn))
        assert ran == [only]

    on_bus(story)


def test_a_stopped_worker_hands_back_what_it_has_not_done(on_bus: OnBus) -> None:
    begun = asyncio.Event()
    done: list[int] = []

    async def forever(command: Command) -> None:
        begun.set()
        await asyncio.sleep(60)

    async def quick(command: Command) -> None:
        done.append(command.delivery)

    async def story(conn: Connection) -> None:
        await send(conn, "job", "do")
        first = Serving(conn, {"do": forever})
        await begun.wait()
        first.worker.stop()
        await first.task
        async with Serving(conn, {"do": quick}, name="other"):
            await until(lambda: queue_is_empty(conn), 5)
        assert done == [2]
        errors = [event.error for event, _ in await outcomes(conn) if isinstance(event, CommandFinished)]
        assert errors == ["WorkerStopped: its worker was stopped before it was done", None]

    on_bus(story)


def test_an_acknowledgement_that_was_lost_does_not_run_the_handler_again(on_bus: OnBus) -> None:
    ran: list[int] = []

    async def story(conn: Connection) -> None:
        key = await send(conn, "job", "do")
        from morphogen.bus.commands import workqueue

        done = workqueue.Delivery.done
        lost: list[int] = []

        async def lossy(self: workqueue.Delivery) -> None:
            if not lost:
                lost.append(self.count)
                return
            await done(self)

        workqueue.Delivery.done = lossy  # type: ignore[method-assign]
        try:
            async with Serving(conn, {"do": lambda command: ran.append(command.delivery)}, ack_wait=0.5):
                await until(lambda: _true(bool(lost)))
            async with Serving(conn, {"do": lambda command: ran.append(command.delivery)}, ack_wait=0.5):
                await until(lambda: queue_is_empty(conn))
        finally:
            workqueue.Delivery.done = done  # type: ignore[method-assign]
        assert (ran, lost) == ([1], [1])
        assert len([event for event, _ in await outcomes(conn) if event.command_id == key]) == 2  # type: ignore[attr-defined]

    on_bus(story)


async def _true(value: bool) -> bool:
    return value


def test_a_worker_killed_in_a_handler_is_followed_by_another(on_bus: OnBus, tmp_path: Path) -> None:
    done: list[tuple[str, int]] = []

    async def story(conn: Connection) -> None:
        key = await send(conn, "job", "hang")
        await kill_when_begun(tmp_path / f"{key}.1", tmp_path)
        async with Serving(conn, {"hang": lambda command: done.append((command.id, command.delivery))}, ack_wait=1.0):
            await until(lambda: queue_is_empty(conn))
        assert done == [(key, 2)]

    on_bus(story)


def test_a_worker_killed_on_the_last_delivery_leaves_a_dead_letter(on_bus: OnBus, tmp_path: Path) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        key = await send(conn, "job", "hang", max_deliveries=1)
        await kill_when_begun(tmp_path / f"{key}.1", tmp_path)
        async with Serving(conn, {"hang": lambda command: done.append(command.id)}, ack_wait=1.0):
            await until(lambda: queue_is_empty(conn))
        letters = await dead.letters(conn)
        assert done == []
        assert [letter.body.command_id for letter in letters] == [key]
        assert "the last worker died" in letters[0].body.reason

    on_bus(story)


async def kill_when_begun(mark: Path, folder: Path) -> None:
    """Start a worker process and SIGKILL it as soon as its handler has begun."""
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(folder)])
    try:
        await until(lambda: _true(mark.exists()))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_killed_broker_neither_loses_nor_doubles_a_command(on_bus: OnBus) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        async with Serving(conn, {"do": lambda command: done.append(command.id)}, concurrency=4, ack_wait=1.0):
            sent = []
            for number in range(120):
                sent.append(await send(conn, "job", "do", {"n": number}))
                if number == 60:
                    assert conn.endpoint.pid is not None
                    os.kill(conn.endpoint.pid, signal.SIGKILL)
            await until(lambda: _true(len(set(done)) == 120))
            await until(lambda: queue_is_empty(conn))
        assert sorted(done) == sorted(sent)
        issued = [event for event, _ in await outcomes(conn, "command") if isinstance(event, CommandIssued)]
        assert sorted(event.command_id for event in issued) == sorted(sent)
        assert await dead.letters(conn) == []

    on_bus(story)


@pytest.mark.parametrize(
    "options",
    [
        {"args": {1: 2}},
        {"args": [1]},
        {"max_deliveries": 2.5},
        {"max_deliveries": True},
        {"max_deliveries": 0},
        {"expires_in": float("nan")},
        {"expires_in": float("inf")},
        {"expires_in": 1e300},
        {"expires_in": 0},
        {"expires_in": -1},
        {"issuer": 5},
    ],
    ids=str,
)
def test_what_no_worker_could_read_is_refused(on_bus: OnBus, options: dict[str, Any]) -> None:
    async def story(conn: Connection) -> None:
        with pytest.raises(CommandError, match="do"):
            await send(conn, "job", "do", **options)
        assert (await stream_info(conn, COMMANDS)).messages == 0

    on_bus(story)
