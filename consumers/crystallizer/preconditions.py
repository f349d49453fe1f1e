"""What the recorded parameters of a family had in common: the domain for which a tool made of them has been proven.

A value that never varied is a constant of the recordings, whatever the tool makes of it, so it is asked for again. Where the
recorded values look like all there are (by Good and Turing's estimate of what is unseen, from those seen once: Good 1953), they are
an enumeration; numbers keep to their range, widened a little at its ends: by twice the expected gap between recorded values, and
by no larger part of the end itself; text to its form. Parameters
that went together in every recording (equal, a fixed number apart, one inside the other) must go together again.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from morphogen.kernels.sandbox import value_sha256
from morphogen.schemas.crystals import Guard
from morphogen.schemas.values import INT_MAX, INT_MIN

UNSEEN = 0.1  # the estimated chance of a value not seen before, up to which the recorded ones are taken for all
_SHOWN = 400  # characters of a value that a guard tells; larger ones are told by their hash
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
FORMS = {
    "date": re.compile(r"\d{4}-\d{2}-\d{2}\Z"),
    "time": re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?.*\Z"),
    "digits": re.compile(r"\d+\Z"),
    "number": re.compile(r"[+-]?\d+(\.\d+)?\Z"),
    "slug": re.compile(r"[a-z0-9][a-z0-9._/-]*\Z"),
    "word": re.compile(r"\S+\Z"),
    "line": re.compile(r"(?=[^\n\r]*\S)[^\n\r]+\Z"),
}


def domain(name: str, values: Sequence[Any]) -> Guard | None:
    """Return the precondition on one parameter, from its recorded values; None where nothing holds of all of them."""
    expected = _domain(values)
    return Guard(kind="precondition", subject=name, expected=expected) if expected else None


def _domain(values: Sequence[Any]) -> dict[str, Any]:
    if not values:
        return {}
    counts = Counter(value_sha256(value) for value in values)
    single = sum(1 for count in counts.values() if count == 1)
    known_all = single / len(values) <= UNSEEN and 2 * len(counts) <= len(values)
    if len(counts) == 1 or known_all or all(isinstance(value, bool) for value in values):
        return _one_of(values)
    if all(type(value) in {int, float} for value in values):
        return _range(values)
    if all(isinstance(value, str) for value in values):
        return _form(values)
    if all(isinstance(value, list | dict) for value in values) and all(values):
        return {"not_empty": True}
    return {}


def _one_of(values: Sequence[Any]) -> dict[str, Any]:
    distinct = {value_sha256(value): value for value in values}
    if sum(len(repr(value)) for value in distinct.values()) <= _SHOWN:
        return {"one_of": [distinct[key] for key in sorted(distinct)]}
    return {"one_of_sha256": sorted(distinct)}


def _range(values: Sequence[float]) -> dict[str, Any]:
    if not all(math.isfinite(value) for value in values):
        return {}
    low, high = min(values), max(values)
    whole = all(type(value) is int for value in values)
    below = _outward(low, high - low, len(values), -1, whole)
    above = _outward(high, high - low, len(values), 1, whole)
    return {"minimum": below, "maximum": above}


def _outward(edge: float, span: float, count: int, sign: int, whole: bool) -> float:
    """Return the widened edge of a range: never past 0, nor to it where it was not seen; integers stay exact."""
    room = min(span, abs(edge))
    wide = edge + sign * (-(-2 * room // count) if whole else room * (2 / count))
    if edge * sign < 0 and wide * sign >= 0:  # all values lie on the far side of 0
        return -sign if whole else edge / 2
    if whole:
        return min(max(wide, INT_MIN), INT_MAX)
    return wide if wide * sign > edge * sign else edge


def _form(values: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    form = next((name for name, pattern in FORMS.items() if all(pattern.match(value) for value in values)), None)
    if form is not None:
        out["form"] = form
    suffixes = {found.group() if (found := _SUFFIX.search(value)) else "" for value in values}
    if len(suffixes) == 1 and form in {"slug", "word", "line"} and suffixes != {""}:
        out["suffix"] = suffixes.pop()
    return out


def relations(columns: Mapping[str, Sequence[Any]]) -> list[Guard]:
    """Return how parameters went together in every recording. `columns` are their values, one for each recording."""
    varied = [name for name, values in columns.items() if len({value_sha256(value) for value in values}) > 1]
    out: list[Guard] = []
    for at, one in enumerate(sorted(varied)):
        for other in sorted(varied)[at + 1 :]:
            expected = _relation(columns[one], columns[other])
            if expected is not None:
                out.append(Guard(kind="precondition", subject=one, expected={**expected, "of": other}))
            elif (turned := _relation(columns[other], columns[one])) is not None:
                out.append(Guard(kind="precondition", subject=other, expected={**turned, "of": one}))
    return out


def _relation(values: Sequence[Any], others: Sequence[Any]) -> dict[str, Any] | None:
    pairs = list(zip(values, others, strict=True))
    if all(value_sha256(value) == value_sha256(other) for value, other in pairs):
        return {"equals": True}
    if all(type(item) in {int, float} for pair in pairs for item in pair):
        apart = {value - other for value, other in pairs}
        return {"apart": apart.pop()} if len(apart) == 1 and INT_MIN <= min(apart) <= INT_MAX else None
    if all(isinstance(item, str) for pair in pairs for item in pair):
        around = {_around(value, other) for value, other in pairs}
        found = around.pop()
        return None if around or found is None else {"before": found[0], "after": found[1]}
    return None


def _around(value: str, other: str) -> tuple[str, str] | None:
    before, inside, after = value.partition(other) if other else (value, "", "")
    return (before, after) if inside else None


_SHAPES: dict[str, type | tuple[type, ...]] = {
    "one_of": list, "one_of_sha256": list, "minimum": (int, float), "maximum": (int, float), "form": str, "suffix": str,
    "not_empty": bool, "equals": bool, "apart": (int, float), "before": str, "after": str, "of": str,
}  # fmt: skip


def malformed(expected: Any) -> str | None:
    """Say why a condition is none that `broken` could check; None where it is one."""
    if not isinstance(expected, Mapping):
        return "a condition is a mapping"
    for key, value in expected.items():
        if key not in _SHAPES or not isinstance(value, _SHAPES[key]):
            return f"the condition {str(key)[:40]!r} is not known here"
    return None


def broken(expected: Mapping[str, Any], value: Any, params: Mapping[str, Any]) -> str | None:
    """Say how a parameter breaks its precondition; None where it holds. A condition that is not known does not hold."""
    for key, wanted in expected.items():
        match key:
            case "one_of":
                held = any(value_sha256(value) == value_sha256(one) for one in wanted)
                why = f"{_shown(value)} is none of the recorded values"
            case "one_of_sha256":
                held, why = value_sha256(value) in wanted, f"{_shown(value)} is none of the recorded values"
            case "minimum":
                held, why = _number(value) and value >= wanted, f"{_shown(value)} is below {wanted:g}"
            case "maximum":
                held, why = _number(value) and value <= wanted, f"{_shown(value)} is above {wanted:g}"
            case "form":
                pattern = FORMS.get(wanted)
                held = isinstance(value, str) and pattern is not None and pattern.match(value) is not None
                why = f"{_shown(value)} is no {wanted}"
            case "suffix":
                held, why = isinstance(value, str) and value.endswith(wanted), f"{_shown(value)} is no {wanted}"
            case "not_empty":
                held, why = bool(value), "it is empty"
            case "equals" | "apart" | "before" | "after":
                held, why = _together(expected, value, params)
            case "of":
                continue
            case _:
                held, why = False, f"the condition {key!r} is not known here"
        if not held:
            return why
    return None


def _together(expected: Mapping[str, Any], value: Any, params: Mapping[str, Any]) -> tuple[bool, str]:
    name = str(expected.get("of"))
    other = params.get(name)
    if "equals" in expected:
        return value_sha256(value) == value_sha256(other), f"{_shown(value)} is not that of {name}"
    if "apart" in expected:
        held = _number(value) and _number(other) and value - other == expected["apart"]
        return held, f"{_shown(value)} is not {name} and {expected['apart']:g}"
    before, after = str(expected.get("before", "")), str(expected.get("after", ""))
    held = isinstance(other, str) and value == f"{before}{other}{after}"
    return held, f"{_shown(value)} is not {before}{{{name}}}{after}"


def _number(value: Any) -> bool:
    return type(value) in {int, float}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
