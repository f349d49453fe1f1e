"""Which journals of a worker are open at once: those that were used last. Each takes a descriptor, and sessions are many."""

from typing import Protocol


class Rests(Protocol):
    """What gives up its descriptor, and takes another one when it is used again."""

    def rest(self) -> None:
        """Give the descriptor up."""


class Desk:
    """Room for `most` of them: of one more the one that was used longest ago rests. Used by one thread."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._open: dict[Rests, None] = {}  # the one used longest ago comes first

    def use(self, one: Rests) -> None:
        """Make room for one that is about to be used."""
        self._open.pop(one, None)
        self._open[one] = None
        if len(self._open) > self._most:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.rest()
