"""`frames`: one row a message of the log; the books of who wrote how much."""

import numpy as np

from ..fold.arrays import Gaps, strings
from ..fold.batch import Batch, Part
from ..fold.rows import Columns
from ..projection import Projection, Rows

_LOWEST = -(2**63)


class Frames(Projection, name="frames", version=1, types=("*",)):
    """Which records each message brought, and when the broker stored it.

    `doubled` counts records that were folded before and therefore left out: 0 in a healthy log.
    """

    tables = {
        "_frames": "stored TIMESTAMP_NS, writer VARCHAR, family VARCHAR, first BIGINT, last BIGINT, count INTEGER, "
        "bytes BIGINT, min_time TIMESTAMP_NS, replay VARCHAR, doubled INTEGER"
    }
    views = {
        "frames": """
            SELECT seq, stored, run, attempt, rank, writer, family, first, last, count, bytes, step AS max_step,
                   min_time, time AS max_time, replay, doubled
            FROM _frames
        """
    }

    def fold(self, batch: Batch) -> Rows:
        """Return a row for each frame; unreadable messages are rows of `events`."""
        parts = batch.parts
        if not parts:
            return {}
        frames = [part.frame for part in parts]
        low, high, step = _ranges(batch)
        return {
            "_frames": Columns(
                {
                    "seq": np.array([frame.seq for frame in frames], np.int64),
                    "idx": np.zeros(len(frames), np.int32),
                    "run": strings([frame.run for frame in frames]),
                    "attempt": np.array([frame.attempt for frame in frames], np.int64),
                    "rank": np.array([frame.rank for frame in frames], np.int64),
                    "step": step,
                    "time": high,
                    "stored": np.array([frame.stored for frame in frames], np.int64),
                    "writer": strings([frame.writer for frame in frames]),
                    "family": strings([frame.family for frame in frames]),
                    "first": np.array([frame.first for frame in frames], np.int64),
                    "last": np.array([frame.last for frame in frames], np.int64),
                    "count": np.array([part.length for part in parts], np.int64),
                    "bytes": np.array([frame.size for frame in frames], np.int64),
                    "min_time": low,
                    "replay": strings([frame.replay for frame in frames]),
                    "doubled": np.array([_doubled(part) for part in parts], np.int64),
                }
            )
        }


def _doubled(part: Part) -> int:
    return part.start


def _ranges(batch: Batch) -> tuple[Gaps, Gaps, Gaps]:
    """Return earliest time, latest time and highest step of each frame; missing where it brought nothing new."""
    counts = batch.counts
    full = np.flatnonzero(counts)
    empty = counts == 0
    low, high, top = (np.zeros(len(counts), np.int64) for _ in range(3))
    without = empty.copy()
    if len(full):
        starts = (np.cumsum(counts) - counts)[full]
        steps = batch.step
        numbers = steps.numbers if steps.missing is None else np.where(steps.missing, _LOWEST, steps.numbers)
        low[full] = np.minimum.reduceat(batch.time, starts)
        high[full] = np.maximum.reduceat(batch.time, starts)
        top[full] = np.maximum.reduceat(numbers, starts)
        if steps.missing is not None:
            without |= top == _LOWEST
    gone = empty if empty.any() else None
    return Gaps(low, gone), Gaps(high, gone), Gaps(top, without if without.any() else None)
