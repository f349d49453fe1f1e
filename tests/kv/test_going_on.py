"""After an import a Llama is what it would be had it read the text: what it says next, what it keeps, what it reads again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.kernels.kv import KvError, KvState, export_kv, import_kv, kv_size

from . import models
from .conftest import bytes_of, greedy, logits_of


def test_the_next_token_can_be_sampled_at_once(llama: Callable[..., Any]) -> None:
    read, took = llama(), llama()
    read.eval(models.prompt(100))

    done = import_kv(took, export_kv(read))

    assert done.logits
    assert took.sample(temp=0.0) == read.sample(temp=0.0)


def test_without_logits_nothing_is_decoded_and_generate_reads_one_token_again(llama: Callable[..., Any]) -> None:
    read, took = llama(), llama()
    text = models.prompt(100)
    read.eval(text)

    done = import_kv(took, export_kv(read), logits=False)

    assert not done.logits
    assert took.n_tokens == 100
    expected = [token for token, _ in zip(read.generate(text, temp=0.0), range(50), strict=False)]
    assert [token for token, _ in zip(took.generate(text, temp=0.0), range(50), strict=False)] == expected


@pytest.mark.parametrize("used_before", [False, True])
def test_the_cache_is_what_was_exported_bit_by_bit_though_logits_were_made(
    llama: Callable[..., Any], used_before: bool
) -> None:
    read, took = llama(), llama()
    read.eval(models.prompt(100))
    if used_before:
        took.eval(models.prompt(30, seed=9))

    for upto in (100, 57):  # a prefix carries no logits: its last token is decoded again
        state = export_kv(read, upto=upto)
        assert import_kv(took, state).logits
        assert isinstance(state, KvState)
        assert bytes_of(took) == bytes(state.verify())


def test_a_conversation_reads_only_what_is_new(llama: Callable[..., Any]) -> None:
    read, took = llama(), llama()
    prompt = read.tokenize(b"the thing in the hand: ")
    said = [token for token, _ in zip(read.generate(prompt, temp=0.0), range(30), strict=False)]
    state = export_kv(read)
    import_kv(took, state)
    counted: list[int] = []
    original = took.eval
    took.eval = lambda tokens: (counted.append(len(tokens)), original(tokens))[1]
    more = prompt + said + took.tokenize(b" and then?", add_bos=False)

    heard = [token for token, _ in zip(took.generate(more, temp=0.0), range(20), strict=False)]

    assert counted[0] == len(more) - (state.count if isinstance(state, KvState) else 0)
    fresh = llama()
    fresh.eval(prompt)
    fresh.eval(said)
    assert heard == [token for token, _ in zip(fresh.generate(more, temp=0.0), range(20), strict=False)]


def test_a_completion_with_logprobs_works_behind_an_import(llama: Callable[..., Any]) -> None:
    read, took = llama(logits_all=True), llama(logits_all=True)
    text = "the thing in the hand: "
    prompt = read.tokenize(text.encode())
    read.eval(prompt)
    import_kv(took, export_kv(read))

    assert np.array_equal(took.scores[len(prompt) - 1], read.scores[len(prompt) - 1])
    ours, theirs = (llm.create_completion(text, max_tokens=8, temperature=0.0, logprobs=2) for llm in (took, read))
    assert ours["choices"][0]["text"] == theirs["choices"][0]["text"]


def test_what_a_llama_held_before_is_gone(llama: Callable[..., Any]) -> None:
    read, took = llama(), llama()
    read.eval(models.prompt(40))
    took.eval(models.prompt(300, seed=5))

    import_kv(took, export_kv(read))

    assert took.n_tokens == 40
    assert took.input_ids[:40].tolist() == models.prompt(40)
    assert greedy(took, 40) == greedy(read, 40)


def test_cells_that_a_reset_left_are_not_exported(llama: Callable[..., Any]) -> None:
    read, took = llama(), llama()
    read.eval(models.prompt(300, seed=5))
    read.reset()
    with pytest.raises(KvError, match="sequence 0 holds no tokens: evaluate some first"):
        export_kv(read)
    read.eval(models.prompt(40))

    state = export_kv(read)
    import_kv(took, state)

    assert isinstance(state, KvState)
    assert state.count == 40
    assert greedy(took, 20) == greedy(read, 20)


def test_a_state_goes_into_a_buffer_a_file_or_its_own_memory(llama: Callable[..., Any], tmp_path: Path) -> None:
    read = llama()
    read.eval(models.prompt(100))
    size = kv_size(read)
    room = bytearray(size + 100)

    states = [export_kv(read, into=room), export_kv(read), export_kv(read, into=tmp_path / "a.kv")]
    expected = logits_of(read)

    for state in states:
        took = llama()
        import_kv(took, state)
        assert np.array_equal(logits_of(took), expected)
    took = llama()
    import_kv(took, room)
    assert took.n_tokens == 100
    assert (tmp_path / "a.kv").stat().st_size == size
    with pytest.raises(KvError, match=f"needs {size} writable bytes, the buffer has {size - 1} bytes"):
        export_kv(read, into=bytearray(size - 1))
    with pytest.raises(KvError, match="the buffer is read-only"):
        export_kv(read, into=bytes(size))


@pytest.mark.parametrize("upto", [0, -1, 101])
def test_a_prefix_longer_than_the_text_is_refused(llama: Callable[..., Any], upto: int) -> None:
    read = llama()
    read.eval(models.prompt(100))

    with pytest.raises(KvError, match="upto must be 1 to 100"):
        export_kv(read, upto=upto)


def test_a_prefix_that_a_sliding_window_forgot_is_refused(llama: Callable[..., Any]) -> None:
    read = llama("swa", swa_full=False)
    read.eval(models.prompt(200))

    with pytest.raises(KvError, match=r"the first 100 of 200 tokens cannot be had alone.*a sliding window forgets"):
        export_kv(read, upto=100)


def test_a_recurrent_memory_is_not_cut(raw: Callable[..., Any]) -> None:
    context = raw("mamba")
    context.decode(0, models.prompt(50))

    with pytest.raises(KvError, match="cannot be cut to a prefix"):
        export_kv(context, upto=20)
