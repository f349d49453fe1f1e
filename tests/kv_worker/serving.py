"""Workers as processes of their own, and what a test asks of them."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from morphogen.bus import Bus, Settings
from morphogen.bus import broker as brokers
from morphogen.consumers.kv import client
from morphogen.consumers.kv.wire import Bit, Info
from morphogen.schemas import CommandFinished, DeadLetter

from .nursery import born

STARTS = 60.0  # seconds

# Programs that are put before the command line: the first one of every worker, as nobody far away starts under its name.
_SURE_OF_ITS_NAME = """
from morphogen.bus import claims
claims._PATIENCE = 0.05
"""
_SERVES = """
from morphogen.cli import main
sys.exit(main())
"""
IMPATIENT = """
from morphogen.consumers.kv import client, giving
giving._SILENCE = 1.0
client.has.__kwdefaults__["timeout"] = 1.0
"""


@dataclass
class Served:
    """A worker's process."""

    name: str
    process: BaseProcess
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs; the number of a signal that ended it is below zero."""
        return self.process.exitcode

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        self.process.join(20)
        assert self.status is not None, f"worker {self.name} does not end: {self.log.read_text()}"
        return self.status

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def end(self) -> int:
        self.process.terminate()
        return self.wait()


@dataclass
class Fleet:
    """Workers of one model, one broker and one folder of shared memory."""

    bus: Bus
    model: Path
    home: Path
    memory: Path
    logs: Path
    workers: list[Served] = field(default_factory=list)

    def start(self, name: str, *options: str, program: str = "") -> Served:
        """Start a worker and wait until it serves; `program` is Python that is run before the command line."""
        return self.wait_until_it_serves(self.launch(name, *options, program=program))

    def wait_until_it_serves(self, served: Served) -> Served:
        """Return a worker that was launched, once it serves."""
        end = time.monotonic() + STARTS
        while "serves" not in served.log.read_text():
            assert served.status is None, served.log.read_text()
            assert time.monotonic() < end, served.log.read_text()
            time.sleep(0.02)
        return served

    def launch(self, name: str, *options: str, program: str = "", home: Path | None = None) -> Served:
        """Start a worker, in a data folder of its own where one is given, and wait for nothing."""
        environment = {**os.environ, "MORPHOGEN_HOME": str(home or self.home)}
        if home is not None:
            broker = brokers.ensure(Settings.from_environ(home=self.home))
            environment.update(MORPHOGEN_URL=broker.urls[0], MORPHOGEN_TOKEN=broker.token or "")
        arguments = [
            "serve", "llama", "--model", str(self.model), "--name", name, "--ctx", "2048", "--parallel", "2",
            "--threads", "1", "--batch", "128", "--memory-folder", str(self.memory), *options,
        ]  # fmt: skip
        log = self.logs / f"{name}-{len(self.workers)}.log"
        process = born(_SURE_OF_ITS_NAME + program + _SERVES, arguments, log, environment)
        served = Served(name, process, log)
        self.workers.append(served)
        return served

    def end(self) -> None:
        """End all workers that still run."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join(20)
            worker.kill()
        self.workers.clear()

    def info(self, worker: str) -> Info:
        return self.bus.run(client.info(self.bus.conn, worker))

    def sessions(self, worker: str) -> list[str]:
        return [one.session for one in self.info(worker).sessions]

    def reply(self, worker: str, session: str, text: str | None = None, **options: Any) -> tuple[str, Bit]:
        """Return a whole reply, and its last bit."""

        conn = self.bus.conn

        async def follow() -> tuple[str, Bit]:
            said, last = "", Bit(at=0)
            async for bit in client.generate(conn, worker, session, text, **options):
                said, last = said + bit.text, bit
            return said, last

        return self.bus.run(follow(), timeout=60)

    def say(self, worker: str, session: str, text: str, *, compute: bool = True) -> int:
        return self.bus.run(client.say(self.bus.conn, worker, session, text, compute=compute)).tokens

    def command(self, worker: str, name: str, seconds: float = 30.0, **args: Any) -> Any:
        """Send a command and return its result; what went wrong comes back as a string."""
        after = self.bus.stream_info().last_seq
        key = self.bus.send(f"kv.{worker}", name, args, max_deliveries=1)
        with contextlib.closing(
            self.bus.events(after=after, family=("outcome", "dead"), follow=True)  # type: ignore[type-var]
        ) as seen:
            end = time.monotonic() + seconds
            for one in seen:
                if isinstance(one.event, CommandFinished) and one.event.command_id == key:
                    return one.event.result if one.event.ok else one.event.error
                if isinstance(one.event, DeadLetter) and one.event.command_id == key:
                    return one.event.reason
                assert time.monotonic() < end, f"{name} has no outcome"
        raise AssertionError("the log ended")

    def events(self, *kinds: type) -> list[Any]:
        return [one.event for one in self.bus.events(family=("kv", "session")) if isinstance(one.event, kinds)]

    def wait_for(self, kind: type, seconds: float = 15.0, **fields: Any) -> Any:
        """Return the first event of a class with these fields, from the whole log, once it is there."""
        end = time.monotonic() + seconds
        while True:
            for event in self.events(kind):
                if all(getattr(event, name) == value for name, value in fields.items()):
                    return event
            assert time.monotonic() < end, f"no {kind.__name__} with {fields}; there are {self.events(kind)}"
            time.sleep(0.05)

    def segments(self) -> list[str]:
        from morphogen.kernels.kv.transport import SharedMemory

        shared = SharedMemory(self.memory)
        try:
            shared.reap()
            return [segment.ident for segment in shared.segments() if segment.state == "ready"]
        finally:
            shared.close()


@contextlib.contextmanager
def fleet(model: Path, folder: Path) -> Iterator[Fleet]:
    """A broker in a folder, real shared memory, and whatever workers are started; all of it is gone at the end."""
    settings = Settings.from_environ(home=folder / "home")
    memory = Path("/dev/shm") / f"morphogen-test-{os.getpid()}-{folder.name}"
    memory.mkdir(mode=0o700)
    brokers.ensure(settings)
    try:
        with Bus.open(settings) as bus:
            made = Fleet(bus, model, settings.home, memory, folder)
            try:
                yield made
            finally:
                made.end()
    finally:
        brokers.down(settings)
        shutil.rmtree(memory)
