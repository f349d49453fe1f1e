"""How long the background thread waits for more events before it publishes again.

Many events are published every 2 to 8 ms. Where they only trickle, a few numbers at a time, so small a frame is not worth
its work: the wait is as long as keeps that work beside the trainer's, for which Python's lock is taken, very small.
"""

LINGER = 0.002  # seconds
QUIET = 0.75  # seconds without traffic after which events are a new flow
_LONGEST = 0.008  # where events are many
_LONGEST_TRICKLE = 0.5
_TRICKLE = 5000  # records a second
_SHARE = 0.003  # of one core, which a trickle may take
_WINDOW = 0.1  # seconds over which records are counted, at least; a trainer may stand still for some milliseconds


class Pace:
    """Tells the pause after each start of publishing, from what was counted at the starts before. Pure."""

    def __init__(self) -> None:
        self.due = 0.0
        """When numbers alone are worth the next start; where events wait too, it is after the pause."""
        self._last = -QUIET  # when publishing started last
        self._linger = LINGER
        self._before = self._after = (0.0, 0)  # (time, records ever) of two starts at least a window apart

    def next(self, now: float, records: int, cost: float, *, patient: bool) -> float:
        """Return the seconds to wait after a start at `now` (in seconds), when there were so many records ever.

        `cost` is the processor time, in seconds, of all that was done since the last start. `patient` tells that
        nothing waits but numbers, of which the next are as good as the last.
        """
        rest = max(_LONGEST, min(cost / _SHARE, _LONGEST_TRICKLE))
        few = records - self._before[1] < _TRICKLE * (now - self._before[0])
        self.due = now
        if now - self._last > QUIET:
            self._linger = LINGER
            self._before = self._after = (now, records)
        else:
            self._linger = rest if few and patient else min(self._linger * 2, _LONGEST)
            self.due = now + rest if few else now
        self._last = now
        if now - self._after[0] > _WINDOW:
            self._before, self._after = self._after, (now, records)
        return self._linger
