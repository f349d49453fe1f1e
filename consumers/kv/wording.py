"""The text of a reply as its tokens come: bytes to characters, and nothing given out that a stop might take back."""

import codecs
from collections.abc import Iterable


class Wording:
    """`text` is all that was heard, `given` how many characters of it went out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text = ""
        self.given = 0

    def clear(self) -> None:
        """Begin with nothing."""
        self._decoder.reset()
        self.text, self.given = "", 0

    def hear(self, piece: bytes, *, last: bool = False) -> None:
        """Take the bytes of a token; half a character waits for its other half, unless nothing follows."""
        self.text += self._decoder.decode(piece, final=last)

    def sure(self, stops: Iterable[str]) -> int:
        """Return how many characters cannot be part of a stop that is not there yet."""
        longest = 0
        for stop in stops:
            for size in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:size]):
                    longest = size
                    break
        return len(self.text) - longest

    def give(self, upto: int) -> str:
        """Return the characters up to a place that were not given out before."""
        piece, self.given = self.text[self.given : max(upto, self.given)], max(upto, self.given)
        return piece


def before(text: str, stops: Iterable[str]) -> str:
    """Return a text up to the first stop in it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]
