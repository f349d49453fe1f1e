"""A trainer that is killed with SIGKILL at any moment loses and doubles nothing that its `log()` had returned."""

import asyncio
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.connection import connect
from morphogen.bus.reader import read
from morphogen.bus.settings import Settings
from morphogen.bus.spool.drain import drain
from morphogen.bus.spool.leftover import leftovers
from morphogen.bus.streams import ensure_streams
from morphogen.schemas.frames import decode_frame

ROUNDS = 50
AT_ONCE = 2

TRAINER = """
import mmap, struct, sys, time
from morphogen.bus.spool import Kind
from morphogen.bus.spool.publisher import Publisher
from morphogen.bus.settings import Settings
from morphogen.bus.spool import Spool

settings = Settings.from_environ()
spool = Spool.create(settings, run="killed")
publisher = Publisher(settings)
publisher.add(spool)
with open(sys.argv[1], "r+b") as file:
    returned = mmap.mmap(file.fileno(), 0)
returned[8:24] = spool.writer.encode()
spool.lane("run").append(Kind("run.started", 1), None, time.time_ns(), None, b"\\x80")
lane, kind = spool.lane("metrics", high_rate=True), Kind("metrics.scalars", 1)
while True:
    for step in range(100):
        n = lane.append(kind, step, time.time_ns(), None, b"\\x81\\xa6values\\x80")
        struct.pack_into("=Q", returned, 0, n)
    time.sleep(0.001)
"""


@pytest.fixture
def settings(home: Path) -> Iterator[Settings]:
    settings = Settings(home=home)
    brokers.ensure(settings)
    yield settings
    brokers.down(settings)


def test_fifty_kills_of_the_trainer_lose_and_double_nothing(settings: Settings, tmp_path: Path) -> None:
    promised: dict[str, int] = {}
    for start in range(0, ROUNDS, AT_ONCE):
        trainers = [Trainer(tmp_path / f"{start + i}") for i in range(AT_ONCE)]
        for trainer in trainers:
            trainer.wait_until_it_logs()
        for trainer in trainers:
            time.sleep(random.expovariate(20.0))
            writer, n = trainer.kill()
            promised[writer] = n

    report = asyncio.run(drain(settings))

    assert (report.quarantined, report.busy, report.stuck) == (0, 0, 0)
    assert list(leftovers(settings)) == []
    logged = asyncio.run(counters(settings))
    assert set(logged) == set(promised)
    assert len(promised) == ROUNDS
    for writer, n in promised.items():
        assert logged[writer] == list(range(1, len(logged[writer]) + 1)), f"writer {writer} has gaps or doubles"
        assert len(logged[writer]) >= n, f"writer {writer} lost {n - len(logged[writer])} events"


class Trainer:
    """A process that logs as fast as it can and notes each counter that `append` returned to it."""

    def __init__(self, notes: Path) -> None:
        notes.write_bytes(bytes(24))
        self.notes = notes
        self.process = subprocess.Popen([sys.executable, "-c", TRAINER, str(notes)], env=os.environ.copy())

    def wait_until_it_logs(self) -> None:
        with self.notes.open("r+b") as file:
            shared = mmap.mmap(file.fileno(), 0)
        end = time.monotonic() + 20.0
        while not struct.unpack_from("=Q", shared)[0]:
            assert self.process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)

    def kill(self) -> tuple[str, int]:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        data = self.notes.read_bytes()
        return data[8:24].decode(), struct.unpack_from("=Q", data)[0]


async def counters(settings: Settings) -> dict[str, list[int]]:
    """Return the counters of all metrics in the log, writer by writer, in the log's order."""
    conn = await connect(settings, name="test")
    found: dict[str, list[int]] = defaultdict(list)
    try:
        await ensure_streams(conn)
        async for batch in read(conn, family="metrics"):
            for message in batch:
                frame = decode_frame(message.data, message.seq)
                found[frame.writer] += [record.n for record in frame.records]
    finally:
        await conn.close()
    return found
