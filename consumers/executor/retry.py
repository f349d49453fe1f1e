"""Try again with growing pauses; what counts as recovered is only what was then seen to work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .errors import LoadError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Tried(Generic[_T]):
    """What came of an operation: its result, or None, and the error of every try that failed, in order."""

    result: _T | None
    failures: tuple[LoadError, ...]


def retried(
    operation: Callable[[], _T], *, retries: int, backoff: Sequence[float], sleep: Callable[[float], object]
) -> Tried[_T]:
    """Run `operation` up to `1 + retries` times, with `sleep(seconds)` in between, until it returns.

    Only a LoadError is tried again, and not one that is lasting. `backoff` holds the pauses in seconds; its last one repeats.
    """
    failures: list[LoadError] = []
    for attempt in range(1 + max(0, retries)):
        if attempt and backoff:
            sleep(backoff[min(attempt, len(backoff)) - 1])
        try:
            return Tried(operation(), tuple(failures))
        except LoadError as error:
            failures.append(error)
            if error.lasting:
                break
    return Tried(None, tuple(failures))
