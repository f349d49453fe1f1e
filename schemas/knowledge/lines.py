"""Offsets to lines and columns."""

from bisect import bisect_right
from itertools import accumulate

from .tree import Span


class Lines:
    """Where the lines of a text begin. Lines end at a newline; columns count characters from 1."""

    def __init__(self, text: str) -> None:
        lengths = [len(line) + 1 for line in text.split("\n")]
        self.begins = [0, *accumulate(lengths[:-1])]

    def span(self, start: int, end: int) -> Span:
        """Make the span of a stretch of text."""
        line = bisect_right(self.begins, start)
        return Span(start, end, line, start - self.begins[line - 1] + 1)

    def line(self, offset: int) -> int:
        """Return the number of the line that an offset stands on, from 1."""
        return bisect_right(self.begins, offset)

    def begin(self, offset: int) -> int:
        """Return where the line begins that an offset stands on."""
        return self.begins[bisect_right(self.begins, offset) - 1]
