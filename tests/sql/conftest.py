"""A log with something in it, a projector in a process of its own, and a store that only this test owns."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from morphogen.bus import broker as brokers
from morphogen.bus.connection import connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import LOG, ensure_streams, stream_info
from morphogen.consumers.projections import Store
from morphogen.consumers.projections.follow.projector import store_path
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


Started = list["subprocess.Popen[str]"]


def projector_of(settings: Settings, started: Started) -> "subprocess.Popen[str]":
    """Start a projector as a process of its own, put it to those that were started, and wait until it serves."""
    asyncio.run(_lay_store(settings))
    process = subprocess.Popen(
        [sys.executable, "-c", PROJECTOR],
        env=os.environ | {"MORPHOGEN_HOME": str(settings.home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    client = SqlClient.shared(settings)
    end = time.monotonic() + 60
    while (status := client.status()) is None or status.pid != process.pid:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end, "the projector did not come up"
        time.sleep(0.05)
    return process


async def _lay_store(settings: Settings) -> None:
    """Have a new log's empty store lie there: to copy one here takes less than to make one in the projector."""
    conn = await connect(settings, name="test")
    try:
        await ensure_streams(conn)
        epoch = (await stream_info(conn, LOG)).epoch
    finally:
        await conn.close()
    path = store_path(settings, epoch)
    if not path.exists():
        Store.open(path, epoch=epoch).close()


def end_projectors(started: Started) -> None:
    """End those that still run; none may have printed a traceback."""
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
def start_projector(settings: Settings) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Start projectors as processes of their own; those that still run are ended with the test."""
    started: Started = []
    yield lambda: projector_of(settings, started)
    end_projectors(started)


@pytest.fixture
def projector(start_projector: Callable[[], "subprocess.Popen[str]"]) -> "subprocess.Popen[str]":
    """A running projector with its SQL service."""
    return start_projector()


# For tests that only ask, or count what they wrote under a run of their own: one store, or one projector, for a module.


@dataclass(frozen=True)
class Served:
    """A projector's process, and where it is found."""

    settings: Settings
    process: "subprocess.Popen[str]"

    def log(self) -> Log:
        """Return its log, to write under a run of the test's own."""
        return Log(self.settings)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a broker that runs until the last test of the module is over; nothing but askers read its tables."""
    yield from _lasting(tmp_path_factory.mktemp("lasting"))


@pytest.fixture(scope="module")
def lasting_projector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A projector over a broker of its own; both run until the last test of the module is over."""
    started: Started = []
    for settings in _lasting(tmp_path_factory.mktemp("served")):
        yield Served(settings, projector_of(settings, started))
        end_projectors(started)


def _lasting(folder: Path) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("URL", "CREDS", "TOKEN"):
            patch.delenv(f"MORPHOGEN_{name}", raising=False)
        found = Settings.from_environ(home=folder)
    yield found
    SqlClient.shared(found).close()
    brokers.down(found)


@pytest.fixture
def at_lasting(lasting: Settings, home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Let this test and what it starts ask the module's store, in processes that catch up by themselves."""
    monkeypatch.setenv("MORPHOGEN_HOME", str(lasting.home))
    return lasting


@pytest.fixture
def served(lasting_projector: Served, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Let this test and what it starts ask the module's projector."""
    monkeypatch.setenv("MORPHOGEN_HOME", str(lasting_projector.settings.home))
    yield lasting_projector
    assert lasting_projector.process.poll() is None, "a test has ended the projector of all"


@pytest.fixture(params=["served", "at_lasting"])
def anywhere(request: pytest.FixtureRequest) -> None:
    """Let this test ask the module's projector, and then the module's store in this process."""
    request.getfixturevalue(request.param)
