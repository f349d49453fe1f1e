"""Worlds that were not recorded and might have been: the recorded values with their parts in other places.

They tell two expressions that only happened to agree from two that mean the same: what differs in none of them is one thing.
The dice are seeded, so the same examples give the same worlds.
"""

import json
import random
import re
from collections.abc import Sequence
from typing import Any

_DIGITS = re.compile(r"\d+")
_MARKS = (",", "\t", ";", "|")
_MOST = 60  # items and lines of one value that are gone on with


def worlds(sources: Sequence[tuple[str, Sequence[Any]]], count: int) -> list[dict[str, Any]]:
    """Return `count` scopes: for each name a value like those that were recorded under it."""
    found = []
    for number in range(count):
        dice = random.Random(f"world {number}")  # noqa: S311 - no secret
        found.append({name: _other(dice, values[number % len(values)], values) for name, values in sources if values})
    return found


def _other(dice: random.Random, value: Any, alike: Sequence[Any]) -> Any:
    """Return a value of the same form; `alike` are values that stood in its place."""
    if isinstance(value, bool) or value is None:
        return dice.choice(list(alike))
    if isinstance(value, int):
        return dice.choice([dice.randint(0, 2 * abs(value) + 5), dice.choice(list(alike))])
    if isinstance(value, float):
        return round(dice.uniform(0.0, 2.0 * abs(value) + 1.0), 4)
    if isinstance(value, str):
        return _text(dice, value, alike)
    if isinstance(value, dict):
        held = [one for one in alike if isinstance(one, dict)]
        return {
            key: _other(dice, item, [one[key] for one in held if key in one] or [item]) for key, item in value.items()
        }
    return _items(dice, value) if isinstance(value, list) else value


def _items(dice: random.Random, value: list[Any]) -> list[Any]:
    """Return more or fewer items: of records and rows each column is drawn for itself, of plain values each one."""
    if not value:
        return []
    value = value[:_MOST]
    count = dice.randint(1, 2 * len(value) + 1)
    return [_other(dice, one, value) for one in (dice.choice(value) for _ in range(count))] if not isinstance(
        value[0], list
    ) else [
        [_other(dice, cell, [other[place] for other in value if isinstance(other, list) and len(other) > place] or [cell])
         for place, cell in enumerate(one)]
        for one in (dice.choice(value) for _ in range(count)) if isinstance(one, list)
    ]  # fmt: skip


def _text(dice: random.Random, value: str, alike: Sequence[Any]) -> str:
    if value[:1] in ("{", "["):
        try:
            held = [json.loads(one) for one in alike if isinstance(one, str) and one[:1] == value[:1]]
            return json.dumps(_other(dice, json.loads(value), held))
        except ValueError:
            pass
    if "\n" in value.strip():
        return _document(dice, value)
    if dice.random() < 0.4:
        return str(dice.choice([one for one in alike if isinstance(one, str)] or [value]))
    return _word(dice, value)


def _word(dice: random.Random, value: str) -> str:
    """Return a text with other digits, as many as there were."""
    return _DIGITS.sub(lambda at: "".join(dice.choice("123456789") for _ in at.group()), value)


def _document(dice: random.Random, value: str) -> str:
    lines = value.splitlines()[: _MOST + 1]
    for mark in _MARKS:
        if mark in lines[0] and len({line.count(mark) for line in lines}) == 1:
            rows = [line.split(mark) for line in lines[1:]]
            return "\n".join([lines[0], *(mark.join(row) for row in _rows(dice, rows))]) + "\n"
    if dice.random() < 0.5:  # as many lines, other numbers: a text that names values keeps its names
        return "\n".join(_word(dice, line) for line in lines) + "\n"
    rows = [line.split(" ") for line in lines]
    return "\n".join(" ".join(row) for row in _rows(dice, rows)) + "\n"


def _rows(dice: random.Random, rows: Sequence[list[str]]) -> list[list[str]]:
    """Return more or fewer rows, each cell drawn from its column, with other digits half of the time."""
    if not rows:
        return []
    found = []
    for _ in range(dice.randint(1, 2 * len(rows) + 1)):
        width = len(dice.choice(list(rows)))
        fitting = [row for row in rows if len(row) == width]
        cells = [dice.choice(fitting)[place] for place in range(width)]
        found.append([_word(dice, cell) if "." in cell or dice.random() < 0.5 else cell for cell in cells])
    return found
