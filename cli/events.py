"""`tail`, `sync`, `schema`, `send`: events as they come, as they wait, as they are declared, and as orders."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morphogen.bus.place import replace
from morphogen.schemas import MorphogenError, SchemaError, changed, event_classes, json_schema, line_of, shape
from morphogen.schemas.fingerprint import key
from morphogen.schemas.installed import load_installed_events

from .app import FAILED, app, settings_of
from .bars import bar
from .issued import echo_issued
from .pairs import pairs
from .saying import echo
from .sizes import size
from .standard import needed_output

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus
    from morphogen.bus.spool.drain import DrainReport

_WIDER = 8  # times as far back to look where too little was found


@app.command()
def tail(
    context: typer.Context,
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Only these families, such as metrics or health.")] = None,
    last: Annotated[
        int, typer.Option("--last", "-n", help="Messages of the past, of those asked for, to begin with.", min=0)
    ] = 5,
    follow: Annotated[bool, typer.Option(help="Stay and show what comes.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show events as they arrive in the log."""
    from morphogen.bus.bus import Bus

    from .shown import shown

    needed_output()
    load_installed_events()  # what cannot be loaded is shown as unknown
    with Bus.open(settings_of(context)) as bus:
        after = _before_last(bus, last, run, family or None)
        for seen in bus.events(after=after, run=run, family=family or None, follow=follow):
            echo(shown(seen, as_json=as_json))


def _before_last(bus: "Bus", last: int, run: str | None, family: list[str] | None) -> int:
    """Return the sequence behind which the last messages of a run and families lie, as many of them as there are."""
    end = bus.stream_info().last_seq
    after, width = end, last
    places: list[int] = []
    while last and after and len(places) < last:
        after, width = max(0, end - width), _WIDER * width
        batches = bus.read(after=after, upto=end, run=run, family=family)
        places = [message.seq for batch in batches for message in batch][-last:]
    return places[0] - 1 if places else end


@app.command()
def sync(context: typer.Context) -> None:
    """Bring to the log what dead processes left in their spools on this machine."""
    from morphogen.bus.spool.drain import drain as drain_spools

    with bar("sending") as tell:

        def progress(report: "DrainReport") -> None:
            tell(report.events, 0, "events")

        report = asyncio.run(drain_spools(settings_of(context), progress))
    echo(
        f"{report.events:,} events ({size(report.bytes)}) of {report.spools:,} spools and {len(report.runs):,} runs are in the log"
    )
    if report.busy:
        echo(f"{report.busy:,} spools belong to living processes, which send them by themselves")
    if report.quarantined:
        echo(f"{report.quarantined:,} events were damaged on disk and set aside in the spool folder's quarantine")
    if report.stuck:
        echo(f"morphogen: {report.stuck:,} spools hold what could not be read, set aside or sent; they stay", err=True)
        raise typer.Exit(FAILED)


@app.command()
def schema(
    types: Annotated[list[str] | None, typer.Argument(help="Only these types; all where none is given.")] = None,
    imports: Annotated[
        list[str] | None, typer.Option("--import", help="Modules that declare events, besides the entry points.")
    ] = None,
    lock: Annotated[Path | None, typer.Option(help="Write what every schema is to this file.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Fail where a schema changed since --lock without a version bump.")
    ] = None,
) -> None:
    """Print the JSON Schema of every event that is registered, yours included."""
    if lock is not None and check is not None:
        raise typer.BadParameter("--lock writes the file that --check compares with: give one of them")
    load_declared(imports or [])
    chosen = [cls for cls in event_classes() if not types or cls.type in types]
    if types and (unknown := sorted(set(types) - {cls.type for cls in chosen})):
        raise SchemaError(f"no event of type {', '.join(unknown)} is registered: name its module with --import")
    if lock is not None:
        replace(lock, json.dumps({key(cls): shape(cls) for cls in chosen}, indent=1, sort_keys=True) + "\n")
        echo(f"locked {len(chosen)} schemas in {lock}")
        return
    if check is not None:
        try:
            locked = json.loads(check.read_text())
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"{check} is no file of `morphogen schema --lock`: {error}") from error
        if not isinstance(locked, dict):
            raise SchemaError(f"{check} is no file of `morphogen schema --lock`: it holds no object")
        if not any(key(cls) in locked for cls in event_classes()):
            raise SchemaError(f"{check} locks no event that is registered: name its module with --import")
        for line in (lines := changed(chosen, locked)):
            echo(line)
        raise typer.Exit(FAILED if lines else 0)
    echo(json.dumps(json_schema(chosen), indent=2))


def load_declared(modules: list[str]) -> None:
    """Import what declares events: the entry points of group `morphogen.events`, and the modules named."""
    import importlib

    for line in load_installed_events():
        raise SchemaError(line)
    sys.path.insert(0, "")
    try:
        for module in modules:
            try:
                importlib.import_module(module)
            except (Exception, SystemExit) as error:
                raise SchemaError(
                    f"module {module} cannot be imported: {type(error).__name__}: {line_of(error)}"
                ) from error
    finally:
        sys.path.remove("")


@app.command()
def send(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="Who is to act.")],
    name: Annotated[str, typer.Argument(help="What is to be done.")],
    args: Annotated[
        list[str] | None,
        typer.Option("--arg", "-a", help="name=value; the value is JSON where it can be read so. Repeat it."),
    ] = None,
    run: Annotated[str, typer.Option(help="The run that it concerns.")] = "",
    expires: Annotated[float | None, typer.Option(help="Seconds after which nobody shall act on it.")] = None,
) -> None:
    """Issue a command; prints its id."""
    from morphogen.bus.bus import Bus

    given = pairs(args, "--arg", MorphogenError)
    with Bus.open(settings_of(context)) as bus:
        echo_issued(bus.send(target, name, given, run=run, issuer="cli", expires_in=expires))
