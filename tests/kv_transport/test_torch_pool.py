"""A pool of torch's: what is written is read, what is forked stays apart, and a model runs on it as on its own cache."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch: pip install 'morphogen[hf]'")
transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'morphogen[hf]'")

from morphogen.kernels.kv.errors import KvMismatch, KvRefused  # noqa: E402
from morphogen.kernels.kv.pool import (  # noqa: E402
    PoolCache,
    PoolError,
    PoolFull,
    PoolMismatch,
    PoolShape,
    TorchKvPool,
    export_sequence,
    fingerprint_of_model,
    import_sequence,
    weights_digest,
)
from morphogen.kernels.kv.transport import Disk, Leased, SameProcess, SharedMemory  # noqa: E402

SHAPE = PoolShape(layers=2, heads=2, head_dim=3, block=4)


def llama(seed: int = 0, **more: Any) -> Any:
    """A tiny random model."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return llama()


def rows(length: int, seed: int = 0) -> Any:
    return torch.randn(
        2, SHAPE.layers, SHAPE.heads, length, SHAPE.head_dim, generator=torch.Generator().manual_seed(seed)
    )


def append(pool: TorchKvPool, name: str, data: Any) -> None:
    start = pool.length(name)
    pool.extend(name, data.shape[-2])
    for layer in range(SHAPE.layers):
        pool.write(name, layer, start, data[0, layer], data[1, layer])


def content(pool: TorchKvPool, name: str) -> Any:
    return torch.stack([torch.stack(pool.read(name, layer)) for layer in range(SHAPE.layers)], dim=1)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 7), st.booleans()), max_size=14))
def test_sequences_that_grow_between_each_other_read_what_they_wrote(steps: list[tuple[str, int, bool]]) -> None:
    pool = TorchKvPool(SHAPE, blocks=40)
    expected: dict[str, Any] = {}
    for seed, (name, count, fork) in enumerate(steps):
        if name not in expected:
            others = sorted(expected)
            if fork and others:
                pool.fork(others[0], name)
                expected[name] = expected[others[0]]
            else:
                pool.begin(name)
                expected[name] = rows(0)
        data = rows(count, seed)
        append(pool, name, data)
        expected[name] = torch.cat([expected[name], data], dim=-2)
        for other, wanted in expected.items():
            assert torch.equal(content(pool, other), wanted)
            assert torch.equal(pool.tokens(other), wanted.permute(1, 0, 3, 2, 4))
    pool.blocks.verify()


def test_a_sequence_in_one_piece_is_read_without_a_copy() -> None:
    pool = TorchKvPool(SHAPE, blocks=8)
    pool.begin("a")
    append(pool, "a", rows(10))
    keys, _ = pool.read("a", 0)
    assert keys.untyped_storage().data_ptr() == pool.data.untyped_storage().data_ptr()


def test_a_pool_lies_in_memory_that_is_given() -> None:
    memory = torch.zeros(TorchKvPool.size_of(SHAPE, 4) + 100, dtype=torch.uint8)
    pool = TorchKvPool(SHAPE, blocks=4, memory=memory)
    pool.begin("a")
    append(pool, "a", rows(4))
    assert memory.any()
    with pytest.raises(PoolMismatch, match="bytes"):
        TorchKvPool(SHAPE, blocks=5, memory=memory)


def test_tokens_that_there_is_no_room_for_are_not_written() -> None:
    pool = TorchKvPool(SHAPE, blocks=2)
    pool.begin("a")
    append(pool, "a", rows(8))
    with pytest.raises(PoolFull, match="free a sequence"):
        pool.extend("a", 1)
    with pytest.raises(PoolError, match="do not fit"):
        pool.write("a", 0, 7, *rows(2)[:, 0])
    assert pool.length("a") == 8


# A model on a pool


def logits(model: Any, ids: Any, cache: Any = None, **more: Any) -> Any:
    with torch.inference_mode():
        return model(ids, past_key_values=cache, use_cache=True, **more).logits


def tokens(length: int, batch: int = 1, seed: int = 0) -> Any:
    return torch.randint(0, 97, (batch, length), generator=torch.Generator().manual_seed(seed))


def pool_for(model: Any, blocks: int = 64, block: int = 4) -> TorchKvPool:
    return TorchKvPool(PoolShape.of(model.config, block=block), blocks=blocks)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_on_a_pool_equal_those_on_the_models_own_cache(batch: int, scattered: bool, attention: str) -> None:
    """To the bit: in one piece and scattered over the pool, step by step after a prefill."""
    model = llama(attn_implementation=attention)
    pool = pool_for(model)
    if scattered:  # every second block is taken, so that no two are side by side
        for number in range(pool.blocks.count):
            pool.begin(number, room=1)
        for number in range(0, pool.blocks.count, 2):
            pool.free(number)
    cache, own = PoolCache(pool), transformers.DynamicCache(config=model.config)
    for step, ids in enumerate(
        [tokens(13, batch), *(tokens(1, batch, seed) for seed in range(1, 9)), tokens(5, batch, 9)]
    ):
        assert torch.equal(logits(model, ids, cache), logits(model, ids, own)), step
    assert cache.get_seq_length() == own.get_seq_length() == 26
    for layer in range(2):
        keys, values = pool.read_many(cache.sequences, layer, 26)
        assert torch.equal(keys, own.layers[layer].keys) and torch.equal(values, own.layers[layer].values)
    cache.free()
    assert pool.blocks.free == (32 if scattered else 64)


