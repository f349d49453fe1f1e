"""What does not fit is refused in one line that says why, and the context is as it was before."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from morphogen.kernels.kv import KvError, KvMismatch, KvRefused, KvState, RawContext, export_kv, import_kv
from morphogen.kernels.kv.format import encode_header, finish, payload_offset

from . import models
from .conftest import bytes_of, greedy

Q8 = {"type_k": 8, "flash_attn": True}


def exported(llm: Any, seq: int = 0, **options: Any) -> KvState:
    """Return a sequence as a state in memory."""
    state = export_kv(llm, seq, **options)
    assert isinstance(state, KvState)
    return state


def forged(state: KvState, payload: bytes | None = None, **header: Any) -> bytearray:
    """Return a state with another payload or header, its checksums made to fit."""
    payload = bytes(state.verify()) if payload is None else payload
    encoded = encode_header(msgspec.structs.replace(state.header, **header))
    room = bytearray(payload_offset(encoded) + len(payload))
    room[payload_offset(encoded) :] = payload
    finish(memoryview(room), encoded, len(payload))
    return room


@pytest.mark.parametrize(
    ("made", "model", "target", "field"),
    [
        ({}, "other", {}, "weights"),
        ({}, "swa", {}, "weights"),
        ({}, "tiny", {"type_k": 8}, "type_k"),
        (Q8, "tiny", {"flash_attn": True}, "type_k"),
        ({"flash_attn": True}, "tiny", {}, "v_transposed"),
        ({}, "tiny", {"rope_freq_base": 20_000.0}, "rope.base"),
        ({}, "tiny", {"rope_freq_scale": 0.5}, "rope.scale"),
        ({}, "tiny", {"rope_scaling_type": 2, "rope_freq_scale": 0.5}, "rope.ext_factor"),
        ({"rope_freq_scale": 0.5}, "tiny", {"rope_scaling_type": 2, "rope_freq_scale": 0.5}, "rope.ext_factor"),
        ({}, "tiny", {"yarn_attn_factor": 1.5}, "rope.attn_factor"),
        ({}, "tiny", {"lora_path": "lora.gguf"}, "loras.0.sha256"),
        ({"lora_path": "lora.gguf"}, "tiny", {}, "loras.0.sha256"),
        ({"lora_path": "lora.gguf"}, "tiny", {"lora_path": "lora2.gguf"}, "loras.0.sha256"),
        ({"lora_path": "lora.gguf"}, "tiny", {"lora_path": "lora.gguf", "lora_scale": 0.5}, "loras.0.scale"),
    ],
)
def test_a_state_that_would_mean_something_else_is_refused(
    llama: Callable[..., Any], made: dict[str, Any], model: str, target: dict[str, Any], field: str
) -> None:
    read, other = llama(**made), llama(model, **target)
    read.eval(models.prompt(50))
    state = exported(read)
    other.eval(models.prompt(30, seed=2))
    before, tokens = bytes_of(other), other.n_tokens

    with pytest.raises(KvMismatch, match=f"needs {field}") as caught:
        import_kv(other, state)

    assert caught.value.field == field
    assert caught.value.expected != caught.value.actual
    assert "\n" not in str(caught.value)
    assert (bytes_of(other), other.n_tokens) == (before, tokens)


def test_two_ways_of_saying_the_same_are_no_mismatch(llama: Callable[..., Any]) -> None:
    read = llama(rope_freq_base=10_000.0, rope_freq_scale=1.0, yarn_ext_factor=0.0, yarn_orig_ctx=4096)
    took = llama(n_ctx=1024, n_batch=64, lora_path="lora.gguf", lora_scale=0.0)
    read.eval(models.prompt(50))

    import_kv(took, export_kv(read))

    assert greedy(took, 20) == greedy(read, 20)


def test_a_llama_whose_adapters_were_set_past_it_can_be_told_of(
    llama: Callable[..., Any], gguf_folder: Path, raw: Callable[..., Any]
) -> None:
    read = llama(lora_path="lora.gguf")
    read.eval(models.prompt(50))

    state = exported(read, loras=[(gguf_folder / "lora2.gguf", 0.5)])

    assert [lora.scale for lora in state.fingerprint.loras] == [0.5]
    with pytest.raises(KvMismatch):
        import_kv(raw(loras=[("lora.gguf", 1.0)]), state)
    import_kv(raw(loras=[("lora2.gguf", 0.5)]), state)


def test_a_text_longer_than_the_context_is_refused(llama: Callable[..., Any]) -> None:
    read, small = llama(), llama(n_ctx=256)
    read.eval(models.prompt(300))
    small.eval(models.prompt(20))
    before = bytes_of(small)

    with pytest.raises(KvRefused, match="300 tokens do not fit into 256"):
        import_kv(small, export_kv(read))

    assert bytes_of(small) == before
    greedy(small, 5)


def test_a_full_cache_is_refused_and_every_sequence_stays(raw: Callable[..., Any]) -> None:
    context, source = raw(n_ctx=512), raw(n_ctx=512)
    source.decode(0, models.prompt(200))
    state = exported(source)
    context.decode(0, models.prompt(200, seed=1))
    context.decode(1, models.prompt(150, seed=2))
    before = [bytes_of(context, seq) for seq in range(4)]
    held = [context.tokens(seq).tolist() for seq in range(4)]

    for seq in (2, 0, 1):  # an empty one, and two in use
        with pytest.raises(KvRefused, match="there may be no room in the cache"):
            import_kv(context, state, seq)
        assert [bytes_of(context, seq) for seq in range(4)] == before

    assert [context.tokens(seq).tolist() for seq in range(4)] == held
    context.drop(1)
    import_kv(context, state, 0)
    assert context.greedy(0, 20) == source.greedy(0, 20)


def test_a_sequence_in_use_is_replaced_with_the_help_of_a_spare_one(raw: Callable[..., Any]) -> None:
    context = raw(n_ctx=1024, sequences=2)
    context.decode(0, models.prompt(100))
    context.copy(0, 1)
    state = exported(context)

    with pytest.raises(KvRefused, match="sequence 0 is in use, and all 2 are: drop it first"):
        import_kv(context, state, 0)

    context.drop(1)
    import_kv(context, state, 0)
    assert context.free() == 1


@pytest.mark.parametrize("kind", ["llama", "streams"])
def test_what_llama_cpp_itself_refuses_leaves_the_sequence_bit_by_bit(
    llama: Callable[..., Any], raw: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source = llama() if kind == "llama" else raw(sequences=2, unified=False, n_ctx=1024)
    target = llama() if kind == "llama" else raw(sequences=2, unified=False, n_ctx=1024)
    for context, seed in ((source, 1), (target, 2)):
        context.eval(models.prompt(80, seed)) if kind == "llama" else context.decode(0, models.prompt(80, seed))
    payload = bytearray(exported(source).verify())
    payload[8:12] = b"\x07\0\0\0"  # a number of streams that no context of ours has: llama.cpp finds out too late
    before = bytes_of(target)
    monkeypatch.setattr("morphogen.kernels.kv.importing._check_parts", lambda *_: None)

    with pytest.raises(KvRefused, match=r"llama\.cpp did not take 80 tokens"):
        import_kv(target, forged(exported(source), bytes(payload)))

    assert bytes_of(target) == before
    if kind == "llama":
        assert greedy(target, 20) == greedy_of(llama(), models.prompt(80, 2), 20)


def greedy_of(llm: Any, text: list[int], count: int) -> list[int]:
    """Return what a fresh Llama says after a text."""
    llm.eval(text)
    return greedy(llm, count)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[: len(data) // 2], "no state of a sequence"),
        (lambda data: data[:8], "no state of a sequence"),
        (lambda data: b"\0" * len(data), "no state of a sequence"),
        (lambda data: data + data[8:], "llama.cpp did not take"),
        (lambda data: data[:12] + b"\xff\xff\xff\x7f" + data[16:], "no state of a sequence"),
        (lambda data: data[:16] + b"\xff\xff\xff\xff" + data[20:], "no state of a sequence"),
        (lambda data: data[:16] + b"\xff\xff\xff\x7f" + data[20:], "some layers hold"),
        (lambda data: data[:16] + b"\x05\0\0\0" + data[20:], "some layers hold"),
    ],
)
def test_a_payload_made_to_harm_is_refused_though_its_checksum_fits(
    llama: Callable[..., Any], change: Callable[[bytes], bytes], told: str
) -> None:
    read, target = llama(), llama()
    read.eval(models.prompt(50))
    state = exported(read)
    target.eval(models.prompt(20, seed=3))
    before = bytes_of(target)
    payload = change(bytes(state.verify()))

    for layout in (0, 1):  # a header may lie about what it holds
        with pytest.raises(KvRefused, match=told if layout else "no state of a sequence"):
            import_kv(target, forged(state, payload, layout=layout))

    assert bytes_of(target) == before


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"tokens": np.full(50, 10**6, "<i4").tobytes()}, "not of this vocabulary"),
        ({"tokens": np.full(50, -1, "<i4").tobytes()}, "not of this vocabulary"),
        ({"tokens": np.ones(49, "<i4").tobytes()}, "not every one from 0 to 48"),
        ({"tokens": np.ones(51, "<i4").tobytes()}, "not every one from 0 to 50"),
        ({"tokens": np.ones(10**6, "<i4").tobytes()}, "do not fit into 512"),
        ({"logits": np.ones(7, "<f4").tobytes()}, "7 logits for a vocabulary"),
    ],
)
def test_a_header_that_lies_is_refused_though_its_checksum_fits(
    llama: Callable[..., Any], header: dict[str, Any], told: str
) -> None:
    read, target = llama(), llama()
    read.eval(models.prompt(50))

    with pytest.raises(KvRefused, match=told):
        import_kv(target, forged(exported(read), **header))

    assert target.n_tokens == 0


def test_another_state_under_the_same_name_is_refused(llama: Callable[..., Any], tmp_path: Path) -> None:
    read, target = llama(), llama()
    read.eval(models.prompt(50))
    ref = export_kv(read, into=tmp_path / "a.kv")
    read.eval([300])
    export_kv(read, into=tmp_path / "a.kv")

    with pytest.raises(KvRefused, match=r"another state lies there now|cut off"):
        import_kv(target, msgspec.structs.replace(ref, size=(tmp_path / "a.kv").stat().st_size))


@pytest.mark.parametrize("seq", [-1, 1, 4096])
def test_a_sequence_that_does_not_exist_is_refused_before_llama_cpp_aborts(llama: Callable[..., Any], seq: int) -> None:
    read = llama()
    read.eval(models.prompt(20))

    with pytest.raises(KvError, match=f"there is no sequence {seq}: this context has 1"):
        export_kv(read, seq)
    with pytest.raises(KvError, match=f"there is no sequence {seq}"):
        import_kv(read, export_kv(read), seq)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"seq": "0"}, "the number of a sequence is an int, not the str '0'"),
        ({"seq": None}, "the number of a sequence is an int"),
        ({"upto": "7"}, "upto is a number of tokens, not the str '7'"),
        ({"upto": 1.5}, "upto is a number of tokens"),
    ],
)
def test_a_number_that_is_none_is_told_in_one_line(
    llama: Callable[..., Any], options: dict[str, Any], told: str
) -> None:
    read = llama()
    read.eval(models.prompt(20))

    with pytest.raises(KvError, match=told):
        export_kv(read, **options)


def test_what_is_no_context_or_no_state_is_told_in_one_line(llama: Callable[..., Any], tmp_path: Path) -> None:
    closed, open_ = llama(), llama()
    closed.close()
    with pytest.raises(KvError, match="this Llama is closed"):
        export_kv(closed)
    with pytest.raises(KvError, match=r"needs a llama_cpp\.Llama or a RawContext, not a str"):
        export_kv("a model")
    with pytest.raises(KvError, match="a state cannot be read from a float"):
        import_kv(open_, 1.5)
    with pytest.raises(KvError, match="cannot be read: No such file"):
        import_kv(open_, tmp_path / "none.kv")
    with pytest.raises(KvError, match="no GGUF file at"):
        RawContext.open(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ([-1] * 20, "hold -1 to -1: the vocabulary has"),
        ([10**6] * 20, "hold 1000000 to 1000000"),
        ([2**40] * 20, "hold 1099511627776"),
        ([1.5] * 20, "whole numbers in a row"),
        ([[1]] * 20, "whole numbers in a row"),
        ([[1], [2, 3]], "no token ids"),
        (["one"] * 20, "whole numbers in a row"),
    ],
)
def test_tokens_that_no_reader_would_take_are_refused_at_export(
    llama: Callable[..., Any], tokens: list[Any], told: str
) -> None:
    read = llama()
    read.eval(models.prompt(20))

    with pytest.raises(KvError, match=told):
        export_kv(read, tokens=tokens)


@pytest.mark.parametrize("details", [{1: 2}, {"a": "\ud800"}, {"a": {3: 4}, 5: 6}])
def test_details_that_no_reader_would_take_are_refused_at_export(
    llama: Callable[..., Any], details: dict[Any, Any]
) -> None:
    read = llama()
    read.eval(models.prompt(20))

    with pytest.raises(KvError, match="the details of a state cannot be written"):
        export_kv(read, details=details)


def test_bytes_that_do_not_lie_in_one_piece_are_told(llama: Callable[..., Any]) -> None:
    read = llama()
    read.eval(models.prompt(20))

    for room in (np.zeros(10**6, np.uint8)[::2], np.zeros((1000, 1000), np.uint8).T):
        with pytest.raises(KvError, match="do not lie in one piece"):
            export_kv(read, into=room)
        with pytest.raises(KvError, match="do not lie in one piece"):
            import_kv(read, room)


def test_a_context_for_embeddings_takes_the_cache_without_logits(llama: Callable[..., Any]) -> None:
    read, embedding = llama(), llama(embedding=True)
    read.eval(models.prompt(20))
    state = exported(read)

    import_kv(embedding, state)

    assert bytes_of(embedding) == bytes(state.verify())


def test_a_missing_package_is_told_with_its_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['llama_cpp'] = None\n"
        "from morphogen.kernels.kv import MissingExtra, RawContext\n"
        "from morphogen.kernels.kv import checksum\n"
        "try: RawContext.open('x')\n"
        "except MissingExtra as error: print(error)\n"
        "sys.modules['xxhash'] = None\n"
        "from morphogen.kernels.kv.checksum import xxh3\n"
        "try: xxh3(b'')\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "KV states of llama.cpp need llama-cpp-python: pip install 'morphogen[llama]'",
        "the checksum of a KV state needs xxhash: pip install 'morphogen[llama]'",
    ]
