"""The executor: does to the slots of a model what was decided, and keeps the training alive whatever comes of it.

It knows slots, blueprints and the optimizer. It does not know why something was decided, and it decides nothing but how
to get out of trouble: it cuts a seed off, takes the host back to its last good weights, and says so in events.
"""

from .breaker import Breaker
from .config import Bounds, ExecutorConfig
from .errors import ExecutorError, LoadError, Refused
from .executor import Applied, Evaluate, Executor
from .inbox import Inbox, Order, target
from .seedling import Seedling
from .state import Standing, States, fold, fold_all
from .stock import Item, Menu, Stock, stock

__all__ = [
    "Applied",
    "Bounds",
    "Breaker",
    "Evaluate",
    "Executor",
    "ExecutorConfig",
    "ExecutorError",
    "Inbox",
    "Item",
    "LoadError",
    "Menu",
    "Order",
    "Refused",
    "Seedling",
    "Standing",
    "States",
    "Stock",
    "fold",
    "fold_all",
    "stock",
    "target",
]
