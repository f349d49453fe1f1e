"""`up`, `down`, `status`: the broker of this machine, and how the log and the projector stand."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from morphogen.schemas import MorphogenError

from .app import FAILED, app, settings_of
from .saying import echo
from .sizes import size

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings
    from morphogen.consumers.projections.sql.protocol import Status

_PATIENCE = 15.0  # seconds for a projector to answer


@app.command()
def up(
    context: typer.Context,
    projector: Annotated[bool, typer.Option(help="Start a projector in the background as well.")] = False,
) -> None:
    """Start the embedded broker, if it is not running, and make the streams; it outlives this command."""
    from morphogen.bus import broker

    settings = settings_of(context)
    endpoint = broker.ensure(settings)
    asyncio.run(_prepare(settings))
    echo(f"broker at {_shown(endpoint.urls)}" + (f", pid {endpoint.pid}" if endpoint.pid else ""))
    if projector:
        from morphogen.bus.bus import Bus
        from morphogen.bus.errors import RequestTimeout
        from morphogen.consumers.projections.sql.query import status as projector_status

        try:
            found = projector_status(settings=settings)
        except RequestTimeout as error:
            with Bus.open(settings) as bus:
                epoch = bus.stream_info().epoch
            raise MorphogenError(f"the projector {_silent(settings, epoch)}") from error
        if found is None:
            settings.home.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "morphogen.cli", *_again(settings), "projector"]
            # Arguments can be seen by every user of the machine, and an address may hold a password.
            env = {**os.environ, "MORPHOGEN_URL": ",".join(settings.urls)}
            with (settings.home / "projector.log").open("ab") as log:
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
                )
            end = time.monotonic() + _PATIENCE
            while found is None and time.monotonic() < end:
                time.sleep(0.05)
                found = projector_status(settings=settings)
        if found is None:
            echo(f"morphogen: the projector did not answer; see {settings.home / 'projector.log'}", err=True)
            raise typer.Exit(FAILED)
        echo(f"projector, pid {found.pid} on {found.host}")


@app.command()
def down(context: typer.Context) -> None:
    """Stop the embedded broker. What was recorded stays; running jobs keep recording into their spools."""
    from morphogen.bus import broker

    settings = settings_of(context)
    left = _projector_of(settings) if settings.embedded and broker.status(settings).running else None
    echo("broker stopped" if broker.down(settings) else "no broker was running")
    if left is not None:
        echo(f"its projector, {left}, waits for the next one and holds the tables: kill it to end it")


@app.command()
def status(context: typer.Context) -> None:
    """Show the broker, the log, the projector, and what waits in spools; exit 1 where there is no broker."""
    from morphogen.bus import broker
    from morphogen.bus.bus import Bus
    from morphogen.bus.errors import BusError, RequestTimeout
    from morphogen.bus.spool.leftover import leftovers
    from morphogen.consumers.projections.sql.query import status as projector_status

    settings = settings_of(context)
    lines: list[tuple[str, str]] = []
    if settings.embedded:
        found = broker.status(settings)
        if not found.running:
            lines.append(("broker", f"not running: {found.reason}"))
        else:
            lines.append(
                ("broker", f"{found.url}, pid {found.pid}, version {found.version}, up {found.uptime_s or 0:.0f} s")
            )
        reachable = found.running
    else:
        lines.append(("broker", _shown(settings.urls)))
        reachable = True
    if reachable:
        try:
            with Bus.open(settings, start_broker=False) as bus:
                info = bus.stream_info()
            lines.append(
                ("log", f"{info.messages:,} messages, {info.first_seq:,} to {info.last_seq:,}, {size(info.bytes)}")
            )
            try:
                standing = projector_status(settings=settings)
                lines.append(("projector", _projector(standing)))
                lines += [
                    ("stopped", " ".join(reason.split())) for reason in (standing.stopped.values() if standing else ())
                ]
            except RequestTimeout:
                lines.append(("projector", _silent(settings, info.epoch)))
        except BusError as error:
            lines.append(("log", str(error)))
            reachable = False
    waiting = len(list(leftovers(settings)))
    lines.append(("spools", f"{waiting} with unsent events or in use" if waiting else "empty"))
    lines.append(("data", str(settings.home)))
    for name, text in lines:
        echo(f"{name:10} {text}")
    if not reachable:
        raise typer.Exit(FAILED)


def _projector_of(settings: "Settings") -> str | None:
    """Return which process the projector of a running broker is, also where it does not say so within two seconds."""
    from morphogen.bus.bus import Bus
    from morphogen.bus.errors import RequestTimeout
    from morphogen.consumers.projections.sql.query import SqlClient

    client = SqlClient.shared(settings)
    try:
        found = client.status(timeout=2.0)
        return None if found is None else f"pid {found.pid} on {found.host}"
    except RequestTimeout:
        with contextlib.suppress(MorphogenError), Bus.open(settings, start_broker=False) as bus:
            pid = _holder(settings, bus.stream_info().epoch)
            return None if pid is None else f"pid {pid}, which does not answer"
        return None
    except MorphogenError:
        return None
    finally:
        client.close()  # or it would look for the broker that is stopped


def _projector(found: "Status | None") -> str:
    if found is None:
        return "none running; queries catch up by themselves"
    return f"pid {found.pid} on {found.host}, position {found.position:,}, {found.lag:,} behind, {found.answered:,} answered"


def _silent(settings: "Settings", epoch: str) -> str:
    """Return what to do about a projector that is there and does not answer; the lock on its file tells its pid."""
    pid = _holder(settings, epoch)
    if pid is None:
        return "does not answer, and holds no tables of this machine: it has just ended, or runs elsewhere"
    return f"does not answer (pid {pid}): give it a moment, or end it with `kill -9 {pid}`, which loses nothing"


def _holder(settings: "Settings", epoch: str) -> int | None:
    """Return the pid of who holds the tables of this machine."""
    from morphogen.consumers.projections.follow.projector import store_path
    from morphogen.consumers.projections.store.duckfile import holder

    return holder(store_path(settings, epoch))


async def _prepare(settings: "Settings") -> None:
    """Make the streams where they are not there. Raises NoBroker where the broker of an address does not take us in."""
    from morphogen.bus.connection import connect
    from morphogen.bus.streams import ensure_streams

    conn = await connect(settings, name="up")
    try:
        await ensure_streams(conn)
    finally:
        await conn.close()


def _shown(urls: tuple[str, ...]) -> str:
    from morphogen.bus.link import shown

    return ", ".join(map(shown, urls))


def _again(settings: "Settings") -> list[str]:
    """Return the options before the verb, but for the address, for a process that is to see the same data."""
    options = ["--home", str(settings.home)]
    if settings.creds:
        options += ["--creds", str(settings.creds)]
    return options
