"""A dead letter is retried or dropped once, whoever is killed in the middle of it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from morphogen.bus.commands import dead
from morphogen.bus.commands.issue import Command, Worker, send
from morphogen.bus.connection import Connection
from morphogen.bus.errors import CommandError
from morphogen.bus.reader import read
from morphogen.bus.streams import COMMANDS, stream_info
from morphogen.schemas import CommandIssued, DeadResolved, decode_event, decode_frame

OnBus = Callable[[Callable[[Connection], Awaitable[None]]], None]


async def bury(conn: Connection, *keys: str, run: str = "") -> None:
    """Make a dead letter of each command id."""

    def refuse(command: Command) -> None:
        raise CommandError("not today")

    for key in keys:
        await send(conn, "job", "do", {"key": key}, command_id=key, run=run)
    await work(conn, refuse)


async def work(conn: Connection, handler: Callable[[Command], None]) -> None:
    worker = Worker(conn, "job", {"do": handler})
    task = asyncio.create_task(worker.run())
    while (await stream_info(conn, COMMANDS)).messages:
        await asyncio.sleep(0.02)
    worker.stop()
    await task


async def events_of(conn: Connection, family: str) -> list[tuple[object, str | None]]:
    found: list[tuple[object, str | None]] = []
    async for batch in read(conn, family=family):
        for message in batch:
            for record in decode_frame(message.data).records:
                found.append((decode_event(record.type, record.version, record.body), record.cause))  # noqa: PERF401
    return found


async def resolutions(conn: Connection) -> list[DeadResolved]:
    return [event for event, _ in await events_of(conn, "outcome") if isinstance(event, DeadResolved)]


def test_letters_are_listed_shown_and_dropped(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        assert await dead.letters(conn) == []
        await bury(conn, "a", "b")
        await bury(conn, "c", run="r.1")

        assert [letter.body.command_id for letter in await dead.letters(conn)] == ["a", "b", "c"]
        assert [letter.body.command_id for letter in await dead.letters(conn, run="r.1")] == ["c"]
        assert (await dead.show(conn, "b")).body.args == {"key": "b"}
        assert (await dead.show(conn, 1)) == (await dead.show(conn, "1")) == (await dead.show(conn, "a"))

        await dead.drop(conn, "a", by="me")
        with pytest.raises(CommandError, match="no dead letter a"):
            await dead.drop(conn, "a")
        assert [letter.body.command_id for letter in await dead.letters(conn)] == ["b", "c"]
        assert await resolutions(conn) == [DeadResolved(command_id="a", action="dropped", by="me")]

    on_bus(story)


def test_a_retry_is_a_new_command_caused_by_the_letter(on_bus: OnBus) -> None:
    done: list[Command] = []

    async def story(conn: Connection) -> None:
        await bury(conn, "a", run="r")
        letter = await dead.show(conn, "a")

        fresh = await dead.retry(conn, "a", by="me")

        await work(conn, done.append)
        assert [(command.id, command.run, command.args) for command in done] == [(fresh, "r", {"key": "a"})]
        causes = {event.command_id: cause for event, cause in await events_of(conn, "command")
                  if isinstance(event, CommandIssued)}  # fmt: skip
        assert causes == {"a": None, fresh: letter.event_id}
        assert await dead.letters(conn) == []
        assert [(event.action, event.retried_as) for event in await resolutions(conn)] == [("retried", fresh)]

    on_bus(story)


@pytest.mark.parametrize("killed_at", ["copy", "resolved", "delete"])
def test_a_retry_killed_in_the_middle_ends_with_one_command(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        await bury(conn, "a")
        with monkeypatch.context() as patch:
            _die(patch, killed_at)
            with pytest.raises(KeyboardInterrupt):
                await dead.retry(conn, "a")
        assert len(await dead.letters(conn)) == 1
        # The broker refuses an id for minutes only; a resume after that must not lean on it.
        await _forget_ids(conn)

        fresh = await dead.retry(conn, "a")

        await work(conn, lambda command: done.append(command.id))
        assert done == [fresh]
        assert len(await events_of(conn, "command")) == 2
        assert len(await resolutions(conn)) == 1
        assert await dead.letters(conn) == []

    on_bus(story)


def test_a_resumed_retry_does_not_repeat_a_command_that_was_done_meanwhile(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def story(conn: Connection) -> None:
        await bury(conn, "a")
        with monkeypatch.context() as patch:
            _die(patch, "resolved")
            with pytest.raises(KeyboardInterrupt):
                await dead.retry(conn, "a")
        await work(conn, lambda command: done.append(command.id))
        await _forget_ids(conn)

        fresh = await dead.retry(conn, "a")

        await work(conn, lambda command: done.append(command.id))
        assert done == [fresh]
        issued = [event.command_id for event, _ in await events_of(conn, "command") if isinstance(event, CommandIssued)]
        assert issued == ["a", fresh]
        assert len(await resolutions(conn)) == 1

    on_bus(story)


def _die(patch: pytest.MonkeyPatch, where: str) -> None:
    """Have the process end, as far as this call can see, at one step of a retry."""
    from morphogen.bus import emit as emits

    if where == "copy":

        async def half(
            conn: Connection, subject: str, data: bytes, *, message_id: str, timeout: float, **_: object
        ) -> None:
            await conn.publish_ack(subject, data, {"Nats-Msg-Id": message_id}, timeout)
            raise KeyboardInterrupt

        patch.setattr(emits, "publish_copied", half)
    elif where == "resolved":

        async def no_emit(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(dead, "emit", no_emit)
    else:
        js = Connection.js

        async def no_delete(self: Connection, api: str, *args: object, **options: object) -> object:
            if "MSG.DELETE" in api:
                raise KeyboardInterrupt
            return await js(self, api, *args, **options)  # type: ignore[arg-type]

        patch.setattr(Connection, "js", no_delete)


async def _forget_ids(conn: Connection) -> None:
    """Make the log's memory of message ids as short as the broker allows, and wait for it to pass."""
    for stream in ("MORPHOGEN_LOG", COMMANDS):
        config = (await conn.js(f"STREAM.INFO.{stream}"))["config"]
        await conn.js(f"STREAM.UPDATE.{stream}", {**config, "duplicate_window": 100_000_000})
    await asyncio.sleep(0.3)


