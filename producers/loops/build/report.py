"""The report of a run: every sentence and number of it comes from what was recorded.

Nothing is concluded here that was not measured: where a comparison was never made, its line is missing.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from .gather import Findings, Fired, Held, Sweep, Trace
from .tables import Row, by_parameter, item_rows, markdown, ranked, shown, trial_rows

Draw = Callable[[str, Sweep], str | None]
"""Draws a picture (`best` or `parameters`) of a sweep and returns its file's name, None where it cannot be drawn."""

_SHOWN = 10


def report(findings: Findings, *, title: str, draw: Draw) -> str:
    """Return the report as Markdown; `draw` is asked for its pictures."""
    parts = [f"# {title}\n", _provenance(findings)]
    for sweep in findings.sweeps:
        parts += _sweep(sweep, findings, draw)
    if not findings.sweeps and findings.items:
        parts += ["## Trace\n", markdown(item_rows(findings.items))]
    parts += [_facts(findings.facts), _rules(findings.rules)]
    return "\n".join(part for part in parts if part)


def _provenance(findings: Findings) -> str:
    hosts = sorted({one.host for sweep in findings.sweeps for one in sweep.trials if one.host})
    rows: list[Row] = [
        {"": "run", "value": findings.run},
        {"": "loop", "value": findings.loop},
        {"": "program", "value": f"sha256 {findings.sha256[:16]}"},
        {"": "measured on", "value": ", ".join(hosts)},
        {"": "trace items measured", "value": sum(one.origin == "measured" for one in findings.items)},
        *({"": f"trace items {name}", "value": count} for name, count in sorted(findings.unmeasured.items())),
    ]
    return markdown([row for row in rows if row["value"] != ""])


def _sweep(sweep: Sweep, findings: Findings, draw: Draw) -> list[str]:
    started, end, order = sweep.started, sweep.finished, ranked(sweep)
    states = Counter(one.state for one in sweep.trials)
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    seconds = sum(one.measured for one in sweep.trials)
    parts = [
        f"## Sweep {started.sweep}\n",
        f"{started.objective} `{started.metric}` by {started.sampler}, seed {started.seed}, "
        f"{started.repeats} repeats after {started.warmup} of warm-up: {len(sweep.trials)} trials ({counted or 'none'})"
        + (f" of {started.size:,} configurations" if started.size else "")
        + (f", {end.excluded} excluded by constraints" if end and end.excluded else "")
        + f", {shown(seconds)} s of measuring"
        + (f", ended by {end.reason}" if end else ", not ended")
        + ".\n",
    ]
    if end is not None and end.best is not None:
        parts += _best(sweep, findings)
    for kind in ("best", "parameters"):
        name = draw(kind, sweep) if order else None
        if name is not None:
            parts.append(f"![{started.sweep}: {kind}]({name})\n")
    if order:
        parts += [f"### The first {min(_SHOWN, len(order))} of {len(order)} by median\n"]
        rows = {row["trial"]: row for row in trial_rows(sweep)}
        parts.append(markdown([rows[one.number] for one in order[:_SHOWN]]))
        for name in sweep.parameters:
            table = by_parameter(sweep, name)
            if len(table) > 1:
                parts += [f"### {started.metric} by {name}\n", markdown(table)]
    lost = Counter((one.state, one.reason or "") for one in sweep.trials if one.state in ("failed", "rejected"))
    if lost:
        parts += ["### What did not count\n"]
        parts.append(markdown([{"state": s, "reason": r, "trials": n} for (s, r), n in lost.most_common()]))
    return parts


def _best(sweep: Sweep, findings: Findings) -> list[str]:
    end = sweep.finished
    assert end is not None
    best = next(one for one in sweep.trials if one.number == end.best)
    rows: list[Row] = [{"": name, "value": best.config.get(name)} for name in sweep.parameters]
    last = sweep.bests[-1] if sweep.bests else None
    value = shown(best.value)
    if last is not None and last.number == best.number and last.low < last.high:
        value += f" ({shown(last.low)} to {shown(last.high)}, {last.level:.0%} interval of the median)"
    rows.append({"": sweep.started.metric, "value": value})
    if end.speedup is not None:
        text = f"{shown(end.speedup)}x"
        if end.low is not None and end.high is not None:
            text += f" ({shown(end.low)}x to {shown(end.high)}x, measured in turn)"
        rows.append({"": "against the baseline", "value": text})
    own = [one for one in findings.items if one.source == f"{sweep.started.sweep}#{best.number}"]
    for case, name, values in _numbers(own):
        if f"{case}.{name}" != sweep.started.metric and name not in best.config:
            rows.append(
                {"": f"{case}.{name}", "value": f"{shown(statistics.median(values))} (median of {len(values)})"}
            )
    return [f"### The best: trial {best.number}\n", markdown(rows)]


def _numbers(items: Sequence[Trace]) -> list[tuple[str, str, list[float]]]:
    found: dict[tuple[str, str], list[float]] = {}
    for one in items:
        for name, value in one.fields.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault((one.case, name), []).append(float(value))
    return [(case, name, values) for (case, name), values in found.items()]


def _facts(facts: Sequence[Held]) -> str:
    rows: list[Row] = [
        {
            "fact": one.fact,
            "held on": f"{one.held} of {one.asked}",
            "first on": "" if one.first is None else one.first.source,
            "where": "" if one.first is None else _evidence(one.first),
        }
        for one in facts
        if one.asked
    ]
    return f"## Facts\n\n{markdown(rows)}" if rows else ""


def _rules(rules: Sequence[Fired]) -> str:
    first: dict[str, Fired] = {}
    for one in rules:
        first.setdefault(one.rule, one)
    times = Counter(one.rule for one in rules)
    rows: list[Row] = [
        {
            "rule": name,
            "fired": times[name],
            "says": "; ".join(one.apply),
            "first on": one.on.source,
            "where": _evidence(one.on),
        }
        for name, one in first.items()
    ]
    return f"## Rules that fired\n\n{markdown(rows)}" if rows else ""


def _evidence(item: Trace) -> str:
    return ", ".join(f"{name} = {shown(value)}" for name, value in item.fields.items() if value is not None)
