"""The parts of llama.cpp's own bytes: found in every kind of cache, cut as llama.cpp itself would, never read outside."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.kernels.kv import KvError
from morphogen.kernels.kv.layout import MAGIC, complaint, cut, parse
from morphogen.kernels.kv.state import flat

from . import models
from .conftest import bytes_of

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "f16": ("tiny", {}),
    "flash": ("tiny", {"flash_attn": True}),
    "q8_0": ("tiny", {"flash_attn": True, "type_k": "q8_0", "type_v": "q4_0"}),
    "streams": ("tiny", {"unified": False, "n_ctx": 2048}),
    "window": ("swa", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_state_is_what_llama_cpp_gives_of_the_shorter_sequence(raw: Callable[..., Any], kind: str) -> None:
    model, options = KINDS[kind]
    context = raw(model, **options)
    context.decode(1, models.prompt(30, seed=4))  # so that the cells of sequence 2 do not stand first
    context.decode(2, models.prompt(90))
    context.drop(1)
    context.decode(2, models.prompt(60))  # and lie in several runs
    whole = bytes_of(context, 2)
    layout = parse(memoryview(whole))
    assert layout is not None
    assert sorted(layout.sections[0].positions.tolist()) == list(range(150))

    for count in (140, 30):
        if kind == "window" and count == 30:  # later tokens lie where its window of 32 was
            with pytest.raises(KvError, match="cannot forget a part"):
                context.truncate(2, count)
            continue
        context.truncate(2, count)
        size, pieces = cut(memoryview(whole), layout, count)
        joined = b"".join(bytes(flat(piece)) for piece in pieces)
        assert len(joined) == size
        if kind == "window":
            again = parse(memoryview(joined))
            assert again is not None
            assert complaint([section.positions for section in again.sections], count, 32) is not None
        else:
            assert joined == bytes_of(context, 2)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_not_without_an_error(data: bytes) -> None:
    parse(memoryview(data))
    parse(memoryview(MAGIC.to_bytes(4, "little") + b"\0\0\0\0\x01\0\0\0" + data))


@pytest.fixture(scope="module")
def real(gguf_folder: Any) -> bytes:
    """A real state of 20 tokens."""
    from morphogen.kernels.kv import RawContext

    with RawContext.open(gguf_folder / "tiny.gguf", n_ctx=256, n_threads=1) as context:
        context.decode(0, models.prompt(20))
        return bytes_of(context)


@given(data=st.data())
@settings(max_examples=300)
def test_a_broken_state_is_none_or_accounts_for_every_byte(real: bytes, data: st.DataObject) -> None:
    broken = bytearray(real)
    for place in data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=4)):
        broken[4 * place : 4 * place + 4] = data.draw(st.integers(0, 2**32 - 1)).to_bytes(4, "little")
    broken = broken[: data.draw(st.integers(0, len(broken)) | st.just(len(broken)))]

    layout = parse(memoryview(broken))

    if layout is not None:
        size, pieces = cut(memoryview(broken), layout, 2**31 - 1)
        assert size <= len(broken)
        assert b"".join(bytes(flat(piece)) for piece in pieces)[:8] == broken[:8]


@given(st.permutations(list(range(40))), st.integers(1, 40))
def test_positions_are_complete_whatever_their_order(order: list[int], count: int) -> None:
    import numpy as np

    positions = np.array(order, np.int32)

    assert complaint([positions], 40, 0) is None
    assert (complaint([positions[positions < count]], 40, 0) is None) == (count == 40)
    assert (complaint([positions[positions >= 40 - count]], 40, 8) is None) == (count >= 8)
