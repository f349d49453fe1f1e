"""From the world to events: the recorder of training runs.

`record` begins a run; `Run` is what the training loop holds. Nothing here knows of consumers: producers and
consumers meet in the log.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recorder import record
    from .run import Run

__all__ = ["Run", "record"]


def __getattr__(name: str) -> Any:
    if name == "record":
        from .recorder import record

        return record
    if name == "Run":
        from .run import Run

        return Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
