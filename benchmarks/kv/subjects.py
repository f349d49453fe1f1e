"""The models that are measured, made here in a second each, and contexts of them.

`talk` takes its time to read and keeps little of it: 1 KiB a token. Its vocabulary has 32,000 words, as that of a real
small model: what llama-cpp-python keeps of the scores hangs on it. `terse` is the same with 372 words. `wide` keeps 128 KiB
a token and a layer count that makes any size, to measure bandwidth.
"""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "kv"))

from models import BENCH, WIDE, Sizes, prompt, write_llama  # noqa: E402

__all__ = ["TALK", "TERSE", "Sizes", "clear", "llama", "made", "memory_folder", "prompt", "wide"]

TALK = replace(BENCH, words=32_000)
TERSE = BENCH


def wide(megabytes: int, tokens: int = 512) -> Sizes:
    """Return a model whose state of so many tokens has so many MiB."""
    each = WIDE.bytes_per_token // WIDE.layers
    return replace(WIDE, layers=(megabytes << 20) // (tokens * each))


def made(folder: Path, sizes: Sizes) -> Path:
    """Return a model of that shape, made where it is not there yet."""
    path = folder / f"model-{sizes.width}-{sizes.layers}-{sizes.heads_kv}-{sizes.words}.gguf"
    return path if path.exists() else write_llama(path, sizes)


def llama(path: Path, *, n_ctx: int = 4096, threads: int = 1, flash_attn: bool = False) -> Any:
    """Load a model as a user of llama-cpp-python does."""
    from llama_cpp import Llama

    return Llama(
        str(path), n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, flash_attn=flash_attn, verbose=False
    )


def clear(llm: Any) -> None:
    """Let a Llama forget all that it read; its memory stays allocated and touched."""
    llm.reset()
    llm._ctx.kv_cache_clear()


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """Give a folder of shared memory of our own, and remove it with all that is in it."""
    place = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="morphogen-kv-bench-", dir=place if place.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
