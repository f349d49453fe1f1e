"""What a run leaves behind for people: tables, plots and reports, made from the log alone.

Knows how to gather, tabulate and draw what was recorded. Concludes nothing that was not measured.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifacts import build_artifacts

__all__ = ["build_artifacts"]


def __getattr__(name: str) -> Any:
    if name == "build_artifacts":
        from .artifacts import build_artifacts

        return build_artifacts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
