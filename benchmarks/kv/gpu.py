"""Hand a pool from one process to another on the same GPU, and go on with a model's context instead of reading it again.

    python benchmarks/kv/gpu.py [--pool-mib 1024] [--tokens 4096] [--rounds 20] [--json FILE]
    python benchmarks/kv/gpu.py --host ...     the same steps on the host's twin of device memory: no figures of a GPU

Two processes: the owner fills a pool and shares it, this one opens it. What is timed is what a handoff consists of:
sharing (wait for the device, write the record), opening (lease, handle), and the check that the owner still lives.
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from morphogen.kernels.kv.pool import PoolShape, SharedPool, TorchKvPool, borrow, fingerprint_of_model
from morphogen.kernels.kv.transport import CudaMemory, DeviceMemory, HostMemory, Ipc
from morphogen.schemas.kv import KvRef

BLOCK = 64
SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
LARGE = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}


def memory_of(host: bool) -> DeviceMemory:
    """Return the memory that pools are laid into."""
    return HostMemory() if host else CudaMemory()


def model_of(host: bool) -> Any:
    """Return a random model, the same in each process."""
    from transformers import LlamaConfig, LlamaForCausalLM  # slow to import, and needed by one of the two parts

    torch.manual_seed(0)
    size = SMALL if host else LARGE
    config = LlamaConfig(
        vocab_size=32_000, num_key_value_heads=size["num_attention_heads"] // 4, max_position_embeddings=16_384, **size
    )
    dtype, device = (torch.float32, "cpu") if host else (torch.bfloat16, "cuda")
    return LlamaForCausalLM(config).to(dtype).to(device).eval()


def prompt(count: int, device: torch.device) -> torch.Tensor:
    """Return token ids (1, count)."""
    return torch.randint(0, 32_000, (1, count), generator=torch.Generator().manual_seed(1)).to(device)


def settle(host: bool) -> None:
    """Wait for the device."""
    if not host:
        torch.cuda.synchronize()


def plain(mib: int) -> tuple[PoolShape, int]:
    """Return the shape of a pool that looks like an 8B model's cache, and how many blocks make `mib` MiB."""
    shape = PoolShape(layers=32, heads=8, head_dim=128, block=16, dtype="float16")
    return shape, max(1, (mib << 20) // TorchKvPool.size_of(shape, 1))


def owner(options: argparse.Namespace) -> None:
    """Be the other process: fill a pool, then share and release it as told by stdin."""
    ipc = Ipc(memory_of(options.host), options.folder)
    if options.role == "pool":
        shape, blocks = plain(options.pool_mib)
        pool = SharedPool(shape, blocks=blocks, ipc=ipc)
        pool.begin("s", room=blocks * shape.block)
        pool.extend("s", blocks * shape.block)
        pool.data.copy_(torch.randn(shape.block, shape.heads, shape.head_dim).to(pool.data.dtype))
        more: dict[str, Any] = {}
        answer = {"sum": float(pool.data[-1, -1, -1].float().sum())}
    else:
        from morphogen.kernels.kv.pool import PoolCache

        model = model_of(options.host)
        shape = PoolShape.of(model.config, block=BLOCK, dtype=model.dtype)
        pool = SharedPool(shape, blocks=options.tokens // BLOCK + 2, ipc=ipc)
        pool.begin("s", room=options.tokens)
        ids = prompt(options.tokens, model.device)
        with torch.inference_mode():
            model(ids[:, :-1], past_key_values=PoolCache(pool, ["s"]), use_cache=True, logits_to_keep=1)
            pool.fork("s", "probe")
            last = model(ids[:, -1:], past_key_values=PoolCache(pool, ["probe"]), use_cache=True).logits
        more = {"tokens": ids[0, :-1].tolist(), "fingerprint": fingerprint_of_model(model, shape)}
        answer = {"next": int(last[0, -1].argmax()), "logits": last[0, -1].float().cpu().tolist()}
    settle(options.host)
    print(json.dumps(answer), flush=True)
    ref: KvRef | None = None
    for line in sys.stdin:
        if line == "share\n":
            began = time.perf_counter()
            ref = pool.share("s", **more)
            took = time.perf_counter() - began
            print(json.dumps({"ref": msgspec.to_builtins(ref), "s": took}), flush=True)
        elif ref is not None:
            print(json.dumps({"released": pool.release(ref), "s": 0.0}), flush=True)
    pool.close()


class Owner:
    """The other process."""

    def __init__(self, role: str, options: argparse.Namespace) -> None:
        words = [
            sys.executable,
            __file__,
            "--role",
            role,
            "--folder",
            str(options.folder),
            "--tokens",
            str(options.tokens),
        ]
        words += ["--pool-mib", str(options.pool_mib), *(["--host"] if options.host else [])]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the other process ended with {self.process.wait()}")
        return dict(json.loads(line))

    def __call__(self, word: str) -> dict[str, Any]:
        """Tell it a word; return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._read()

    def share(self) -> tuple[KvRef, float]:
        """Have it share; return the ref, and the seconds that it took there."""
        told = self("share")
        return msgspec.convert(told["ref"], KvRef), float(told["s"])

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()


def middle(values: list[float]) -> dict[str, float]:
    """Return median, best and worst, in milliseconds."""
    return {"median_ms": 1e3 * statistics.median(values), "min_ms": 1e3 * min(values), "max_ms": 1e3 * max(values)}


def time_of(act: Callable[[], object], host: bool) -> float:
    """Return the seconds that something takes, the device's work included."""
    settle(host)
    began = time.perf_counter()
    act()
    settle(host)
    return time.perf_counter() - began


def handoff(options: argparse.Namespace) -> dict[str, Any]:
    """Time the handoff of a whole pool, and the copy that it spares."""
    ipc = Ipc(memory_of(options.host), options.folder)
    other = Owner("pool", options)
    shape, blocks = plain(options.pool_mib)
    size = TorchKvPool.size_of(shape, blocks)
    shared, opened, copied, taken = [], [], [], 0
    mine = torch.empty(size, dtype=torch.uint8, device="cpu" if options.host else "cuda")
    for number in range(options.rounds + 1):
        ref, seconds = other.share()
        settle(options.host)
        free = 0 if options.host else torch.cuda.mem_get_info()[0]
        began = time.perf_counter()
        borrowed = borrow(ipc, ref)
        with borrowed.use() as pool:
            took = time.perf_counter() - began
            taken = 0 if options.host else free - torch.cuda.mem_get_info()[0]
            found = float(pool.data[-1, -1, -1].float().sum())
            assert found == other.answer["sum"], (found, other.answer)
            copy = time_of(lambda pool=pool: mine.copy_(pool.data.view(torch.uint8).flatten()), options.host)  # type: ignore[misc]
        if number:  # the first one makes CUDA's context, and loads kernels
            shared.append(seconds)
            opened.append(took)
            copied.append(copy)
        del pool
        borrowed.close()
        other("release")
    other.close()
    ipc.close()
    both = [one + two for one, two in zip(shared, opened, strict=True)]
    return {
        "bytes": size, "share": middle(shared), "open": middle(opened), "handoff": middle(both),
        "memory_taken_by_the_open": taken, "device_copy": middle(copied),
        "device_copy_GB_s": size / statistics.median(copied) / 1e9,
    }  # fmt: skip


def resume(options: argparse.Namespace) -> dict[str, Any]:
    """Time the next token of a long context: taken over from another process, against read again."""
    from morphogen.kernels.kv.pool import PoolCache

    ipc, other = Ipc(memory_of(options.host), options.folder), Owner("model", options)
    model = model_of(options.host)
    shape = PoolShape.of(model.config, block=BLOCK, dtype=model.dtype)
    mark = fingerprint_of_model(model, shape)
    ids = prompt(options.tokens, model.device)
    pool = TorchKvPool(shape, blocks=options.tokens // BLOCK + 2, device=model.device)
    last: list[torch.Tensor] = []

    def again() -> None:
        pool.begin("s", room=options.tokens)
        cache = PoolCache(pool, ["s"])
        with torch.inference_mode():
            last[:] = [model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits]

    def take_over() -> None:
        with borrow(ipc, ref) as borrowed:
            borrowed.into(pool, "s", fingerprint=mark)
        with torch.inference_mode():
            last[:] = [model(ids[:, -1:], past_key_values=PoolCache(pool, ["s"]), use_cache=True).logits]

    recompute, resumed, difference = [], [], 0.0
    expected = torch.tensor(other.answer["logits"])
    for number in range(options.rounds + 1):
        read = time_of(again, options.host)
        pool.free("s")
        ref, seconds = other.share()
        took = seconds + time_of(take_over, options.host)
        difference = max(difference, float((last[0][0, -1].float().cpu() - expected).abs().max()))
        pool.free("s")
        other("release")
        if number:
            recompute.append(read)
            resumed.append(took)
    other.close()
    ipc.close()
    ratio = statistics.median(recompute) / statistics.median(resumed)
    return {
        "tokens": options.tokens, "bytes": options.tokens * shape.width, "recompute": middle(recompute),
        "resume": middle(resumed), "speedup": ratio, "largest_difference_of_logits_to_the_owners_own": difference,
    }  # fmt: skip


def main() -> None:
    """Run both, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool-mib", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--host", action="store_true", help="on the host's twin of device memory")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", choices=("pool", "model"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        owner(options)
        return
    above = Path(tempfile.mkdtemp(prefix="morphogen-bench-", dir="/dev/shm"))
    options.folder = above / "ipc"
    try:
        device = platform.processor() or platform.machine() if options.host else torch.cuda.get_device_name()
        found = {"device": device, "gpu": not options.host, "torch": torch.__version__}
        found |= {"handoff": handoff(options), "resume": resume(options)}
    finally:
        shutil.rmtree(above)
    one, two = found["handoff"], found["resume"]
    print(f"on {device}" + (" (the host's memory: no figures of a GPU)" if options.host else ""))
    print(
        f"handoff of a pool of {one['bytes'] / 2**20:.0f} MiB: {one['handoff']['median_ms']:.2f} ms "
        f"(worst {one['handoff']['max_ms']:.2f}); share {one['share']['median_ms']:.2f}, open {one['open']['median_ms']:.2f}; "
        f"{one['memory_taken_by_the_open']} bytes taken; a copy: {one['device_copy']['median_ms']:.2f} ms"
    )
    print(
        f"next token after {two['tokens']} tokens: read again {two['recompute']['median_ms']:.1f} ms, "
        f"taken over {two['resume']['median_ms']:.1f} ms: {two['speedup']:.1f}x; "
        f"logits differ from the owner's by at most {two['largest_difference_of_logits_to_the_owners_own']:.2g}"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
