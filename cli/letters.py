"""`dead`: commands that nobody could do."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from morphogen.schemas import json_text, jsonable

from .app import app, settings_of
from .issued import echo_issued
from .moments import moment
from .saying import echo
from .tables import print_rows

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus
    from morphogen.bus.commands.dead import Letter

dead = typer.Typer(help="Commands that nobody could do: look, try again, or drop.", no_args_is_help=True)
app.add_typer(dead, name="dead")

_Key = Annotated[str, typer.Argument(help="The letter's number, or its command's id.")]
_Keys = Annotated[list[str] | None, typer.Argument(help="Numbers of letters, or ids of their commands.", metavar="KEY")]
_Run = Annotated[str | None, typer.Option(help="All letters of this run.")]
_Target = Annotated[str | None, typer.Option(help="All letters of this target.")]
_All = Annotated[bool, typer.Option("--all", help="All letters there are.")]


@dead.command("list")
def list_letters(
    context: typer.Context,
    run: Annotated[str | None, typer.Option(help="Only of this run.")] = None,
    target: Annotated[str | None, typer.Option(help="Only of this target.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the dead letters, oldest first."""
    from morphogen.bus.bus import Bus
    from morphogen.bus.commands.dead import letters as read_letters

    with Bus.open(settings_of(context)) as bus:
        letters = bus.run(read_letters(bus.conn, run=run, target=target))
    if as_json:
        for letter in letters:
            echo(json_text({"number": letter.seq, "run": letter.run, **msgspec.structs.asdict(letter.body)}))
        return
    if not letters:
        echo("no dead letters")
        return
    table = Table("number", "since", "run", "target", "name", "tries", "reason", show_edge=False, header_style="bold")
    print_rows(table, letters, _cells, newest_last=True)


def _cells(letter: "Letter") -> tuple[object, ...]:
    body, since = letter.body, moment(letter.stored)
    return letter.seq, since, letter.run, body.target, body.name, body.deliveries, body.reason


@dead.command()
def show(context: typer.Context, key: _Key) -> None:
    """Show one letter with its payload."""
    from morphogen.bus.bus import Bus

    with Bus.open(settings_of(context)) as bus:
        letter = bus.dead.show(key)
    values: dict[str, Any] = {"number": letter.seq, "run": letter.run, "event": letter.event_id}
    echo(json.dumps(jsonable({**values, **msgspec.structs.asdict(letter.body)}), indent=2))


@dead.command()
def retry(
    context: typer.Context, keys: _Keys = None, run: _Run = None, target: _Target = None, everything: _All = False
) -> None:
    """Issue commands again with the same payload; prints the new ids.

    By --run, --target or --all those that hold no command that can be read are left out.
    """
    from morphogen.bus.bus import Bus
    from morphogen.bus.commands.dead import done_before, retry_letter

    with Bus.open(settings_of(context)) as bus:
        found = _chosen(bus, keys, run, target, everything)
        readable = found if keys else [letter for letter in found if letter.body.name]
        before = bus.run(done_before(bus.conn, readable))
        for letter in readable:
            echo_issued(bus.run(retry_letter(bus.conn, letter, before, by="cli")))
    if not keys:
        left = len(found) - len(readable)
        also = f"; {left:,} hold what could not be read: drop them" if left else ""
        echo(f"retried {_counted(len(readable))}{also}", err=True)


@dead.command()
def drop(
    context: typer.Context, keys: _Keys = None, run: _Run = None, target: _Target = None, everything: _All = False
) -> None:
    """Drop letters for good; the log remembers that they were."""
    from morphogen.bus.bus import Bus
    from morphogen.bus.commands.dead import done_before, drop_letter

    with Bus.open(settings_of(context)) as bus:
        found = _chosen(bus, keys, run, target, everything)
        before = bus.run(done_before(bus.conn, found))
        for letter in found:
            bus.run(drop_letter(bus.conn, letter, before, by="cli"))
    echo(f"dropped {keys[0]}" if keys and len(keys) == 1 else f"dropped {_counted(len(found))}")


def _chosen(
    bus: "Bus", keys: list[str] | None, run: str | None, target: str | None, everything: bool
) -> "list[Letter]":
    """Return the letters that a command line means: those that it names, or all of a run and a target, or all."""
    from morphogen.bus.commands.dead import chosen, letters

    filtered = run is not None or target is not None
    if bool(keys) + filtered + everything != 1:
        raise typer.BadParameter("name letters by number or id, or choose them by --run and --target, or take --all")
    return bus.run(chosen(bus.conn, keys) if keys else letters(bus.conn, run=run, target=target))


def _counted(count: int) -> str:
    return f"{count:,} letter{'' if count == 1 else 's'}"
