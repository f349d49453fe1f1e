"""`kv say`, `kv handoff`, `kv drop`: talk to workers; have them move sessions and forget them, and wait for what comes of it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from morphogen.schemas import MorphogenError

from .app import settings_of
from .history import with_broker
from .kv import kv
from .saying import echo
from .standard import needed_input

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings

    from .outcomes import CommandFailed

_Timeout = Annotated[float, typer.Option(min=0.0, help="Seconds to wait.")]


@kv.command()
def say(
    context: typer.Context,
    session: Annotated[str, typer.Argument(help="The session; it begins with this where it is new.")],
    worker: Annotated[str, typer.Option("--to", help="The worker that has the session, or is to have it.")],
    text: Annotated[str | None, typer.Argument(help="What is said; - reads it from standard input.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the reply at most.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="0 keeps all.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed says the same.")] = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Say nothing: print the newest reply from its beginning, and go on with it if it was broken off.",
        ),
    ] = False,
    timeout: _Timeout = 60.0,
) -> None:
    """Say something to a model that a worker serves, and print the reply as it comes, wherever the session goes."""
    if (text is None) != resume:
        raise typer.BadParameter("give a text, or --resume")
    if text == "-":
        try:
            text = needed_input().buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise MorphogenError(f"standard input is not UTF-8 text (byte {error.start})") from error
    check_utf8(session=session, worker=worker, text=text)

    async def work(conn: "Connection") -> None:
        from morphogen.bus.errors import NoResponders
        from morphogen.consumers.kv import Sampling
        from morphogen.consumers.kv.client import generate

        try:
            sampling = Sampling(temperature=temperature, top_k=top_k, seed=seed)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        try:
            async for bit in generate(
                conn, worker, session, text, max_tokens=max_tokens, sampling=sampling, resume=resume, timeout=timeout
            ):
                echo(bit.text, nl=False)
        except NoResponders:
            raise _nobody(worker) from None
        echo()

    with_broker(settings_of(context), work)


@kv.command()
def handoff(
    context: typer.Context,
    session: Annotated[str, typer.Argument(help="The session.")],
    worker: Annotated[str, typer.Option("--from", help="The worker that has it.")],
    to: Annotated[str, typer.Option(help="The worker that goes on with it.")],
    rename: Annotated[str | None, typer.Option(help="What it is called there.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="A copy: the session goes on here as well.")] = False,
    transport: Annotated[
        str | None, typer.Option(help="shared_memory, disk or blobs. Default: by where the two workers are.")
    ] = None,
    timeout: _Timeout = 60.0,
) -> None:
    """Hand a session over to another worker, which goes on where it stands; prints how it went there."""
    args = {"session": session, "to": to, "keep": keep, "ttl": min(timeout, 30.0)}
    args.update({name: value for name, value in (("rename", rename), ("transport", transport)) if value is not None})
    given = command(settings_of(context), worker, "kv.handoff", args, timeout=timeout)
    echo(_told(session, worker, given))


@kv.command()
def drop(
    context: typer.Context,
    worker: Annotated[str, typer.Option("--from", help="The worker that has it.")],
    session: Annotated[str | None, typer.Option(help="The session to forget.")] = None,
    state: Annotated[str | None, typer.Option(help="One stored state, by its id.")] = None,
    timeout: _Timeout = 30.0,
) -> None:
    """Have a worker forget a session, or one stored state."""
    if (session is None) == (state is None):
        raise typer.BadParameter("give --session or --state")
    args = {"session": session} if session is not None else {"state": state}
    command(settings_of(context), worker, "kv.drop", args, timeout=timeout)
    echo(f"{worker} dropped {'session' if session is not None else 'state'} {session or state}")


def command(settings: "Settings", worker: str, name: str, args: dict[str, Any], *, timeout: float) -> Any:
    """Have a worker do a command and return its result. Raises CommandFailed in one line, at once where nobody serves it."""
    from morphogen.bus.errors import BusError, NoResponders
    from morphogen.bus.requests import call
    from morphogen.schemas.kv import worker_subject, worker_target

    from .outcomes import CommandFailed, done

    check_utf8(worker=worker, **args)

    async def work(conn: "Connection") -> Any:
        who = f"worker {worker}"
        try:
            await call(conn, worker_subject(worker, "info"), timeout=min(timeout, 5.0))
        except NoResponders:
            raise _nobody(worker) from None
        except BusError as error:
            raise CommandFailed(f"{who} does not answer: {error}") from error
        return await done(conn, worker_target(worker), name, args, timeout=timeout, who=who)

    return with_broker(settings, work)


def check_utf8(**given: object) -> None:
    """Raise MorphogenError for a text of the command line whose bytes are no UTF-8."""
    for name, text in given.items():
        try:
            str(text).encode()
        except UnicodeEncodeError as error:
            raise MorphogenError(f"{name} is not UTF-8 text (character {error.start}): {str(text)[:80]!r}") from error


def _nobody(worker: str) -> "CommandFailed":
    from .outcomes import CommandFailed

    return CommandFailed(
        f"no worker {worker!r} answers: `morphogen serve llama --model FILE --name {worker}` starts one"
    )


def _told(session: str, worker: str, given: Any) -> str:
    known = given if isinstance(given, dict) else {}
    parts = [f"{session} went from {worker} to {known.get('to', '?')}"]
    if known.get("session") not in (None, session):
        parts.append(f"as {known['session']}")
    if known.get("transport"):
        parts.append(f"by {known['transport']}")
    for name, text in (
        ("tokens", "{:,} tokens"),
        ("restored", "{:,} tokens restored"),
        ("recomputed", "{:,} computed again"),
    ):
        if isinstance(known.get(name), int):
            parts.append(text.format(known[name]))
    for name, what in (("transfer_ns", "transfer"), ("first_token_ns", "first token after")):
        if isinstance(known.get(name), int):
            parts.append(f"{what} {known[name] / 1e6:.1f} ms")
    return ", ".join(parts)
