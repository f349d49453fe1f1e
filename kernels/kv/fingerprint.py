"""The fingerprint of a context: all that must be equal for the bytes of a KV state to mean the same.

llama.cpp compares shapes and types alone: a model of the same shape with other weights, another RoPE or another adapter
would take the bytes and babble. Values are the effective ones, so that "0 = as the model says" equals saying the same.
The size of the context is none of them, except where it chooses between a model's long and short RoPE factors.
"""

import hashlib
import math
import os
from functools import cache as remembered
from pathlib import Path
from typing import Any

import numpy as np

from morphogen.schemas.kv import Fingerprint, Lora, Scalar

from . import llama
from .contexts import Seat, seat_of
from .errors import KvError
from .weights import remember_vocab, vocab_hash, weights_of

_LONG_ROPE = ("phi3", "phimoe", "minicpm", "minicpm3")  # architectures with a set of factors for long contexts
_BF16 = 30  # ggml's number of a type that the binding has no name for
_YARN = 2  # LLAMA_ROPE_SCALING_TYPE_YARN


def fingerprint_of(llm: Any, *, cache: Path | None = None, loras: Any = None) -> Fingerprint:
    """Return the fingerprint of a `Llama` or a `RawContext`.

    `cache` is a folder in which hashes of files of weights are kept. `loras` tells the adapters (file, scale) of a
    `Llama` where they were set past it. Raises KvError where a file cannot be read.
    """
    return fingerprint(seat_of(llm, loras), cache)


def fingerprint(seat: Seat, cache: Path | None = None) -> Fingerprint:
    """Return the fingerprint of a seat."""
    lib = llama.library()
    model = lib.llama_get_model(seat.ctx)
    params = seat.params
    arch = _meta(model, "general.architecture") or "unknown"
    window = int(lib.llama_model_n_swa(model))
    heads = int(lib.llama_model_n_head(model)) or 1
    head_dim = int(_meta(model, f"{arch}.attention.key_length") or lib.llama_model_n_embd(model) // heads)
    if params.flash_attn_type < 0:
        raise KvError("this context leaves flash attention to llama.cpp: say on or off when you make it")
    type_k, type_v = _type_name(params.type_k), _type_name(params.type_v)
    extra: dict[str, Scalar] = {"streams": 1 if params.kv_unified else max(1, params.n_seq_max)}
    if seat.overrides:
        extra["overrides"] = seat.overrides
    if head_dim % 64 == 0 and (_quantized(type_k) or _quantized(type_v)):
        extra["rotated"] = not _number(os.environ.get("LLAMA_ATTN_ROT_DISABLE"))  # llama.cpp turns quantized caches
    stamps = seat.stamps
    known = weights_of(seat.path, cache, stamps.get(seat.path, ()))
    vocab = known.vocab
    if not vocab:
        vocab = vocab_hash(lib, lib.llama_model_get_vocab(model))
        remember_vocab(seat.path, vocab, cache, stamps.get(seat.path, ()))
    return Fingerprint(
        engine="llama.cpp",
        build=_build(),
        state_version=int(lib.LLAMA_STATE_SEQ_VERSION),
        weights=known.sha256,
        arch=arch,
        vocab=vocab,
        type_k=type_k,
        type_v=type_v,
        layers=int(lib.llama_model_n_layer(model)),
        heads_kv=int(lib.llama_model_n_head_kv(model)),
        head_dim=head_dim,
        v_transposed=params.flash_attn_type == 0,
        rope=_rope(lib, model, arch, params, int(lib.llama_n_ctx_seq(seat.ctx))),
        swa={"window": window, "full": bool(params.swa_full)} if window else {},
        loras=tuple(
            sorted(
                (
                    Lora(sha256=weights_of(path, cache, stamps.get(path, ())).sha256, scale=_float32(scale))
                    for path, scale in seat.loras
                    if scale != 0.0
                ),
                key=lambda lora: (lora.sha256, lora.scale),
            )
        ),
        extra=extra,
    )


def _rope(lib: Any, model: Any, arch: str, params: Any, room: int) -> dict[str, Scalar]:
    scaling = {"none": 0, "linear": 1, "yarn": 2, "longrope": 3}
    trained = _meta(model, f"{arch}.rope.scaling.type")
    kind = params.rope_scaling_type if params.rope_scaling_type >= 0 else scaling.get(trained or "linear", 1)
    base = params.rope_freq_base or _number(_meta(model, f"{arch}.rope.freq_base")) or 10_000.0
    scale = params.rope_freq_scale or float(lib.llama_model_rope_freq_scale_train(model))

    def yarn(name: str, otherwise: float) -> float:
        given = float(getattr(params, f"yarn_{name}"))
        return given if given >= 0 else _number(_meta(model, f"{arch}.rope.scaling.yarn_{name}")) or otherwise

    mix = yarn("ext_factor", 1.0 if kind == _YARN else 0.0)
    rope: dict[str, Scalar] = {
        "type": int(lib.llama_model_rope_type(model)),
        "base": _float32(base),
        "scale": 1.0 if kind == 0 else _float32(scale),
        "ext_factor": _float32(mix),
        "attn_factor": _float32(yarn("attn_factor", 1.0)),
    }
    original = params.yarn_orig_ctx or int(
        _meta(model, f"{arch}.rope.scaling.original_context_length") or lib.llama_model_n_ctx_train(model)
    )
    if mix:
        rope |= {"beta_fast": _float32(yarn("beta_fast", 32.0)), "beta_slow": _float32(yarn("beta_slow", 1.0))}
        rope["original"] = original
    if trained == "longrope" or arch in _LONG_ROPE:
        rope["long"] = room > original
    return rope


@remembered
def _build() -> str:
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent
    for place in (folder / "lib", folder):
        for name in ("libllama.so", "libllama.dylib", "llama.dll"):
            if (place / name).is_file():
                digest = hashlib.sha256((place / name).read_bytes()).hexdigest()[:16]
                return f"llama-cpp-python {llama_cpp.__version__} {digest}"
    return f"llama-cpp-python {llama_cpp.__version__}"


@remembered
def _types() -> dict[int, str]:
    lib = llama.library()
    return {_BF16: "bf16"} | {
        number: name.removeprefix("GGML_TYPE_").lower()
        for name, number in vars(lib).items()
        if name.startswith("GGML_TYPE_") and isinstance(number, int) and name != "GGML_TYPE_COUNT"
    }


def _type_name(number: int) -> str:
    return _types().get(number, f"ggml-{number}")


def type_number(name: str) -> int:
    """Return ggml's number of a type of cache, such as `f16` or `q8_0`. Raises KvError for an unknown name."""
    for number, known in _types().items():
        if known == name.lower():
            return number
    raise KvError(f"there is no cache type {name!r}: f16, bf16, f32, q8_0, q5_1, q5_0, q4_1, q4_0")


def _quantized(name: str) -> bool:
    return name not in {"f32", "f16", "bf16"}


def _meta(model: Any, key: str) -> str | None:
    import ctypes

    text = ctypes.create_string_buffer(256)
    size = llama.library().llama_model_meta_val_str(model, key.encode(), text, len(text))
    return text.value.decode("utf-8", "replace") if size >= 0 else None


def _number(text: str | None) -> float:
    try:
        found = float(text or 0)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def _float32(value: float) -> float:
    return float(np.float32(value))
