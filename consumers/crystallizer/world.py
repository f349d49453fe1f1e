"""What the recorded world had in common: answers of tools that were the same in every recording, and must be so again.

A tool that was made while a rate stood at 0.2 may have the 0.2 in its text. The recordings cannot tell whether it reads it,
so the sameness itself becomes a guard: the whole answer where it never differed, else the parts of it (values under a
key, a table's columns and a column that held one value) that never did. Numbers keep their sign and their scale, which a
change of unit does not, and what was never empty is not to be. A *site* is a use of a capability with the
parameters of the goal taken out of its arguments, so that one place in the course is known again from call to call.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from morphogen.kernels.sandbox import value_sha256
from morphogen.schemas.crystals import Guard

from .tape import Recorded

_LONGEST = 200  # characters of a text that is told; longer ones are told by their hash
_LARGEST = 256 << 10  # characters of a text that is read as a table or as JSON
_DEEPEST = 5
_PARTS = 16  # guards for one site
_SCALE = 100
_LONG = 3  # characters from which a text is known again inside of another; a shorter one must stand apart
_APART = r"(?<![A-Za-z0-9{{]){}(?![A-Za-z0-9}}])"
_ENOUGH = 5  # different numbers from which a range is taken
_SEPARATORS = ",;\t|"
_ROWS = "[]"

Path = tuple[str, ...]


def site(args: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Return the arguments of a use as text, with what stands for a parameter's value named `{parameter}`."""
    return json.dumps(_abstract(args, params), sort_keys=True, default=repr)


def _abstract(value: Any, params: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _abstract(item, params) for key, item in value.items()}
    if isinstance(value, list | tuple):
        found = next((name for name in sorted(params) if _same(params[name], value)), None)
        return f"{{{found}}}" if found is not None else [_abstract(item, params) for item in value]
    for name in sorted(params):
        if _same(params[name], value) and not isinstance(value, bool) and value is not None:
            return f"{{{name}}}"
    if isinstance(value, str):
        texts = [(str(one), name) for name, one in params.items() if isinstance(one, str | int) and str(one)]
        for text, name in sorted(texts, key=lambda pair: (-len(pair[0]), pair[1])):
            if len(text) >= _LONG:
                value = value.replace(text, f"{{{name}}}")
            else:
                value = re.sub(_APART.format(re.escape(text)), f"{{{name}}}", value)
    return value


