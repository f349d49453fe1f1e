"""A run as a page and a picture: its losses with the decisions marked, how it grew, and what that was worth.

Everything is read from the tables by SQL. The page is one HTML file without a script; the picture is a PNG and needs
matplotlib (the extra `report`).
"""

from .charts import Bar, BarChart, Chart, Line, LineChart, Mark, growth_charts, metric_charts
from .page import page
from .picture import picture
from .story import Ask, Story, gather
from .write import write

__all__ = [
    "Ask",
    "Bar",
    "BarChart",
    "Chart",
    "Line",
    "LineChart",
    "Mark",
    "Story",
    "gather",
    "growth_charts",
    "metric_charts",
    "page",
    "picture",
    "write",
]
