"""`kv export`, `kv import`: a prompt, or a worker's session, into a file; a file into a model that goes on from there."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morphogen.schemas import MorphogenError

from .app import settings_of
from .kv import kv
from .kv_send import check_utf8, command
from .saying import echo
from .sizes import size

if TYPE_CHECKING:
    from morphogen.consumers.kv.speaker import ContextSpeaker
    from morphogen.kernels.kv import RawContext

_ROOM = 64  # tokens of a context beyond those that are needed

_Model = Annotated[Path | None, typer.Option(help="A GGUF file.")]
_Lora = Annotated[list[str] | None, typer.Option(help="An adapter, FILE or FILE=SCALE; may be repeated.")]
_Threads = Annotated[int | None, typer.Option(min=1, help="Threads that compute.")]


@kv.command("export")
def export(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="The file to write, whole or not at all.")],
    model: _Model = None,
    prompt: Annotated[str | None, typer.Option(help="The text to read; '@FILE' reads it from a file.")] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="A file of token ids instead: numbers, however separated.")
    ] = None,
    kv_type: Annotated[str, typer.Option(help="Type of keys and values: f16, q8_0, or K,V such as q8_0,f16.")] = "f16",
    flash_attn: Annotated[bool, typer.Option(help="Use flash attention; quantized values need it.")] = False,
    lora: _Lora = None,
    threads: _Threads = None,
    worker: Annotated[str | None, typer.Option(help="Of this worker, which writes the file itself.")] = None,
    session: Annotated[str | None, typer.Option(help="The worker's session to export.")] = None,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for the worker.")] = 60.0,
) -> None:
    """Write the KV state of a prompt, or of a worker's session, into a file."""
    if (worker is None) != (session is None) or (worker is None) == (model is None):
        raise typer.BadParameter("give --model with --prompt or --tokens, or --worker with --session")
    if worker is not None:
        made = command(
            settings_of(context),
            worker,
            "kv.export",
            {"session": session, "path": str(out.absolute())},
            timeout=timeout,
        )
        echo(f"{made['place']}: state {made['state']}, {made['tokens']:,} tokens, {size(made['size'])}")
        return
    assert model is not None
    if (prompt is None) == (tokens is None):
        raise typer.BadParameter("give the text with --prompt, or token ids with --tokens")
    from morphogen.kernels.kv import export_kv

    if prompt is not None and not prompt.startswith("@"):
        check_utf8(prompt=prompt)
    cache = settings_of(context).home / "kv"
    type_k, _, type_v = kv_type.partition(",")
    ids = _ids(tokens) if tokens is not None else None
    text = _text(prompt) if prompt is not None else ""
    room = len(ids) if ids is not None else len(text.encode()) + 8
    with _opened(model, room + _ROOM, type_k, type_v or type_k, flash_attn, lora, threads) as opened:
        if ids is None:
            ids = _speaker(opened, cache).tokenize(text, True)
        if not ids:
            raise MorphogenError("there is nothing to export: the prompt has no tokens")
        begun = time.perf_counter()
        opened.decode(0, ids)
        read = time.perf_counter()
        ref = export_kv(opened, 0, out, cache=cache)
        ended = time.perf_counter()
    echo(
        f"{_shown(out)}: {len(ids):,} tokens, {size(ref.size)}; read in {1e3 * (read - begun):.1f} ms, "
        f"written in {1e3 * (ended - read):.1f} ms"
    )


@kv.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file that `kv export` or a worker wrote.")],
    model: Annotated[Path, typer.Option(help="The GGUF file of the model that it was made with.")],
    generate: Annotated[int, typer.Option(min=0, help="Go on for so many tokens, greedily, and print the text.")] = 0,
    lora: _Lora = None,
    threads: _Threads = None,
) -> None:
    """Put a file into a model's context, and go on from there; what does not fit is refused with the reason."""
    from morphogen.kernels.kv import import_kv, open_kv

    if not file.is_file():
        raise MorphogenError(f"no file {file}: `morphogen kv export` writes one")
    cache = settings_of(context).home / "kv"
    state = open_kv(file)
    made = state.fingerprint
    room = state.count + generate + _ROOM
    with _opened(model, room, made.type_k, made.type_v, not made.v_transposed, lora, threads) as opened:
        begun = time.perf_counter()
        found = import_kv(opened, state, 0, cache=cache)
        ended = time.perf_counter()
        echo(
            f"{_shown(file)}: {found.tokens:,} tokens, {size(found.size)}, restored in {1e3 * (ended - begun):.1f} ms",
            err=True,
        )
        if generate:
            if not found.logits:  # decode the last token once more: its logits are not in the file
                last = int(state.tokens[-1])
                opened.truncate(0, found.tokens - 1)
                opened.decode(0, [last])
            speaker = _speaker(opened, cache)
            said = opened.greedy(0, generate)
            echo(b"".join(speaker.piece(token) for token in said).decode("utf-8", "replace"))


@contextlib.contextmanager
def _opened(
    model: Path, room: int, type_k: str, type_v: str, flash_attn: bool, loras: list[str] | None, threads: int | None
) -> "Iterator[RawContext]":
    from morphogen.kernels.kv import RawContext

    from .serve_llama import _adapter

    _hush()
    quantized = type_v not in {"f32", "f16", "bf16"}
    with RawContext.open(
        model,
        n_ctx=room,
        type_k=type_k,
        type_v=type_v,
        flash_attn=flash_attn or quantized,
        loras=tuple(_adapter(one) for one in loras or ()),
        n_threads=threads,
    ) as opened:
        yield opened


def _hush() -> None:
    """Keep llama.cpp's account of itself off the terminal unless --verbose asks for it."""
    with contextlib.suppress(ImportError):
        from llama_cpp import _logger

        _logger.set_verbose(logging.getLogger().isEnabledFor(logging.DEBUG))


def _speaker(opened: "RawContext", cache: Path) -> "ContextSpeaker":
    from morphogen.consumers.kv.speaker import ContextSpeaker
    from morphogen.kernels.kv import fingerprint_of

    return ContextSpeaker(opened, fingerprint=fingerprint_of(opened, cache=cache), cache=cache)


def _shown(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")  # the terminal takes no other


def _text(prompt: str) -> str:
    if not prompt.startswith("@"):
        return prompt
    return _read(Path(prompt[1:]))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MorphogenError(f"{path} is not UTF-8 text (byte {error.start})") from error


def _ids(path: Path) -> list[int]:
    text = _read(path)
    for mark in "[],;":
        text = text.replace(mark, " ")
    try:
        return [int(word) for word in text.split()]
    except ValueError as error:
        raise MorphogenError(f"{path}: token ids are numbers: {error}") from error
