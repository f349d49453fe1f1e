"""`demo`: the whole story in under three minutes."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .app import app


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where its data is kept. Default: a new temporary folder.")
    ] = None,
) -> None:
    """Train, kill everything, ask in SQL, rebuild from zero: on a broker of its own."""
    from .demo import tell

    tell(folder or Path(tempfile.mkdtemp(prefix="morphogen-demo-")), Console())
