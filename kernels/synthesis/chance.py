"""Whether so many examples rule chance out: an expression is worth less than it says where many others were looked at.

A target that could have been otherwise in b bits is met by chance by one of the 2**b expressions that were looked at (the
minimum description length argument: Rissanen 1978). Constants say nothing and need no support.
"""

import math
from collections.abc import Sequence
from typing import Any

from .bank import Bank
from .values import exact, is_number

MARGIN = 1.0  # bits that a target must hold beyond what the search has looked at


def bits(target: Sequence[Any]) -> float:
    """Return, roughly, in how many bits the values of a target could have been otherwise."""
    different: dict[bytes | None, int] = {}
    for value in target:
        key = exact(value)
        different[key] = different.get(key, 0) + 1
    if len(different) <= 1:
        return 0.0
    total = len(target)
    spread = -sum(count * math.log2(count / total) for count in different.values())
    numbers = [value for value in target if is_number(value) and math.isfinite(value)]
    if len(numbers) == total:
        low, high = min(numbers), max(numbers)
        wide = math.log2(1 + (high - low)) if all(isinstance(value, int) for value in numbers) else 12.0
        return max(spread, (len(different) - 1) * wide)
    if any(isinstance(value, bool) or value is None for value in target):
        return spread
    length = min(24.0, 2.0 * max(len(value) if isinstance(value, str | list | dict | bytes) else 1 for value in target))
    return max(spread, (len(different) - 1) * length)


def supported(target: Sequence[Any], size: int, bank: Bank) -> bool:
    """Say whether a target holds more bits than choosing among the expressions up to a size takes."""
    held = bits(target)
    if held == 0.0:
        return True  # the same in all examples: that is told as a doubt, not judged here
    looked = sum(1 for entry in bank.entries if entry.size <= size)
    return held >= math.log2(1 + looked) - 3.0 + MARGIN if size > 2 else held >= 2.0 or looked <= 4


def enough(target: Sequence[Any], tried: int) -> bool:
    """Say whether a target holds more bits than the choice of one among so many expressions."""
    return bits(target) >= math.log2(1 + tried) - 2.0
