"""Event loops for threads that live beside others which compute in Python.

Asyncio asks the system for news at each turn, also where callbacks are waiting to be run. To ask is to give the
interpreter's lock up; to get it back takes 5 ms beside a thread that computes, and one acknowledged message is several
turns. Here a few turns go by before the system is asked, as long as there is something to run.
"""

import asyncio
import selectors
from typing import Any

_TURNS = 8  # without a look, at most: who waits to be read or written gets its share


class _Busy(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self._left = _TURNS

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        if timeout is not None and timeout <= 0 and self._left:
            self._left -= 1
            return []
        self._left = _TURNS
        return super().select(timeout)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that gives the interpreter's lock up more seldom; for `asyncio.Runner(loop_factory=...)`."""
    return asyncio.SelectorEventLoop(_Busy())
