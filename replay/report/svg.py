"""Charts as SVG inside a page: shapes with titles, colours by class, every text escaped."""

import math
from collections.abc import Iterable, Sequence
from html import escape

from .charts import Bar, BarChart, Chart, LineChart, Mark, Point
from .ticks import decades, label, ticks

_WIDTH, _HEIGHT = 860, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 16, 12, 44
_ROW = 26  # of a bar
_NAMES = 250  # width of the names beside bars


def svg(chart: Chart) -> str:
    """Return a chart as one `<svg>` element."""
    return _bars(chart) if isinstance(chart, BarChart) else _lines(chart)


def clean(text: object) -> str:
    """Return a text for HTML: escaped, control characters made visible."""
    return escape(
        "".join(c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in str(text)), quote=True
    )


class _Axis:
    """From a value to a place: linear, or by decades."""

    def __init__(
        self, values: Sequence[float], start: float, end: float, *, log: bool = False, zero: bool = False
    ) -> None:
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if zero:
            low, high = min(low, 0.0), max(high, 0.0)
        self._log = log and low > 0
        if low == high:
            low, high = (low / 2, high * 2) if self._log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
        self._low, self._high = (math.log10(low), math.log10(high)) if self._log else (low, high)
        self._start, self._end = start, end
        self.ticks = decades(low, high) if self._log else ticks(low, high)

    def __call__(self, value: float) -> float:
        """Return where a value stands, in the units of the picture."""
        at = (math.log10(value) if value > 0 else self._low) if self._log else value
        share = (at / 2 - self._low / 2) / (self._high / 2 - self._low / 2)  # halves: their difference cannot overflow
        return self._start + share * (self._end - self._start)


def _lines(chart: LineChart) -> str:
    known = [
        point for line in chart.lines for point in line.points if math.isfinite(point[0]) and math.isfinite(point[1])
    ]
    x = _Axis([point[0] for point in known], _LEFT, _WIDTH - _RIGHT)
    y = _Axis([point[1] for point in known], _HEIGHT - _BOTTOM, _TOP, log=chart.log, zero=chart.from_zero)
    parts = [_open(chart.title, _HEIGHT), *_frame(x, y, chart)]
    for at, text in chart.rules:
        parts.append(
            f'<line class="rule" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
            f"<title>{clean(text)}</title></line>"
        )
    parts += [
        f'<path class="line c{number % 4}" d="{_path(run, x, y, line.step)}"/>'
        for number, line in enumerate(chart.lines)
        for run in _runs(line.points)
    ]
    parts += [_mark(mark, x(mark.x), y(mark.y)) for mark in chart.marks]
    parts.append("</svg>")
    return "\n".join(parts)


def _runs(points: Iterable[Point]) -> Iterable[list[Point]]:
    """Yield stretches of a curve without a gap."""
    run: list[Point] = []
    for point in points:
        if math.isfinite(point[0]) and math.isfinite(point[1]):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _path(points: Sequence[Point], x: _Axis, y: _Axis, step: bool) -> str:
    places = [(x(a), y(b)) for a, b in points]
    first, rest = places[0], places[1:]
    moves = [f"M{first[0]:.1f} {first[1]:.1f}"]
    moves += [f"H{a:.1f}V{b:.1f}" if step else f"L{a:.1f} {b:.1f}" for a, b in rest] or ["h.1"]
    return "".join(moves)


def _mark(mark: Mark, x: float, y: float) -> str:
    shapes = {
        "germinate": f"M{x:.1f} {y - 7:.1f}l6.5 11h-13z",
        "prune": f"M{x:.1f} {y + 7:.1f}l6.5 -11h-13z",
        "fossilize": f"M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z",
        "other": f"M{x - 3.5:.1f} {y:.1f}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        "blocked": f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8",
    }
    return f'<path class="mark {mark.kind}" d="{shapes[mark.kind]}"><title>{clean(mark.text)}</title></path>'


def _frame(x: _Axis, y: _Axis, chart: LineChart) -> Iterable[str]:
    floor = _HEIGHT - _BOTTOM
    for tick in y.ticks:
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        yield f'<text class="tick" text-anchor="end" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}">{label(tick)}</text>'
    for tick in x.ticks:
        yield f'<text class="tick" text-anchor="middle" x="{x(tick):.1f}" y="{floor + 16}">{label(tick)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text class="tick" text-anchor="middle" x="{middle}" y="{_HEIGHT - 8}">{clean(chart.x_label)}</text>'


def _bars(chart: BarChart) -> str:
    height = _TOP + _BOTTOM + _ROW * len(chart.bars)
    x = _Axis([bar.value for bar in chart.bars], _NAMES, _WIDTH - _RIGHT - 70, zero=True)
    parts = [_open(chart.title, height)]
    for tick in x.ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{x(tick):.1f}" y="{height - _BOTTOM + 16}">{label(tick)}</text>'
        )
    parts += [_bar(bar, _TOP + _ROW * number, x) for number, bar in enumerate(chart.bars)]
    parts.append(f'<line class="axis" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
    parts.append(
        f'<text class="tick" text-anchor="middle" x="{x(0):.1f}" y="{height - 8}">{clean(chart.x_label)}</text></svg>'
    )
    return "\n".join(parts)


def _bar(bar: Bar, top: float, x: _Axis) -> str:
    left, right = sorted((x(0), x(bar.value)))
    name = bar.name if len(bar.name) <= 36 else bar.name[:35] + "…"
    kind = "helps" if bar.value > 0 else "harms"
    return (
        f'<g><title>{clean(bar.text)}</title><text class="tick" text-anchor="end" x="{_NAMES - 8}" y="{top + 17:.1f}">'
        f'{clean(name)}</text><rect class="{kind}" x="{left:.1f}" y="{top + 4:.1f}" width="{max(right - left, 1):.1f}" '
        f'height="{_ROW - 8}"/><text class="tick" x="{right + 5:.1f}" y="{top + 17:.1f}">{bar.value:+.3g}</text></g>'
    )


def _open(title: str, height: float) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{clean(title)}">'
