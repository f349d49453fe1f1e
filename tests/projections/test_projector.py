"""The projector process over a real broker: kept up, killed at random moments, stopped cleanly."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.connection import Connection, connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, ensure_streams, stream_info
from morphogen.consumers.projections import Store, discover
from morphogen.consumers.projections.follow.projector import catch_up, run_projector, store_path

PROJECTOR = """
import asyncio, logging
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.follow.projector import run_projector
logging.basicConfig(format="%(message)s")
async def main():
    await run_projector(Settings.from_environ(), stop=asyncio.Event(), on_commit=lambda f: print(f.last, flush=True))
asyncio.run(main())
"""

# Imports once and forks a projector for each file it is named, into which that one writes how far it got.
NURSERY = """
import asyncio, logging, os, sys
from morphogen.bus.settings import Settings
from morphogen.consumers.projections import discover
from morphogen.consumers.projections.follow.projector import run_projector
logging.basicConfig(format="%(message)s")
discover(installed=False)
async def main(told):
    await run_projector(
        Settings.from_environ(), stop=asyncio.Event(), on_commit=lambda f: print(f.last, file=told, flush=True)
    )
for path in sys.stdin:
    pid = os.fork()
    if pid == 0:
        with open(path.strip(), "w") as told:
            asyncio.run(main(told))
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


@pytest.fixture
def settings(home: Path) -> Iterator[Settings]:
    """Settings of an embedded broker that is stopped when the test ends."""
    found = Settings.from_environ()
    yield found
    brokers.down(found)


async def publish(conn: Connection, log: Any, start: int = 0) -> None:
    """Send the log's messages from `start` on to the broker's log."""
    for message in log.messages[start:]:
        await conn.publish_ack(message.subject, message.data)


def fill(log: Any, frames: int) -> None:
    from morphogen.schemas import LogLine, Metrics

    for number in range(frames):
        log.write(*(Metrics(values={"loss": float(i)}) for i in range(20)), step=number)
        log.write(LogLine(message=f"line {number}"))


def start() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROJECTOR], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )


def test_a_projector_killed_at_random_moments_loses_and_doubles_nothing(
    settings: Settings, log: Any, tmp_path: Path
) -> None:
    dice = random.Random(7)
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip

    def ordered(line: str = "") -> str:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        if line:
            nursery.stdin.write(line + "\n")
            nursery.stdin.flush()
        return nursery.stdout.readline().strip()

    async def story() -> str:
        conn = await connect(settings, name="test")
        try:
            await ensure_streams(conn)
            epoch = (await stream_info(conn, LOG)).epoch
            for number in range(8):
                sent = len(log.messages)
                fill(log, 25)
                told = tmp_path / f"told{number}"
                projector = int(await asyncio.to_thread(ordered, str(told)))
                await publish(conn, log, sent)
                if dice.random() < 0.7:
                    async with asyncio.timeout(60):
                        while not told.exists() or not told.read_text():
                            await asyncio.sleep(0.005)
                await asyncio.sleep(dice.random() * 0.2)
                os.kill(projector, signal.SIGKILL)
                assert await asyncio.to_thread(ordered) == "gone"
                with Store.open(store_path(settings, epoch), discover(installed=False), epoch=epoch) as store:
                    position = store.position()
                    held = log.messages[:position]
                    assert store.content_hash("_frames")[0] == len(held)
                    assert store.content_hash("metrics")[0] == 20 * len(held[::2])
                    assert store.content_hash("log_lines")[0] == len(held[1::2])
            path = store_path(settings, epoch)
            with (
                Store.open(path, discover(installed=False), epoch=epoch) as store,
                Store.open(path.with_name("shadow.duckdb"), discover(installed=False), epoch=epoch) as shadow,
            ):
                assert await catch_up(settings, conn, store) == len(log.messages)
                assert await catch_up(settings, conn, shadow) == len(log.messages)
                for name in {*store.tables(), *store.views()}:
                    assert store.content_hash(name) == shadow.content_hash(name), name
                with store.reading() as con:
                    assert con.execute("SELECT sum(lost), sum(doubled) FROM producers").fetchall() == [(0, 0)]
            return epoch
        finally:
            await conn.close()

    asyncio.run(story())
    _, said = nursery.communicate(timeout=20)
    assert "Traceback" not in said


def test_sigterm_ends_a_projector_cleanly_with_everything_committed(settings: Settings, log: Any) -> None:
    fill(log, 10)

    async def story() -> str:
        conn = await connect(settings, name="test")
        try:
            await ensure_streams(conn)
            await publish(conn, log)
            return (await stream_info(conn, LOG)).epoch
        finally:
            await conn.close()

    epoch = asyncio.run(story())
    projector = start()
    assert projector.stdout is not None
    while int(projector.stdout.readline()) < len(log.messages):
        pass
    projector.terminate()
    _, said = projector.communicate(timeout=20)

    assert projector.returncode == 0
    assert said == ""
    with Store.open(store_path(settings, epoch), discover(installed=False), epoch=epoch) as store:
        assert store.position() == len(log.messages)


def test_a_projector_outlives_its_broker_and_serves_beside_the_fold(settings: Settings, log: Any) -> None:
    served: list[str] = []

    async def serve(store: Store, conn: Connection) -> None:
        served.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            served.append("ended")

    async def story() -> None:
        conn = await connect(settings, name="test")
        await ensure_streams(conn)
        fill(log, 3)
        await publish(conn, log)
        stop = asyncio.Event()
        reached: list[int] = []
        task = asyncio.create_task(
            run_projector(settings, stop=stop, serve=serve, on_commit=lambda folded: reached.append(folded.last))
        )
        async with asyncio.timeout(60):
            while not reached or reached[-1] < 6:
                await asyncio.sleep(0.02)
            brokers_pid = brokers.ensure(settings).pid
            assert brokers_pid is not None
            os.kill(brokers_pid, signal.SIGKILL)
            while True:
                try:
                    os.kill(brokers_pid, 0)
                    await asyncio.sleep(0.02)
                except ProcessLookupError:
                    break
            await conn.close()
            conn = await connect(settings, name="test")
            fill(log, 3)
            await publish(conn, log, 6)
            while reached[-1] < 12:
                await asyncio.sleep(0.02)
            stop.set()
            await task
        assert served == ["begun", "ended"]
        await conn.close()

    asyncio.run(story())


def test_an_idle_projector_does_next_to_nothing(settings: Settings, log: Any) -> None:
    fill(log, 1)

    async def story() -> None:
        conn = await connect(settings, name="test")
        await ensure_streams(conn)
        await publish(conn, log)
        await conn.close()

    asyncio.run(story())
    projector = start()
    assert projector.stdout is not None
    while int(projector.stdout.readline()) < 2:
        pass
    time.sleep(1)
    switches = _switches(projector.pid)
    time.sleep(3)
    woken = _switches(projector.pid) - switches
    projector.terminate()
    projector.communicate(timeout=20)

    assert woken < 200


def _switches(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total
