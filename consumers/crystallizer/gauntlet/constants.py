"""Constants that come from the clock: a date in a tool's text that no recording gives is the day of the recording.

Such a tool repeats what it saw for as long as it is replayed on executions of the same day, and is wrong the day after.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

_DATE = re.compile(r"(?<!\d)(\d{4})[-/.]?(\d{2})[-/.]?(\d{2})(?!\d)")
_OTHER_DATE = re.compile(r"(?<!\d)(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})(?!\d)")
_YEAR = re.compile(r"(?<!\d)((?:19|20)\d{2})(?!\d)")
_NAMES = re.compile(
    r"(?i)\b(monday|tuesday|wednesday|thursday|friday|saturday|sunday|january|february|march|april|june|july|august|"
    r"september|october|november|december)\b"
)
_NEAR = timedelta(days=2)


def of_the_clock(tree: ast.Module, times_ns: Iterable[int], recorded: Sequence[Any]) -> str | None:
    """Say which constant of a text looks like the time of its recordings; None where none does.

    `times_ns` is when they were recorded (unix ns; those of 0 are not known), `recorded` what gives constants a right to be
    there: the goal, the parameters, what the tools answered.
    """
    days = {datetime.fromtimestamp(one / 1e9, UTC).date() for one in times_ns if one > 0}
    known = list(_texts(recorded))
    names: set[str] = set()
    for value in _constants(tree):
        found = _suspect(value, days)
        if found is not None and not any(found in text for text in known):
            return found
        if isinstance(value, str):
            names |= {name.lower() for name in _NAMES.findall(value)}
    if 0 < len(names) < 5:  # more of them are a calendar
        for name in sorted(names & {one for day in days for one in _named(day)}):
            if not any(name in text.lower() for text in known):
                return name
    return None


def _suspect(value: Any, days: set[date]) -> str | None:
    if isinstance(value, str):
        for match in (*_DATE.finditer(value), *_OTHER_DATE.finditer(value)):
            found = _date(match)
            if found is not None and _near(found, days):
                return match.group()
        for match in _YEAR.finditer(value):
            if any(day.year == int(match.group()) for day in days):
                return match.group()
    elif type(value) in {int, float}:
        if any(
            value == day.year or abs(value - day.toordinal()) <= 2 or abs(value - _since_1970(day)) <= 2 for day in days
        ):
            return str(value)
        for scale in (1, 1_000, 1_000_000, 1_000_000_000):
            seconds = value / scale
            if 946_684_800 <= seconds < 4_102_444_800 and _near(datetime.fromtimestamp(seconds, UTC).date(), days):
                return str(value)
    return None


def _since_1970(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()


def _near(found: date, days: set[date]) -> bool:
    """Whether a date is about that of a recording; any date is where nobody knows when they were made."""
    return not days or any(abs(found - day) <= _NEAR for day in days)


def _date(match: re.Match[str]) -> date | None:
    first, second, third = (int(part) for part in match.groups())
    for year, month, day in ((first, second, third), (third, second, first), (third, first, second)):
        try:
            if 1990 <= year <= 2100:
                return date(year, month, day)
        except ValueError:
            continue
    return None


def _named(day: date) -> tuple[str, str]:
    return day.strftime("%A").lower(), day.strftime("%B").lower()


def _constants(tree: ast.Module) -> Iterator[Any]:
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in told:
            yield node.value


def _texts(values: Iterable[Any]) -> Iterator[str]:
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, bytes):
            yield value.decode("utf-8", "replace")
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        elif value is not None:
            yield str(value)
