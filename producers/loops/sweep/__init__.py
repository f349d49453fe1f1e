"""Engineering loops: spaces of parameters, measured until the best is known beyond noise.

Knows how to choose, measure and compare configurations. Every result is an event before the next one is begun, so a sweep that is
killed goes on from the log and measures nothing twice. Never asks a model.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import run_sweep
    from .shell import SweepResult

__all__ = ["SweepResult", "run_sweep"]


def __getattr__(name: str) -> Any:
    if name == "run_sweep":
        from .run import run_sweep

        return run_sweep
    if name == "SweepResult":
        from .shell import SweepResult

        return SweepResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
