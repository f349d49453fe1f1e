"""`dead`: commands that nobody could do."""

import json
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from morphogen.schemas import json_text, jsonable

from .app import app, settings_of
from .issued import echo_issued
from .moments import moment
from .saying import cell, console, echo

dead = typer.Typer(help="Commands that nobody could do: look, try again, or drop.", no_args_is_help=True)
app.add_typer(dead, name="dead")

_Key = Annotated[str, typer.Argument(help="The letter's number, or its command's id.")]


@dead.command("list")
def list_letters(
    context: typer.Context,
    run: Annotated[str | None, typer.Option(help="Only of this run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the dead letters, oldest first."""
    from morphogen.bus.bus import Bus

    with Bus.open(settings_of(context)) as bus:
        letters = bus.dead.list(run=run)
    if as_json:
        for letter in letters:
            echo(json_text({"number": letter.seq, "run": letter.run, **msgspec.structs.asdict(letter.body)}))
        return
    table = Table("number", "since", "run", "target", "name", "tries", "reason", show_edge=False, header_style="bold")
    for letter in letters:
        body, since = letter.body, moment(letter.stored)
        table.add_row(*map(cell, (letter.seq, since, letter.run, body.target, body.name, body.deliveries, body.reason)))
    console().print(table if letters else "no dead letters")


@dead.command()
def show(context: typer.Context, key: _Key) -> None:
    """Show one letter with its payload."""
    from morphogen.bus.bus import Bus

    with Bus.open(settings_of(context)) as bus:
        letter = bus.dead.show(key)
    values: dict[str, Any] = {"number": letter.seq, "run": letter.run, "event": letter.event_id}
    echo(json.dumps(jsonable({**values, **msgspec.structs.asdict(letter.body)}), indent=2))


@dead.command()
def retry(context: typer.Context, key: _Key) -> None:
    """Issue the command again with the same payload; prints the new id."""
    from morphogen.bus.bus import Bus

    with Bus.open(settings_of(context)) as bus:
        echo_issued(bus.dead.retry(key, by="cli"))


@dead.command()
def drop(context: typer.Context, key: _Key) -> None:
    """Drop a letter for good; the log remembers that it was."""
    from morphogen.bus.bus import Bus

    with Bus.open(settings_of(context)) as bus:
        bus.dead.drop(key, by="cli")
    echo(f"dropped {key}")
