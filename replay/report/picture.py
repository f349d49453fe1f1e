"""A report as a picture: PNG bytes, the same for the same story. Needs matplotlib, the extra `report`."""

import io
import math
import warnings
from typing import TYPE_CHECKING

from ..errors import ReportFailed
from .charts import BarChart, Chart, LineChart, growth_charts, metric_charts
from .story import Story
from .ticks import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT, _DPI = 9.0, 2.9, 110
_COLOURS = ("#1f5f99", "#c4581c", "#4d7f3a", "#7a5195")
_GOOD, _BAD, _SOFT = "#2e7d4f", "#b3352b", "#66717d"
_MARKS = {
    "germinate": ("^", _GOOD, "germinate"), "prune": ("v", _BAD, "prune"), "fossilize": ("D", "#7a5195", "fossilize"),
    "other": ("o", _SOFT, "another step"), "blocked": ("x", _BAD, "blocked or refused"),
}  # fmt: skip
_MOST = 8  # charts in one picture
_FARTHEST = 1e150  # from zero; matplotlib goes a hundred decades beyond what it shows


def picture(story: Story) -> bytes:
    """Return the charts of a run, one below the other, as PNG. Raises ReportFailed without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ReportFailed("a picture needs matplotlib: pip install 'morphogen[report]'") from error
    drawn = [*growth_charts(story), *metric_charts(story)][:_MOST]
    heights = [_tall(chart) for chart in drawn] or [1.0]
    with (
        rc_context({"text.parse_math": False, "font.size": 8.5}),
        warnings.catch_warnings(),
    ):  # a name may have a $ in it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # shown as a box
        figure = Figure(figsize=(_WIDTH, sum(heights) + 0.5), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        cells = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for cell, chart in zip(cells, drawn, strict=False):
            _draw(cell, chart)
        if not drawn:
            cells[0].axis("off")
            cells[0].text(0.5, 0.5, "nothing was measured", ha="center", color=_SOFT)
        figure.suptitle(_short(story.name, 90), fontsize=12, x=0.01, ha="left")
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _tall(chart: Chart) -> float:
    return 0.9 + 0.26 * min(len(chart.bars), 40) if isinstance(chart, BarChart) else _HEIGHT


def _draw(cell: "Axes", chart: Chart) -> None:
    cell.spines[["top", "right"]].set_visible(False)
    cell.set_title(_short(chart.title, 90), loc="left", fontsize=9.5)
    cell.set_xlabel(_short(chart.x_label, 60))
    if isinstance(chart, BarChart):
        bars = chart.bars[-40:]
        places = range(len(bars))
        values = [_drawable(bar.value) for bar in bars]
        cell.barh(list(places), values, color=[_GOOD if value > 0 else _BAD for value in values], height=0.65)
        cell.set_yticks(list(places), [_short(bar.name, 40) for bar in bars])
        cell.axvline(0, color=_SOFT, linewidth=0.8)
        cell.invert_yaxis()
        return
    _curves(cell, chart)


def _curves(cell: "Axes", chart: LineChart) -> None:
    for number, line in enumerate(chart.lines):
        points = [(x, _drawable(y)) for x, y in line.points]
        style = "steps-post" if line.step else "default"
        name = f"\N{ZERO WIDTH SPACE}{_short(line.name, 40)}"  # matplotlib leaves out names that begin with _
        cell.plot(*zip(*points, strict=True), color=_COLOURS[number % 4], linewidth=1.4, drawstyle=style, label=name)
    for kind, (shape, colour, word) in _MARKS.items():
        marks = [mark for mark in chart.marks if mark.kind == kind]
        if marks:
            xs, ys = [mark.x for mark in marks], [_drawable(mark.y) for mark in marks]
            cell.plot(xs, ys, shape, color=colour, markersize=6, label=word, linestyle="none", zorder=3)
    for number, (x, _) in enumerate(chart.rules):
        cell.axvline(x, color=_BAD, linestyle="--", linewidth=0.9, label="" if number else "host restored")
    if chart.log:
        cell.set_yscale("log")
        cell.yaxis.set_major_formatter(lambda value, _: label(value))  # its own labels are formulas
        cell.yaxis.set_minor_formatter(lambda *_: "")
    if chart.from_zero:
        cell.set_ylim(bottom=0)
    cell.set_ylabel(_short(chart.y_label, 30))
    if len(chart.lines) + len(chart.marks) + len(chart.rules) > 1:
        cell.legend(frameon=False, fontsize=7.5, ncols=2)


def _drawable(value: float) -> float:
    """Return a value as it can be drawn: a gap where it is not finite, the end of the scale where axes would overflow."""
    if not math.isfinite(value):
        return math.nan
    return math.copysign(min(max(abs(value), 1 / _FARTHEST), _FARTHEST), value) if value else value


def _short(text: str, most: int) -> str:
    shown = "".join(c if c.isprintable() else "\N{MIDDLE DOT}" for c in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
