"""Findings as tables: rows of plain values, and rows as Markdown, CSV and JSON."""

import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from morphogen.schemas import TrialFinished, jsonable

from .gather import Findings, Sweep, Trace

Row = Mapping[str, Any]


def trial_rows(sweep: Sweep) -> list[Row]:
    """Return a row for each trial: number, state, parameters, the median, the spread of the repeats, the reason."""
    return [
        {
            "trial": one.number,
            "state": one.state,
            **{name: one.config.get(name) for name in sweep.parameters},
            sweep.started.metric: one.value,
            "lowest": min(one.values, default=None),
            "highest": max(one.values, default=None),
            "repeats": len(one.values),
            "seconds": one.seconds,
            "reason": one.reason,
        }
        for one in sweep.trials
    ]


def item_rows(items: Sequence[Trace]) -> list[Row]:
    """Return a row for each trace item; all fields of all cases, with the case first."""
    names = list(dict.fromkeys(name for one in items for name in one.fields))
    cases = len({one.case for one in items}) > 1
    return [
        {
            **({"case": one.case} if cases else {}),
            **{name: one.fields.get(name) for name in names},
            "origin": one.origin,
            "source": one.source,
        }
        for one in items
    ]


def ranked(sweep: Sweep) -> list[TrialFinished]:
    """Return the trials that measured well, the best median first."""
    good = [one for one in sweep.trials if one.state == "measured" and one.value is not None]
    return sorted(good, key=lambda one: one.value or 0.0, reverse=sweep.maximize)


def by_parameter(sweep: Sweep, name: str) -> list[Row]:
    """Return what each value of a parameter gave: how many trials with a number, pruned ones too, their median and best."""
    groups: dict[str, tuple[Any, list[float]]] = {}
    for one in sweep.trials:
        if one.value is not None:
            value = one.config.get(name)
            groups.setdefault(json.dumps(value, sort_keys=True), (value, []))[1].append(one.value)
    best = max if sweep.maximize else min
    rows = [
        {name: value, "trials": len(found), "median": statistics.median(found), "best": best(found)}
        for value, found in groups.values()
    ]
    numbers = all(isinstance(row[name], int | float) for row in rows)
    return sorted(rows, key=lambda row: row[name] if numbers else str(row[name]))


def rows_of(findings: Findings) -> list[Row]:
    """Return the rows that a run is best shown by: its trials where it swept, else its trace items."""
    if findings.sweeps:
        several = len(findings.sweeps) > 1
        return [
            {**({"sweep": sweep.started.sweep} if several else {}), **row}
            for sweep in findings.sweeps
            for row in trial_rows(sweep)
        ]
    return item_rows(findings.items)


def markdown(rows: Sequence[Row], *, empty: str = "Nothing was recorded.") -> str:
    """Return rows as a Markdown table; columns in which every row is empty are left out."""
    if not rows:
        return f"{empty}\n"
    names = [name for name in _names(rows) if any(row.get(name) not in (None, "") for row in rows)]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    lines = [
        "| " + " | ".join(map(_cell, names)) + " |",
        "|" + "|".join("---:" if numeric else "---" for numeric in right) + "|",
        *("| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def csv_text(rows: Sequence[Row]) -> str:
    """Return rows as CSV with a header; numbers in full, lists and maps as JSON, nothing for unknown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = _names(rows)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_field(row.get(name)) for name in names])
    return out.getvalue()


def json_lines(value: Any) -> str:
    """Return a value as indented JSON."""
    return json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n"


def shown(value: Any) -> str:
    """Return a value as a reader wants it: four significant digits of a fraction, all of a whole number."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return str(value) if isinstance(value, int) else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)


def _cell(value: Any) -> str:
    text = shown(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, list | dict) else value


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
