"""`rebuild`, `verify`, `archive`, `replay`: the log again."""

import asyncio
import contextlib
import math
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from morphogen.bus.settings import Settings

from .app import DIFFERENT, FAILED, INTERRUPTED, app, settings_of
from .bars import bar
from .saying import echo
from .sizes import size

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.replay.sinks import Sink

_T = TypeVar("_T")


def with_broker(settings: Settings, work: "Callable[[Connection], Awaitable[_T]]") -> _T:
    """Run `work` over a connection; Ctrl-C cancels it, so that it ends where it can be resumed."""
    from morphogen.bus.connection import connect
    from morphogen.bus.streams import ensure_streams

    async def main() -> _T:
        conn = await connect(settings, name="cli")
        try:
            await ensure_streams(conn)
            return await work(conn)
        finally:
            await conn.close()

    return asyncio.run(main())


@app.command()
def rebuild(
    context: typer.Context,
    projections: Annotated[list[str] | None, typer.Argument(help="Names; all where none is given.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a rebuild that was interrupted.")] = False,
) -> None:
    """Make tables anew from the archive and the log, beside the live ones, and swap them in."""
    from morphogen.replay.bodiless import told as bodiless
    from morphogen.replay.rebuild import rebuild as rebuild_tables

    settings = settings_of(context)
    with _interruptible("go on with --resume; the tables are as they were"), bar("rebuilding") as tell:
        report = with_broker(
            settings, lambda conn: rebuild_tables(conn, settings, projections or None, resume=resume, progress=tell)
        )
    echo(f"rebuilt {', '.join(report.projections)} up to {report.position:,} in {report.seconds:.1f} s")
    if report.bodiless:
        echo(f"morphogen: {bodiless(report.bodiless)}", err=True)


@app.command()
def verify(context: typer.Context) -> None:
    """Fold the whole past again beside the live tables and compare; check every byte. Exit 3 where anything differs."""
    from morphogen.replay.verify import verify as verify_tables

    settings = settings_of(context)
    with _interruptible("nothing was changed"), bar("verifying") as tell:
        report = with_broker(settings, lambda conn: verify_tables(conn, settings, progress=tell))
    for line in report.lines():
        echo(line)
    if not report.ok:
        raise typer.Exit(DIFFERENT)


@app.command()
def archive(
    context: typer.Context,
    trim: Annotated[bool, typer.Option(help="Let the log forget what is archived and verified.")] = False,
    keep: Annotated[
        float, typer.Option(help="With --trim: hours of the log to keep all the same; two minutes at the least.")
    ] = 24.0,
    upto: Annotated[int | None, typer.Option(help="Archive up to this sequence only.", min=0)] = None,
    repair: Annotated[
        bool, typer.Option(help="Write damaged files again, where the log still has what was in them.")
    ] = False,
    accept_gap: Annotated[bool, typer.Option(help="Go on where the log has lost messages, and note the gap.")] = False,
) -> None:
    """Write the log into Parquet files by day and run; an interrupted archive goes on where it was."""
    from morphogen.bus.streams import DUPLICATE_WINDOW_S
    from morphogen.replay.archive import archive as archive_log

    if not 0 <= keep < math.inf:
        raise typer.BadParameter(f"--keep {keep:g} is no time: give hours, such as 24 or 0")
    settings = settings_of(context)
    with _interruptible("what is archived counts; run it again to go on"), bar("archiving") as tell:
        report = with_broker(
            settings,
            lambda conn: archive_log(
                conn,
                settings,
                upto=upto,
                trim_log=trim,
                keep=keep * 3600,
                repair=repair,
                accept_gap=accept_gap,
                progress=tell,
            ),
        )
    new = f"{report.messages:,} new messages" if report.messages else "nothing new"
    if report.repaired:
        places = ", ".join(f"{first:,}" for first in report.repaired)
        echo(f"wrote damaged files again, in the segments that begin at {places}")
    echo(f"{new}; the archive holds {report.rows:,} in {report.files:,} files, {size(report.bytes)}")
    if trim:
        least = keep * 3600 < DUPLICATE_WINDOW_S
        why = f"{DUPLICATE_WINDOW_S / 60:g} minutes, by which the broker refuses duplicates" if least else f"{keep:g} h"
        echo(f"the log forgot {report.trimmed:,} archived messages; it keeps what is younger than {why}")


