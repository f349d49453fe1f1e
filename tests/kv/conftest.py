"""Models of every kind, made once, and contexts of them that are closed when the test is over."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import models

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def gguf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiny`, `other` (its shape, other weights), `swa`, `mamba` and the adapters `lora`, `lora2`."""
    models.needed()
    folder = tmp_path_factory.mktemp("gguf")
    models.write_llama(folder / "tiny.gguf")
    models.write_llama(folder / "other.gguf", seed=8)
    models.write_llama(folder / "swa.gguf", models.SWA)
    models.write_mamba(folder / "mamba.gguf")
    models.write_lora(folder / "lora.gguf")
    models.write_lora(folder / "lora2.gguf", seed=4)
    return folder


@pytest.fixture
def llama(gguf_folder: Path) -> Iterator[Make]:
    """Open a Llama: llama("tiny", n_ctx=..., ...)."""
    import llama_cpp

    opened: list[Any] = []

    def make(name: str = "tiny", **options: Any) -> Any:
        chosen: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
        for key in ("lora_path",):
            if key in options:
                options[key] = str(gguf_folder / options[key])
        opened.append(llama_cpp.Llama(str(gguf_folder / f"{name}.gguf"), **(chosen | options)))
        return opened[-1]

    yield make
    for llm in opened:
        llm.close()


@pytest.fixture
def raw(gguf_folder: Path) -> Iterator[Make]:
    """Open a RawContext: raw("tiny", sequences=..., ...)."""
    from morphogen.kernels.kv import RawContext

    opened: list[Any] = []

    def make(name: str = "tiny", **options: Any) -> RawContext:
        chosen: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "sequences": 4}
        if "loras" in options:
            options["loras"] = [(gguf_folder / file, scale) for file, scale in options["loras"]]
        opened.append(RawContext.open(gguf_folder / f"{name}.gguf", **(chosen | options)))
        made: RawContext = opened[-1]
        return made

    yield make
    for context in opened:
        context.close()


def logits_of(llm: Any) -> "np.ndarray[Any, Any]":
    """Return a copy of the logits of a Llama's next token."""
    return np.ctypeslib.as_array(llm._ctx.get_logits_ith(-1), shape=(llm.n_vocab(),)).copy()


def greedy(llm: Any, count: int) -> list[int]:
    """Return what a Llama says next, token by token, with nothing read again."""
    said = []
    for _ in range(count):
        said.append(int(llm.sample(temp=0.0)))
        llm.eval(said[-1:])
    return said


def bytes_of(context: Any, seq: int = 0) -> bytes:
    """Return llama.cpp's own bytes of a sequence."""
    from morphogen.kernels.kv import llama as calls

    room = bytearray(calls.state_size(context.ctx, seq))
    return bytes(room[: calls.read_state(context.ctx, seq, memoryview(room))])
