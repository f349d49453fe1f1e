"""What changes under a context (its adapters, its model's file, a lease) must not go unnoticed into a state, or out of one."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from morphogen.kernels.kv import KvError, KvMismatch, KvState, RawContext, export_kv, import_kv, open_kv, weights
from morphogen.kernels.kv import llama as bindings
from morphogen.kernels.kv.contexts import seat_of
from morphogen.kernels.kv.leases import LeaseEnded
from morphogen.kernels.kv.transport import SharedMemory
from morphogen.kernels.kv.transport.segments import FileMapped
from morphogen.schemas.kv import KvRef

from . import models
from .conftest import bytes_of, greedy

Make = Callable[..., Any]


def test_what_was_read_with_other_adapters_is_not_exported_as_if_it_had_been_read_with_these(
    raw: Make, gguf_folder: Path
) -> None:
    context, lora = raw(loras=[("lora.gguf", 1.0)]), gguf_folder / "lora.gguf"
    context.decode(0, models.prompt(50))
    context.set_loras([])

    with pytest.raises(KvError, match="sequence 0 was read with other adapters than are at work now"):
        export_kv(context, 0)

    context.set_loras([(lora, 0.5)])  # the scale is part of it
    with pytest.raises(KvError, match="other adapters"):
        export_kv(context, 0)
    context.set_loras([(lora, 1.0)])
    import_kv(raw(loras=[("lora.gguf", 1.0)]), export_kv(context, 0))


def test_a_sequence_of_two_adapters_is_none_of_either_until_it_is_read_again(raw: Make, gguf_folder: Path) -> None:
    context = raw()
    context.decode(0, models.prompt(20))
    context.set_loras([(gguf_folder / "lora.gguf", 1.0)])
    context.decode(0, [300])
    context.copy(0, 1)

    for loras in ([], [(gguf_folder / "lora.gguf", 1.0)]):
        context.set_loras(loras)
        for seq in (0, 1):
            with pytest.raises(KvError, match="other adapters"):
                export_kv(context, seq)

    context.drop(0)
    context.decode(0, models.prompt(20))
    export_kv(context, 0)


def test_an_adapter_without_weight_is_none(raw: Make, gguf_folder: Path) -> None:
    context = raw()
    context.decode(0, models.prompt(20))
    context.set_loras([(gguf_folder / "lora.gguf", 0.0)])

    import_kv(raw(), export_kv(context, 0))


@pytest.fixture(params=["llama", "raw"])
def loaded(request: pytest.FixtureRequest, gguf_folder: Path, tmp_path: Path) -> "Iterator[tuple[Path, Any]]":
    """A model in a file of its own, and a context of it that has read something."""
    path = tmp_path / "model.gguf"
    shutil.copyfile(gguf_folder / "tiny.gguf", path)
    if request.param == "raw":
        context: Any = RawContext.open(path, n_ctx=512, n_threads=1)
        context.decode(0, models.prompt(30))
    else:
        import llama_cpp

        context = llama_cpp.Llama(str(path), n_ctx=512, n_threads=1, verbose=False)
        context.eval(models.prompt(30))
    yield path, context
    context.close()


def test_a_model_that_another_file_has_replaced_keeps_its_own_fingerprint(
    loaded: "tuple[Path, Any]", gguf_folder: Path, tmp_path: Path, llama: Make
) -> None:
    path, context = loaded
    before = export_kv(context)
    assert isinstance(before, KvState)
    shutil.copyfile(gguf_folder / "other.gguf", tmp_path / "next.gguf")
    os.replace(tmp_path / "next.gguf", path)  # a deployment, while this context is at work

    after = export_kv(context)

    assert isinstance(after, KvState)
    assert after.fingerprint == before.fingerprint
    with pytest.raises(KvMismatch, match="needs weights"):
        import_kv(llama("other"), after)
    import_kv(llama("tiny"), after)

    path.unlink()
    assert export_kv(context).fingerprint == before.fingerprint  # type: ignore[union-attr]


@pytest.fixture
def deployed(gguf_folder: Path, tmp_path: Path) -> "Callable[..., Any]":
    """Load a Llama from a link, `current.gguf`, with an adapter of the same folder where one is asked for."""
    import llama_cpp

    for name in ("tiny", "other", "lora", "lora2"):
        shutil.copyfile(gguf_folder / f"{name}.gguf", tmp_path / f"{name}.gguf")
    (tmp_path / "current.gguf").symlink_to("tiny.gguf")

    def load(**options: Any) -> Any:
        found = llama_cpp.Llama(str(tmp_path / "current.gguf"), n_ctx=256, n_threads=1, verbose=False, **options)
        found.eval(models.prompt(10))
        time.sleep(0.03)  # times of files are as fine as the kernel's tick
        return found

    return load


def repoint(link: Path, target: str) -> None:
    link.with_name("next").symlink_to(target)
    os.replace(link.with_name("next"), link)


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("change", ["link", "file"])
def test_a_llama_whose_file_changed_before_it_was_met_is_refused(
    deployed: Make, tmp_path: Path, use_mmap: bool, change: str
) -> None:
    read = deployed(use_mmap=use_mmap)
    if change == "link":
        repoint(tmp_path / "current.gguf", "other.gguf")
    else:
        os.replace(tmp_path / "other.gguf", tmp_path / "tiny.gguf")
    newer = deployed()

    for _ in range(2):
        with pytest.raises(KvError, match="were changed since they were loaded, and nobody knows what is at work"):
            export_kv(read)
    export_kv(newer)
    read.close()
    newer.close()


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_context_whose_model_we_load_is_known_by_its_file_whatever_the_clock_shows(
    gguf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    path = Path(shutil.copy(gguf_folder / "tiny.gguf", tmp_path))
    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() + step_s * 10**9)

    with RawContext.open(path, n_ctx=256) as context:
        context.decode(0, models.prompt(10))
        export_kv(context)


def test_a_model_that_is_replaced_while_we_load_it_is_refused(
    gguf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(gguf_folder / "tiny.gguf", tmp_path))
    lib = bindings.library()
    make = lib.llama_init_from_model

    def replaced(*given: Any) -> Any:
        os.replace(shutil.copy(gguf_folder / "other.gguf", tmp_path / "next.gguf"), path)
        return make(*given)

    monkeypatch.setattr(lib, "llama_init_from_model", replaced)
    with pytest.raises(KvError, match="were changed since they were loaded"):
        RawContext.open(path, n_ctx=256)


def test_a_file_that_changed_in_the_future_is_told_as_a_matter_of_clocks(
    deployed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, clock = deployed(), time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: clock() - 3600 * 10**9)
        with pytest.raises(KvError, match=r"at a time that has not come yet by the clock here.*set the clock right"):
            export_kv(read)

    export_kv(read)
    read.close()


def test_a_llama_that_maps_another_file_than_its_path_leads_to_is_refused_whatever_the_clock_says(
    deployed: Make, tmp_path: Path
) -> None:
    import llama_cpp

    read = deployed()
    repoint(tmp_path / "current.gguf", "other.gguf")
    time.sleep(0.03)
    llama_cpp.llama_perf_context_reset(read.ctx)  # a verbose Llama does at each completion

    with pytest.raises(KvError, match="were changed since they were loaded"):
        export_kv(read)
    read.close()


def test_a_llama_that_was_met_keeps_its_file_though_the_link_to_it_leads_elsewhere(
    deployed: Make, tmp_path: Path, llama: Make
) -> None:
    path = models.write_llama(tmp_path / "fresh.gguf", seed=13)  # hashed by nobody yet
    repoint(tmp_path / "current.gguf", "fresh.gguf")
    read = deployed()
    seat_of(read)
    repoint(tmp_path / "current.gguf", "other.gguf")

    state = export_kv(read)

    assert isinstance(state, KvState)
    assert state.fingerprint.weights == weights.weights_of(path).sha256
    read.close()


def test_a_file_that_was_away_when_a_llama_was_met_is_not_taken_for_the_one_that_comes_in_its_place(
    deployed: Make, tmp_path: Path
) -> None:
    read = deployed(use_mmap=False)
    os.rename(tmp_path / "tiny.gguf", tmp_path / "away.gguf")
    with pytest.raises(KvError, match="cannot be read"):
        export_kv(read)
    os.rename(tmp_path / "other.gguf", tmp_path / "tiny.gguf")

    with pytest.raises(KvError, match="were changed since they were loaded"):
        export_kv(read)
    read.close()


def test_an_adapter_that_was_replaced_before_its_llama_was_met_is_refused(deployed: Make, tmp_path: Path) -> None:
    read = deployed(lora_path=str(tmp_path / "lora.gguf"))
    os.replace(tmp_path / "lora2.gguf", tmp_path / "lora.gguf")

    with pytest.raises(KvError, match=r"lora\.gguf were changed since they were loaded"):
        export_kv(read)
    read.close()


def test_a_context_of_others_whose_file_changed_before_it_was_taken_is_refused(deployed: Make, tmp_path: Path) -> None:
    read = deployed()
    repoint(tmp_path / "current.gguf", "other.gguf")

    with pytest.raises(KvError, match="were changed since they were loaded"):
        RawContext(read.ctx, read.context_params, tmp_path / "current.gguf")
    read.close()


def test_an_adapter_that_another_file_has_replaced_keeps_its_own_fingerprint(
    gguf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_cpp

    shutil.copyfile(gguf_folder / "lora.gguf", tmp_path / "adapter.gguf")
    monkeypatch.chdir(tmp_path)
    context = llama_cpp.Llama(
        str(gguf_folder / "tiny.gguf"), lora_path="adapter.gguf", n_ctx=512, n_threads=1, verbose=False
    )
    try:
        context.eval(models.prompt(30))
        before = export_kv(context)
        shutil.copyfile(gguf_folder / "lora2.gguf", tmp_path / "next.gguf")
        os.replace(tmp_path / "next.gguf", tmp_path / "adapter.gguf")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")  # the name that was given means another file by now

        assert export_kv(context).fingerprint == before.fingerprint  # type: ignore[union-attr]
    finally:
        context.close()


def test_a_model_that_was_written_over_is_refused(loaded: "tuple[Path, Any]") -> None:
    path, context = loaded
    export_kv(context)
    told = path.stat()
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))  # inode, size and modification time are as before

    with pytest.raises(KvError, match="were changed since they were loaded"):
        export_kv(context)


def test_a_model_that_was_replaced_before_it_was_ever_hashed_is_refused(
    raw: Make, gguf_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "fresh.gguf"
    models.write_llama(path, seed=11)
    with RawContext.open(path, n_ctx=256) as context:
        context.decode(0, models.prompt(10))
        shutil.copyfile(gguf_folder / "other.gguf", tmp_path / "next.gguf")
        os.replace(tmp_path / "next.gguf", path)

        with pytest.raises(KvError, match="nobody knows what is at work: load them again"):
            export_kv(context)


def test_a_model_that_an_earlier_process_hashed_may_be_replaced_before_this_one_does(
    gguf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "fresh.gguf", tmp_path / "cache"
    models.write_llama(path, seed=12)
    sha256 = weights.weights_of(path, cache).sha256
    monkeypatch.setattr(weights, "_known", {})  # as in a process that has just begun
    with RawContext.open(path, n_ctx=256) as context:
        context.decode(0, models.prompt(10))
        shutil.copyfile(gguf_folder / "other.gguf", tmp_path / "next.gguf")
        os.replace(tmp_path / "next.gguf", path)

        state = export_kv(context, cache=cache)

    assert isinstance(state, KvState)
    assert state.fingerprint.weights == sha256


def test_a_file_without_a_name_is_known_by_its_descriptor(gguf_folder: Path, tmp_path: Path) -> None:
    import llama_cpp

    path = tmp_path / "model.gguf"
    shutil.copyfile(gguf_folder / "tiny.gguf", path)
    handle = os.open(path, os.O_RDONLY)
    path.unlink()
    time.sleep(0.02)  # a tick of the file system's clock
    context = llama_cpp.Llama(f"/proc/self/fd/{handle}", n_ctx=512, n_threads=1, verbose=False)
    context.eval(models.prompt(30))

    state = export_kv(context)

    assert isinstance(state, KvState)
    assert state.fingerprint.weights == weights.weights_of(gguf_folder / "tiny.gguf").sha256
    context.close()
    os.close(handle)


def test_other_rights_or_a_link_to_a_model_change_nothing(loaded: "tuple[Path, Any]") -> None:
    path, context = loaded
    export_kv(context)
    path.chmod(0o600)
    os.link(path, path.with_name("link.gguf"))

    export_kv(context)


def test_a_model_of_a_relative_path_outlives_a_change_of_the_folder(
    gguf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(gguf_folder)
    with RawContext.open("tiny.gguf", n_ctx=256) as context:
        context.decode(0, models.prompt(10))
        monkeypatch.chdir(tmp_path)
        export_kv(context)


def test_a_lease_that_ends_while_its_bytes_are_taken_leaves_the_sequence_as_it_was(
    llama: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, target = llama(), llama()
    read.eval(models.prompt(50))
    target.eval(models.prompt(20, seed=2))
    before = bytes_of(target)
    memory = SharedMemory(tmp_path / "memory")
    ref = export_kv(read, into=memory)
    assert isinstance(ref, KvRef)

    def ended(mapped: FileMapped) -> None:
        raise LeaseEnded("lease on a segment has ended: its time ran out")

    with monkeypatch.context() as patch:
        patch.setattr(FileMapped, "check", ended)
        with pytest.raises(LeaseEnded):
            import_kv(target, ref, transport=memory)

    assert (bytes_of(target), target.n_tokens) == (before, 20)
    import_kv(target, ref, transport=memory)
    assert greedy(target, 20) == greedy(read, 20)
    memory.release(ref)
    memory.close()


def test_what_is_no_plain_file_is_not_waited_for(llama: Make, tmp_path: Path) -> None:
    target = llama()
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(KvError, match="is no plain file"):
            import_kv(target, path)
    with pytest.raises(KvError, match="cannot be the name of a file"):
        open_kv("a\0b")


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_an_adapter_whose_scale_is_no_number_is_refused(
    raw: Make, llama: Make, gguf_folder: Path, scale: float
) -> None:
    read = llama()
    read.eval(models.prompt(10))

    with pytest.raises(KvError, match="give a number"):
        raw(loras=[("lora.gguf", scale)])
    with pytest.raises(KvError, match="give a number"):
        export_kv(read, loras=[(gguf_folder / "lora.gguf", scale)])


def test_a_cache_of_bf16_is_known_by_its_name(raw: Make) -> None:
    read, took = raw(type_k="bf16", type_v="bf16"), raw(type_k=30, type_v="bf16")
    read.decode(0, models.prompt(40))
    state = export_kv(read)
    assert isinstance(state, KvState)

    import_kv(took, state)

    assert (state.fingerprint.type_k, state.fingerprint.type_v) == ("bf16", "bf16")
    assert took.greedy(0, 20) == read.greedy(0, 20)
