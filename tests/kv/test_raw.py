"""A raw context knows what each of its sequences holds, through every way of changing one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.kernels.kv import KvError, RawContext, export_kv, import_kv

from . import models
from .conftest import greedy


def test_it_says_what_a_llama_says(raw: Callable[..., Any], llama: Callable[..., Any]) -> None:
    context, llm = raw(), llama()
    text = models.prompt(100)
    llm.eval(text)
    context.decode(3, text)

    assert context.greedy(3, 50) == greedy(llm, 50)
    assert context.tokens(3).size == 150


def test_a_copy_shares_and_goes_its_own_way(raw: Callable[..., Any]) -> None:
    context = raw()
    context.decode(0, models.prompt(300))

    context.copy(0, 1)
    context.copy(0, 2, upto=100)
    context.decode(2, [300])

    assert context.greedy(0, 10) == context.greedy(1, 10)  # 300 of 512 cells, twice: they are shared
    assert context.tokens(2).tolist() == [*models.prompt(300)[:100], 300]
    context.drop(0)
    assert context.tokens(1).size == 310
    assert context.free() == 0


def test_a_step_adds_a_token_to_each_of_several_sequences(raw: Callable[..., Any]) -> None:
    context, other = raw(), raw()
    for seq in range(3):
        context.decode(seq, models.prompt(20 + seq, seed=seq))
        other.decode(seq, models.prompt(20 + seq, seed=seq))

    found = context.step({0: 300, 2: 301})

    assert set(found) == {0, 2}
    np.testing.assert_allclose(found[2], other.decode(2, [301]), atol=1e-4)
    assert [context.tokens(seq).size for seq in range(3)] == [21, 21, 23]


def test_truncating_forgets_the_end_and_its_logits(raw: Callable[..., Any]) -> None:
    context = raw()
    context.decode(0, models.prompt(50))
    first = context.decode(0, [300]).copy()

    context.truncate(0, 50)
    assert context.logits(0) is None
    with pytest.raises(KvError, match="the next logits of sequence 0 are not known"):
        context.greedy(0, 1)
    np.testing.assert_array_equal(context.decode(0, [300]), first)


def test_what_a_sliding_window_has_forgotten_is_not_gone_back_to(raw: Callable[..., Any]) -> None:
    context = raw("swa", swa_full=False, n_batch=64, n_ctx=1024)
    text = models.prompt(300)
    context.decode(0, text)

    for count in (20, 60):  # nothing of its window is left, some of it
        with pytest.raises(KvError, match="cannot forget a part of a sequence"):
            context.truncate(0, count)
        with pytest.raises(KvError, match=f"has left its first {count} tokens: copy it whole"):
            context.copy(0, 1, upto=count)
    assert context.tokens(0).tolist() == text  # as before, and it goes on
    context.truncate(0, 290)
    found = context.decode(0, models.prompt(5, seed=2)[1:]).copy()

    context.drop(0)
    context.decode(0, text[:290])
    np.testing.assert_array_equal(found, context.decode(0, models.prompt(5, seed=2)[1:]))


def test_a_text_that_does_not_fit_leaves_none_of_a_sequence_that_cannot_go_back(raw: Callable[..., Any]) -> None:
    context = raw("swa", swa_full=False, n_batch=64, n_ctx=512)
    context.decode(0, models.prompt(40))

    with pytest.raises(KvError, match="sequence 0 is empty now, decode it again from its beginning"):
        context.decode(0, models.prompt(600))

    assert context.tokens(0).size == 0
    assert context.decode(0, models.prompt(10)).size


def test_no_room_leaves_a_sequence_as_it_was(raw: Callable[..., Any]) -> None:
    context = raw(n_ctx=256, n_batch=64)
    context.decode(0, models.prompt(100))
    context.decode(1, models.prompt(100))

    with pytest.raises(KvError, match="there is no room in the cache: drop a sequence"):
        context.decode(0, models.prompt(130))

    assert context.tokens(0).tolist() == models.prompt(100)
    context.drop(1)
    context.decode(0, models.prompt(100))
    assert export_kv(context, 0).count == 200


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (lambda context: context.decode(9, [1]), "there is no sequence 9"),
        (lambda context: context.decode(0, []), "no tokens to decode"),
        (lambda context: context.decode(0, [10**6]), "there is no token 1000000"),
        (lambda context: context.step({}), "a step takes 1 to"),
        (lambda context: context.copy(0, 0), "onto itself"),
        (lambda context: context.copy(0, 1, upto=5), "has 0 tokens, not 5"),
        (lambda context: context.set_loras([(Path("none"), 1.0)]), "no LoRA adapter of this model"),
        (lambda context: export_kv(context, 1), "sequence 1 holds no tokens"),
    ],
)
def test_mistakes_are_told_in_one_line(raw: Callable[..., Any], do: Callable[[Any], None], told: str) -> None:
    with pytest.raises(KvError, match=told):
        do(raw())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"type_k": "q9_9"}, "there is no cache type 'q9_9'"),
        ({"type_v": "q8_0"}, "a quantized V needs flash_attn=True"),
        ({"rope_frequency": 1.0}, "no parameter 'rope_frequency'"),
        ({"loras": [("tiny.gguf", 1.0)]}, "no LoRA adapter of this model"),
    ],
)
def test_a_context_that_cannot_be_made_is_told(raw: Callable[..., Any], options: dict[str, Any], told: str) -> None:
    with pytest.raises(KvError, match=told):
        raw(**options)


def test_an_adapter_changes_what_is_said_and_what_is_taken(raw: Callable[..., Any]) -> None:
    context, other = raw(), raw(loras=[("lora.gguf", 1.0)])
    context.decode(0, models.prompt(50))
    other.decode(0, models.prompt(50))
    plain = export_kv(context, 0)

    assert context.greedy(0, 20) != other.greedy(0, 20)
    with pytest.raises(KvError, match=r"loras\.0\.sha256"):
        import_kv(other, plain, 1)
    other.set_loras([])
    import_kv(other, plain, 1)


def test_a_context_that_someone_else_made_and_decoded_is_exported_by_its_tokens(
    gguf_folder: Path, raw: Callable[..., Any]
) -> None:
    from llama_cpp import llama_cpp as lib

    model = lib.llama_model_load_from_file(str(gguf_folder / "tiny.gguf").encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.flash_attn_type, params.kv_unified = 512, 2, 0, True
    params.n_threads = params.n_threads_batch = 1
    ctx = lib.llama_init_from_model(model, params)
    text = models.prompt(40)
    held = (lib.llama_token * 40)(*text)
    assert lib.llama_decode(ctx, lib.llama_batch_get_one(held, 40)) == 0
    context, target = RawContext(ctx, params, gguf_folder / "tiny.gguf"), raw(sequences=2)

    with pytest.raises(KvError, match="positions up to 39, but 39 tokens are known of it: pass tokens="):
        export_kv(context, 0, tokens=text[:-1])
    import_kv(target, export_kv(context, 0, tokens=text), 1)
    context.note(0, text)
    state = export_kv(context, 0)

    assert state.count == 40
    assert target.tokens(1).tolist() == text
    context.close()
    lib.llama_free(ctx)
    lib.llama_model_free(model)


def test_a_cache_whose_positions_were_shifted_is_not_exported(raw: Callable[..., Any]) -> None:
    from llama_cpp import llama_cpp as lib

    context = raw()
    context.decode(0, models.prompt(40))
    memory = lib.llama_get_memory(context.ctx)
    lib.llama_memory_seq_rm(memory, 0, 0, 10)
    lib.llama_memory_seq_add(memory, 0, 20, -1, 0)

    with pytest.raises(KvError, match="some layers hold 30 positions from 10 to 39, not every one from 0 to 39"):
        export_kv(context, 0)


def test_nothing_is_written_to_the_terminal(
    raw: Callable[..., Any], llama: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    context = raw(n_ctx=256, loras=[("lora.gguf", 1.0)])
    context.decode(0, models.prompt(200))
    other = raw(n_ctx=256, loras=[("lora.gguf", 1.0)])
    other.decode(0, models.prompt(200))
    with pytest.raises(KvError, match="no room"):
        import_kv(other, export_kv(context, 0), 1)
    import_kv(llama(lora_path="lora.gguf"), export_kv(context, 0))
    context.close()

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"n_threads": 100_000}, "the number of threads is 100,000: from 1 to 512 can be"),
        ({"n_threads": 0}, "the number of threads is 0"),
        ({"n_ctx": 2**32 + 64}, "the context is 4,294,967,360"),
        ({"n_ctx": 0}, "the context is 0"),
        ({"n_ctx": 64, "sequences": 65}, "the number of sequences is 65: from 1 to 64 can be"),
        ({"n_batch": -1}, "a batch is -1"),
    ],
)
def test_numbers_that_llama_cpp_would_end_the_process_for_are_refused(
    raw: Callable[..., Any], options: dict[str, int], line: str
) -> None:
    with pytest.raises(KvError, match=line):
        raw(**options)


def test_closing_twice_is_harmless(raw: Callable[..., Any]) -> None:
    context = raw()
    with context:
        pass
    context.close()
    with pytest.raises(KvError, match="this context is closed"):
        export_kv(context)
