"""Device memory handed to another process: here on the host's twin of it, which has the same lifetime."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'morphogen[hf]'")

from morphogen.kernels.kv.errors import KvMismatch  # noqa: E402
from morphogen.kernels.kv.leases import LeaseEnded  # noqa: E402
from morphogen.kernels.kv.pool import PoolError, PoolFull, PoolMismatch, PoolShape, SharedPool  # noqa: E402
from morphogen.kernels.kv.transport import (  # noqa: E402
    BadRef,
    CudaMemory,
    Gone,
    HostMemory,
    Ipc,
    Meta,
    MissingExtra,
    NoDevice,
    NoRoom,
    Transport,
    TransportError,
)
from morphogen.schemas.kv import Fingerprint, KvRef  # noqa: E402

from .processes import Other  # noqa: E402

SHAPE = PoolShape(layers=2, heads=2, head_dim=4, block=4)

PRELUDE = """
import msgspec, torch, time, os
from pathlib import Path
from morphogen.schemas.kv import KvRef, Fingerprint
from morphogen.kernels.kv.transport import Ipc, HostMemory
from morphogen.kernels.kv.pool import PoolShape, TorchKvPool, SharedPool, borrow
held = {}
def begin(folder, ttl):
    global ipc
    ipc = Ipc(HostMemory(), Path(folder), ttl=ttl)
def end():
    held.clear()
    ipc.close(timeout=0)
def ref(text): return msgspec.json.decode(text, type=KvRef)
def put(name, thing): held[name] = thing
def text(ref): return msgspec.json.encode(ref).decode()
def give(size, value):
    room = ipc.reserve(size)
    room.tensor().fill_(value)
    held["ref"] = room.commit()
    return text(held["ref"])
shape = PoolShape(layers=2, heads=2, head_dim=4, block=4)
def fill(length):
    pool = held["pool"] = SharedPool(shape, blocks=8, ipc=ipc)
    pool.begin("s"); pool.extend("s", length)
    for layer in range(2):
        one = torch.arange(2 * length * 4, dtype=torch.float32).view(2, length, 4) + 1000 * layer
        pool.write("s", layer, 0, one, -one)
    held["ref"] = pool.share("s", tokens=list(range(length)))
    return text(held["ref"])
def take(text, name="b"):
    held[name] = borrow(ipc, ref(text)); return held[name].length
def read(layer=1, name="b"):
    with held[name].use() as pool: return pool.read(None, layer)[1].sum().item()
