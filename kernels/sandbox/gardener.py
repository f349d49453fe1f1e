"""Tends to something a moment after it was asked to, on a thread of its own: what a call can do without waits until it is over."""

import os
import threading
import time
from collections.abc import Callable


class Gardener:
    """Calls `tend` `pause` seconds after `ask`, once for all that is asked meanwhile; its thread starts with the first."""

    def __init__(self, tend: Callable[[], object], pause: float) -> None:
        self._tend = tend
        self._pause = pause
        self._asked = threading.Event()
        self._over = False
        self._owner = 0  # the process that has the thread: a forked copy has none

    def ask(self) -> None:
        """Have it tended to soon; returns at once."""
        if self._owner != os.getpid():
            self._asked, self._over, self._owner = threading.Event(), False, os.getpid()
            threading.Thread(target=self._work, args=(self._asked,), name="sandbox-gardener", daemon=True).start()
        self._asked.set()

    def end(self) -> None:
        """Let go of the thread; a later `ask` starts another."""
        self._over, self._owner = True, 0
        self._asked.set()

    def _work(self, asked: threading.Event) -> None:
        while True:
            asked.wait()
            asked.clear()
            if self._over or asked is not self._asked:
                return
            time.sleep(self._pause)
            if self._over or asked is not self._asked:
                return
            self._tend()
