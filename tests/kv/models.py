"""Real GGUF files in a second: a llama of any size with random weights, a model with a sliding window, LoRA adapters.

The weights come of a seed, so two files of one seed and one shape are the same bytes. The models babble, always the same
way, and never say that they are done: no end-of-sequence token wins a greedy choice.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BYTES = 256
UNKNOWN, BOS, EOS = 0, 1, 2
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
_PAIRS = (
    "th",
    "he",
    "in",
    "er",
    "an",
    "re",
    "on",
    "at",
    "en",
    "nd",
    "▁t",
    "▁a",
    "▁s",
    "▁w",
    "▁th",
    "▁the",
    "the",
    "ing",
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The shape of a model. KV bytes of a token: `2 * layers * heads_kv * head * bytes of the cache's type`."""

    width: int = 32
    layers: int = 2
    heads: int = 4
    heads_kv: int = 2
    head: int = 32  # a multiple of 32, so that q8_0 fits
    feed: int = 64
    context: int = 8192  # tokens that the file says it was trained for
    window: int = 0  # tokens of the sliding window; above 0 makes a gemma3
    words: int = 0  # the vocabulary is filled up to so many, which nobody says; a real one has 32,000 and more

    @property
    def bytes_per_token(self) -> int:
        """Return the bytes of one token in an f16 cache."""
        return 2 * self.layers * self.heads_kv * self.head * 2


TINY = Sizes()
SWA = Sizes(window=32, layers=7)  # every sixth layer of a gemma3 attends to all
# 1 KiB of KV a token: prefill is dear and the cache small, as with a real model
BENCH = Sizes(width=192, layers=4, heads=4, heads_kv=2, head=32, feed=384)
WIDE = Sizes(layers=16, heads=32, heads_kv=32, head=64, feed=32)  # 128 KiB of KV a token: 64 MiB in 512


