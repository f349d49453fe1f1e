"""Narrow a sweep's space to what the measurements support.

A value goes where it was measured often enough and no configuration with it came near the best (`support.py`).
"""

import math
from collections.abc import Sequence
from typing import Any

from morphogen.schemas.knowledge.tree import (
    EngineeringLoop,
    Expr,
    ListExpr,
    Literal,
    Module,
    Name,
    Property,
    RangeExpr,
    System,
    Unary,
)

from .edits import Edit, remove_items, replace_node
from .history import RecordedRun, RecordedSweep
from .proposal import NARROW, Kept, Proposal
from .support import REPEATS, Judged, Support, judge_axis


def narrow(source: str, system: System, loop: EngineeringLoop, runs: Sequence[RecordedRun]) -> list[Proposal]:
    """Return a proposal for each axis of a loop whose measurements speak against some of its values."""
    found = []
    for entry in _axes(system, loop):
        sweeps = [sweep for run in runs for name, sweep in run.sweeps.items() if _is_of(name, sweep, loop, entry.key)]
        judged = judge_axis(entry.key, sweeps)
        if judged is None:
            continue
        made = _narrowed(source, loop.name, entry, judged)
        if made is not None:
            found.append(made)
    return found


def _narrowed(source: str, loop: str, entry: Property, judged: Judged) -> Proposal | None:
    gone: list[Support] = []
    if isinstance(entry.value, ListExpr):
        gone = judged.hopeless()
        edits, shown = _from_list(source, entry.value, gone)
    elif isinstance(entry.value, RangeExpr):
        edits, shown = _from_range(entry.value, judged)
    else:
        return None
    if not edits:
        return None
    noise = "unknown, no value was measured twice" if judged.noise is None else f"{judged.noise:.1%} a measurement"
    return Proposal(
        kind=NARROW,
        title=f"{loop}: {entry.key} without {shown}",
        why=f"no configuration with it came within {judged.bound:.1%} of the best (noise {noise})",
        edits=tuple(edits),
        evidence={
            "parameter": entry.key,
            "bound": judged.bound,
            "noise": judged.noise,
            "needed_support": judged.needed,
            "values": [
                {
                    "value": one.value,
                    "measured": one.measured,
                    "failed": one.failed,
                    "repeats": one.repeats,
                    "good": one.good,
                    "behind_best": one.nearest,
                    "dropped": any(one is other for other in gone),
                }
                for one in judged.supports
            ],
        },
    )


def _from_list(source: str, space: ListExpr, gone: Sequence[Support]) -> tuple[list[Edit], str]:
    dropped = [item for item in space.items if any(_same(constant(item), one.value) for one in gone)]
    if not dropped or len(dropped) == len(space.items):
        return [], ""
    shown = ", ".join(source[item.span.start : item.span.end] for item in dropped)
    return remove_items(source, space.items, dropped), shown


def _from_range(space: RangeExpr, judged: Judged) -> tuple[list[Edit], str]:
    """Cut the ends of a range beyond the good values: a step past them, or half the way to the nearest bad one."""
    low, high = constant(space.low), constant(space.high)
    tried = [one for one in judged.supports if _is_number(one.value)]
    good = [one.value for one in tried if one.good]
    if not (_is_number(low) and _is_number(high) and good):
        return [], ""
    below = [one for one in tried if one.value < min(good)]
    above = [one for one in tried if one.value > max(good)]
    new_low, new_high = low, high
    if _supported(below, judged.needed):
        new_low = max(low, _past(min(good), max(one.value for one in below), space, low, high, up=False))
    if _supported(above, judged.needed):
        new_high = min(high, _past(max(good), min(one.value for one in above), space, low, high, up=True))
    moved = ((space.low, new_low, low, "below"), (space.high, new_high, high, "above"))
    edits = [replace_node(node, _number(value)) for node, value, old, _ in moved if value != old]
    shown = " and ".join(f"{side} {_number(value)}" for _, value, old, side in moved if value != old)
    return edits, f"what lies {shown}"


def _supported(side: Sequence[Support], needed: int) -> bool:
    measured = [one for one in side if one.measured]
    return sum(one.tried for one in side) >= needed and (
        not measured or sum(one.repeats for one in measured) >= REPEATS
    )


def _past(good: Any, bad: Any, space: RangeExpr, low: Any, high: Any, *, up: bool) -> Any:
    """Return the new end of a range, past the last good value toward the first bad one."""
    step = None if space.step is None else constant(space.step)
    if _is_number(step) or (isinstance(low, int) and isinstance(high, int)):
        stride = step if _is_number(step) else (2 if space.log else 1)
        past, before = (good * stride, good / stride) if space.log else (good + stride, good - stride)
        moved = past if up else before
        return round(moved) if isinstance(low, int) and float(moved).is_integer() else float(f"{moved:.12g}")
    middle = math.sqrt(bad * good) if space.log and bad > 0 < good else (bad + good) / 2
    return float(f"{middle:.6g}")


def kept_axes(module: Module) -> list[Kept]:
    """Return every axis of every sweep of a program, as far as its bounds are plain."""
    found = []
    for system in module.systems:
        for loop in system.engineering_loops:
            for entry in _axes(system, loop):
                if isinstance(entry.value, ListExpr):
                    values = tuple(constant(item) for item in entry.value.items)
                    if None not in values:
                        found.append(Kept(sweep=loop.name, parameter=entry.key, values=values))
                elif isinstance(entry.value, RangeExpr):
                    low, high = constant(entry.value.low), constant(entry.value.high)
                    if _is_number(low) and _is_number(high):
                        found.append(Kept(sweep=loop.name, parameter=entry.key, low=float(low), high=float(high)))
    return found


def _axes(system: System, loop: EngineeringLoop) -> list[Property]:
    """Return what spans a loop's space, each axis as it is written, under the name of the loop's parameter.

    An axis of a space that other loops of the system use too is left out: their measurements are not looked at here.
    """
    spaces = {entry.key: entry.value for space in system.spaces for entry in space.entries}
    if not loop.parameters:
        others = [one for one in system.engineering_loops if one is not loop and not one.parameters]
        tuning = [entry for space in system.spaces if space.kind == "tuning" for entry in space.entries]
        return [] if others else [entry for entry in tuning if isinstance(entry.value, ListExpr | RangeExpr)]
    found = []
    for entry in loop.parameters:
        value = entry.value
        if isinstance(value, Name) and value.name in spaces:
            if any(_uses(one, value.name) for one in system.engineering_loops if one is not loop):
                continue
            value = spaces[value.name]
        if isinstance(value, ListExpr | RangeExpr):
            found.append(Property(entry.key, value, span=entry.span))
    return found


def _uses(loop: EngineeringLoop, space: str) -> bool:
    return not loop.parameters or any(
        isinstance(one.value, Name) and one.value.name == space for one in loop.parameters
    )


def _is_of(name: str, sweep: RecordedSweep, loop: EngineeringLoop, parameter: str) -> bool:
    return (name == loop.name or name.endswith(f".{loop.name}")) and parameter in sweep.started.parameters


def constant(expr: Expr) -> Any:
    """Return a plain literal's value; None for everything else."""
    match expr:
        case Literal(value=value, unit=None):
            return value
        case Unary(op="-", operand=Literal(value=value, unit=None)) if isinstance(value, int | float):
            return -value
        case _:
            return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(left: Any, right: Any) -> bool:
    return left is not None and isinstance(left, bool) is isinstance(right, bool) and bool(left == right)


def _number(value: Any) -> str:
    return repr(value) if isinstance(value, int) else f"{value:.6g}"