@app.command()
def replay(
    context: typer.Context,
    from_: Annotated[
        str | None, typer.Option("--from", help="A sequence, a time or an age: 812, 2026-11-20T14:05, -2h.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Where to end, included; the same forms.")] = None,
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only these types; patterns such as 'health.*'.")
    ] = None,
    speed: Annotated[str, typer.Option(help="A factor on the pace of the past, 10x, or max.")] = "max",
    into: Annotated[
        str, typer.Option(help="stdout, bus, a file (.jsonl, .parquet, .frames), or a .duckdb file to fold into.")
    ] = "stdout",
    raw: Annotated[bool, typer.Option(help="With stdout: frames as they are, msgpack.")] = False,
    resume: Annotated[
        bool, typer.Option(help="With a .duckdb file: go on where a replay into it was interrupted.")
    ] = False,
    offline: Annotated[bool, typer.Option(help="Read the archive alone, without a broker.")] = False,
    log: Annotated[
        str | None, typer.Option(help="With --offline: the log to read, a folder of archive/, where it holds several.")
    ] = None,
) -> None:
    """Send the past somewhere: archive and log as one. Replayed events are marked, so that nobody acts on them again."""
    from morphogen.replay.bodiless import told as bodiless
    from morphogen.replay.projection import into_projection
    from morphogen.replay.replay import Replay
    from morphogen.replay.sinks import FileSink
    from morphogen.replay.span import parse_point, parse_speed

    settings = settings_of(context)
    folds = into.endswith(".duckdb")
    if raw and into != "stdout":
        raise typer.BadParameter("--raw goes with stdout; a file of frames is --into NAME.frames")
    if resume and not folds:
        raise typer.BadParameter("--resume goes with a .duckdb file; go on into others with --from")
    if resume and from_ is not None:
        raise typer.BadParameter("--resume goes on after what the file holds; leave --from out")
    if folds and speed.strip().lower() != "max":
        raise typer.BadParameter("--speed is the pace of a stream; a .duckdb file is folded as fast as it goes")
    if offline and into == "bus":
        raise typer.BadParameter("--offline reads without a broker; --into bus needs one")
    if log is not None and not offline:
        raise typer.BadParameter("--log goes with --offline; a broker has one log")
    if any(not pattern.strip() for pattern in types or ()):
        raise typer.BadParameter("--type names no type: write one, or a pattern such as 'health.*'")
    begin, end = (parse_point(text) if text is not None else None for text in (from_, to))
    pace = parse_speed(speed)
    job: Replay | None = None
    sink: Sink | None = None

    async def work(conn: "Connection | None") -> tuple[str, int]:
        nonlocal job, sink
        if folds:
            report = await into_projection(
                conn, settings, Path(into), from_=begin, to=end, run=run, types=types or (), resume=resume, epoch=log,
                progress=tell,
            )  # fmt: skip
            return f"{report.events:,} events in {report.frames:,} frames folded into {into}", report.bodiless
        sink = _sink(conn, into, raw)
        job = Replay(
            conn, settings, sink, from_=begin, to=end, run=run, types=types or (), speed=pace, epoch=log, progress=tell
        )
        done = await job.run()
        name = f" as replay {sink.replay}" if sink.replay else ""
        if done.last < done.first:
            return f"no events: there is nothing from {done.first:,} on, up to {done.last:,}", 0
        places = f"sequences {done.first:,} to {done.last:,}"
        return f"{done.events:,} events in {done.frames:,} frames, {places}, into {into}{name}", done.bodiless

    def go_on() -> str:
        kept = f"what came is in {sink.path}; " if isinstance(sink, FileSink) and sink.saved else ""
        if folds:
            return "go on with --resume, and the same --run, --type and --to"
        return f"{kept}go on with --from {job.position + 1}" if job is not None and job.position else "nothing was sent"

    lines_here = into == "stdout" and sys.stdout is not None and sys.stdout.isatty()
    with _interruptible(go_on), bar("replaying", hidden=lines_here) as tell:
        said, without_body = asyncio.run(work(None)) if offline else with_broker(settings, work)
    echo(said, err=True)
    if without_body:
        echo(f"morphogen: {bodiless(without_body, archive=offline, lines=not folds)}", err=True)
        raise typer.Exit(FAILED)


def _sink(conn: "Connection | None", into: str, raw: bool) -> "Sink":
    from morphogen.replay.errors import SinkFailed
    from morphogen.replay.sinks import BusSink, FileSink, StreamSink

    if into == "stdout":
        if sys.stdout is None:
            raise SinkFailed("standard output is closed: send the replay to a file, --into NAME.jsonl")
        return StreamSink(sys.stdout.buffer if raw else sys.stdout, raw=raw)
    if into == "bus" and conn is not None:
        import secrets

        return BusSink(conn, secrets.token_hex(4))
    return FileSink(Path(into.removeprefix("file:")))


@contextlib.contextmanager
def _interruptible(then: str | Callable[[], str]) -> Iterator[None]:
    """Say after Ctrl-C what became of the work, and how to go on with it."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        echo(f"morphogen: interrupted; {then if isinstance(then, str) else then()}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, before)
