"""`serve llama`: a GGUF model as a worker that keeps sessions and hands them over."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morphogen.schemas import MorphogenError

from .app import settings_of
from .saying import echo
from .serve import serve
from .sizes import parse_size

if TYPE_CHECKING:
    from morphogen.consumers.kv.worker import KvWorker


@serve.command("llama")
def serve_llama(
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="A GGUF file.")],
    name: Annotated[
        str | None, typer.Option(help="What the worker is called. Default: the model and the process.")
    ] = None,
    ctx: Annotated[int, typer.Option(min=64, help="Tokens of all sequences together.")] = 4096,
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Sessions that are on the device at once.")] = 4,
    batch: Annotated[int, typer.Option(min=1, help="Tokens of one batch of a prompt.")] = 512,
    kv_type: Annotated[str, typer.Option(help="Type of keys and values: f16, q8_0, or K,V such as q8_0,f16.")] = "f16",
    flash_attn: Annotated[bool, typer.Option(help="Use flash attention; quantized values need it.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that compute.")] = None,
    gpu_layers: Annotated[int, typer.Option(help="Layers on the GPU; -1 is all.")] = 0,
    lora: Annotated[list[str] | None, typer.Option(help="An adapter, FILE or FILE=SCALE; may be repeated.")] = None,
    memory: Annotated[str, typer.Option(help="Budget of the tier in shared memory.")] = "1GiB",
    disk: Annotated[str, typer.Option(help="Budget of the tier on the disk.")] = "8GiB",
    blobs: Annotated[str, typer.Option(help="Budget of the tier in the broker; 0 uses it for handoffs alone.")] = "0",
    memory_folder: Annotated[
        Path | None,
        typer.Option(help="Folder of shared memory; the same for workers that hand sessions to each other."),
    ] = None,
    every: Annotated[
        int, typer.Option(min=0, help="Tokens between two savings of a session's KV state; 0 is never.")
    ] = 512,
    template: Annotated[bool, typer.Option(help="Use the model's chat template.")] = True,
    isolate: Annotated[
        bool, typer.Option(help="Try every state in a process of its own first; it loads the model a second time.")
    ] = False,
    decide: Annotated[
        str, typer.Option(help="Restore a stored state or compute it again: auto (what is faster), restore, recompute.")
    ] = "auto",
) -> None:
    """Keep sessions on a model, and act on kv.export, kv.handoff and kv.drop, until interrupted."""
    from morphogen.bus.connection import connect
    from morphogen.bus.streams import ensure_streams
    from morphogen.consumers.kv.options import Options
    from morphogen.consumers.kv.worker import KvWorker

    forced = {"auto": None, "restore": "restore", "recompute": "recompute"}
    if decide not in forced:
        raise typer.BadParameter(f"--decide is auto, restore or recompute, not {decide!r}")
    type_k, _, type_v = kv_type.partition(",")
    type_v = type_v or type_k
    options = Options(
        model=model,
        name=name,
        context=ctx,
        parallel=parallel,
        batch=batch,
        type_k=type_k,
        type_v=type_v,
        flash_attn=flash_attn or type_v not in {"f32", "f16", "bf16"},
        threads=threads,
        gpu_layers=gpu_layers,
        loras=tuple(_adapter(one) for one in lora or ()),
        budgets={tier: parse_size(size) for tier, size in (("memory", memory), ("disk", disk), ("blobs", blobs))},
        memory_folder=memory_folder,
        every=every or None,
        template=template,
        isolate=isolate,
        force=forced[decide],  # type: ignore[arg-type]
    )
    settings = settings_of(context)

    async def work() -> None:
        conn = await connect(settings, name="kv worker")
        try:
            await ensure_streams(conn)
            worker = KvWorker(conn, settings, options)
            serving = asyncio.ensure_future(worker.run())
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
            told = asyncio.ensure_future(_tell(worker))
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    await serving
            finally:
                told.cancel()
        finally:
            await conn.close()

    asyncio.run(work())


async def _tell(worker: "KvWorker") -> None:
    await worker.ready.wait()
    echo(f"worker {worker.name} serves {worker.house.model}: {worker.house.context.sequences} sequences")


def _adapter(text: str) -> tuple[Path, float]:
    path, _, scale = text.partition("=")
    try:
        adapter = Path(path), float(scale) if scale else 1.0
    except ValueError:
        raise typer.BadParameter(f"{text!r}: write FILE or FILE=SCALE") from None
    if not adapter[0].is_file():
        raise MorphogenError(f"no adapter file at {path}")
    return adapter
