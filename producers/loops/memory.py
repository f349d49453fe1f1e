"""A journal without a log: for a program that is tried out against what was recorded, and for tests.

The same frames, the same fold, the same fencing; only nothing is kept when the process ends.
"""

import time
from collections.abc import Callable

from morphogen.bus.errors import JetStreamApiError
from morphogen.schemas import LoopStarted, Record, decode_frame

from .append import WRONG_SEQUENCE
from .journal import History, Journal


class Memory:
    """Frames in a list; a store for journals of one run."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.copies: dict[str, list[Record]] = {}

    def append(self, data: bytes, identity: str, after: int) -> int:
        """Keep a frame if none came after sequence `after`."""
        if after != len(self.frames):
            raise JetStreamApiError(400, WRONG_SEQUENCE, "wrong last sequence")
        self.frames.append(data)
        return len(self.frames)

    def push(self, records: list[tuple[str, Record]]) -> None:
        """Keep copies."""
        for family, record in records:
            self.copies.setdefault(family, []).append(record)

    def sent(self, family: str) -> int:
        """Return the counter of the newest copy."""
        held = self.copies.get(family)
        return held[-1].n if held else 0

    def flush(self, timeout: float) -> bool:
        """Return True: there is nothing to wait for."""
        return True

    def begin(self, run: str, started: LoopStarted, clock: Callable[[], int] = time.time_ns) -> Journal:
        """Begin a run."""
        journal = Journal(self, History(run), clock)
        journal.commit(started)
        return journal

    def history(self, run: str) -> History:
        """Read the run from what was committed."""
        history = History(run)
        for seq, data in enumerate(self.frames, start=1):
            history.take(decode_frame(data, seq))
        return history

    def lead(self, run: str, clock: Callable[[], int] = time.time_ns) -> Journal:
        """Take the run over."""
        journal = Journal(self, self.history(run), clock)
        journal.send_missing()
        return journal
