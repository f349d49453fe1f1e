"""Findings as pictures: PNG bytes that are the same for the same findings. Needs matplotlib, the extra `report`."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import BuildFailed
from .gather import Sweep, Trace
from .tables import by_parameter, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 7.0, 3.6  # inches
_DPI = 110
_BLUE, _ORANGE, _GREY = "#1f5f99", "#c4581c", "#8a8a8a"
_MOST = 8  # parameters that are drawn


def best_so_far(sweep: Sweep) -> bytes:
    """Draw each trial's value with the range of its repeats, the best so far as a line, and the baseline."""
    figure, (axes,) = _figure(1, 1)
    good = [one for one in sweep.trials if one.value is not None]
    axes.vlines(
        [one.number for one in good],
        [min(one.values, default=0.0) for one in good],
        [max(one.values, default=0.0) for one in good],
        color=_GREY,
        linewidth=1,
        alpha=0.6,
    )
    axes.plot([one.number for one in good], [one.value or 0.0 for one in good], ".", color=_GREY, label="trial")
    line = _running(sweep)
    if line:
        axes.step([n for n, _ in line], [v for _, v in line], where="post", color=_BLUE, label="best so far")
    lost = [one.number for one in sweep.trials if one.value is None]
    if lost:
        floor = axes.get_ylim()[0]
        axes.plot(lost, [floor] * len(lost), "x", color=_ORANGE, label="failed or rejected", clip_on=False)
    base = next((one.value for one in sweep.trials if one.baseline and one.value is not None), None)
    if base is not None:
        axes.axhline(base, color=_ORANGE, linestyle="--", linewidth=1, label="baseline")
    axes.set_xlabel("trial")
    axes.set_ylabel(sweep.started.metric)
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def parameters(sweep: Sweep) -> bytes:
    """Draw the metric over each parameter: every trial a dot, the median of each value a line."""
    names = [name for name in sweep.parameters if len(by_parameter(sweep, name)) > 1][:_MOST]
    columns = min(3, max(1, len(names)))
    figure, cells = _figure(columns, max(1, math.ceil(len(names) / columns)))
    for axes, name in zip(cells, names, strict=False):
        rows = by_parameter(sweep, name)
        places, labels = _places([row[name] for row in rows])
        at = dict(zip(map(repr, (row[name] for row in rows)), places, strict=True))
        good = [one for one in sweep.trials if one.value is not None]
        axes.plot(
            [at[repr(one.config.get(name))] for one in good], [one.value or 0.0 for one in good], ".", color=_GREY, ms=4
        )
        axes.plot(places, [row["median"] for row in rows], "o-", color=_BLUE, ms=4, linewidth=1)
        if labels is not None:
            axes.set_xticks(places, labels, fontsize=7)
        axes.set_xlabel(name)
    for axes in cells[len(names) :]:
        axes.axis("off")
    if cells:
        cells[0].set_ylabel(sweep.started.metric)
    return _png(figure)


def fields(items: Sequence[Trace], y: str, x: str | None = None) -> bytes:
    """Draw a field of trace items over another one, or over their order. Raises BuildFailed where none has numbers."""
    pairs = [(n if x is None else one.fields.get(x), one.fields.get(y)) for n, one in enumerate(items, start=1)]
    known = [(a, float(b)) for a, b in pairs if a is not None and b is not None and _number(b)]
    if not known:
        raise BuildFailed(f"a plot of {y}: no trace item has a number there")
    figure, (axes,) = _figure(1, 1)
    places, labels = _places([a for a, _ in known])
    axes.plot(places, [b for _, b in known], "." if x else ".-", color=_BLUE)
    if labels is not None:
        axes.set_xticks(places, labels, fontsize=7)
    axes.set_xlabel(x or "item")
    axes.set_ylabel(y)
    return _png(figure)


def _running(sweep: Sweep) -> list[tuple[int, float]]:
    """Return (trial, the median of what was the best after it), to the last trial."""
    line = [(at, best.value) for at, best in zip(sweep.moves, sweep.bests, strict=True)]
    return [*line, (sweep.trials[-1].number, line[-1][1])] if line else []


def _places(values: Sequence[Any]) -> tuple[list[float], list[str] | None]:
    """Return where values stand on an axis, and their labels where they are words: equal values at one place."""
    if all(map(_number, values)):
        return [float(value) for value in values], None
    order = {text: place for place, text in enumerate(dict.fromkeys(map(repr, values)))}
    names = dict(zip(map(repr, values), map(shown, values), strict=True))
    labels = [names[text] for text in order]
    places = [float(order[repr(value)]) for value in values]
    return places, labels if len(labels) == len(places) else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _figure(columns: int, rows: int) -> "tuple[Figure, list[Axes]]":
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BuildFailed("a plot needs matplotlib: pip install 'morphogen[report]'") from error
    wide = _WIDTH if columns == 1 else 3.0 * columns
    figure = Figure(figsize=(wide, _HEIGHT if rows == 1 else 2.6 * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    cells = [figure.add_subplot(rows, columns, n + 1) for n in range(rows * columns)]
    for axes in cells:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, cells


def _png(figure: "Figure") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
