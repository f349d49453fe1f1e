"""What a sweep needs of the world, and what it gives back."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from morphogen.schemas import Event, SweepFinished, TrialFinished

from .meters import Meter
from .plan import Plan
from .standing import Standing


def _nothing() -> None:
    """Go on."""


def _no_more(trial: TrialFinished) -> list[Event]:
    """Add nothing to a trial."""
    return []


def _quiet(done: int, total: int | None, text: str) -> None:
    """Show nothing."""


@dataclass(kw_only=True)
class Shell:
    """What a sweep needs of the world."""

    record: Callable[..., Any]
    """Put events into the log, together and durably."""
    item: Callable[[str, Mapping[str, Any], str, str], Event]
    """Make a trace item of a case, its fields, its origin and its source; raises a MorphogenError that names the wrong field."""
    meter: Callable[[Callable[[], None]], Meter]
    """Make what measures, one for each worker; it is given what raises where the sweep is to stop."""
    also: Callable[[TrialFinished], list[Event]] = _no_more
    """Return further trace items of a trial that has a value."""
    past: Iterable[Event] = ()
    """What this sweep recorded before, in the order of the log."""
    check: Callable[[], None] = _nothing
    progress: Callable[[int, int | None, str], None] = _quiet
    host: str | None = None
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended, with every trial."""

    plan: Plan
    finished: SweepFinished
    standing: Standing = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """Return the result as a program sees it: `best` is the configuration, `metric` its value."""
        end = self.finished
        return {
            "best": end.config,
            "metric": end.value,
            "speedup": end.speedup,
            "reason": end.reason,
            "trials": end.trials,
            "measured": end.measured,
            "failed": end.failed,
            "rejected": end.rejected,
            "pruned": end.pruned,
            "excluded": end.excluded,
        }
