"""What the numbers of a publisher's messages say: in order, again, missing, or counted from zero by another life of it.

Pure. The shell hears messages and asks for replays; `Sequence` says what to do with them:

    step = sequence.heard(number, payload)
    while step.ask is not None:             # something is missing: have the publisher send it again from there
        step = sequence.replayed(await replay(step.ask))
    for number, payload in step.take: ...   # in order, each once
"""

import hashlib
from collections.abc import Iterable
from collections.abc import Sequence as Messages

import msgspec

Message = tuple[int, bytes]


class Step(msgspec.Struct, frozen=True):
    """What to do next, in this order: forget what an earlier life had said (`restarted`), note what is `missing`
    (first, last), `take` messages; or, before anything is taken, ask for a replay from `ask` on.
    """

    take: tuple[Message, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    restarted: bool = False
    ask: int | None = None


_NOTHING = Step()


class Sequence:
    """The numbers of one publisher. `last` is the number of the last message taken, -1 before the first.

    Live messages come in the publisher's own order, so that a number that is not above the live one before it shows
    another life. A replay is asked from the last message taken on, itself included: where that one is another now, or
    where a publisher that keeps its newest messages has it no more, another life has begun as well. `digest` of the last
    message, from an earlier process, makes that out over a pause of ours too.
    """

    def __init__(self, last: int = -1, digest: bytes | None = None) -> None:
        self.last = last
        self._heard = last  # the newest live number of this life
        self._digest = digest  # of the last message taken
        self._resumed = last >= 0  # an earlier process took it, and nothing was heard since
        self._held: dict[int, bytes] = {}  # messages that wait for what is missing before them
        self._keeps = False  # the publisher has shown that it keeps its newest messages

    @property
    def digest(self) -> bytes | None:
        """What the last message taken is known by."""
        return self._digest

    def heard(self, number: int, payload: bytes) -> Step:
        """Take a live message."""
        self._resumed = False
        if number <= self._heard:
            self._forget()
            self._heard = number
            return self._next(number, payload, restarted=True)
        self._heard = number
        if number <= self.last:
            return _NOTHING  # a replay has brought it already
        return self._next(number, payload)

    def check(self) -> Step:
        """Ask whether the publisher has more, or is another: for when nothing was heard for a while."""
        return Step(ask=max(self.last, 0))

    def replayed(self, messages: "Messages[Message] | None") -> Step:
        """Take what a replay brought, in whatever order; None where none could be had."""
        found = {**dict(messages or ()), **self._held}
        if messages is not None and self.last >= 0:
            again = found.pop(self.last, None)
            another = again is not None and self._digest is not None and digest(again) != self._digest
            vanished = not messages and (self._keeps or self._resumed)
            self._resumed = False
            if another or vanished:
                self._forget()
                if not self._held:
                    self._heard = -1  # nothing of the new life was heard yet
                self._held = {**found, **self._held}
                return Step(restarted=True, ask=0)
            if again is not None:
                self._digest = digest(again)
        self._keeps |= bool(messages)
        self._held = {}
        newer = sorted(item for item in found.items() if item[0] > self.last)
        missing = []
        expected = self.last + 1
        for number, _ in newer:
            if number > expected:
                missing.append((expected, number - 1))
            expected = number + 1
        return Step(take=self._take(newer), missing=tuple(missing))

    def _next(self, number: int, payload: bytes, *, restarted: bool = False) -> Step:
        if number == self.last + 1:
            return Step(take=self._take([(number, payload)]), restarted=restarted)
        self._held = {number: payload}
        return Step(ask=max(self.last, 0), restarted=restarted)

    def _forget(self) -> None:
        self.last, self._digest, self._keeps = -1, None, False

    def _take(self, messages: Iterable[Message]) -> tuple[Message, ...]:
        taken = tuple(messages)
        if taken:
            self.last = taken[-1][0]
            self._digest = digest(taken[-1][1])
        return taken


def digest(payload: bytes) -> bytes:
    """Return what a message is known by after it is gone: 8 bytes."""
    return hashlib.sha256(payload).digest()[:8]
