"""Durable loops: programs of the knowledge language whose every step is an event.

A run is killed anywhere and resumed anywhere, from the log alone. Knows how to run a program, not how to read one: parsing and
checking are `schemas.knowledge`. Importing this imports nothing heavy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .context import LoopContext
    from .errors import LoopError

__all__ = ["LoopContext", "LoopError"]


def __getattr__(name: str) -> Any:
    if name == "LoopContext":
        from .context import LoopContext

        return LoopContext
    if name == "LoopError":
        from .errors import LoopError

        return LoopError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
