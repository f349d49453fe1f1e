"""Where the ticks of an axis stand, and what is written beside them."""

import math


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers within a range, at most about `most`, in steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if not math.isfinite(span) or span <= 0 or span < abs(high) * 1e-12:
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low]


def decades(low: float, high: float, most: int = 6) -> list[float]:
    """Return powers of ten within a range of positive numbers, at most about `most`."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, -(-(last - first + 1) // most))
    return [10.0**power for power in range(first, last + 1, stride)] or [low]


def label(value: float) -> str:
    """Return a number as people write it on an axis."""
    if value == 0:
        return "0"
    if 1e4 <= abs(value) < 1e15 and value == int(value):
        for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size and value / size * 100 == int(value / size * 100):
                return f"{value / size:g}{letter}"
    return f"{value:.6g}"
