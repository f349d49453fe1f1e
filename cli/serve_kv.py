"""`serve kv-events`, `serve kv-index`: hear what other engines say of their caches; answer who holds which prefix."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from .app import settings_of
from .saying import echo
from .serve import serve
from .serving import serve_until_ended

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.consumers.kv_index import Counts


@serve.command("kv-events")
def serve_kv_events(
    context: typer.Context,
    engine: Annotated[str, typer.Option(help="What the engine is called in the log.")],
    addresses: Annotated[
        list[str],
        typer.Option(
            "--from", help="A publisher: tcp://127.0.0.1:5557, ipc:///path, nats://host:4222. May be repeated."
        ),
    ],
    dialect: Annotated[str, typer.Option(help="What it speaks: vllm (SGLang as well) or dynamo.")] = "vllm",
    replay: Annotated[
        list[str] | None,
        typer.Option(
            help="Where each publisher sends again what was lost, or 'none'. Default: the port after its own."
        ),
    ] = None,
    topic: Annotated[str, typer.Option(help="Only this topic; with nats:// the subject.")] = "",
    worker: Annotated[list[str] | None, typer.Option(help="What to call each publisher. Default: its address.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model; engines of one model share prefixes. Default: the engine's name.")
    ] = None,
    block_size: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a block: needed with dynamo, which does not say.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Write what the publishers have kept, and end.")] = False,
) -> None:
    """Write what another engine says of its KV blocks into the log, until interrupted."""
    from morphogen.consumers.kv_index import Endpoint, Listener, replay_of

    replays = [None if one == "none" else one for one in replay or ()]
    if not replays:
        replays = [replay_of(address) if dialect == "vllm" else None for address in addresses]
    workers: list[str | None] = list(worker or ()) or [None] * len(addresses)
    if len(replays) != len(addresses) or len(workers) != len(addresses):
        raise typer.BadParameter("give as many --replay and --worker as --from, or none")
    endpoints = [
        Endpoint(address=address, replay=again, worker=name, topic=topic)
        for address, again, name in zip(addresses, replays, workers, strict=True)
    ]
    settings = settings_of(context)

    async def work(conn: "Connection") -> None:
        listener = Listener(
            conn, settings, engine, endpoints, dialect=dialect, model=model, block_size=block_size, told=_tell
        )
        told = asyncio.ensure_future(_say_when(listener.ready, f"listening to {', '.join(addresses)} as {engine}"))
        try:
            await listener.run(once=once)
        finally:
            told.cancel()
            for name, counts in listener.counts.items():
                _tell(f"{name}: {_summary(counts)}")

    serve_until_ended(settings, work, "kv events")


@serve.command("kv-index")
def serve_kv_index(context: typer.Context) -> None:
    """Answer who holds the longest prefix of a prompt, from memory, for everyone on the bus, until interrupted."""
    from morphogen.consumers.kv_index import IndexServer

    settings = settings_of(context)

    async def work(conn: "Connection") -> None:
        server = IndexServer(conn, settings)

        async def say() -> None:
            await server.ready.wait()
            _tell(f"answering over {len(server.index):,} blocks of {len(server.index.holders):,} holders")

        told = asyncio.ensure_future(say())
        try:
            await server.run()
        finally:
            told.cancel()
            _tell(f"answered {server.answered:,} questions")

    serve_until_ended(settings, work, "kv index")


async def _say_when(ready: asyncio.Event, line: str) -> None:
    await ready.wait()
    _tell(line)


def _tell(line: str) -> None:
    echo(line)


def _summary(counts: "Counts") -> str:
    parts = [f"{counts.messages:,} messages, {counts.events:,} events"]
    for count, what in (
        (counts.lost, "messages lost"),
        (counts.bad, "not understood"),
        (counts.passed_over, "events of other groups or kinds passed over"),
        (counts.doubles, "doubles left out"),
        (counts.restarts, "restarts"),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    return ", ".join(parts)
