"""One measurement, from what a program said to a number and trace items.

A program says what it measured on its standard output: a line `MORPHOGEN_TRACE {"case": "Performance", ...}` an item, or
one JSON object with the metric in it. A Python tool returns a number, a map of fields, a map of cases to such maps, or a
list of items that each name their `case`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.schemas.knowledge import tree

from .space import Config

MARK = "MORPHOGEN_TRACE"
MEASURED = "measured"
ORIGINS = (MEASURED, "simulated", "projected")
_LINE = re.compile(rf"^\s*{MARK}\s+(.*)$", re.MULTILINE)
_SHOWN = 160


class TrialFailed(Exception):
    """This configuration could not be measured; the text says why."""


@dataclass(frozen=True)
class Said:
    """Something that a program said of its measurement; `case` is None where it did not name one.

    `origin` is measured, simulated or projected: only what was measured counts.
    """

    case: str | None
    values: Mapping[str, Any]
    origin: str = MEASURED


@dataclass(frozen=True)
class Reading:
    """One measurement: the metric, the trace items, and how long the measured program took, in seconds."""

    value: float
    items: tuple[Said, ...]
    seconds: float


@dataclass(frozen=True)
class Yardstick:
    """Where the metric is found, and which fields each case has."""

    case: str | None
    field: str
    cases: Mapping[str, Sequence[tree.FieldDecl]]

    def read(self, said: Sequence[Said], config: Config, seconds: float) -> Reading:
        """Return the metric and the items among what was said. Raises TrialFailed where there is no number.

        A field that the program left out and that is called as a parameter is that parameter.
        """
        items: list[Said] = []
        value: Any = None
        found, origin = False, MEASURED
        for one in said:
            case = one.case.rpartition(".")[2] if one.case else self._case_of(one, config)
            if case is not None and self.cases and case not in self.cases:
                raise TrialFailed(f"the output names case {case}, which the program does not declare")
            filled = dict(one.values)
            for name in self._fields(case):
                if name not in filled and name in config:
                    filled[name] = config[name]
            if case is not None and case in self.cases:
                items.append(Said(case, filled, one.origin))
            if self.field in one.values and (self.case is None or case in (None, self.case)):
                found, value, origin = True, one.values[self.field], one.origin
        metric = self.field if self.case is None else f"{self.case}.{self.field}"
        if not found:
            name = metric.rpartition(".")[2]
            raise TrialFailed(f'the output holds no {metric}: print a line of JSON such as {{"{name}": 1.5}}')
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TrialFailed(f"{metric} is {value!r}, which is no number")
        if not _is_finite(value):
            raise TrialFailed(f"{metric} is {str(value) if isinstance(value, float) else 'too large a number'}")
        if origin != MEASURED:
            raise TrialFailed(f"{metric} is {origin}, and only what was measured counts")
        return Reading(float(value), tuple(items), seconds)

    def _fields(self, case: str | None) -> list[str]:
        return [each.name for each in self.cases.get(case or "", ())]

    def _case_of(self, one: Said, config: Config) -> str | None:
        """Return the metric's case for an item that names none, where everything that the case needs is there."""
        declared = self.cases.get(self.case or "")
        if declared is None or self.field not in one.values:
            return None
        needed = {each.name for each in declared if not isinstance(each.type, tree.OptionalType)}
        names = {each.name for each in declared}
        return self.case if needed <= {*one.values, *config} and set(one.values) <= names else None


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def said_on(output: str) -> list[Said]:
    """Return what a program said on its standard output. Raises TrialFailed for a trace line that is no JSON object.

    Where there are no trace lines, the last line that is a JSON object counts, else the whole output if it is one.
    """
    lines = _LINE.findall(output)
    if lines:
        return [_item(line) for line in lines]
    for text in (*reversed(output.splitlines()), output):
        if text.lstrip().startswith("{"):
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return said_by(found)
    return []


def said_by(result: Any, field: str | None = None) -> list[Said]:
    """Return what a Python tool said by what it returned. Raises TrialFailed where it is nothing of the kind."""
    if isinstance(result, int | float) and not isinstance(result, bool) and field is not None:
        return [Said(None, {field: result})]
    if isinstance(result, Mapping):
        if result and all(isinstance(value, Mapping) for value in result.values()):
            return [_named({**value, "case": str(case)}) for case, value in result.items()]
        return [_named(result)]
    if isinstance(result, list | tuple) and all(isinstance(one, Mapping) for one in result):
        return [_named(one) for one in result]
    raise TrialFailed(
        f"the tool returned {str(result)[:_SHOWN]!r}: return a number, a map of fields, or a list of such maps"
    )


def _item(line: str) -> Said:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrialFailed(f"a {MARK} line is no JSON ({error}): {line[:_SHOWN]}") from None
    if not isinstance(found, dict) or not isinstance(found.get("case"), str):
        raise TrialFailed(f'a {MARK} line is an object with a "case": {line[:_SHOWN]}')
    return _named(found)


def _named(values: Mapping[str, Any]) -> Said:
    case, origin = values.get("case"), values.get("origin", MEASURED)
    if origin not in ORIGINS:
        raise TrialFailed(f"origin is one of {', '.join(ORIGINS)}, not {origin!r}")
    fields = {name: value for name, value in values.items() if name not in ("case", "origin")}
    return Said(case if isinstance(case, str) else None, fields, origin)
