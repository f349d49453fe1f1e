"""How long work takes on a machine that is shared: at its own speed, told from a neighbour's by a yardstick.

A virtual core runs at about half its speed while its twin is busy, for a moment or for minutes, and no clock of ours tells.
So a fixed piece of work is timed before and after each block of passes. A block counts where both took about the least that
they ever took here; the others are measured again, and where a block never met a quiet moment its time is scaled by them.
"""

import statistics
import sys
from collections.abc import Callable, Sequence

NEAR = 1.15  # times the least: a yardstick that took no longer was at the machine's own speed
PATIENCE = 4  # times the rounds that were asked for, at most, in search of such a moment


class Block:
    """The quietest block of passes that one subject has had."""

    __slots__ = ("slowness", "took")

    def __init__(self) -> None:
        self.took = float(sys.maxsize)
        self.slowness = float(sys.maxsize)  # nanoseconds of the slower of the two yardsticks

    def offer(self, took: float, slowness: float, near: float) -> None:
        """Take another block where it was quieter; of two that were quiet, the shorter."""
        if slowness <= near and self.slowness <= near:
            self.took, self.slowness = min(self.took, took), min(self.slowness, slowness)
        elif slowness < self.slowness:
            self.took, self.slowness = took, slowness

    def own(self, least: float) -> int:
        """Return the nanoseconds at the machine's own speed, where the yardstick takes `least`."""
        scale = least / self.slowness if self.slowness > NEAR * least else 1.0
        return max(1, round(self.took * scale))


def quietest(
    blocks: Sequence[Callable[[], float]], yardstick: Callable[[], float], *, rounds: int, least: float = float("inf")
) -> tuple[list[int], float]:
    """Return the nanoseconds of each of `blocks` at the machine's own speed, and the least that `yardstick` took.

    All take turns for `rounds` rounds; those that met no quiet moment then take more, up to `PATIENCE` times as many.
    `least` is what the yardstick took in better days. Blocks and yardstick time themselves, in nanoseconds.
    """
    found = [Block() for _ in blocks]
    before = yardstick()
    least = min(least, before)
    for turn in range(rounds * PATIENCE):
        waiting = [place for place, one in enumerate(found) if turn < rounds or one.slowness > NEAR * least]
        if not waiting:
            break
        for place in waiting:
            took = blocks[place]()
            after = yardstick()
            least = min(least, after)
            found[place].offer(took, max(before, after), NEAR * least)
            before = after
    return [one.own(least) for one in found], least


def torch_yardstick(clock: Callable[[], int]) -> Callable[[], float]:
    """Return a function that times a fixed piece of work of some 50 µs, half of it calls and half of it arithmetic."""
    import torch

    values, matrix = torch.ones(16, 96), torch.full((96, 96), 1 / 96)

    def once() -> int:
        began = clock()
        x = values
        for _ in range(4):
            x = torch.relu(x @ matrix)
        return clock() - began

    for _ in range(20):
        once()
    return lambda: statistics.median([once(), once(), once()])
