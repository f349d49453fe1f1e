"""The streams are made once by whoever comes first, and what leaves a queue stays out of it, whatever is killed."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.broker import Endpoint
from morphogen.bus.connection import Connection, connect
from morphogen.bus.errors import JetStreamApiError, StreamMissing
from morphogen.bus.settings import Settings
from morphogen.bus.streams import (
    COMMANDS,
    DEAD,
    LOG,
    LOG_SEQ_HEADER,
    STREAMS,
    copy_subject,
    ensure_streams,
    publish_copied,
    put_copy,
    risks,
    stream_info,
    trim,
)

MAKE_STREAMS = """
import asyncio
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import ensure_streams, stream_info, STREAMS

async def main():
    conn = await connect(Settings.from_environ(), name="maker")
    await ensure_streams(conn)
    print(*[(await stream_info(conn, name)).epoch for name in STREAMS])
    await conn.close()

asyncio.run(main())
"""

COMMAND = "morphogen.log.run1.command.to-gpu"
LETTER = "morphogen.log.run1.dead.to-gpu"


def with_streams(settings: Settings, story: Callable[[Connection], Awaitable[None]]) -> None:
    """Connect, make the streams, run a story."""

    async def run() -> None:
        conn = await connect(settings, name="test")
        try:
            await ensure_streams(conn)
            await story(conn)
        finally:
            await conn.close()

    asyncio.run(run())


async def restart(conn: Connection, how: int) -> None:
    """End the broker and wait until the connection has found its successor."""
    assert conn.endpoint.pid is not None
    generation = conn.generation
    os.kill(conn.endpoint.pid, how)
    while conn.generation == generation:
        await asyncio.sleep(0.005)
    await conn.wait_connected(5)


async def take(conn: Connection, count: int) -> list[bytes]:
    """Take and acknowledge up to `count` commands for `gpu`, waiting a moment for each."""
    name = "gpu"
    consumer = {"durable_name": name, "ack_policy": "explicit", "filter_subject": "morphogen.command.to-gpu.>"}
    await conn.js(f"CONSUMER.CREATE.{COMMANDS}.{name}", {"stream_name": COMMANDS, "config": {**consumer, "name": name}})
    taken: list[bytes] = []
    inbox = conn.nc.new_inbox()
    pulled = await conn.nc.subscribe(inbox)
    for _ in range(count):
        pull = json.dumps({"batch": 1, "expires": 200_000_000}).encode()
        await conn.nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{COMMANDS}.{name}", pull, reply=inbox)
        msg = await pulled.next_msg(2)
        if "Status" in (msg.headers or {}):
            break
        await conn.request(msg.reply, b"+ACK")
        taken.append(msg.data)
    await pulled.unsubscribe()
    return taken


def test_processes_that_make_the_streams_at_once_agree_on_them(settings: Settings, broker: Endpoint) -> None:
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKE_STREAMS], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    epochs = {maker.communicate()[0] for maker in makers}
    assert [maker.returncode for maker in makers] == [0] * 4
    assert len(epochs) == 1
    assert len(set(epochs.pop().split())) == len(STREAMS)


def test_making_them_again_keeps_epoch_messages_and_an_operators_settings(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        await conn.publish_ack("morphogen.log.r.metrics.1-0", b"x")
        before = await stream_info(conn, LOG)
        held = (await conn.js(f"STREAM.INFO.{LOG}"))["config"]
        held["description"] = "ours"
        held["duplicate_window"] = 60_000_000_000
        await conn.js(f"STREAM.UPDATE.{LOG}", held)

        await ensure_streams(conn)
        assert await stream_info(conn, LOG) == before
        config = (await conn.js(f"STREAM.INFO.{LOG}"))["config"]
        assert config["description"] == "ours"
        assert config["duplicate_window"] == 120_000_000_000

    with_streams(settings, story)


LIMITS = {"max_bytes": 50_000_000, "max_age": 7200 * 10**9, "max_msgs_per_subject": 9, "discard": "old"}


def test_an_operators_limits_stay_and_are_warned_of_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async def story(conn: Connection) -> None:
        held = (await conn.js(f"STREAM.INFO.{LOG}"))["config"]
        await conn.js(f"STREAM.UPDATE.{LOG}", {**held, **LIMITS, "compression": "none", "duplicate_window": 10**9})
        for _ in range(3):
            await ensure_streams(conn)

        config = (await conn.js(f"STREAM.INFO.{LOG}"))["config"]
        assert {key: config[key] for key in LIMITS} == LIMITS
        assert config["compression"] == "none"
        assert config["duplicate_window"] == 120 * 10**9

    with caplog.at_level(logging.WARNING):
        with_streams(settings, story)
    lines = [line.partition(LOG)[2] for line in caplog.text.splitlines()]
    assert [line.split()[0] for line in lines] == ["forgets", "drops"]
    assert "max_bytes, max_msgs_per_subject" in lines[1]


def test_ids_are_remembered_no_longer_than_an_operator_keeps_messages(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        held = (await conn.js(f"STREAM.INFO.{COMMANDS}"))["config"]
        shorter = {"max_age": 600 * 10**9, "duplicate_window": 60 * 10**9}
        await conn.js(f"STREAM.UPDATE.{COMMANDS}", {**held, **shorter})
        for _ in range(2):
            await ensure_streams(conn)
            config = (await conn.js(f"STREAM.INFO.{COMMANDS}"))["config"]
            assert (config["max_age"], config["duplicate_window"]) == (600 * 10**9, 600 * 10**9)

    with_streams(settings, story)


def test_a_stream_in_memory_is_used_with_a_warning(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async def story(conn: Connection) -> None:
        await conn.js(f"STREAM.DELETE.{LOG}")
        await conn.js(f"STREAM.CREATE.{LOG}", {"name": LOG, "subjects": ["morphogen.log.>"], "storage": "memory"})
        await ensure_streams(conn)
        await conn.publish_ack("morphogen.log.r.metrics.1-0", b"x")
        config = (await conn.js(f"STREAM.INFO.{LOG}"))["config"]
        assert (config["storage"], config["allow_direct"], config["deny_delete"]) == ("memory", True, True)

    with caplog.at_level(logging.WARNING):
        with_streams(settings, story)
    assert caplog.text.count("kept in the broker's memory") == 1


@pytest.mark.parametrize(
    ("config", "risky"),
    [
        ({"discard": "new", "max_bytes": 9, "max_msgs": 9}, 0),
        ({"discard": "old", "max_bytes": -1, "max_msgs": -1, "max_msgs_per_subject": -1, "max_age": 0}, 0),
        ({"discard": "old", "max_msgs": 9}, 1),
        ({"discard": "new", "max_msgs_per_subject": 9}, 1),
        ({"discard": "new", "max_msgs_per_subject": 9, "discard_new_per_subject": True}, 0),
        ({"discard": "new", "max_age": 1, "storage": "memory"}, 2),
    ],
)
def test_only_what_may_lose_messages_is_a_risk(config: dict[str, object], risky: int) -> None:
    assert len(risks(config)) == risky


def test_a_stream_that_is_made_anew_has_another_epoch(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        before = await stream_info(conn, LOG)
        assert (before.first_seq, before.last_seq, before.messages) == (1, 0, 0)
        await conn.js(f"STREAM.DELETE.{LOG}")
        with pytest.raises(StreamMissing):
            await stream_info(conn, LOG)
        await ensure_streams(conn)
        assert (await stream_info(conn, LOG)).epoch != before.epoch

    with_streams(settings, story)


def test_single_messages_of_the_log_cannot_be_deleted(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        await conn.publish_ack("morphogen.log.r.metrics.1-0", b"x")
        with pytest.raises(JetStreamApiError):
            await conn.js(f"STREAM.MSG.DELETE.{LOG}", {"seq": 1})

    with_streams(settings, story)


def test_a_command_goes_to_the_log_and_to_its_target_once(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        await conn.publish_ack("morphogen.log.run1.metrics.1-0", b"m")
        for _ in range(2):
            ack = await publish_copied(conn, COMMAND, b"grow", message_id="w.command.1-1")
            assert ack.seq == 2
        await put_copy(conn, COMMAND, b"grow", message_id="w.command.1-1", log_seq=2)
        copy = await conn.last_message(COMMANDS, "morphogen.command.>")
        assert copy is not None
        assert (copy.subject, copy.data) == ("morphogen.command.to-gpu.run1", b"grow")
        assert copy.headers[LOG_SEQ_HEADER] == "2"
        assert await take(conn, 3) == [b"grow"]
        assert (await stream_info(conn, LOG)).messages == 2

    with_streams(settings, story)


def test_only_commands_and_dead_letters_have_a_copy() -> None:
    assert copy_subject("morphogen.log.r.dead.1-0") == "morphogen.dead.r.1-0"
    with pytest.raises(ValueError, match="no command"):
        copy_subject("morphogen.log.r.metrics.1-0")


def test_what_was_acknowledged_or_deleted_stays_away_after_kills_and_stops_of_the_broker(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        for turn, how in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL)):
            sent = [f"{turn}.{n}".encode() for n in range(5)]
            for body in sent:
                await publish_copied(conn, COMMAND, body, message_id=f"c{body!r}")
                letter = await publish_copied(conn, LETTER, body, message_id=f"d{body!r}")
            assert letter.seq == (turn + 1) * 10
            assert await take(conn, 6 if turn == 0 else 5) == sent
            for seq in range(turn * 5 + 1, turn * 5 + 6):
                await conn.js(f"STREAM.MSG.DELETE.{DEAD}", {"seq": seq})
            await restart(conn, how)
            assert (await stream_info(conn, COMMANDS)).messages == 0
            assert (await stream_info(conn, DEAD)).messages == 0
        assert await take(conn, 1) == []
        assert (await stream_info(conn, LOG)).messages == 50

    with_streams(settings, story)


def test_what_waits_in_a_queue_survives_a_kill(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        await publish_copied(conn, COMMAND, b"grow", message_id="1")
        await publish_copied(conn, LETTER, b"failed", message_id="2")
        await restart(conn, signal.SIGKILL)
        assert await take(conn, 2) == [b"grow"]
        assert (await stream_info(conn, DEAD)).messages == 1

    with_streams(settings, story)


def test_trimming_forgets_the_log_below_a_sequence_and_nothing_else(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        for n in range(9):
            await conn.publish_ack(f"morphogen.log.r{n % 2}.metrics.1-0", b"%d" % n)
        await publish_copied(conn, COMMAND, b"grow", message_id="1")
        epoch = (await stream_info(conn, LOG)).epoch

        assert await trim(conn, 1) == 0
        assert await trim(conn, 8) == 7
        assert await trim(conn, 8) == 0
        for _ in range(2):
            info = await stream_info(conn, LOG)
            assert (info.first_seq, info.last_seq, info.messages, info.epoch) == (8, 10, 3, epoch)
            await restart(conn, signal.SIGKILL)
        assert (await conn.publish_ack("morphogen.log.r0.metrics.1-0", b"next")).seq == 11
        assert await take(conn, 2) == [b"grow"]

        assert await trim(conn, 100) == 4
        info = await stream_info(conn, LOG)
        assert (info.last_seq, info.messages) == (11, 0)
        with pytest.raises(ValueError, match="sequence 1"):
            await trim(conn, 0)

    with_streams(settings, story)


def test_trimming_beyond_the_end_does_not_skip_sequences(settings: Settings) -> None:
    async def story(conn: Connection) -> None:
        await conn.publish_ack("morphogen.log.r.metrics.1-0", b"1")
        await trim(conn, 50)
        await asyncio.to_thread(brokers.down, settings)
        await asyncio.to_thread(brokers.ensure, settings)
        await conn.wait_connected(5)
        assert (await conn.publish_ack("morphogen.log.r.metrics.1-0", b"2")).seq == 2

    with_streams(settings, story)