"""


@pytest.fixture
def ipc(shm: Path) -> Iterator[Ipc]:
    made = Ipc(HostMemory(), shm)
    yield made
    made.close(timeout=0)


_idle: list[Any] = []  # processes that have torch imported, for the next test


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    while _idle:
        _idle.pop().close()


@pytest.fixture
def process(shm: Path) -> Iterator[Callable[..., Any]]:
    used = []

    def start(ttl: float = 30.0) -> Any:
        found = _idle.pop() if _idle else Other(PRELUDE)
        used.append(found)
        assert found(f"begin({str(shm)!r}, {ttl})") == "None"
        return found

    yield start
    for found in used:
        if found.process.poll() is None and found("end()") == "None":
            _idle.append(found)
        else:
            found.close()


def ref_of(text: str) -> KvRef:
    return msgspec.json.decode(eval(text), type=KvRef)


def test_memory_of_another_process_is_seen_without_a_copy(ipc: Ipc, process: Callable[..., Any]) -> None:
    assert isinstance(ipc, Transport)
    owner = process()
    ref = ref_of(owner("give(100_000, 7)"))
    assert (ref.transport, ref.size) == ("ipc", 100_000)
    with ipc.open(ref) as mapped:
        with mapped.use() as tensor:
            assert tensor.shape == (100_000,) and bool((tensor == 7).all())
        assert bytes(mapped.buffer[:2]) == b"\7\7" and mapped.buffer.readonly
        mapped.check()
    assert owner("ipc.release(held['ref'])") == "'freed'"
    assert owner("ipc._given") == "{}"
    with pytest.raises(LeaseEnded):
        ipc.open(ref)


def test_what_a_reader_writes_stays_with_it(ipc: Ipc, process: Callable[..., Any]) -> None:
    owner = process()
    ref = ref_of(owner("give(4096, 7)"))
    with ipc.open(ref) as mapped:
        mapped.tensor().fill_(9)
    with ipc.open(ref) as mapped:
        assert int(mapped.tensor()[0]) == 7


def test_a_handle_is_not_used_after_its_owners_death(ipc: Ipc, process: Callable[..., Any]) -> None:
    owner = process()
    ref = ref_of(owner("give(4096, 7)"))
    mapped = ipc.open(ref)
    with pytest.raises(LeaseEnded, match="its holder died"), mapped.use() as tensor:
        assert int(tensor[0]) == 7
        owner.kill()  # in the middle of a use: what it gave is not to be trusted
        owner.process.wait()
    with pytest.raises(LeaseEnded):
        mapped.tensor()
    with pytest.raises(LeaseEnded):
        ipc.open(ref)
    mapped.close()
    ipc.reap()
    assert ipc.records.segments() == ()


def test_a_handle_is_not_used_after_its_owners_lease_ran_out(ipc: Ipc, process: Callable[..., Any]) -> None:
    """The owner lives, but was stopped: nobody knows what it does with its memory when it wakes."""
    owner = process(ttl=0.4)
    ref = ref_of(owner("give(4096, 7)"))
    mapped = ipc.open(ref)
    os.kill(owner.process.pid, 19)
    time.sleep(0.6)
    with pytest.raises(LeaseEnded, match="its time ran out"):
        mapped.tensor()
    os.kill(owner.process.pid, 18)
    mapped.close()


def test_a_revoked_handle_is_refused_and_its_memory_freed_when_the_last_reader_lets_go(
    ipc: Ipc, process: Callable[..., Any]
) -> None:
    owner = process()
    ref = ref_of(owner("give(4096, 7)"))
    mapped = ipc.open(ref)
    assert owner("ipc.release(held['ref'])") == "'held'"
    assert owner("len(ipc._given)") == "1"  # not freed under a reader
    with pytest.raises(LeaseEnded):
        mapped.check()
    mapped.close()
    assert owner("(ipc.reap(), len(ipc._given))[1]") == "0"


def test_a_reader_that_was_killed_holds_no_memory(ipc: Ipc, process: Callable[..., Any]) -> None:
    owner, reader = process(), process()
    ref = owner("give(4096, 7)")
    assert reader(f"put('m', ipc.open(ref({ref})))") == "None"
    assert owner("ipc.release(held['ref'])") == "'held'"
    reader.kill()
    reader.process.wait()
    assert owner("(ipc.reap(), len(ipc._given))[1]") == "0"


def test_an_owner_that_closes_waits_for_its_readers(ipc: Ipc, process: Callable[..., Any]) -> None:
    owner = process()
    mapped = ipc.open(ref_of(owner("give(4096, 7)")))
    assert owner("ipc.close(timeout=0.1)") == "False"
    mapped.close()
    assert owner("ipc.close(timeout=5)") == "True"


def test_a_tensor_keeps_the_handle_of_a_mapping_that_was_forgotten(ipc: Ipc, process: Callable[..., Any]) -> None:
    owner = process()
    mapped = ipc.open(ref_of(owner("give(4096, 7)")))
    tensor = mapped.tensor()
    del mapped
    assert int(tensor.sum()) == 7 * 4096


def test_a_handle_is_not_opened_where_it_was_made(ipc: Ipc) -> None:
    with ipc.reserve(10) as room:
        room.buffer[:] = b"0123456789"
        ref = room.commit(Meta(size=5, details={"tokens": 1}))
    assert ref.size == 5 and ref.details["tokens"] == 1
    with pytest.raises(TransportError, match="this process's own"):
        ipc.open(ref)
    assert [ipc.release(ref), ipc.release(ref)] == ["freed", "already"]
    with pytest.raises(ValueError, match="at least 1"):
        ipc.reserve(0)
    with pytest.raises(NoRoom):
        ipc.reserve(2**60)


def test_memory_that_was_not_committed_leaves_nothing(ipc: Ipc) -> None:
    with ipc.reserve(4096) as room, pytest.raises(ValueError, match="cannot have been written"):
        room.commit(Meta(size=4097))
    assert ipc.records.segments() == () and ipc._given == {}
    room.abort()


def test_a_record_that_lies_is_refused(ipc: Ipc, process: Callable[..., Any]) -> None:
    owner = process()
    ref = ref_of(owner("give(4096, 7)"))
    for size, offset in ((4097, 0), (1, 4096), (0, 0), (1, -1)):
        with pytest.raises(BadRef):
            ipc.open(msgspec.structs.replace(ref, size=size, offset=offset))
    for details in ({}, {"record": "x"}, {"record": 10**9}, {"record": 3}):
        with pytest.raises(TransportError):
            ipc.open(msgspec.structs.replace(ref, details=details))
    ipc.memory.device = "cuda/0000:01:00.0"  # type: ignore[misc]
    with pytest.raises(NoDevice, match="lies on host"):
        ipc.open(ref)


@pytest.mark.parametrize("handle", [b"", b"x", b"1-2-3", b"1-1-1-1", b"1-1-../../x-1"])
def test_a_handle_of_nobody_opens_nothing(handle: bytes) -> None:
    with pytest.raises(TransportError):
        HostMemory().attach(handle, 4096)


def test_a_handle_names_nothing_but_memory_of_ours(tmp_path: Path) -> None:
    """Else it could make this process open whatever another one has open."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 4096)
    from morphogen.kernels.kv.leases import me

    with secret.open("rb") as file:
        who = me()
        handle = f"{who.pid}-{who.start}-{file.fileno()}-{os.fstat(file.fileno()).st_ino}".encode()
        with pytest.raises(Gone):
            HostMemory().attach(handle, 4096)


