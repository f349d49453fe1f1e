"""Progress for people: a bar for what takes more than a moment, on a terminal, on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

_PATIENCE = 0.5  # seconds before a bar appears: what is quick shows none


class Tell(Protocol):
    """What the rooms above call: (done, total[, unit])."""

    def __call__(self, done: int, total: int, unit: str = "") -> None:
        """Show how far it is."""


@contextmanager
def bar(words: str, *, hidden: bool = False) -> Iterator[Tell]:
    """Give a callable that shows a bar once the work has taken a moment; silent where nobody looks.

    With `hidden` it is silent anyway: where what is written to the same terminal shows how far it is.
    """
    console = Console(file=sys.stderr)
    if hidden or not console.is_terminal:
        yield _silent
        return
    began = time.monotonic()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
    )
    # What goes to standard output is the answer, wherever it is sent: not a line to show above the bar.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(words, total=None, visible=False, unit="")

        def tell(done: int, total: int, unit: str = "") -> None:
            if time.monotonic() - began > _PATIENCE:
                progress.update(task, completed=done, total=total, unit=unit, visible=True)

        yield tell


def _silent(done: int, total: int, unit: str = "") -> None:
    pass
