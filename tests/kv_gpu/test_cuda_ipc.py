"""CUDA IPC between two processes on one GPU: the real thing, where there is one."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'morphogen[hf]'")
if not torch.cuda.is_available():
    pytest.skip("CUDA IPC needs a GPU: torch sees none here", allow_module_level=True)
pytest.importorskip("cupy", reason="needs CuPy: pip install 'morphogen[gpu]'")

from morphogen.kernels.kv.leases import LeaseEnded  # noqa: E402
from morphogen.kernels.kv.pool import PoolShape, TorchKvPool, borrow  # noqa: E402
from morphogen.kernels.kv.transport import CudaMemory, Ipc, NoRoom, TransportError  # noqa: E402
from morphogen.schemas.kv import KvRef  # noqa: E402

OWNER = """
import json, sys
from pathlib import Path
import msgspec, torch
from morphogen.kernels.kv.transport import CudaMemory, Ipc
from morphogen.kernels.kv.pool import PoolShape, SharedPool
ipc = Ipc(CudaMemory(), Path(sys.argv[1]), ttl=float(sys.argv[2]))
shape = PoolShape(layers=2, heads=2, head_dim=64, block=16, dtype="bfloat16")
pool = SharedPool(shape, blocks=64, ipc=ipc)
pool.begin("s"); pool.extend("s", 500)
for layer in range(2):
    one = torch.arange(2 * 500 * 64, device="cuda").view(2, 500, 64).remainder(97).to(torch.bfloat16) + layer
    pool.write("s", layer, 0, one, -one)
ref = pool.share("s", tokens=list(range(500)))
print(json.dumps(msgspec.to_builtins(ref)), flush=True)
for line in sys.stdin:
    if line == "release\\n":
        print(json.dumps(pool.release(ref)), flush=True)
    elif line == "free\\n":
        ipc.reap()
        print(json.dumps([pool.blocks.free, len(ipc._given)]), flush=True)
    elif line == "go on\\n":
        pool.extend("s", 10)
        for layer in range(2):
            more = torch.ones(2, 10, 64, device="cuda", dtype=torch.bfloat16)
            pool.write("s", layer, 500, more, more)
        torch.cuda.synchronize()
        print(json.dumps(pool.length("s")), flush=True)
"""


class Owner:
    """A process that owns a pool on the GPU."""

    def __init__(self, folder: Path, ttl: float = 30.0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder), str(ttl)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ref = msgspec.convert(self.read(), KvRef)

    def read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def __call__(self, word: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.read()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="morphogen-test-", dir="/dev/shm") as above:
        yield Path(above) / "ipc"


@pytest.fixture
def owner(folder: Path) -> Iterator[Owner]:
    made = Owner(folder)
    yield made
    made.process.kill()
    made.process.communicate()


def expected(layer: int) -> Any:
    return torch.arange(2 * 500 * 64, device="cuda").view(2, 500, 64).remainder(97).to(torch.bfloat16) + layer


def test_a_pool_of_another_process_is_read_where_it_lies(folder: Path, owner: Owner) -> None:
    ipc = Ipc(CudaMemory(), folder)
    torch.zeros(1, device="cuda")
    with borrow(ipc, owner.ref) as borrowed:
        before = torch.cuda.memory_allocated()
        with borrowed.use() as pool:
            assert pool.device.type == "cuda"
            for layer in range(2):
                keys, values = pool.read(None, layer)
                assert torch.equal(keys, expected(layer)) and torch.equal(values, -expected(layer))
            del keys, values
        assert torch.cuda.memory_allocated() - before < 1 << 22
        assert owner("go on") == 510
        with borrowed.use() as pool:
            assert torch.equal(pool.read(None, 1)[0], expected(1))  # as it was shared
        del pool
    ipc.close()


def test_a_sequence_is_copied_within_the_gpu(folder: Path, owner: Owner) -> None:
    ipc = Ipc(CudaMemory(), folder)
    shape = PoolShape(layers=2, heads=2, head_dim=64, block=32, dtype="bfloat16")
    mine = TorchKvPool(shape, blocks=20, device="cuda")
    with borrow(ipc, owner.ref) as borrowed:
        borrowed.into(mine, "s")
        assert borrowed.tokens == list(range(500))
    owner.process.kill()
    owner.process.wait()
    assert torch.equal(mine.read("s", 1)[1], -expected(1))
    with pytest.raises(LeaseEnded):
        borrow(ipc, owner.ref)
    ipc.close()


def test_a_handle_is_not_used_after_its_owners_death(folder: Path, owner: Owner) -> None:
    ipc = Ipc(CudaMemory(), folder)
    borrowed = borrow(ipc, owner.ref)
    with pytest.raises(LeaseEnded), borrowed.use():
        owner.process.kill()
        owner.process.wait()
    with pytest.raises(LeaseEnded), borrowed.use():
        pass
    borrowed.close()
    ipc.reap()
    assert ipc.records.segments() == ()
    ipc.close()


def test_memory_is_not_freed_under_a_reader(folder: Path, owner: Owner) -> None:
    ipc = Ipc(CudaMemory(), folder)
    borrowed = borrow(ipc, owner.ref)
    assert owner("release") == "held"
    assert owner("free") == [32, 1]
    borrowed.close()
    assert owner("free") == [32, 0]
    ipc.close()


def test_what_cuda_refuses_is_told_in_one_line(folder: Path) -> None:
    memory = CudaMemory()
    with pytest.raises(NoRoom) as full:
        memory.allocate(1 << 50)
    with pytest.raises(TransportError) as none:
        memory.attach(b"\0" * 64, 4096)
    with pytest.raises(TransportError):
        memory.attach(b"short", 4096)
    assert "\n" not in str(full.value) + str(none.value)
    one = memory.allocate(4096)
    one.tensor().fill_(7)
    assert int(one.tensor().sum()) == 7 * 4096
    one.free()
    one.free()
