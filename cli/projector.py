"""`projector`: follow the log, fill the tables, answer SQL, announce facts, in the foreground."""

import asyncio
from typing import TYPE_CHECKING

import typer

from .app import app, settings_of

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.consumers.projections.store import Store


@app.command()
def projector(context: typer.Context) -> None:
    """Follow the log into tables, answer SQL for everyone on the bus and announce facts, until interrupted."""
    from morphogen.bus.loop import new_loop
    from morphogen.consumers.projections.facts.announce import announce_until_cancelled
    from morphogen.consumers.projections.follow.projector import run_projector
    from morphogen.consumers.projections.sql.service import serve
    from morphogen.replay.rebuild import controls

    settings = settings_of(context)

    async def answer(store: "Store", conn: "Connection") -> None:
        service = await serve(store, conn, settings, controls=controls(store))
        try:
            await announce_until_cancelled(store, conn)
        finally:
            await service.close()

    async def work() -> None:
        await run_projector(settings, stop=asyncio.Event(), serve=answer)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work())
