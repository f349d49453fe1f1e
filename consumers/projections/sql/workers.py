"""A few threads that run one job after another, and never hold up the end of the process."""

import queue
import threading
from collections.abc import Callable

Job = Callable[[], None]
_PARTING = 0.1  # seconds for a thread that has nothing to do to end


class Workers:
    """Runs jobs in `count` daemon threads, in the order in which they came. A job must not raise."""

    def __init__(self, count: int) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"morphogen-sql-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def do(self, job: Job) -> None:
        """Put a job in line."""
        self._jobs.put(job)

    def close(self) -> None:
        """End each thread after its present job; one that is stuck in its job ends with the process."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(_PARTING)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # and with it the query and its cursor, which would otherwise wait for the next one
