"""Which step a measurement belongs to, when the measurement counts optimizer steps and the job names its own."""

from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_PATIENCE = 64  # optimizer steps without any log() before the count itself becomes the step


class StepClock(Generic[_T]):
    """Give each sample the step that the job's next `log()` names.

    A restarted job counts its optimizer steps from 1 again while its own step goes on from a checkpoint. The first
    `log(step=...)` settles the distance; samples before it wait. Each later one settles it anew.
    """

    def __init__(self, emit: Callable[[_T, int], None]) -> None:
        self._emit = emit
        self._waiting: list[tuple[_T, int]] = []
        self._distance: int | None = None
        self.count = 0

    def sample(self, sample: _T, count: int) -> None:
        """Take a sample of the optimizer's step `count` (from 1)."""
        self.count = max(self.count, count)
        if self._distance is None:
            self._waiting.append((sample, count))
            if len(self._waiting) >= _PATIENCE:
                self.flush()
            return
        self._emit(sample, count + self._distance)

    def named(self, step: int) -> None:
        """Learn that the job calls the newest optimizer step `step`."""
        self._distance = step - self.count
        if self._waiting:
            self.flush()

    def flush(self) -> None:
        """Emit what waits, under the optimizer's own count where the job never named a step."""
        waiting, self._waiting = self._waiting, []
        if self._distance is None:
            self._distance = 0
        for sample, count in waiting:
            self._emit(sample, count + self._distance)
