"""`know lift`: draft facts and rules from what sweeps have measured."""

from pathlib import Path
from typing import Annotated

import typer

from .app import FAILED, settings_of
from .know import know
from .saying import echo


@know.command()
def lift(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="Runs of loops that swept the same parameters for one metric.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, such as lifted.mk. Default: standard output.")
    ] = None,
    sweep: Annotated[str | None, typer.Option(help="Only this sweep of the runs.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the drafted system. Default: the sweep's, and Lifted.")
    ] = None,
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Chance of drafting from noise alone.")] = 0.05,
) -> None:
    """Draft facts and rules from measured sweeps: which parameters decide, from which value on, how surely.

    The next program takes them up by `use "lifted.mk"`. Where the measurements show nothing, nothing is drafted, and
    the exit code is 1.
    """
    from morphogen.bus.bus import Bus
    from morphogen.bus.place import replace
    from morphogen.producers.loops.build.gather import sweeps_of
    from morphogen.producers.loops.lift import lift as draft
    from morphogen.schemas import Event
    from morphogen.schemas.knowledge.format import format_text
    from morphogen.schemas.knowledge.program import load_text

    if "" in runs:
        raise typer.BadParameter("a run's name is empty: see `morphogen loop list`")
    with Bus.open(settings_of(context)) as bus:
        events = {
            run: [seen.event for seen in bus.past(run=run, family="sweep") if isinstance(seen.event, Event)]
            for run in dict.fromkeys(runs)
        }
    found = {
        run: [one for one in sweeps_of(each) if sweep in (None, one.started.sweep)] for run, each in events.items()
    }  # fmt: skip
    lifted = draft(found, alpha=alpha, name=name, format_text=format_text)
    if lifted.stumps:
        load_text(lifted.text)  # what is drafted must check, or it is no knowledge
    if output is None:
        echo(lifted.text, nl=False)
    else:
        replace(output, lifted.text)
    count = len(lifted.stumps)
    told = f"{count} fact{'' if count == 1 else 's'} from {lifted.trials} trials"
    echo(told if count else f"nothing beyond noise in {lifted.trials} trials", err=True)
    if not count:
        raise typer.Exit(FAILED)
