"""Which step a measurement belongs to, when the measurement counts optimizer steps and the job names its own."""

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_PATIENCE = 64  # samples without any log() before the optimizer's own count becomes the step
_MEMORY = 1024  # changes of the distance that are remembered for samples that come late


class StepClock(Generic[_T]):
    """Give each sample the step that the job's next `log()` names.

    A restarted job counts its optimizer steps from 1 again while its own step goes on from a checkpoint. The first
    `log(step=...)` settles the distance; samples before it wait. Each later one settles it anew, for the steps
    after it. Samples may come from another thread than the names, and late: their count says which distance was
    the one of their time.
    """

    def __init__(self, emit: Callable[[_T, int], None]) -> None:
        self._emit = emit
        self._waiting: deque[tuple[_T, int]] = deque()
        self._distance: int | None = None
        self._changes: tuple[tuple[int, int], ...] = ()  # the distances after the optimizer's step so-and-so
        self._flushing = threading.RLock()  # a model that is collected meanwhile ends its watch from inside

    def sample(self, sample: _T, count: int) -> None:
        """Take a sample of the optimizer's step `count` (from 1)."""
        self._waiting.append((sample, count))
        if self._distance is not None or len(self._waiting) >= _PATIENCE:
            self.flush()

    def named(self, step: int, count: int) -> None:
        """Learn that the job calls the optimizer's step `count`, its newest, `step`."""
        distance = step - count
        if distance != self._distance:
            self._changes = (*self._changes[-_MEMORY:], (count, distance))
            self._distance = distance
        if self._waiting:
            self.flush()

    def flush(self) -> None:
        """Emit what waits, in order, under the optimizer's own count where the job never named a step."""
        with self._flushing:
            if self._distance is None:
                self._distance = 0
            while self._waiting:
                sample, count = self._waiting.popleft()
                self._emit(sample, count + self._distance_of(count))

    def _distance_of(self, count: int) -> int:
        changes = self._changes
        if not changes:
            return 0
        return changes[max(0, bisect_left(changes, (count,)) - 1)][1]
