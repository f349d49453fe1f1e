"""`backtest`: another policy over what was recorded, with side effects off."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from .app import app, settings_of
from .bars import bar
from .history import with_broker
from .pairs import pairs
from .saying import echo


@app.command()
def backtest(
    context: typer.Context,
    policy: Annotated[
        str, typer.Argument(help="A built-in policy, the path of a checkpoint, or module:Class of your own.")
    ],
    runs: Annotated[
        list[str] | None,
        typer.Option("--runs", help="Only these runs: names or patterns such as 'digits-*', with commas or repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="For the policy, instead of each run's own.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="For the policy's making: name=value, the value as JSON or text."),
    ] = None,
    learn: Annotated[bool, typer.Option(help="Tell the policy the recorded outcomes.")] = True,
    everything: Annotated[bool, typer.Option("--all", help="Show every run and every difference.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Run a policy over recorded runs: where it would have decided otherwise, and what recorded outcomes say of that."""
    from morphogen.replay.backtest import as_json as document
    from morphogen.replay.backtest import backtest as run_backtest
    from morphogen.replay.backtest import lines

    settings = settings_of(context)
    options = pairs(option, "--option")
    if "seed" in options:
        raise typer.BadParameter("a policy's seed is given by --seed")
    with bar("going over") as tell, _own_modules(), contextlib.redirect_stdout(sys.stderr):  # a policy may print
        found = with_broker(
            settings,
            lambda conn: run_backtest(
                conn, settings, policy, runs or (), seed=seed, learn=learn, options=options, progress=tell
            ),
        )
    for line in [document(found)] if as_json else lines(found, everything=everything):
        echo(line)
    if not found.scores:  # none of the runs could be gone over; the lines say why
        raise typer.Exit(1)


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Find the modules of the folder that the command was called in, as `python` does."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")
