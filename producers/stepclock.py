"""Which step a measurement belongs to, when the measurement counts optimizer steps and the job names its own."""

import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from sys import getsizeof
from typing import Generic, TypeVar

_T = TypeVar("_T")
_MOST = 4096  # samples that wait for their step
_ROOM = 64 << 20  # bytes that they may hold
_AT_ONCE = 64  # samples that one log() passes on; the others go with the next sample
_MEMORY = 1024  # changes of the rule that are remembered for samples that come late


class Names:
    """The steps that a job has named, as rules that say which step each optimizer step is.

    The optimizer's steps between two names count on from the one before if both went on by as many; otherwise all of them
    are the step that was named after them. Those before the first name count back from it, unless the second
    shows that the job does not count so, or they would come below 0.
    """

    def __init__(self) -> None:
        self.told = False  # the job says its steps; else its calls of log() are counted
        self.until = 0  # the optimizer's newest step whose job's step is sure
        self.distance: int | None = None  # from the optimizer's to the job's, of the newest name; None where unsure
        self._first: tuple[int, int, int] | None = None  # a first name that does not say what those before it are
        self._rules: tuple[tuple[int, int, int], ...] = ()  # after the optimizer's step so-and-so: slope and offset
        self.turning = threading.RLock()

    def turn(self, step: int, count: int, *, told: bool) -> None:
        """Take a name that does not go on from the one before: the optimizer's step `count`, its newest, is `step`."""
        with self.turning:
            if told and not self.told:
                self.told, self.until, self.distance, self._first, self._rules = True, 0, None, None, ()
            elif self.told and not told:
                return
            if self._first is not None:
                self._second(*self._first, step, count)
            elif self.distance is None:
                self._begin(step, count)
            else:
                self._next(self.distance, step, count)

    def _begin(self, step: int, count: int) -> None:
        distance = step - count
        if distance < -1:  # fewer steps than the optimizer's: they cannot have been one to one
            self._rules = (-1, 0, step), (count, 1, distance)
        else:
            self._rules = ((-1, 1, distance),)
            if count > 1:
                self._first = count, step, step
                return
        self.distance, self.until = distance, count

    def _second(self, first: int, step_first: int, newest: int, step: int, count: int) -> None:
        if count <= first:
            self._first = first, step_first, step
            return
        goes_on = step - newest == count - first
        before = (-1, 1, step_first - first) if goes_on else (-1, 0, step_first)
        self._rules, self._first = (before, (first, 1, newest - first)), None
        self.distance, self.until = newest - first, first
        self._next(self.distance, step, count)

    def _next(self, distance: int, step: int, count: int) -> None:
        rules, until = self._rules[-_MEMORY:], self.until
        if step - count != distance:
            if rules[-1][0] == until:
                rules = rules[:-1]  # no step went by it
            if count > until:
                rules = (*rules, (until, 0, step))
            self._rules = (*rules, (max(count, until), 1, step - count))
            self.distance = step - count
        self.until = max(count, until)  # last: who reads it finds the rules

    def step_of(self, count: int) -> int:
        """Return the step of the optimizer's step `count`, the likeliest where no name came after it."""
        until, rules = self.until, self._rules
        if not rules:
            return count
        start, slope, offset = rules[max(0, bisect_left(rules, (count,)) - 1)]
        if start == until:  # the job's steps are not the optimizer's
            return offset + until + 1
        return offset + slope * count


class StepClock(Generic[_T]):
    """Give each sample the step that the job's next `log()` names.

    A restarted job counts its optimizer steps from 1 again while its own step goes on from a checkpoint, and a job may
    take many optimizer steps for one of its own. So a sample waits for the name of its step or of a later one. Past 4096
    samples or 64 MB the oldest go by the names so far. Samples may come from another thread than the names, and late.
    """

    def __init__(self, emit: Callable[[_T, int], None]) -> None:
        self._emit = emit
        self._names = Names()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._names.turning = threading.RLock()
        self._waiting: deque[tuple[_T, int, int]] = deque()
        self._taken = self._passed = 0  # bytes of samples
        self._inside = False
        self._sending = threading.RLock()

    def _own(self) -> None:
        if os.getpid() != self._pid:  # a forked child: what waits is the parent's
            self._begin()

    def sample(self, sample: _T, count: int) -> None:
        """Take a sample of the optimizer's step `count` (from 1)."""
        self._own()
        size = getsizeof(sample)
        self._taken += size
        self._waiting.append((sample, count, size))
        self._send(_MOST)

    def named(self, step: int, count: int, told: bool = True) -> None:
        """Learn that the job calls the optimizer's step `count`, its newest, `step`.

        Without `told` the job named no step and `step` is a count of its calls: it holds until a job says one.
        """
        names = self._names
        if told is names.told and step - count == names.distance:
            names.until = count
        else:
            self._own()
            names.turn(step, count, told=told)
        if self._waiting:
            self._send(_AT_ONCE)

    def waits(self) -> bool:
        """Tell whether a sample still waits for its step."""
        return bool(self._waiting) or self._inside

    def flush(self) -> None:
        """Emit what waits, in order; what no name was given goes by the names so far, or by the optimizer's own count."""
        self._own()
        with self._sending:
            if not self._inside:  # else what is emitted has called back: the loop goes on outside
                while self._waiting:
                    self._pass_on()
        self._send(_MOST)  # what another thread left to this one at the last moment

    def _due(self) -> bool:
        waiting = self._waiting
        return bool(waiting) and (
            waiting[0][1] <= self._names.until or len(waiting) > _MOST or self._taken - self._passed > _ROOM
        )

    def _send(self, most: int) -> None:
        """Emit the samples that are due, at most so many, unless another thread does."""
        self._own()
        while most > 0 and self._due() and not self._inside and self._sending.acquire(blocking=False):
            try:
                if self._due():
                    self._pass_on()
                    most -= 1
            finally:
                self._sending.release()

    def _pass_on(self) -> None:
        sample, count, size = self._waiting.popleft()
        self._passed += size
        self._inside = True
        try:
            self._emit(sample, self._names.step_of(count))
        finally:
            self._inside = False
