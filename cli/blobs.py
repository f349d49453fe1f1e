"""`blob`: files by their hash."""

from pathlib import Path
from typing import Annotated

import typer

from .app import app, settings_of
from .bars import bar
from .saying import echo
from .sizes import size

blob = typer.Typer(help="Content-addressed files on the broker.", no_args_is_help=True)
app.add_typer(blob, name="blob")


@blob.command()
def put(
    context: typer.Context, path: Annotated[Path, typer.Argument(help="A file.", exists=True, dir_okay=False)]
) -> None:
    """Store a file once; prints its sha256."""
    from morphogen.bus.bus import Bus

    with Bus.open(settings_of(context)) as bus, bar("storing") as tell:
        sha256 = bus.blobs.put(path, progress=tell)
    echo(sha256)


@blob.command()
def get(
    context: typer.Context,
    sha256: Annotated[str, typer.Argument(help="The hash that `put` printed.")],
    path: Annotated[Path, typer.Argument(help="Where to write it.")],
) -> None:
    """Fetch a file, verified while it is read. What goes into a pipe or a device is verified before."""
    from morphogen.bus.bus import Bus
    from morphogen.bus.place import is_plain

    with Bus.open(settings_of(context)) as bus, bar("fetching") as tell:
        count = bus.blobs.get_file(sha256.strip().lower(), path, progress=tell)
    echo(f"{path}: {size(count)}", err=not is_plain(path))  # which may be standard output
