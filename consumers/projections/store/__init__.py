"""The DuckDB file of one log: how tables lie in it, and how rows and position enter it together.

It knows what is folded, but not where messages come from, and it answers nobody's queries.
"""

from .generation import Folded, Generation, Status
from .store import Store

__all__ = ["Folded", "Generation", "Status", "Store"]
