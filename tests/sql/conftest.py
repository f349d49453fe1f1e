"""A log with something in it, a projector in a process of its own, and a store that only this test owns."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import ensure_streams
from morphogen.consumers.projections.sql.query import SqlClient
from morphogen.schemas import Metrics, Record, encode_frame

PROJECTOR = """
import asyncio
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.follow.projector import run_projector
from morphogen.consumers.projections.sql.service import serve_until_cancelled
asyncio.run(run_projector(Settings.from_environ(), stop=asyncio.Event(), serve=serve_until_cancelled))
"""


@pytest.fixture
def settings(home: Path) -> Iterator[Settings]:
    """Settings of an embedded broker that is stopped when the test ends."""
    found = Settings.from_environ()
    yield found
    SqlClient.shared(found).close()
    brokers.down(found)


class Log:
    """Writes frames of metrics as a recorder does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.written = 0

    def metrics(self, frames: int = 1, events: int = 10, *, run: str = "run") -> int:
        """Write `frames` frames of `events` events; return the sequence of the last."""
        return asyncio.run(self._metrics(frames, events, run))

    async def _metrics(self, frames: int, events: int, run: str) -> int:
        conn = await connect(self.settings, name="test writer")
        try:
            await ensure_streams(conn)
            seq = 0
            for _ in range(frames):
                records = []
                for _ in range(events):
                    self.written += 1
                    body = msgspec.Raw(Metrics(values={"loss": 1.0 / self.written}).encode())
                    records.append(Record(self.written, "metrics.scalars", 1, self.written, time.time_ns(), body, None))
                data = encode_frame(records, run=run, attempt=1, rank=0, writer="a" * 16, family="metrics")
                seq = (await conn.publish_ack(f"morphogen.log.{run}.metrics.1-0", data)).seq
            return seq
        finally:
            await conn.close()


@pytest.fixture
def log(settings: Settings) -> Log:
    """A log to write into."""
    return Log(settings)


@pytest.fixture
def start_projector(settings: Settings) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Start projectors as processes of their own; those that still run are ended with the test."""
    started: list[subprocess.Popen[str]] = []
    client = SqlClient.shared(settings)

    def start() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", PROJECTOR],
            env=os.environ | {"MORPHOGEN_HOME": str(settings.home)},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        end = time.monotonic() + 20
        while (status := client.status()) is None or status.pid != process.pid:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < end, "the projector did not come up"
            time.sleep(0.05)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        try:
            _, errors = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
        assert "Traceback" not in errors, errors


@pytest.fixture
def projector(start_projector: Callable[[], "subprocess.Popen[str]"]) -> "subprocess.Popen[str]":
    """A running projector with its SQL service."""
    return start_projector()
