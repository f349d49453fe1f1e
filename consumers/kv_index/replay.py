"""What a replay socket answers, put together: a queue drops what it has no room for, and ZMQ ends a connection at a message
that is too large.

Pure: `ask` is the shell's, and asks once from a number on.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Literal

import msgspec

from .sequence import Message
from .wire import REFUSED

MOST_BYTES = 512 << 20  # of messages that wait to be taken
_MOST_ASKED = 32  # times that one answer is asked for beyond messages that were refused


class Answer(msgspec.Struct, frozen=True):
    """What came, by number, and how it ended: with its end mark, in silence, or before a message that ZMQ refused."""

    found: dict[int, bytes] = {}
    end: Literal["whole", "silent", "refused"] = "silent"


def gathered(ask: Callable[[int], Answer], start: int) -> list[Message] | None:
    """Return the messages that a publisher has from number `start` on, or None where it does not answer.

    What was refused stands there as `REFUSED`. An answer with a hole is asked for again from there, until nothing new comes.
    """
    found, whole = _beyond_refused(ask, start)
    while (before := _before_a_hole(found, whole)) is not None and sum(map(len, found.values())) < MOST_BYTES:
        came, whole = _beyond_refused(ask, before)
        if came.get(before) != found[before] or came.keys() <= found.keys():
            break  # another life of the publisher, or it kept no more
        found |= came
    return list(found.items()) if found or whole else None


def _beyond_refused(ask: Callable[[int], Answer], start: int) -> tuple[dict[int, bytes], bool]:
    """Return what comes from a number on, whatever is refused amid it, and whether the end mark came.

    After what came it is the next number that was refused. Before anything came, the publisher may have nothing as old as
    what was asked for: there a number was refused only if the answer from the next one begins otherwise.
    """
    found: dict[int, bytes] = {}
    suspect = None
    for _ in range(_MOST_ASKED):
        answer = ask(start)
        if suspect is not None and (answer.found or answer.end == "whole"):
            found[suspect] = REFUSED
        found |= answer.found
        if answer.end != "refused":
            return found, answer.end == "whole"
        suspect = None
        if not answer.found and found:
            found[start] = REFUSED
        elif not answer.found:
            suspect = start
        start = max(answer.found, default=start) + 1
    return found, False


def _before_a_hole(found: Iterable[int], whole: bool) -> int | None:
    """Return the first number whose follower is missing; the last one misses its own where the answer is not whole."""
    numbers = sorted(found)
    before = [one for one, following in pairwise(numbers) if following > one + 1]
    return next(iter(before if whole else [*before, *numbers[-1:]]), None)