def asked_of(guard: Guard, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of what is asked before a call for this guard; None where nothing is."""
    template = guard.expected.get("ask") if isinstance(guard.expected, Mapping) else None
    return None if template is None else _concrete(json.loads(template), params)


def sentinel(name: str, uses: Sequence[tuple[Mapping[str, Any], Recorded]]) -> Guard | None:
    """Return the guard of a read that a tool leaves out: it is asked before each call, and must give what it always gave.

    `uses` are all recorded uses at one site, each with the parameters of its execution. None where they cannot be asked again:
    the arguments do not follow from the parameters, or the answers differ.
    """
    where = site(uses[0][1].args, uses[0][0])
    answers = {value_sha256(step.result): step.result for _, step in uses}
    if len(answers) != 1:
        return None
    for params, step in uses:
        if _concrete(json.loads(where), params) != dict(step.args):
            return None
    digest, value = answers.popitem()
    expected = {"site": where, "ask": where, "result_sha256": digest, "shown": _shown(value)}
    return Guard(kind="world", subject=name, expected=expected)


def _concrete(value: Any, params: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _concrete(item, params) for key, item in value.items()}
    if isinstance(value, list):
        return [_concrete(item, params) for item in value]
    if not isinstance(value, str):
        return value
    whole = next((name for name in params if value == f"{{{name}}}"), None)
    if whole is not None:
        return params[whole]
    for name, one in params.items():
        value = value.replace(f"{{{name}}}", str(one))
    return value


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


@dataclass
class _Site:
    traces: set[int] = field(default_factory=set)
    results: dict[str, Any] = field(default_factory=dict)  # by hash
    count: int = 0


def derive(courses: Sequence[tuple[Mapping[str, Any], Sequence[Recorded]]], names: frozenset[str]) -> list[Guard]:
    """Return the guards of the world, from (parameters, uses of tools) of each recording; only of capabilities in `names`."""
    sites: dict[tuple[str, str], _Site] = {}
    for at, (params, steps) in enumerate(courses):
        for step in steps:
            if step.name not in names or not step.ok or (step.result is None and step.effect == "write"):
                continue
            for key in ((step.name, site(step.args, params)), (step.name, "*")):
                one = sites.setdefault(key, _Site())
                one.traces.add(at)
                one.count += 1
                one.results.setdefault(value_sha256(step.result), step.result)
    out: list[Guard] = []
    told: set[tuple[str, str]] = set()
    for (name, where), one in sorted(sites.items(), key=lambda pair: (pair[0][1] == "*", pair[0])):
        if len(one.traces) < len(courses):
            continue  # not in every recording
        for expected in _constants(one):
            key = (name, json.dumps(expected, sort_keys=True, default=repr))
            if key not in told:  # what holds at one site is not said again of all of them
                told.add(key)
                out.append(Guard(kind="world", subject=name, expected={"site": where, **expected}))
    return out


def _constants(one: _Site) -> Iterator[dict[str, Any]]:
    if len(one.results) == 1:
        digest, value = next(iter(one.results.items()))
        yield {"result_sha256": digest, "shown": _shown(value)}
        return
    if all(isinstance(value, str | bytes | list | dict) and value for value in one.results.values()):
        yield {"not_empty": True}
    shapes = [structure(value) for value in one.results.values()]
    columns = {_columns(shape) for shape in shapes}
    if len(columns) == 1 and (only := columns.pop()) is not None:
        separators = {_separator(value) for value in one.results.values()}
        yield {"columns": list(only), "separator": separators.pop() if len(separators) == 1 else ""}
    found = [_leaves(shape) for shape in shapes]
    common = set(found[0]).intersection(*found[1:]) if found else set()
    told = 0
    for path in sorted(common):
        values = set().union(*(one_found[path] for one_found in found))
        if path and len(values) == 1 and told < _PARTS:
            told += 1
            yield {"path": list(path), "value_sha256": values.pop()}
    for path, found_numbers in sorted(_numbers(shapes).items()):
        if len(found_numbers) >= _ENOUGH and told < _PARTS:
            told += 1
            yield {
                "path": list(path),
                "minimum": _far(min(found_numbers), -1),
                "maximum": _far(max(found_numbers), 1),
            }


def _far(edge: float, sign: int) -> float:
    """Return a bound that a change of scale crosses and growth does not: a hundred times as far out, or as near to 0."""
    return edge * _SCALE if edge * sign > 0 else edge / _SCALE


def structure(result: Any) -> Any:
    """Return what a text holds, where it is JSON, lines of JSON, or a table with a head; any other result is itself."""
    if not isinstance(result, str) or not 2 <= len(result) <= _LARGEST:
        return result
    text = result.strip()
    if text[:1] in {"{", "["}:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            return result
    return _table(text) or result


def _separator(result: Any) -> str:
    """Return what parts the columns of a table's first line, or nothing."""
    head = result.strip().partition("\n")[0] if isinstance(result, str) else ""
    return next((one for one in _SEPARATORS if one in head and head[:1] not in {"{", "["}), "")


def _table(text: str) -> list[dict[str, Any]] | None:
    lines, separator = text.splitlines(), _separator(text)
    if not separator or len(lines) < 2:
        return None
    try:
        head, *rows = list(csv.reader(lines, delimiter=separator))
    except csv.Error:
        return None
    if len(set(head)) != len(head) or not rows or any(len(row) != len(head) for row in rows):
        return None
    return [dict(zip(head, row, strict=True)) for row in rows]


def _columns(shape: Any) -> tuple[str, ...] | None:
    if not isinstance(shape, list) or not shape or not all(isinstance(row, dict) for row in shape):
        return None
    heads = {tuple(str(key) for key in row) for row in shape}
    return heads.pop() if len(heads) == 1 else None


def _leaves(shape: Any) -> dict[Path, set[str]]:
    """Return the hashes of the scalars by their path."""
    out: dict[Path, set[str]] = {}
    for path, value in _scalars(shape):
        out.setdefault(path, set()).add(_leaf_sha256(value))
    return out


def _leaf_sha256(value: Any) -> str:
    """Return the hash of a scalar. What a text spells may be no value that crosses: a number of 128 bits, half a character."""
    try:
        return value_sha256(value)
    except (OverflowError, UnicodeEncodeError):
        return value_sha256([type(value).__name__, ascii(value)])


def _scalars(shape: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the scalars of a value with their path through keys; all items of a list share the path `[]`."""
    waiting: list[tuple[Path, Any]] = [((), shape)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Mapping) and len(path) < _DEEPEST:
            waiting += [((*path, str(key)), item) for key, item in value.items()]
        elif isinstance(value, list | tuple) and len(path) < _DEEPEST:
            waiting += [((*path, _ROWS), item) for item in value]
        elif value is None or isinstance(value, bool | int | float | str | bytes):
            yield path, value


def _at(shape: Any, path: Path) -> list[Any]:
    """Return what `_scalars` yields for one path, without walking the others."""
    values = [shape] if len(path) <= _DEEPEST else []
    for part in path:
        below: list[Any] = []
        for value in values:
            if isinstance(value, Mapping):
                below += [item for key, item in value.items() if str(key) == part]
            elif isinstance(value, list | tuple) and part == _ROWS:
                below += value
        values = below
    return [one for one in values if one is None or isinstance(one, bool | int | float | str | bytes)]


def malformed(expected: Any) -> str | None:
    """Say why an expectation of the world is none that `broken` could check; None where it is one."""
    if not isinstance(expected, Mapping) or not isinstance(expected.get("site"), str):
        return "what is expected of the world names no site"
    texts = all(
        isinstance(expected.get(key, ""), str) for key in ("result_sha256", "shown", "value_sha256", "separator")
    )
    lists = all(
        isinstance(found, list | tuple) and all(isinstance(part, str) for part in found)
        for found in (expected.get("columns", []), expected.get("path", []))
    )
    kinds = [key for key in ("result_sha256", "columns", "not_empty", "path") if key in expected]
    numbers = [key for key in ("minimum", "maximum") if isinstance(expected.get(key), int | float)]
    whole = len(kinds) == 1 and (kinds == ["path"]) == ("value_sha256" in expected or len(numbers) == 2)
    if not texts or not lists or not whole:
        return "what is expected of the world is not known here"
    if "ask" not in expected:
        return None
    try:
        return None if isinstance(json.loads(expected["ask"]), dict) else "what is asked has no arguments"
    except (TypeError, ValueError, RecursionError):
        return "what is asked is no JSON"


def _numbers(shapes: Sequence[Any]) -> dict[Path, set[float]]:
    """Return the different numbers at each path where there is nothing but numbers, in whatever spelling."""
    out: dict[Path, set[float]] = {}
    no: set[Path] = set()
    for shape in shapes:
        for path, value in _scalars(shape):
            number = _number(value)
            if number is None or not path:
                no.add(path)
            else:
                out.setdefault(path, set()).add(number)
    return {path: values for path, values in out.items() if path not in no}


def _number(value: Any) -> float | None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | str)
        or (isinstance(value, str) and len(value) > 40)
    ):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def broken(
    guards: Sequence[Guard], name: str, args: Mapping[str, Any], result: Any, params: Mapping[str, Any]
) -> tuple[Guard, str] | None:
    """Return the first guard that an answer of the world breaks, and how; None where all hold. Never raises."""
    mine = [one for one in guards if one.kind == "world" and one.subject == name]
    try:
        return _first_broken(mine, name, args, result, params) if mine else None
    except Exception as error:  # noqa: BLE001  whatever the world answered, it is not what was recorded
        return mine[0], f"{name} gives what cannot be held against a guard ({type(error).__name__})"


def _first_broken(
    mine: Sequence[Guard], name: str, args: Mapping[str, Any], result: Any, params: Mapping[str, Any]
) -> tuple[Guard, str] | None:
    where, shape = site(args, params), None
    for one in mine:
        expected = one.expected
        if expected["site"] not in {where, "*"}:
            continue
        if shape is None and ("columns" in expected or "path" in expected):
            shape = structure(result)
            if isinstance(shape, dict) and isinstance(result, str) and _of_rows(mine):
                shape = [shape]  # one line of JSON, where lines of it were recorded
        why = _departs(expected, result, shape)
        if why is not None:
            return one, f"{name} gives {why}"
    return None


def _departs(expected: Mapping[str, Any], result: Any, shape: Any) -> str | None:
    """Say how an answer differs from what one guard expects of it; None where it does not."""
    if "result_sha256" in expected:
        same = value_sha256(result) == expected["result_sha256"]
        return None if same else f"{_shown(result)}, and gave {expected.get('shown')} in every recording"
    if "not_empty" in expected:
        return None if result else "nothing, and never did"
    if "columns" in expected:
        found, separator = _columns(shape), _separator(result)
        same = found is not None and list(found) == list(expected["columns"])
        same = same and separator == (expected.get("separator") or separator)
        return None if same else f"other columns than {', '.join(expected['columns'])[:120]}"
    path = tuple(expected["path"])
    place = ".".join(path)[:80]
    values = _at(shape, path)
    if "minimum" in expected:
        odd = next((item for item in values if not _within(item, expected)), None)
        return None if odd is None else f"{_shown(odd)} for {place}, far from what was recorded"
    other = next((item for item in values if _leaf_sha256(item) != expected["value_sha256"]), None)
    if other is not None or (not values and _ROWS not in path):
        return f"{_shown(other)} for {place}, which was the same in every recording"
    return None


def _within(value: Any, expected: Mapping[str, Any]) -> bool:
    number = _number(value)
    return number is not None and expected["minimum"] <= number <= expected["maximum"]


def _of_rows(guards: Sequence[Guard]) -> bool:
    """Tell whether guards are of answers that were lists of rows."""
    return any("columns" in one.expected or list(one.expected.get("path", ()))[:1] == [_ROWS] for one in guards)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
