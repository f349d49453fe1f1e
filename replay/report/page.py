"""A report as one HTML file: no script, nothing from elsewhere, every name of the log escaped."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .charts import Chart, LineChart, fate, growth_charts, metric_charts, signed
from .story import Row, Story
from .svg import clean, svg

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #66717d; --rule: #dde2e8; --paper: #fff; --box: #f6f8fa;
  --c0: #1f5f99; --c1: #c4581c; --c2: #4d7f3a; --c3: #7a5195; --good: #2e7d4f; --bad: #b3352b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e8ee; --soft: #97a3af; --rule: #333c46; --paper: #14191f;
  --box: #1b222a; --c0: #6aa9e0; --c1: #e98f54; --c2: #8cc373; --c3: #b897d2; --good: #63bd8a; --bad: #ec7c72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 960px; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; color: var(--soft); overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .5rem; margin: 1rem 0; }
dl div { background: var(--box); border-radius: 6px; padding: .5rem .75rem; min-width: 0; }
dt { color: var(--soft); font-size: .78rem; } dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(380px, 1fr)); gap: 1rem 1.5rem; }
.pairs .tick { font-size: 18px; } .pairs .line { stroke-width: 2.6; } figure { margin: 0; min-width: 0; }
figcaption { font-size: .88rem; font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: anywhere; min-width: 3.5rem; }
th { color: var(--soft); font-weight: 500; } .number { text-align: right; white-space: nowrap; }
pre { background: var(--box); border-radius: 6px; padding: .75rem; overflow-x: auto; font-size: .8rem; white-space: pre-wrap; }
.tick { fill: var(--soft); font-size: 11px; } .grid { stroke: var(--rule); } .axis { stroke: var(--soft); }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.rule { stroke: var(--bad); stroke-dasharray: 4 3; } .helps { fill: var(--good); } .harms { fill: var(--bad); }
.mark { stroke: var(--paper); stroke-width: 1.2; } .germinate { fill: var(--good); } .prune { fill: var(--bad); }
.fossilize { fill: var(--c3); } .other { fill: var(--soft); }
.blocked { stroke: var(--bad); stroke-width: 2; fill: none; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .82rem; color: var(--soft); margin: .35rem 0; }
.legend span { display: inline-flex; align-items: center; gap: .35rem; overflow-wrap: anywhere; }
.legend svg { width: 18px; height: 14px; flex: none; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_KEYS = {
    "germinate": ("M9 1l6 11h-12z", "germinate"), "prune": ("M9 13l6 -11h-12z", "prune"),
    "fossilize": ("M9 0l7 7l-7 7l-7 -7z", "fossilize"), "other": ("M5.5 7a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z", "another step"),
    "blocked": ("M5 3l8 8m0 -8l-8 8", "blocked or refused"),
}  # fmt: skip

Cells = Mapping[str, Callable[[Row], str]]
_NUMBERS = frozenset({"epoch", "step", "parameters", "alpha", "seeds", "takes off the loss", "accuracy", "reward"})


def page(story: Story) -> str:
    """Return the whole file."""
    name = clean(story.name)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{name}: Morphogen report</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f"<h1>{name}</h1>",
            *_head(story),
            *(part for chart in growth_charts(story) for part in _chart(chart)),
            *_tables(story),
            *_metrics(story),
            *_config(story),
            "</body>\n</html>\n",
        ]
    )


def _head(story: Story) -> Iterable[str]:
    run, grown = story.run, story.adaptation
    told = [run["status"], f"attempt {run['attempts']}" if (run["attempts"] or 1) > 1 else "", run["host"] or ""]
    commit = f"commit {str(run['git_commit'])[:12]}" if run["git_commit"] else ""
    yield f"<p>{clean(', '.join(str(part) for part in (*told, commit, _when(run)) if part))}</p>"
    if run["error"]:
        yield f"<p>{clean(run['error'])}: {clean(run['message'] or '')}</p>"
    if grown is None:
        yield "<p>Nothing grew in this run: it was recorded without adaptation.</p>"
        return
    facts = {
        "policy": grown["policy"], "arm": grown["label"], "epochs": grown["epochs"], "seeds grown": grown["germinated"],
        "fossilized": grown["fossilized"], "pruned": grown["pruned"], "host parameters": _whole(grown["host_params"]),
        "grown parameters": _whole(grown["params_grown"]), "validation loss": _number(grown["val_loss"]),
        "validation accuracy": _number(grown["val_accuracy"]), "restores": grown["rollbacks"],
        **{name: _number(value) for name, value in json.loads(grown["measured"] or "{}").items()},
    }  # fmt: skip
    cells = (f"<div><dt>{clean(k)}</dt><dd>{clean(v)}</dd></div>" for k, v in facts.items() if v not in {None, ""})
    yield f"<dl>{''.join(cells)}</dl>"


def _chart(chart: Chart) -> Iterable[str]:
    yield f"<h2>{clean(chart.title)}</h2>"
    if isinstance(chart, LineChart):
        keys = [
            f'<span><svg viewBox="0 0 18 14"><path class="line c{number % 4}" d="M1 7h16"/></svg>{clean(line.name)}</span>'
            for number, line in enumerate(chart.lines)
        ]
        there = {mark.kind for mark in chart.marks}
        keys += [
            f'<span><svg viewBox="0 0 18 14"><path class="mark {kind}" d="{path}"/></svg>{word}</span>'
            for kind, (path, word) in _KEYS.items()
            if kind in there
        ]
        if chart.rules:
            keys.append('<span><svg viewBox="0 0 18 14"><path class="rule" d="M9 0v14"/></svg>host restored</span>')
        if len(keys) > 1:
            yield f'<div class="legend">{"".join(keys)}</div>'
    yield svg(chart)


def _metrics(story: Story) -> Iterable[str]:
    found = metric_charts(story)
    if found:
        yield "<h2>Metrics</h2>"
        yield '<div class="pairs">'
        for chart in found:
            yield f"<figure><figcaption>{clean(chart.title)}</figcaption>{svg(chart)}</figure>"
        yield "</div>"


def _tables(story: Story) -> Iterable[str]:
    yield from _table(
        "Decisions",
        story.decisions,
        {
            "epoch": lambda row: str(row["epoch"]),
            "what": lambda row: " ".join(str(row[key]) for key in ("op", "slot", "blueprint") if row[key] is not None),
            "why": lambda row: str(row["reason"]),
            "what came of it": fate,
            "takes off the loss": lambda row: signed(row["contribution"]),
            "accuracy": lambda row: signed(row["accuracy_gain"]),
            "reward": lambda row: signed(row["reward"]),
        },
    )
    yield from _table(
        "Slots",
        story.slots,
        {
            "slot": lambda row: str(row["slot"]),
            "stage": lambda row: str(row["stage"]),
            "seed": lambda row: str(row["seed"] or "–"),  # noqa: RUF001
            "alpha": lambda row: _number(row["alpha"]),
            "parameters": lambda row: _whole(row["params"]),
            "takes off the loss": lambda row: signed(row["contribution"]),
            "accuracy": lambda row: signed(row["accuracy_gain"]),
            "seeds": lambda row: str(row["seeds"]),
        },
    )
    yield from _table(
        "Failures, and what was done",
        story.failures,
        {
            "step": lambda row: _whole(row["step"]),
            "where": lambda row: str(row["seed"] or row["slot"] or "the run"),
            "error": lambda row: f"{row['error']}: {row['message']}",
            "recovery": lambda row: f"{row['recovery']}, {'it worked' if row['recovered'] else 'it did not work'}",
        },
    )
    yield from _table(
        "Alerts",
        story.alerts,
        {
            "severity": lambda row: str(row["severity"]),
            "subject": lambda row: str(row["subject"]),
            "message": lambda row: str(row["message"]),
        },
    )


def _table(title: str, rows: Sequence[Row], cells: Cells) -> Iterable[str]:
    if not rows:
        return
    kinds = {name: ' class="number"' if name in _NUMBERS else "" for name in cells}
    head = "".join(f"<th{kinds[name]}>{clean(name)}</th>" for name in cells)
    body = "\n".join(
        f"<tr>{''.join(f'<td{kinds[name]}>{clean(cell(row))}</td>' for name, cell in cells.items())}</tr>"
        for row in rows
    )
    yield f'<h2>{clean(title)}</h2>\n<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _config(story: Story) -> Iterable[str]:
    config: Any = json.loads(story.run["config"] or "null")
    if config:
        text = json.dumps(config, indent=2, ensure_ascii=False)
        yield f"<h2>Configuration of the run</h2>\n<pre>{chr(10).join(clean(line) for line in text.splitlines())}</pre>"


def _when(run: Row) -> str:
    begun, ended = (None if run[key] is None else str(run[key])[:19] for key in ("started", "ended"))
    return "" if begun is None else f"{begun} UTC" + (f" to {ended} UTC" if ended else "")


def _number(value: Any) -> str:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return (
        ("" if value is None else str(value)) if not known else f"{value:.4g}" if math.isfinite(value) else str(value)
    )


def _whole(value: Any) -> str:
    return "–" if value is None else f"{value:,}"  # noqa: RUF001
