"""The charts of a report as data, so that page and picture show the same."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .story import Row, Story

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A named curve; a point that is not finite is a gap in it. `step` holds each value until the next one."""

    name: str
    points: Sequence[Point]
    step: bool = False


@dataclass(frozen=True)
class Mark:
    """A decision on a chart. `kind` is germinate, prune, fossilize, other, or blocked; `text` says all of it."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True)
class Bar:
    """A seed's contribution: above zero it helps."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class LineChart:
    """Curves over one axis. `rules` are vertical lines with a text each. `log` is for curves over many decades."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    rules: Sequence[tuple[float, str]] = ()
    log: bool = False
    from_zero: bool = False


@dataclass(frozen=True)
class BarChart:
    """Bars from zero to both sides."""

    title: str
    x_label: str
    bars: Sequence[Bar]


Chart = LineChart | BarChart


def growth_charts(story: Story) -> list[Chart]:
    """Return what there is to draw of how a run grew: losses with the decisions, size, contributions."""
    return list(_growth(story))


def metric_charts(story: Story) -> list[Chart]:
    """Return a chart for each metric that the run recorded."""
    return [_metric(name, points) for name, points in story.metrics.items()]


def mark_text(row: Row) -> str:
    """Return a decision in one line."""
    what = " ".join(str(row[key]) for key in ("op", "slot", "blueprint") if row[key] is not None)
    alpha = "" if row["alpha"] is None else f" to {row['alpha']:.3g}"
    because = f": {row['reason']}" if row["reason"] else ""
    taken = (
        "" if row["contribution"] is None or not row["executed"] else f", {signed(row['contribution'])} loss taken away"
    )
    return f"epoch {row['epoch']}, {what}{alpha}{because} ({fate(row)}{taken})"


def fate(row: Row) -> str:
    """Return what became of a decision, in a few words."""
    if row["approved"] is None:
        return "no verdict"
    if not row["approved"]:
        return f"blocked by {row['blocked_by']}"
    if not row["executed"]:
        return f"refused: {row['refusal']}" if row["refusal"] else "not carried out"
    if row["contribution"] is None:
        return "done, not measured"
    return "helped" if row["helped"] else "did not help"


def signed(value: float | None) -> str:
    """Return a number with its sign; what was not measured as a dash."""
    return "–" if value is None else f"{value:+.4g}"  # noqa: RUF001


def _growth(story: Story) -> Iterable[Chart]:
    if not story.epochs:
        return
    losses = [Line(name, points) for name in ("train_loss", "val_loss") if (points := _curve(story.epochs, name))]
    restores = tuple((_epoch_of(row, story), f"host restored: {row['reason']}") for row in story.restores)
    if losses:
        yield LineChart(
            "Loss, with the decisions", "epoch", "loss", losses, _marks(story, losses[-1]), restores, log=_many_decades(losses)
        )  # fmt: skip
    if accuracy := _curve(story.epochs, "val_accuracy"):
        yield LineChart("Validation accuracy", "epoch", "share right", [Line("val_accuracy", accuracy)])
    grown = [(float(row["epoch"]), float(row["params_total"])) for row in story.epochs if row["params_total"]]
    if grown:
        host = float((story.adaptation or {}).get("host_params") or 0)
        ends = [(grown[0][0], host), (grown[-1][0], host)]
        lines = [Line("host and all that grew", grown, step=True), *([Line("host alone", ends)] if host else [])]
        yield LineChart("Parameters", "epoch", "parameters", lines, from_zero=True)
    bars = [
        Bar(f"{row['seed']} {row['blueprint'] or ''}".strip(), float(row["contribution"]),
            f"{row['seed']}: {signed(row['contribution'])} loss taken away, accuracy {signed(row['accuracy_gain'])}, "
            f"on {row['n']} samples ({row['split']})")
        for row in story.contributions if row["contribution"] is not None and math.isfinite(row["contribution"])
    ]  # fmt: skip
    if bars:
        yield BarChart("Contribution of each seed, as last measured", "loss that it takes away", bars)


def _metric(name: str, points: Sequence[Point]) -> LineChart:
    line = Line(name, points)
    return LineChart(name, "step", "", [line], log=_many_decades([line]))


def _curve(rows: Sequence[Row], name: str) -> list[Point]:
    points = [(float(row["epoch"]), float("nan") if row[name] is None else float(row[name])) for row in rows]
    return points if any(math.isfinite(y) for _, y in points) else []


def _marks(story: Story, line: Line) -> list[Mark]:
    heights = {x: y for x, y in line.points if math.isfinite(y)}
    marks = []
    for row in story.decisions:
        x = float(row["epoch"])
        near = min(heights, key=lambda at: (abs(at - x), at))
        done = bool(row["approved"]) and bool(row["executed"])
        kind = (row["op"] if row["op"] in {"germinate", "prune", "fossilize"} else "other") if done else "blocked"
        marks.append(Mark(x, heights[near], kind, mark_text(row)))
    return marks


def _epoch_of(row: Row, story: Story) -> float:
    """Return the epoch in which a restore fell, by its step; the end where steps are not known."""
    steps = [(int(one["step"]), float(one["epoch"])) for one in story.epochs if one.get("step") is not None]
    if row["step"] is None or not steps:
        return float(story.epochs[-1]["epoch"])
    return next((epoch for step, epoch in steps if step >= row["step"]), steps[-1][1])


def _many_decades(lines: Sequence[Line]) -> bool:
    values = [y for line in lines for _, y in line.points if math.isfinite(y)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 1000
