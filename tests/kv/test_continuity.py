"""A context that took a state goes on exactly as the one that read the text: bit by bit, and token by token."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from morphogen.kernels.kv import KvState, export_kv, import_kv

from . import models
from .conftest import greedy, logits_of

F16: dict[str, Any] = {}
F16_FLASH: dict[str, Any] = {"flash_attn": True}
Q8: dict[str, Any] = {"flash_attn": True, "type_k": 8, "type_v": 8}
Q8_KEYS: dict[str, Any] = {"type_k": 8}
ADAPTED: dict[str, Any] = {"lora_path": "lora.gguf", "lora_scale": 0.7}


@pytest.mark.parametrize("adapter", [{}, ADAPTED], ids=["plain", "lora"])
@pytest.mark.parametrize("cache", [F16, F16_FLASH, Q8, Q8_KEYS], ids=["f16", "f16-flash", "q8_0", "q8_0-keys"])
@pytest.mark.parametrize("n_ctx", [512, 1024])
def test_a_restored_llama_goes_on_as_the_one_that_was_continued(
    llama: Callable[..., Any], n_ctx: int, cache: dict[str, Any], adapter: dict[str, Any]
) -> None:
    read, took = llama(n_ctx=n_ctx, **cache, **adapter), llama(n_ctx=n_ctx, **cache, **adapter)
    read.eval(models.prompt(n_ctx // 4))

    state = export_kv(read)
    import_kv(took, state)

    assert np.array_equal(logits_of(took), logits_of(read))
    assert greedy(took, 256) == greedy(read, 256)
    assert np.array_equal(logits_of(took), logits_of(read))


@pytest.mark.parametrize("unified", [True, False], ids=["unified", "streams"])
@pytest.mark.parametrize("cache", [{}, {"flash_attn": True, "type_k": "q8_0", "type_v": "q8_0"}], ids=["f16", "q8_0"])
@pytest.mark.parametrize("loras", [[], [("lora.gguf", 0.5), ("lora2.gguf", 1.0)]], ids=["plain", "loras"])
def test_every_sequence_of_a_raw_context_can_move_to_every_other(
    raw: Callable[..., Any], unified: bool, cache: dict[str, Any], loras: list[tuple[str, float]]
) -> None:
    shape = {"n_ctx": 2048, "sequences": 3, "unified": unified, "loras": loras, **cache}
    read, took = raw(**shape), raw(**shape)
    for seq in range(2):
        read.decode(seq, models.prompt(60 + 30 * seq, seed=seq))

    for seq in range(2):
        import_kv(took, export_kv(read, seq), 2 - seq)

    for seq in range(2):
        assert took.tokens(2 - seq).tolist() == read.tokens(seq).tolist()
        assert np.array_equal(took.logits(2 - seq), read.logits(seq))
        assert took.greedy(2 - seq, 256) == read.greedy(seq, 256)
        assert np.array_equal(took.logits(2 - seq), read.logits(seq))


def test_a_llama_takes_what_a_raw_context_read_and_back(llama: Callable[..., Any], raw: Callable[..., Any]) -> None:
    first, middle, last = raw(), llama(n_ctx=1024), raw(n_ctx=2048)
    first.decode(2, models.prompt(100))

    import_kv(middle, export_kv(first, 2))
    said = greedy(middle, 20)
    import_kv(last, export_kv(middle), 1)

    assert first.greedy(2, 60) == said + last.greedy(1, 40)


@pytest.mark.parametrize("full", [True, False], ids=["full", "window"])
def test_a_model_with_a_sliding_window_goes_on_behind_its_window(llama: Callable[..., Any], full: bool) -> None:
    read, took = llama("swa", swa_full=full), llama("swa", swa_full=full)
    read.eval(models.prompt(200))

    import_kv(took, export_kv(read))

    assert greedy(took, 100) == greedy(read, 100)


def test_a_recurrent_model_moves_as_well(raw: Callable[..., Any], llama: Callable[..., Any]) -> None:
    read, took = raw("mamba"), llama("mamba")
    read.decode(1, models.prompt(200))

    import_kv(took, export_kv(read, 1))

    assert greedy(took, 100) == read.greedy(1, 100)


@pytest.mark.parametrize("cache", [F16, Q8], ids=["f16", "q8_0"])
@pytest.mark.parametrize("upto", [1, 63, 64, 100])
def test_a_prefix_goes_on_as_the_context_that_was_cut_back_to_it(
    llama: Callable[..., Any], upto: int, cache: dict[str, Any]
) -> None:
    read, took = llama(**cache), llama(**cache)
    text = models.prompt(150)
    read.eval(text)

    state = export_kv(read, upto=upto)
    done = import_kv(took, state)
    read._ctx.kv_cache_seq_rm(0, upto, -1)
    read.n_tokens = upto

    assert isinstance(state, KvState)
    assert (state.count, state.tokens.tolist(), done.tokens) == (upto, text[:upto], upto)
    for llm in (read, took):
        llm.eval([*text[upto : upto + 40], 300])
    assert np.array_equal(logits_of(took), logits_of(read))
    assert greedy(took, 60) == greedy(read, 60)


def test_a_prefix_of_a_raw_sequence_leaves_the_sequence_whole(raw: Callable[..., Any]) -> None:
    context = raw()
    context.decode(0, models.prompt(120))
    context.copy(0, 1, upto=50)

    import_kv(context, export_kv(context, 0, upto=50), 2, logits=True)

    assert context.tokens(0).size == 120
    context.decode(1, [300])
    context.decode(2, [300])
    # They lie in other cells of one cache, and sums are added up in the order of cells.
    np.testing.assert_allclose(context.logits(1), context.logits(2), atol=1e-4)
    assert context.greedy(1, 30) == context.greedy(2, 30)


def test_a_state_of_another_size_of_context_is_taken_where_it_fits(llama: Callable[..., Any]) -> None:
    read, small, large = llama(n_ctx=512), llama(n_ctx=256), llama(n_ctx=2048)
    read.eval(models.prompt(200))
    state = export_kv(read)

    import_kv(small, state)
    import_kv(large, state)

    said = greedy(read, 50)
    assert greedy(small, 50) == said
    assert greedy(large, 50) == said