def test_a_number_is_a_letters_place_before_it_is_a_commands_id(on_bus: OnBus) -> None:
    async def story(conn: Connection) -> None:
        await bury(conn, "a", "1", "77")
        assert (await dead.show(conn, "1")).body.command_id == "a"
        assert (await dead.show(conn, "2")).body.command_id == "1"
        assert (await dead.show(conn, "77")).seq == 3
        assert (await dead.show(conn, 3)).seq == 3
        for nobody in (4, "9" * 5000, "007"):  # the second has more digits than Python makes a number of
            with pytest.raises(CommandError, match="there is no dead letter"):
                await dead.show(conn, nobody)

    on_bus(story)


def test_a_letter_is_found_by_its_number_alone_and_many_are_done_over_one_reading(
    on_bus: OnBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def counted(conn: Connection, **options: object) -> object:
        asked.append(options.get("stream", "log"))
        return read(conn, **options)  # type: ignore[arg-type]

    async def story(conn: Connection) -> None:
        await bury(conn, *"abcdef")
        with monkeypatch.context() as patch:
            _die(patch, "delete")
            with pytest.raises(KeyboardInterrupt):
                await dead.retry(conn, "b")
        await _forget_ids(conn)
        monkeypatch.setattr(dead, "read", counted)

        assert (await dead.show(conn, 3)).body.command_id == "c"
        assert asked == []
        found = await dead.chosen(conn, ["f", 2, "1", "a"])
        assert [letter.seq for letter in found] == [6, 2, 1]
        assert asked == ["dead"]
        before = await dead.done_before(conn, found)
        assert asked == ["dead", "log", "log"]
        fresh = [await dead.retry_letter(conn, letter, before) for letter in found]
        assert fresh == ["f~6", "b~2", "a~1"]
        left = await dead.letters(conn, target="job")
        assert [letter.seq for letter in left] == [3, 4, 5]
        assert await dead.letters(conn, target="other") == []
        for letter in left:
            await dead.drop_letter(conn, letter, {})
        done: list[str] = []
        await work(conn, lambda command: done.append(command.id))
        assert sorted(done) == sorted(fresh)
        assert len(await resolutions(conn)) == 6
        assert await dead.letters(conn) == []

    on_bus(story)
