"""Aggregates over a list of readings, and which readings a window holds: short, slow, and the measure of the others.

The streaming engine and the compiled SQL are tested against these.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .logic import Value, as_float, known
from .tree import Call, Window

AGGREGATES = frozenset(
    {"count", "sum", "avg", "min", "max", "p50", "p90", "p95", "p99", "std", "first", "last", "delta", "slope"}
)
_ALSO_SCALAR = frozenset({"min", "max"})
MEASURED = frozenset({"measured"})


@dataclass(frozen=True, slots=True, eq=False)
class Item(Mapping[str, Value]):
    """One trace item: its case (`System.Case`), its fields, its run, its event time, and where its values come from.

    It reads as a mapping of its fields. A field that is missing is unknown.
    """

    case: str
    fields: Mapping[str, Value] = field(default_factory=dict)
    run: str = ""
    time_ns: int = 0
    origin: str = "measured"

    def __getitem__(self, name: str) -> Value:
        return self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)


def is_aggregate(call: Call) -> bool:
    """Tell whether a call inside a fact goes over a window: by its name, and for min and max by one argument."""
    if call.name not in AGGREGATES:
        return False
    return call.window is not None or call.name not in _ALSO_SCALAR or len(call.args) == 1


def window_items(history: Sequence[Item], window: Window | None) -> list[Item]:
    """Return the items that a window holds, in log order; the last of the history is the item it is seen from.

    The history is in log order, of one case, and only of origins that count. Within the run of the last item, an item's
    clock is the largest event time so far. A missing value of a `per` field makes a group of its own.
    """
    if not history:
        return []
    window = window or Window()
    here = history[-1]
    clock = -(1 << 63)
    clocks: list[int] = []
    group = _group(here, window.per)
    chosen: list[Item] = []
    for item in history:
        if item.run != here.run:
            continue
        clock = max(clock, item.time_ns)
        if _group(item, window.per) == group:
            chosen.append(item)
            clocks.append(clock)
    if window.last is not None:
        chosen = chosen[-window.last :] if window.last > 0 else []
    elif window.duration_ns is not None:
        chosen = [item for item, at in zip(chosen, clocks, strict=True) if at > clock - window.duration_ns]
    return chosen


def _group(item: Item, per: tuple[str, ...]) -> tuple[Value, ...]:
    return tuple(known(item.get(name)) for name in per)


def aggregate(name: str, values: Sequence[Value]) -> Value:
    """Return the aggregate of the known values, in their order; over none of them `count` is 0, all else unknown."""
    readings = [value for value in map(known, values) if value is not None]
    if name == "count":
        return len(readings)
    if not readings:
        return None
    if name == "first":
        return readings[0]
    if name == "last":
        return readings[-1]
    numbers = [number for number in map(as_float, readings) if number is not None]
    return known(_NUMERIC[name](numbers)) if numbers else None


def _sum(numbers: list[float]) -> float:
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # beyond float64 on the way, or infinities of both signs
        return sum(numbers)


def _quantile(numbers: list[float], share: float) -> float:
    ordered = sorted(numbers)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    if low == high or position == below:
        return low
    part = position - below
    if math.isinf(low) or math.isinf(high):  # between an infinity and a number lies the infinity
        return low * (1 - part) + high * part
    return low + (high - low) * part


def _std(numbers: list[float]) -> float | None:
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        return None
    mean = _sum(numbers) / len(numbers)
    return math.sqrt(_squares([number - mean for number in numbers]) / (len(numbers) - 1))


def _squares(numbers: list[float]) -> float:
    return _sum([number * number for number in numbers])


def _slope(numbers: list[float]) -> float | None:
    count = len(numbers)
    if count < 2:
        return None
    middle = (count - 1) / 2
    mean = _sum(numbers) / count
    return _sum([(index - middle) * (number - mean) for index, number in enumerate(numbers)]) / _squares(
        [index - middle for index in range(count)]
    )


_NUMERIC: dict[str, Callable[[list[float]], float | None]] = {
    "sum": _sum,
    "avg": lambda numbers: _sum(numbers) / len(numbers),
    "min": min,
    "max": max,
    "p50": lambda numbers: _quantile(numbers, 0.50),
    "p90": lambda numbers: _quantile(numbers, 0.90),
    "p95": lambda numbers: _quantile(numbers, 0.95),
    "p99": lambda numbers: _quantile(numbers, 0.99),
    "std": _std,
    "delta": lambda numbers: numbers[-1] - numbers[0],
    "slope": _slope,
}