def test_a_sequence_of_another_processs_pool_is_read_where_it_lies(ipc: Ipc, process: Callable[..., Any]) -> None:
    owner, reader = process(), process()
    ref = owner("fill(10)")
    assert reader(f"take({ref})") == "10"
    assert reader("held['b'].tokens") == repr(list(range(10)))
    expected = -(sum(range(80)) + 1000 * 80)
    assert float(reader("read()")) == expected
    # The owner goes on with the same sequence: what the reader sees stays as it was shared.
    assert owner("held['pool'].extend('s', 3)") == "None"
    assert owner("[held['pool'].write('s', n, 10, torch.ones(2, 3, 4), torch.ones(2, 3, 4)) for n in range(2)]")
    assert float(reader("read()")) == expected
    # And though the owner forgets it, and fills its pool with other things.
    assert owner("held['pool'].free('s')") == "None"
    assert owner("held['pool'].blocks.free") == "5"
    assert owner("(held['pool'].begin('x'), held['pool'].extend('x', 20))[1]") == "None"
    assert owner("held['pool'].data[:, :, 3:].fill_(9).sum() > 0") == "tensor(True)"
    assert float(reader("read()")) == expected
    # Its blocks are free once all have let go.
    assert owner("held['pool'].release(held['ref'])") == "'held'"
    assert owner("held['pool'].blocks.free") == "0"
    assert reader("held['b'].close()") == "None"
    assert owner("(ipc.reap(), held['pool'].blocks.free, held['pool'].blocks.verify())[1]") == "3"
    assert owner("held['pool'].close()") == "True"


def test_a_borrowed_sequence_is_copied_into_a_pool_of_ones_own(ipc: Ipc, process: Callable[..., Any]) -> None:
    owner, reader = process(), process()
    ref = owner("fill(10)")
    assert reader(f"take({ref})") == "10"
    assert reader("put('p', TorchKvPool(PoolShape(layers=2, heads=2, head_dim=4, block=3), blocks=6))") == "None"
    assert reader("held['b'].into(held['p'], 'mine')") == "None"
    assert float(reader("held['p'].read('mine', 1)[1].sum()")[7:-1]) == -(sum(range(80)) + 1000 * 80)
    assert reader("held['b'].into(held['p'], 'more')").startswith("PoolFull")
    assert reader(
        "held['b'].into(TorchKvPool(PoolShape(layers=1, heads=2, head_dim=4, block=3), blocks=6), 1)"
    ).startswith("PoolMismatch")
    mark = Fingerprint(
        engine="torch", build="1", state_version=1, weights="w", arch="a", vocab="", type_k="f", type_v="f",
        layers=2, heads_kv=2, head_dim=4,
    )  # fmt: skip
    other = f"msgspec.json.decode({msgspec.json.encode(mark)!r}, type=Fingerprint)"
    assert "has no fingerprint" in reader(f"held['b'].into(held['p'], 'f', fingerprint={other})")
    owner.kill()
    owner.process.wait()
    assert reader("held['p'].free('mine')") == "None"
    assert reader("held['b'].into(held['p'], 'late')").startswith("LeaseEnded")
    assert reader("held['p'].blocks.free") == "6"


