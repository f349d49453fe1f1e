"""Contenders that take turns within one run, so that a machine that speeds up or slows down does so for all of them.

A contender is called once a round and returns the seconds of each of its stages; what it does between them is not counted.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Stages = dict[str, float]  # seconds
Contender = Callable[[], Stages]


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, what was asked for, what came out, and whether that is enough."""

    what: str
    asked: str
    got: str
    met: bool | None = None  # None: nothing was asked for


def clocked(work: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds a call took, and what it returned."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def in_turns(contenders: Mapping[str, Contender], rounds: int, warm: int = 1) -> dict[str, list[Stages]]:
    """Call every contender once a round, in an order that changes; the first `warm` rounds do not count."""
    order, draw = list(contenders), random.Random(0)
    found: dict[str, list[Stages]] = {name: [] for name in contenders}
    for number in range(-warm, rounds):
        draw.shuffle(order)
        for name in order:
            gc.collect()
            gc.disable()
            try:
                stages = contenders[name]()
            finally:
                gc.enable()
            if number >= 0:
                found[name].append(stages)
    return found


def total(stages: Stages, names: Iterable[str] | None = None) -> float:
    """Return the sum of some stages, of all of them where None."""
    return sum(stages[name] for name in (stages if names is None else names))


def median(found: list[Stages], *names: str) -> float:
    """Return the median over the rounds of the sum of some stages, of all of them where none is named."""
    return statistics.median(total(stages, names or None) for stages in found)


def ratio(slow: list[Stages], fast: list[Stages], *names: str) -> float:
    """Return how many times longer the one takes than the other: the median over rounds, each against its own round."""
    return statistics.median(total(a, names or None) / total(b, names or None) for a, b in zip(slow, fast, strict=True))


def in_ms(found: dict[str, list[Stages]]) -> dict[str, list[dict[str, float]]]:
    """Return all rounds in milliseconds, for the file of figures."""
    return {
        name: [{stage: round(seconds * 1e3, 4) for stage, seconds in stages.items()} for stages in rounds]
        for name, rounds in found.items()
    }


def line(*cells: Any, widths: Iterable[int]) -> str:
    """Return cells side by side, the first to the left, the others to the right."""
    first, *rest = zip(cells, widths, strict=True)
    return f"{first[0]!s:<{first[1]}}" + "".join(f"{cell!s:>{width}}" for cell, width in rest)
