"""Which configuration comes next: row by row, or at random.

A sampler proposes; it holds nothing that the log does not. What it proposes follows from the space, the seed and the
trials on record, so a sweep that was killed goes on with the very configurations that it would have measured.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .errors import SpaceError
from .space import Choice, Config, Continuous, Space

_ROUNDS = 4


@dataclass(frozen=True)
class Scored:
    """What a sampler learns of a trial: its configuration, and a number, greater is better, where it has one."""

    config: Config
    value: float | None


class Sampler(Protocol):
    """Proposes configurations, as long as it has any."""

    def propose(self, scored: Sequence[Scored], pending: Sequence[Config], attempt: int) -> Config | None:
        """Return a configuration, or None where there is none left.

        `scored` are the trials on record in their order, `pending` those being measured. `attempt` counts the proposals
        that were turned down since the last that was taken: excluded by a constraint, or measured already.
        """
        ...


class Ordered:
    """A sampler whose proposals do not depend on what was measured: they come in a fixed order."""

    def __init__(self, order: Iterator[Config]) -> None:
        self._order = order

    def propose(self, scored: Sequence[Scored], pending: Sequence[Config], attempt: int) -> Config | None:
        """Return the next in order."""
        return next(self._order, None)


def grid(space: Space) -> Sampler:
    """Propose every configuration, row-major. Raises SpaceError where an axis is continuous."""
    for axis in space.axes:
        if isinstance(axis, Continuous):
            raise SpaceError(
                f"parameter {axis.name}: a grid needs a step: write range[{axis.low:g}, {axis.high:g}, STEP], "
                "or choose sampler: random or tpe"
            )
    size = space.size or 0
    return Ordered(space.at(number) for number in range(size))


def shuffled(space: Space, seed: int) -> Sampler:
    """Propose at random; a finite space in a random order without repeats, any other without end."""
    size = space.size
    if size is None:
        return Ordered(draw(space, seed, number) for number in _count())
    return Ordered(space.at(number) for number in permuted(size, seed))


def draw(space: Space, seed: int, number: int) -> Config:
    """Return the configuration that chance gives for this seed and number, the same on every machine."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311
    found: Config = {}
    for axis in space.axes:
        if isinstance(axis, Continuous):
            found[axis.name] = axis.within(chance.random())
        else:
            found[axis.name] = axis.at(chance.randrange(axis.count))
    return found


def permuted(size: int, seed: int) -> Iterator[int]:
    """Yield 0..size-1 in a seeded random order, in constant memory.

    A Feistel network over the next power of four, walked until it falls inside (Black and Rogaway, 2002).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = [f"{seed}/{size}/{number}".encode() for number in range(_ROUNDS)]

    def mixed(value: int) -> int:
        left, right = value >> half, value & mask
        for key in keys:
            digest = hashlib.blake2b(right.to_bytes(16, "little"), key=key, digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        return (left << half) | right

    for start in range(size):
        found = mixed(start)
        while found >= size:
            found = mixed(found)
        yield found


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def is_numeric(axis: object) -> bool:
    """Tell whether the neighbours on an axis are alike, so that a model may interpolate between them."""
    return not isinstance(axis, Choice) or axis.ordered
