"""The offers of one worker that stand. Whoever takes one up asks before it settles in; then it cannot be called off any more.

So a session is never on both: one that was frozen, or slow, and comes too late is told no.
"""

from .wire import Stands, Stood, pack, unpack


class Offers:
    """Offers under way, by their attempt. Used on the loop alone."""

    def __init__(self) -> None:
        self._standing: set[str] = set()
        self._taken: set[str] = set()

    def make(self, attempt: str) -> None:
        """Let an offer stand, until it is taken up, called off or over."""
        self._standing.add(attempt)

    async def stands(self, payload: bytes) -> bytes:
        """Answer the one that means to settle in."""
        attempt = unpack(payload, Stands).attempt
        if attempt in self._standing:
            self._standing.remove(attempt)
            self._taken.add(attempt)
        return pack(Stood(stands=attempt in self._taken))

    def call_off(self, attempt: str) -> bool:
        """Let an offer not stand any more; False where it was taken up, and the other one may have the session."""
        self._standing.discard(attempt)
        return attempt not in self._taken

    def over(self, attempt: str) -> None:
        """Forget an offer of which it is known, or cannot be, what came of it."""
        self._standing.discard(attempt)
        self._taken.discard(attempt)
