"""One number for all bytes of a payload, the same however many threads made it."""

import os
import signal
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.kv import KvState, RawContext, export_kv, kv_size
from morphogen.kernels.kv import checksum as module
from morphogen.kernels.kv.checksum import CHUNK, checksum

from . import models


def plain(data: bytes) -> bytes:
    """Return the checksum as the documentation tells it."""
    leaves = [xxhash.xxh3_128_digest(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)]
    return xxhash.xxh3_128_digest(b"".join(leaves))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 9 * CHUNK + 5, 12 * CHUNK])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_it_is_what_the_documentation_says(size: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "processors", lambda: at_once)
    data = os.urandom(size)

    assert checksum(memoryview(data)) == plain(data)


@given(data=st.binary(min_size=1, max_size=2000), place=st.integers(0), bit=st.integers(0, 7))
def test_any_bit_changes_it(data: bytes, place: int, bit: int) -> None:
    changed = bytearray(data)
    changed[place % len(data)] ^= 1 << bit

    assert checksum(memoryview(changed)) != checksum(memoryview(data))


@given(st.binary(max_size=2000), st.binary(min_size=1, max_size=50))
def test_more_bytes_change_it(data: bytes, more: bytes) -> None:
    assert checksum(memoryview(data + more)) != checksum(memoryview(data))


@pytest.mark.parametrize("flash", [False, True])
def test_what_llama_cpp_writes_has_it(tmp_path: Path, flash: bool) -> None:
    models.needed()
    sizes = models.Sizes(layers=8, heads=16, heads_kv=16, head=64, feed=32)  # 32 KiB of KV a token
    path = models.write_llama(tmp_path / "wide.gguf", sizes)
    with RawContext.open(path, n_ctx=768, n_threads=1, flash_attn=flash) as context:
        context.decode(0, models.prompt(600))
        room = bytearray(kv_size(context))
        for _ in range(5):
            state = export_kv(context, into=room)
            assert isinstance(state, KvState)
            assert plain(bytes(state.verify())) == state.start.payload_checksum


def test_a_forked_child_computes_it_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "processors", lambda: 2)
    data = os.urandom(10 * CHUNK)
    expected = checksum(memoryview(data))
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a pool without threads would wait for ever
        os._exit(0 if checksum(memoryview(data)) == expected else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
