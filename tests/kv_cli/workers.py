"""Workers as processes, started by the verb that people type."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from morphogen.bus import Bus
from morphogen.consumers.kv import client

from ..kv_index.publishers import until


class Workers:
    """Processes that serve one model and share one folder of memory."""

    def __init__(self, bus: Bus, model: Path, folder: Path) -> None:
        self.bus = bus
        self._model, self._folder = model, folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *names: str) -> None:
        """Start a worker of each name, and wait until all of them serve."""
        logs = [self._start(name) for name in names]
        until(lambda: all("serves" in log.read_text() for log in logs), 90)

    def say(self, worker: str, session: str, text: str) -> int:
        return self.bus.run(client.say(self.bus.conn, worker, session, text, compute=True)).tokens

    def sessions(self, worker: str) -> list[str]:
        return [one.session for one in self.bus.run(client.info(self.bus.conn, worker)).sessions]

    def end(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, name: str) -> Path:
        log = self._folder / f"{name}.log"
        command = [
            sys.executable, "-m", "morphogen.cli", "serve", "llama", "--model", str(self._model), "--name", name, "--ctx", "2048",
            "--parallel", "2", "--threads", "1", "--batch", "128", "--decide", "restore",
            "--memory-folder", str(self._folder / "memory"),
        ]  # fmt: skip
        with log.open("w") as file:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self._running.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))
        return log


@contextlib.contextmanager
def workers_of(bus: Bus, folder: Path) -> Iterator[Callable[[Path], Workers]]:
    """Give what makes workers of a model; they are ended with the block."""
    made: list[Workers] = []

    def make(model: Path) -> Workers:
        made.append(Workers(bus, model, folder))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.end()