def test_a_copy_in_whose_middle_the_owner_dies_is_thrown_away(ipc: Ipc, process: Callable[..., Any]) -> None:
    from morphogen.kernels.kv.pool import TorchKvPool, borrow

    owner = process()

    class Slow(TorchKvPool):
        def unpack(self, sequence: Any, data: Any) -> None:
            super().unpack(sequence, data)
            owner.kill()
            owner.process.wait()

    pool = Slow(SHAPE, blocks=4)
    with borrow(ipc, ref_of(owner("fill(10)"))) as borrowed, pytest.raises(LeaseEnded, match="its holder died"):
        borrowed.into(pool, "s")
    assert pool.blocks.free == 4 and pool.blocks.sequences == ()


def test_a_sequence_of_another_model_is_not_taken_over(ipc: Ipc) -> None:
    """What the reader is told is compared before a byte is copied."""
    from morphogen.kernels.kv.pool import Borrowed, SharedSequence, TorchKvPool

    mark = Fingerprint(
        engine="torch", build="1", state_version=1, weights="w", arch="a", vocab="", type_k="f", type_v="f",
        layers=2, heads_kv=2, head_dim=4,
    )  # fmt: skip

    class Told:
        ref = KvRef(transport="ipc", place="a" * 32, size=1)
        what = msgspec.msgpack.encode(SharedSequence(shape=SHAPE, blocks=8, table=[0], length=4, fingerprint=mark))

    borrowed = Borrowed(Told())  # type: ignore[arg-type]
    with pytest.raises(KvMismatch, match="weights"):
        borrowed.into(TorchKvPool(SHAPE, blocks=2), "s", fingerprint=msgspec.structs.replace(mark, weights="v"))


def test_a_shared_pool_pins_what_it_shares(ipc: Ipc) -> None:
    pool = SharedPool(SHAPE, blocks=4, ipc=ipc)
    pool.begin("s")
    pool.extend("s", 6)
    with pytest.raises(PoolError, match="6 tokens in the pool, 5 were named"):
        pool.share("s", tokens=[1] * 5)
    ref = pool.share("s", ttl=60.0)
    assert ref.expires is not None and ref.details["bytes"] == 6 * SHAPE.width
    pool.free("s")
    assert pool.blocks.free == 2
    pool.begin("t")
    with pytest.raises(PoolFull):
        pool.extend("t", 9)
    assert pool.release(ref) == "held"  # the offer is gone, the pool's own lease is not
    assert pool.close(timeout=0)


def test_a_shared_pool_takes_back_what_readers_let_go_of_when_blocks_are_scarce(
    ipc: Ipc, process: Callable[..., Any]
) -> None:
    owner, reader = process(), process()
    ref = owner("fill(20)")  # 5 of 8 blocks
    assert reader(f"take({ref})") == "20"
    assert owner("(held['pool'].free('s'), held['pool'].release(held['ref']))[1]") == "'held'"
    assert owner("held['pool'].begin('t')") == "None"
    assert owner("held['pool'].extend('t', 30)").startswith("PoolFull")
    reader.kill()
    reader.process.wait()
    assert owner("held['pool'].extend('t', 30)") == "None"


def test_a_device_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises((MissingExtra, NoDevice)) as refused:
        CudaMemory()
    assert "\n" not in str(refused.value)


def test_without_cupy_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        "from morphogen.kernels.kv.transport import CudaMemory, MissingExtra\n"
        "try: CudaMemory()\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "CUDA IPC needs CuPy: pip install 'morphogen[gpu]'\n"


def test_a_pool_that_is_none_is_refused(ipc: Ipc, process: Callable[..., Any]) -> None:
    from morphogen.kernels.kv.pool import borrow

    owner = process()
    with pytest.raises(PoolMismatch, match="no sequence of a pool"):
        borrow(ipc, ref_of(owner("give(4096, 7)")))
    assert [len(segment.leases) for segment in ipc.records.segments()] == [1]