def write_llama(path: Path, sizes: Sizes = TINY, *, seed: int = 7, rope_base: float = 10_000.0) -> Path:
    """Write a model of that shape and those random weights; return its path.

    The vocabulary: <unk>, <s>, </s>, 256 bytes, printable ASCII and some pairs of letters as pieces.
    """
    import gguf

    random = np.random.default_rng(seed)
    keys, width, feed = sizes.heads_kv * sizes.head, sizes.width, sizes.feed

    def weight(*shape: int) -> "np.ndarray[Any, Any]":
        return (random.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)

    writer = gguf.GGUFWriter(str(path), "gemma3" if sizes.window else "llama")
    writer.add_name("tiny")
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(width)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(feed)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.heads_kv)
    writer.add_key_length(sizes.head)
    writer.add_value_length(sizes.head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(sizes.head)
    writer.add_rope_freq_base(rope_base)
    if sizes.window:
        writer.add_sliding_window(sizes.window)
    words = _add_vocabulary(gguf, writer, sizes.words)
    writer.add_tensor("token_embd.weight", weight(words, width))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", _output(weight(words, width)))
    norms = ["attn_norm", "ffn_norm"]
    if sizes.window:
        norms += ["post_attention_norm", "post_ffw_norm"]
    for layer in range(sizes.layers):
        at = f"blk.{layer}."
        for name in norms:
            writer.add_tensor(f"{at}{name}.weight", np.ones(width, np.float32))
        if sizes.window:
            writer.add_tensor(at + "attn_q_norm.weight", np.ones(sizes.head, np.float32))
            writer.add_tensor(at + "attn_k_norm.weight", np.ones(sizes.head, np.float32))
        writer.add_tensor(at + "attn_q.weight", weight(sizes.heads * sizes.head, width))
        writer.add_tensor(at + "attn_k.weight", weight(keys, width))
        writer.add_tensor(at + "attn_v.weight", weight(keys, width))
        writer.add_tensor(at + "attn_output.weight", weight(width, sizes.heads * sizes.head))
        writer.add_tensor(at + "ffn_gate.weight", weight(feed, width))
        writer.add_tensor(at + "ffn_up.weight", weight(feed, width))
        writer.add_tensor(at + "ffn_down.weight", weight(width, feed))
    _finish(writer)
    return path


def write_mamba(path: Path, *, width: int = 32, layers: int = 2, state: int = 8, seed: int = 7) -> Path:
    """Write a Mamba, whose memory is one state a sequence and no cells: nothing of it can be cut to a prefix."""
    import gguf

    random = np.random.default_rng(seed)
    inner, kernel, rank = 2 * width, 4, 4
    writer = gguf.GGUFWriter(str(path), "mamba")
    writer.add_context_length(8192)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(layers)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    words = _add_vocabulary(gguf, writer)

    def weight(*shape: int) -> "np.ndarray[Any, Any]":
        return (random.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)

    writer.add_tensor("token_embd.weight", weight(words, width))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", _output(weight(words, width)))
    for layer in range(layers):
        at = f"blk.{layer}."
        writer.add_tensor(at + "attn_norm.weight", np.ones(width, np.float32))
        writer.add_tensor(at + "ssm_in.weight", weight(2 * inner, width))
        writer.add_tensor(at + "ssm_conv1d.weight", weight(inner, kernel))
        writer.add_tensor(at + "ssm_conv1d.bias", np.zeros(inner, np.float32))
        writer.add_tensor(at + "ssm_x.weight", weight(rank + 2 * state, inner))
        writer.add_tensor(at + "ssm_dt.weight", weight(inner, rank))
        writer.add_tensor(at + "ssm_dt.bias", np.zeros(inner, np.float32))
        writer.add_tensor(at + "ssm_a", -np.exp(weight(inner, state)).astype(np.float32))
        writer.add_tensor(at + "ssm_d", np.ones(inner, np.float32))
        writer.add_tensor(at + "ssm_out.weight", weight(width, inner))
    _finish(writer)
    return path


def write_lora(path: Path, sizes: Sizes = TINY, *, seed: int = 3, rank: int = 4, strength: float = 4.0) -> Path:
    """Write a LoRA adapter of the query and value weights of every layer, strong enough to change what is said."""
    import gguf

    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "gemma3" if sizes.window else "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    outputs = {"attn_q": sizes.heads * sizes.head, "attn_v": sizes.heads_kv * sizes.head}
    for layer in range(sizes.layers):
        for name, rows in outputs.items():
            down = random.standard_normal((rank, sizes.width)) / math.sqrt(sizes.width)
            up = random.standard_normal((rows, rank)) * strength / math.sqrt(rank)
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_a", down.astype(np.float32))
            writer.add_tensor(f"blk.{layer}.{name}.weight.lora_b", up.astype(np.float32))
    _finish(writer)
    return path


def prompt(tokens: int, seed: int = 1) -> list[int]:
    """Return that many token ids of plain text: the beginning mark and random printable pieces."""
    drawn = np.random.default_rng(seed).integers(3 + BYTES, 3 + BYTES + 94, tokens)
    drawn[0] = BOS
    return [int(token) for token in drawn]


def needed() -> None:
    """Skip the test where llama-cpp-python or gguf is missing."""
    pytest.importorskip("gguf", reason="the gguf package is not installed, so no model can be made")
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


def _add_vocabulary(gguf: Any, writer: Any, fill: int = 0) -> int:
    words = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(BYTES))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * BYTES]
    pieces = ["▁", *(chr(code) for code in range(33, 127)), *_PAIRS]
    scores = [0.0] * len(words) + [-100.0] * 95 + [-float(place) for place in range(len(_PAIRS))]
    pieces += [f"~{number:05d}" for number in range(fill - len(words) - len(pieces))]
    scores += [-1000.0] * (len(words) + len(pieces) - len(scores))
    words += [piece.encode() for piece in pieces]
    kinds += [gguf.TokenType.NORMAL] * len(pieces)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    return len(words)


def _output(weights: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    weights = weights * 4
    # Neither control tokens, bytes nor words that fill up are ever the likeliest: greedy text is printable and goes on.
    weights[: 3 + BYTES] = 0
    weights[3 + BYTES + 95 + len(_PAIRS) :] = 0
    return weights


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
