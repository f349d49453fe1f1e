"""States through the transports: written straight into their room, read where they lie, in this process and another."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.kernels.kv import KvRefused, KvState, WorkerCrashed, export_kv, import_kv, kv_size
from morphogen.kernels.kv.isolated import IsolatedImporter
from morphogen.kernels.kv.transport import Disk, SharedMemory, Transport
from morphogen.schemas.kv import KvRef

from . import models
from .conftest import greedy

SHM = Path("/dev/shm")


@pytest.fixture(params=["shared_memory", "disk"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A transport with a folder of its own."""
    made = SharedMemory(tmp_path / "memory") if request.param == "shared_memory" else Disk(tmp_path / "disk")
    yield made
    made.close()


def test_a_state_goes_into_a_transport_and_out_of_it(llama: Callable[..., Any], transport: Any) -> None:
    assert isinstance(transport, Transport)
    read, took = llama(), llama()
    read.eval(models.prompt(100))

    ref = export_kv(read, into=transport)

    assert isinstance(ref, KvRef)
    assert (ref.transport, ref.details["tokens"]) == (transport.name, 100)
    assert import_kv(took, ref, transport=transport).tokens == 100
    assert greedy(took, 20) == greedy(read, 20)
    with transport.open(ref) as mapped:
        assert import_kv(llama(), mapped).tokens == 100
        assert KvState.read(mapped.buffer).checksum == ref.checksum
    assert transport.release(ref) == "freed"


def test_a_reservation_is_written_and_committed_or_its_buffer_alone(llama: Callable[..., Any], transport: Any) -> None:
    read = llama()
    read.eval(models.prompt(100))

    with transport.reserve(kv_size(read)) as room:
        ref = export_kv(read, into=room)
    with transport.reserve(kv_size(read) + 5000) as room:
        state = export_kv(read, into=room.buffer, upto=64)
        assert isinstance(state, KvState)
        assert state.count == 64

    assert isinstance(ref, KvRef)
    assert import_kv(llama(), ref, transport=transport).tokens == 100


def test_another_process_takes_the_state_from_shared_memory(
    llama: Callable[..., Any], gguf_folder: Path, tmp_path: Path
) -> None:
    shared = SharedMemory(tmp_path / "memory")
    read = llama()
    read.eval(models.prompt(100))
    ref = export_kv(read, into=shared)
    code = (
        "import sys, pathlib, msgspec\n"
        "from morphogen.kernels.kv import RawContext, import_kv\n"
        "from morphogen.kernels.kv.transport import SharedMemory\n"
        "from morphogen.schemas.kv import KvRef\n"
        "ref = msgspec.json.decode(sys.argv[1], type=KvRef)\n"
        "shared = SharedMemory(pathlib.Path(sys.argv[2]))\n"
        "with RawContext.open(sys.argv[3], n_ctx=512, n_threads=1) as context:\n"
        "    import_kv(context, ref, transport=shared)\n"
        "    print(*context.greedy(0, 30))\n"
    )
    arguments = [msgspec.json.encode(ref).decode(), str(tmp_path / "memory"), str(gguf_folder / "tiny.gguf")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)

    assert [int(token) for token in done.stdout.split()] == greedy(read, 30)
    shared.close()


def test_a_reference_says_enough_where_shared_memory_is_where_it_always_is(
    llama: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphogen.kernels.kv import importing
    from morphogen.kernels.kv.transport import shared_memory

    monkeypatch.setattr(shared_memory, "default_folder", lambda: tmp_path / "memory")
    importing._memory.cache_clear()
    shared = SharedMemory()
    read = llama()
    read.eval(models.prompt(50))

    assert import_kv(llama(), export_kv(read, into=shared)).tokens == 50
    importing._memory().close()
    importing._memory.cache_clear()
    shared.close()


def test_a_failed_export_gives_the_room_back(llama: Callable[..., Any], tmp_path: Path) -> None:
    shared = SharedMemory(tmp_path / "memory", spare=0)
    read = llama()
    read.eval(models.prompt(50))
    room = shared.reserve(100)

    with pytest.raises(Exception, match="writable bytes, the buffer has 100 bytes"), room:
        export_kv(read, into=room)

    assert not [path for path in (tmp_path / "memory").rglob("*") if path.is_file() and path.stat().st_size > 1000]
    shared.close()


def test_a_byte_that_changed_on_the_way_is_refused(llama: Callable[..., Any], tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    read, took = llama(), llama()
    read.eval(models.prompt(100))
    ref = export_kv(read, into=disk)
    assert isinstance(ref, KvRef)
    (file,) = [
        path for path in (tmp_path / "disk").rglob("*") if path.is_file() and path.stat().st_size > ref.size - 4096
    ]
    with file.open("r+b") as stored:
        stored.seek(ref.size - 1000)
        byte = stored.read(1)
        stored.seek(ref.size - 1000)
        stored.write(bytes([byte[0] ^ 1]))

    with pytest.raises(KvRefused, match="the payload's checksum does not fit"):
        import_kv(took, ref, transport=disk)

    assert took.n_tokens == 0
    with (
        IsolatedImporter.like(read) as worker,
        pytest.raises((KvRefused, WorkerCrashed), match="checksum does not fit"),
    ):
        worker.import_kv(ref, transport=disk)
    disk.close()