@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True}, {"num_beams": 3, "do_sample": False}])
def test_text_generated_on_a_pool_is_the_same(model: Any, how: dict[str, Any]) -> None:
    ids = tokens(7)
    pool = pool_for(model, blocks=256)
    more = {"max_new_tokens": 40, "pad_token_id": 0, "eos_token_id": None, "attention_mask": torch.ones_like(ids)}
    torch.manual_seed(3)
    expected = model.generate(ids, **how, **more)
    torch.manual_seed(3)
    cache = PoolCache(pool)
    found = model.generate(ids, past_key_values=cache, **how, **more)
    assert torch.equal(found, expected)
    cache.free()
    assert pool.blocks.free == 256


def test_rows_of_different_length_are_masked_as_ever(model: Any) -> None:
    ids = tokens(9, 2)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    cache, own = PoolCache(pool_for(model)), transformers.DynamicCache(config=model.config)
    for past in (cache, own):
        logits(model, ids, past, attention_mask=mask)
    more = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1)
    step = tokens(1, 2, 1)
    assert torch.equal(logits(model, step, cache, attention_mask=more), logits(model, step, own, attention_mask=more))


def test_two_answers_go_on_from_one_prompt_which_is_stored_once(model: Any) -> None:
    pool = pool_for(model)
    cache = PoolCache(pool)
    prompt = tokens(18)
    logits(model, prompt, cache)
    pool.fork(cache.sequences[0], "other")
    before = pool.blocks.free
    other = PoolCache(pool, ["other"])
    one, two = tokens(6, seed=1), tokens(6, seed=2)
    got = [logits(model, one, cache), logits(model, two, other)]
    assert before - pool.blocks.free == 1 + 1 + 1  # a copy of the last block, and one more block for each
    for ids, found in zip((one, two), got, strict=True):
        own = transformers.DynamicCache(config=model.config)
        logits(model, prompt, own)
        assert torch.equal(found, logits(model, ids, own))


def test_a_cache_that_is_cut_goes_on_from_there(model: Any) -> None:
    cache, own = PoolCache(pool_for(model)), transformers.DynamicCache(config=model.config)
    for past in (cache, own):
        logits(model, tokens(20), past)
        past.crop(-7)
    assert cache.get_seq_length() == 13
    ids = tokens(3, seed=4)
    assert torch.equal(logits(model, ids, cache), logits(model, ids, own))
    cache.crop(5)
    assert cache.get_seq_length() == 5 and cache.pool.blocks.free == 62
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.pool.blocks.free == 64


def test_rows_are_selected_and_repeated_without_copying_their_blocks(model: Any) -> None:
    pool = pool_for(model)
    cache, own = PoolCache(pool), transformers.DynamicCache(config=model.config)
    for past in (cache, own):
        logits(model, tokens(8, 2), past)
        past.batch_repeat_interleave(2)
        past.reorder_cache(torch.tensor([3, 0, 1, 2]))
        past.batch_select_indices(torch.tensor([0, 2, 3]))
    assert pool.blocks.free == 60
    ids = tokens(1, 3, 5)
    assert torch.equal(logits(model, ids, cache), logits(model, ids, own))
    pool.blocks.verify()


def test_a_batch_that_does_not_fit_leaves_the_pool_as_it_was(model: Any) -> None:
    pool = pool_for(model, blocks=5)
    cache = PoolCache(pool)
    with pytest.raises(PoolFull):
        logits(model, tokens(11, 2), cache)
    assert cache.get_seq_length() == 0
    cache.free()
    assert pool.blocks.free == 5
    again = PoolCache(pool)
    logits(model, tokens(8, 2), again)
    with pytest.raises(PoolFull):
        logits(model, tokens(1, 2), again)
    assert {pool.length(name) for name in again.sequences} == {8}
    pool.blocks.verify()


def test_a_cache_of_another_shape_is_refused(model: Any) -> None:
    shape = msgspec.structs.replace(PoolShape.of(model.config, block=4), heads=4)
    with pytest.raises(PoolMismatch, match="none of this pool"):
        logits(model, tokens(3), PoolCache(TorchKvPool(shape, blocks=8)))
    cache = PoolCache(pool_for(model))
    logits(model, tokens(3), cache)
    with pytest.raises(PoolError, match="2 rows"):
        logits(model, tokens(3, 2), cache)


# Out of a pool and into another


