"""Which step a measurement belongs to, when the measurement counts optimizer steps and the job names its own."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_PATIENCE = 64  # samples without any log() before the optimizer's own count becomes the step


class StepClock(Generic[_T]):
    """Give each sample the step that the job's next `log()` names.

    A restarted job counts its optimizer steps from 1 again while its own step goes on from a checkpoint. The first
    `log(step=...)` settles the distance; samples before it wait. Each later one settles it anew. Samples may come
    from another thread than the names, and late.
    """

    def __init__(self, emit: Callable[[_T, int], None]) -> None:
        self._emit = emit
        self._waiting: deque[tuple[_T, int]] = deque()
        self._distance: int | None = None
        self._flushing = threading.Lock()

    def sample(self, sample: _T, count: int) -> None:
        """Take a sample of the optimizer's step `count` (from 1)."""
        self._waiting.append((sample, count))
        if self._distance is not None or len(self._waiting) >= _PATIENCE:
            self.flush()

    def named(self, step: int, count: int) -> None:
        """Learn that the job calls the optimizer's step `count`, its newest, `step`."""
        self._distance = step - count
        if self._waiting:
            self.flush()

    def flush(self) -> None:
        """Emit what waits, in order, under the optimizer's own count where the job never named a step."""
        with self._flushing:
            if self._distance is None:
                self._distance = 0
            while self._waiting:
                sample, count = self._waiting.popleft()
                self._emit(sample, count + self._distance)
