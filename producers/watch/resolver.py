"""Wait, off the training thread, for measures that are on their way from a device."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from .device import Pending

_POLL = 0.001  # seconds between two looks at an event that has not passed


class Resolver:
    """One thread that finishes samples in the order in which they were measured."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._waiting: deque[tuple[Sequence[Pending], Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, pending: Sequence[Pending], finish: Callable[[], None]) -> None:
        """Call `finish` in the resolver's thread as soon as all of `pending` has arrived."""
        with self._changed:
            self._waiting.append((pending, finish))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="morphogen-watch", daemon=True)
                self._thread.start()
            self._changed.notify()

    def idle(self) -> bool:
        """Tell whether all that was submitted is finished."""
        with self._changed:
            return not self._waiting and not self._busy

    def settle(self, timeout: float = 5.0) -> bool:
        """Wait until all that was submitted so far is finished; False where it is not within `timeout` seconds."""
        reached = threading.Event()
        self.submit((), reached.set)
        return reached.wait(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Finish what is under way, for at most `timeout` seconds, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                pending, finish = self._waiting.popleft()
                self._busy = True
            try:
                for item in pending:
                    while not item.event.query():
                        time.sleep(_POLL)
                finish()
            except Exception as error:  # noqa: BLE001 - told, never raised into nowhere
                self._failed(error)
            self._busy = False
