"""`report`: a run as a page and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import app, settings_of
from .saying import echo


@app.command()
def report(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the files; made where it is not there.")
    ] = Path(),
) -> None:
    """Write a run as HTML and PNG: loss with the decisions marked, growth, contributions, metrics. Prints the paths."""
    from morphogen.consumers.projections.sql.query import query
    from morphogen.replay.report import write

    settings = settings_of(context)

    def ask(sql: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return list(query(sql, params=dict(params) or None, wait=True, timeout=120.0, settings=settings))

    for path in write(run, out, ask):
        echo(path)
