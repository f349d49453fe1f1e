"""Turn what was read in the training steps into samples a little later, many steps at once.

Working out a sample takes several times as long as reading one step, unless it is done for a batch: then NumPy is
called once for all of them, with its code in the cache. So a thread does it every tenth of a second, or, where
nobody needs samples before they are asked for, every second.
"""

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .sample import LayerSample

AGE = 0.1  # seconds that a reading waits, about
UNHURRIED = 1.0  # where somebody asks for the samples when they are needed
BATCH = 64  # readings that are worked out at once
MOST = 16 * BATCH  # readings that wait; beyond that the training thread works them out itself


class Meter(Protocol):
    """Makes samples of its own readings."""

    def samples(
        self, layers: tuple[str, ...], steps: Sequence[tuple[int, int]], readings: Sequence[Any]
    ) -> list[LayerSample]:
        """Return the samples of these readings; `steps` has their numbers and times."""


#: Which meter read which layers at which step and time, and its reading.
_Waiting = tuple[Meter, tuple[str, ...], int, int, Any]


class Backlog:
    """Takes readings from the training thread; hands samples, in order, to `emit` in a thread of its own."""

    def __init__(self, emit: Callable[[LayerSample], object], failed: Callable[[Exception], None]) -> None:
        self._emit = emit
        self._failed = failed
        self.age = AGE
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._waiting: deque[_Waiting] = deque()
        self._emitting = threading.RLock()
        self._work: queue.SimpleQueue[None] = queue.SimpleQueue()  # may be put into while garbage is collected
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, meter: Meter, layers: tuple[str, ...], number: int, reading: object) -> None:
        """Take a reading; costs next to nothing unless far too many wait."""
        if os.getpid() != self._pid:  # a forked child: what waits is the parent's
            self._begin()
        waiting = self._waiting
        waiting.append((meter, layers, number, time.time_ns(), reading))
        if len(waiting) == 1:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="morphogen-watch-samples", daemon=True)
                self._thread.start()
            self._work.put(None)
        elif len(waiting) > MOST:
            self.flush()

    def waits(self) -> bool:
        """Tell whether something is still to be emitted."""
        with self._emitting:
            return bool(self._waiting)

    def flush(self) -> None:
        """Emit what waits. What `emit` raises comes out, and the rest waits on."""
        if os.getpid() != self._pid:
            return
        with self._emitting:
            while batch := self._take():
                meter, layers = batch[0][:2]
                steps = [(number, time_ns) for _, _, number, time_ns, _ in batch]
                for sample in meter.samples(layers, steps, [reading for *_, reading in batch]):
                    self._emit(sample)

    def _take(self) -> list[_Waiting]:
        """Take the oldest readings of one meter."""
        waiting = self._waiting
        batch: list[_Waiting] = []
        while waiting and len(batch) < BATCH and (not batch or waiting[0][:2] == batch[0][:2]):
            batch.append(waiting.popleft())
        return batch

    def close(self) -> None:
        """Emit what waits and end the thread."""
        self.leave()
        self.flush()

    def leave(self) -> None:
        """Have the thread emit what waits, and end; waits for nothing and nobody."""
        self._closed = True
        self._work.put(None)

    def drop(self) -> None:
        """Forget what waits and end the thread."""
        self._waiting.clear()
        self.leave()

    def _serve(self) -> None:
        closed = False
        while not closed:
            self._work.get()
            if not self._closed:
                time.sleep(self.age)
            while not self._work.empty():
                self._work.get()
            closed = self._closed
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - told, never raised into nowhere
                self._failed(error)
                return
