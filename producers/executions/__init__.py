"""From what an agent does to events: the recorder of executions, their steps, their cost and how they were judged.

Knows tools as a set of declared functions and the log as a place where events go; knows nothing of who reads them.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from morphogen.schemas.settling import settled

    from ..loops.llm.budget import Price
    from .beginning import execution
    from .environment import environment_of
    from .errors import ExecutionError, PricesError
    from .judging import feedback
    from .outlets import Outlet, close, flush, outlet
    from .prices import Prices, read_prices
    from .recording import Execution, current

_HOMES = {
    # Record
    "execution": "beginning", "Execution": "recording", "current": "recording", "feedback": "judging",
    "settled": "..schemas.settling", "environment_of": "environment",
    # Where it goes
    "Outlet": "outlets", "outlet": "outlets", "flush": "outlets", "close": "outlets",
    # What it cost
    "Price": ".loops.llm.budget", "Prices": "prices", "read_prices": "prices",
    # What is refused
    "ExecutionError": "errors", "PricesError": "errors",
}  # fmt: skip

__all__ = [
    "Execution",
    "ExecutionError",
    "Outlet",
    "Price",
    "Prices",
    "PricesError",
    "close",
    "current",
    "environment_of",
    "execution",
    "feedback",
    "flush",
    "outlet",
    "read_prices",
    "settled",
]

__getattr__ = lazily(__name__, _HOMES)
