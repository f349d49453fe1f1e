"""What blocks and hurts nobody: waiting for the disk, reserving the next segment. Done beside the event loop."""

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger("morphogen.bus")


class Chores:
    """Run jobs one after another in a daemon thread, which, unlike an executor's, never holds up the process's end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], None]) -> None:
        """Run `job` soon."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def close(self) -> None:
        """End the thread after the jobs that wait."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:  # noqa: BLE001  (the next job is not to blame)
                _log.warning("a background job of the spool failed: %s: %s", type(error).__name__, error)
