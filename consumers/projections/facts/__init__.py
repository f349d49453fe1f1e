"""Facts of loaded knowledge modules: as SQL views, and as changes that the stream finds while the log is folded.

A module is an event of the log; its tables and views are ordinary projections that its text calls for.
"""

from .knowledge import Knowledge

__all__ = ["Knowledge"]
