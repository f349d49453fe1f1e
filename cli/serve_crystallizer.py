"""`serve crystallizer`: make tools of what is done often and well, and see to their lives, in the background."""

import contextlib
import math
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from .crystals_make import Backend, BackendOption, Budget, Key, at_work, cost
from .saying import echo, word
from .serve import serve

if TYPE_CHECKING:
    from morphogen.consumers.crystallizer.worker import Round


DAY = 86_400.0
YEARS = 36_500.0  # days


def _number(value: float) -> float:
    """Return a number as it was given; NaN is in no range, and passes every one."""
    if math.isnan(value):
        raise typer.BadParameter("it takes a number, got nan")
    return value


@serve.command("crystallizer")
def serve_crystallizer(
    context: typer.Context,
    every: Annotated[
        float,
        typer.Option(
            min=0.1, max=DAY, callback=_number, help="Seconds from one look at the log to the next, at most a day."
        ),
    ] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="One round, and end.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Tools that are tried in one round at most.")] = 3,
    shadows: Annotated[int, typer.Option(min=0, help="Runs beside the live mode before a version is promoted.")] = 3,
    lower: Annotated[
        float, typer.Option(min=0.0, max=1.0, callback=_number, help="The bound that promotion asks for.")
    ] = 0.75,
    retire_days: Annotated[
        float,
        typer.Option(min=0.0, max=YEARS, callback=_number, help="Days without a use after which a tool is retired."),
    ] = 30.0,
    backend: Backend = None,
    backend_option: BackendOption = None,
    budget: Budget = None,
    key: Key = None,
) -> None:
    """Follow the log: promote, demote and retire tools, and make those that pay most, until interrupted.

    What was made or spent is known from the log: a kill loses nothing, and nothing is paid twice.
    """
    from morphogen.consumers.crystallizer.lifecycle import Life

    life = Life(shadows=shadows, promote_lower=lower, retire_days=retire_days)
    with at_work(context, backend, backend_option, budget, key, top=top, life=life) as (_, worker):
        if once:
            _tell(worker.round())
            return
        echo("crystallizer at work" + ("" if backend is None else f", {backend} drafts what synthesis cannot"))
        with _until_interrupted() as stop:
            worker.run(stop, every=every, told=_tell)


def _tell(done: "Round") -> None:
    for moved in done.moved:
        echo(f"{moved.tool} version {moved.number}: {moved.was} -> {moved.now}: {word(moved.reason)}")
    for made in done.made:
        came = f"version {made.number} in shadow" if made.ok else f"no tool: {made.stage}: {word(made.reason)}"
        echo(f"{made.tool} by {made.maker}, {cost(made.cost_microusd)}: {came}")
    for signature, reason in done.put_off.items():
        echo(f"{signature} is put off: {word(reason)}")


@contextlib.contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