@pytest.fixture(params=["same_process", "shared_memory", "disk"])
def transport(request: pytest.FixtureRequest, shm: Path, tmp_path: Path) -> Iterator[Leased]:
    made: Leased
    if request.param == "same_process":
        made = SameProcess()
    else:
        made = SharedMemory(shm) if request.param == "shared_memory" else Disk(tmp_path / "kv")
    yield made
    made.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_goes_on_from_a_state_as_if_it_had_read_the_text(transport: Leased, dtype: str) -> None:
    model = llama().to(getattr(torch, dtype))
    pool = TorchKvPool(PoolShape.of(model.config, block=4, dtype=model.dtype), blocks=64)
    cache = PoolCache(pool)
    ids = tokens(21)
    logits(model, ids, cache)
    mark = fingerprint_of_model(model, pool.shape)
    ref = export_sequence(pool, cache.sequences[0], transport, tokens=ids[0].tolist(), fingerprint=mark)
    assert ref.transport == transport.name and ref.checksum is not None

    other = TorchKvPool(msgspec.structs.replace(pool.shape, block=6), blocks=30)  # blocks of another size
    assert import_sequence(other, ref, transport, "s", fingerprint=mark) == ids[0].tolist()
    resumed = PoolCache(other, ["s"])
    step = tokens(4, seed=1)
    assert torch.equal(logits(model, step, resumed), logits(model, step, cache))
    assert transport.release(ref) == "freed"


def test_a_state_of_another_model_is_refused_with_the_field(model: Any, shm: Path) -> None:
    memory, pool = SharedMemory(shm), pool_for(model)
    cache = PoolCache(pool)
    logits(model, tokens(5), cache)
    ref = export_sequence(
        pool,
        cache.sequences[0],
        memory,
        tokens=tokens(5)[0].tolist(),
        fingerprint=fingerprint_of_model(model, pool.shape),
    )
    target = pool_for(model)
    with pytest.raises(KvMismatch, match="weights"):
        import_sequence(target, ref, memory, "s", fingerprint=fingerprint_of_model(llama(seed=1), pool.shape))
    with pytest.raises(KvMismatch, match="rope"):
        other = llama(rope_parameters={"rope_type": "default", "rope_theta": 5.0})
        mark = fingerprint_of_model(other, pool.shape, weights=weights_digest(model))
        import_sequence(target, ref, memory, "s", fingerprint=mark)
    assert target.blocks.free == 64 and target.blocks.sequences == ()
    memory.close()


def test_changed_bytes_never_reach_a_pool(model: Any, tmp_path: Path) -> None:
    disk, pool = Disk(tmp_path / "kv"), pool_for(model)
    cache = PoolCache(pool)
    logits(model, tokens(9), cache)
    mark = fingerprint_of_model(model, pool.shape)
    ref = export_sequence(pool, cache.sequences[0], disk, tokens=tokens(9)[0].tolist(), fingerprint=mark)
    path, target = Path(ref.place), pool_for(model)
    whole = path.read_bytes()
    expected = pool.tokens(cache.sequences[0])

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    def flip(at: int, by: int) -> None:
        changed = bytearray(whole)
        changed[at] ^= by
        path.write_bytes(changed)
        with contextlib.suppress(KvRefused):
            import_sequence(target, ref, disk, "s", fingerprint=mark)
            # Taken all the same: the zeros between header and payload are nobody's.
            assert not whole[at] and torch.equal(target.tokens("s"), expected)
            target.free("s")
        assert target.blocks.sequences == ()

    flip()
    disk.close()


def test_an_import_leaves_no_view_behind_so_that_the_file_is_used_again(model: Any, shm: Path) -> None:
    memory, pool = SharedMemory(shm), pool_for(model)
    cache = PoolCache(pool)
    logits(model, tokens(9), cache)
    mark = fingerprint_of_model(model, pool.shape)
    ref = export_sequence(pool, cache.sequences[0], memory, tokens=tokens(9)[0].tolist(), fingerprint=mark)
    import_sequence(pool_for(model), ref, memory, "s", fingerprint=mark)
    assert memory.release(ref) == "freed"
    assert [(segment.state, segment.tainted) for segment in memory.segments()] == [("writing", False)]
    memory.close()


def test_a_pool_too_small_takes_nothing(model: Any, shm: Path) -> None:
    memory, pool = SharedMemory(shm), pool_for(model)
    cache = PoolCache(pool)
    logits(model, tokens(9), cache)
    mark = fingerprint_of_model(model, pool.shape)
    ref = export_sequence(pool, cache.sequences[0], memory, tokens=tokens(9)[0].tolist(), fingerprint=mark)
    target = pool_for(model, blocks=2)
    with pytest.raises(PoolFull):
        import_sequence(target, ref, memory, "s", fingerprint=mark)
    assert target.blocks.free == 2
    with pytest.raises(PoolError, match="9 tokens in the pool, 8 were named"):
        export_sequence(pool, cache.sequences[0], memory, tokens=[1] * 8, fingerprint=mark)
    memory.close()


def test_weights_are_hashed_once_until_one_is_written(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = llama(seed=2)
    first = weights_digest(own)
    monkeypatch.setattr("hashlib.sha256", None)
    assert weights_digest(own) == first
    monkeypatch.undo()
    with torch.no_grad():
        own.lm_head.weight[0, 0] += 1
    assert weights_digest(own) != first
