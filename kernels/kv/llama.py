"""llama.cpp's calls for the state of one sequence, straight out of and into the caller's bytes.

One copy each way, made by llama.cpp itself; Python touches no byte. The calls release the interpreter's lock, but a
context is not made for two threads at once. With layers on a GPU, llama.cpp copies through memory of its own: it gives
out no device pointers.
"""

import contextlib
import ctypes
import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from .errors import LLAMA, KvError, MissingExtra

_OTHERS = ("minimax-m3", "glm-dsa", "glm5-next", "hy_v4", "deepseek32", "deepseek4", "dots3note", "qwen4exp")
"""Architectures whose memory is neither cells of keys and values alone nor said to be recurrent or hybrid."""
FLAGS = 0  # the whole sequence, in host memory
_BYTES = ctypes.POINTER(ctypes.c_uint8)


@cache
def library() -> Any:
    """Return llama-cpp-python's bindings. Raises MissingExtra without them, KvError where they are too old."""
    try:
        from llama_cpp import llama_cpp
    except ImportError as error:
        raise MissingExtra(f"KV states of llama.cpp need llama-cpp-python: {LLAMA}") from error
    for name in ("llama_state_seq_get_data_ext", "llama_memory_seq_pos_max", "llama_set_adapters_lora"):
        if not hasattr(llama_cpp, name):
            raise KvError(f"this llama-cpp-python has no {name}: pip install -U 'morphogen[llama]'")
    return llama_cpp


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep llama.cpp's own lines off the terminal: what matters of them comes as an error of ours."""
    logger = logging.getLogger("llama-cpp-python")  # the binding prints what this logger's level lets through
    before = logger.level
    logger.level = logging.CRITICAL + 1  # setLevel would clear the caches of all loggers, twice a call
    try:
        yield
    finally:
        logger.level = before


def state_size(ctx: Any, seq: int) -> int:
    """Return the bytes of a sequence's state."""
    return int(library().llama_state_seq_get_size_ext(ctx, seq, FLAGS))


def read_state(ctx: Any, seq: int, into: memoryview) -> int:
    """Write a sequence's state into `into`; return the bytes written, 0 where it does not fit."""
    return int(library().llama_state_seq_get_data_ext(ctx, _pointer(into), into.nbytes, seq, FLAGS))


def write_state(ctx: Any, seq: int, data: memoryview) -> int:
    """Replace a sequence by a state; return the bytes read, 0 where it was refused: the sequence is then empty."""
    with quiet():  # what it complains of is told by our error
        return int(library().llama_state_seq_set_data_ext(ctx, _pointer(data), data.nbytes, seq, FLAGS))


def last_position(ctx: Any, seq: int) -> int:
    """Return the highest position that a sequence holds, -1 for none."""
    return int(library().llama_memory_seq_pos_max(memory(ctx), seq))


def first_position(ctx: Any, seq: int) -> int:
    """Return the lowest position that a sequence holds in all layers, -1 for none."""
    return int(library().llama_memory_seq_pos_min(memory(ctx), seq))


def slid_past(ctx: Any, seq: int, count: int) -> bool:
    """Return whether a sliding window has forgotten what the token after the first `count` must see.

    llama.cpp would remove what follows them all the same, and go on without it.
    """
    lib = library()
    model = lib.llama_get_model(ctx)
    if lib.llama_model_is_hybrid(model):  # holds one state beside its cells, and refuses by itself to go back
        return False
    window = int(lib.llama_model_n_swa(model))
    return window > 0 and count > 0 and first_position(ctx, seq) > max(0, count + 1 - window)


def remove(ctx: Any, seq: int, start: int = -1, end: int = -1) -> bool:
    """Remove positions `start` to `end` (-1: all) of a sequence; False where this memory cannot."""
    return bool(library().llama_memory_seq_rm(memory(ctx), seq, start, end))


def copy(ctx: Any, source: int, target: int, start: int = -1, end: int = -1) -> None:
    """Let `target` share positions of `source`: in a unified cache no byte moves."""
    library().llama_memory_seq_cp(memory(ctx), source, target, start, end)


def memory(ctx: Any) -> Any:
    """Return the memory of a context. Raises KvError for one that has none, such as an embedding model's."""
    found = library().llama_get_memory(ctx)
    if not found:
        raise KvError("this context has no KV cache: open the model for generation, not for embeddings")
    return found


def vocabulary(ctx: Any) -> int:
    """Return how many tokens a context's model knows."""
    lib = library()
    return int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(lib.llama_get_model(ctx))))


def has_cells(ctx: Any, arch: str) -> bool:
    """Return whether a model's memory is cells of keys and values, which `layout` can read."""
    lib = library()
    model = lib.llama_get_model(ctx)
    other = lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model) or arch in _OTHERS
    return not other


def logits_row(ctx: Any, row: int = -1) -> "np.ndarray[Any, np.dtype[np.float32]] | None":
    """Return one row of the last decode's logits, writable and llama.cpp's own; None where there is none."""
    lib = library()
    with quiet():  # it complains where there is none
        found = lib.llama_get_logits_ith(ctx, row)
    if not found:
        return None
    return np.ctypeslib.as_array(found, shape=(vocabulary(ctx),))


def decode_one(ctx: Any, seq: int, token: int, position: int) -> None:
    """Decode one token of a sequence and make its logits. Raises KvError where llama.cpp finds no room."""
    lib = library()
    batch = lib.llama_batch_init(1, 0, 1)
    try:
        batch.n_tokens = 1
        batch.token[0], batch.pos[0], batch.n_seq_id[0] = token, position, 1
        batch.seq_id[0][0], batch.logits[0] = seq, 1
        with quiet():
            status = lib.llama_decode(ctx, batch)
    finally:
        lib.llama_batch_free(batch)
    if status != 0:
        raise KvError(f"llama.cpp could not decode a token at position {position} of sequence {seq}: status {status}")


def _pointer(view: memoryview) -> Any:
    # np.frombuffer takes read-only views as well, ctypes' from_buffer does not
    return ctypes.cast(np.frombuffer(view, np.uint8).ctypes.data, _BYTES)
