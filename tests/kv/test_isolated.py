"""A worker takes the blow: what kills it changes nothing here, and the next state finds a fresh one."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from morphogen.kernels.kv import (
    IsolatedImporter,
    KvError,
    KvMismatch,
    KvRefused,
    KvState,
    WorkerCrashed,
    export_kv,
)
from morphogen.kernels.kv.isolated import Call

from . import models
from .conftest import bytes_of, greedy
from .test_refusals import exported, forged


@pytest.fixture
def worker(gguf_folder: Path) -> Iterator[IsolatedImporter]:
    """A worker with the tiny model."""
    with IsolatedImporter(gguf_folder / "tiny.gguf", n_ctx=512, sequences=2, n_threads=1) as made:
        yield made


def test_a_worker_restores_and_goes_on(llama: Callable[..., Any], worker: IsolatedImporter, tmp_path: Path) -> None:
    read = llama()
    read.eval(models.prompt(100))
    state = exported(read)
    ref = state.save(tmp_path / "a.kv")
    expected = greedy(read, 20)

    for source in (state, bytes(state.buffer), ref, tmp_path / "a.kv"):
        done = worker.import_kv(source)
        assert (done.tokens, done.logits, done.fingerprint) == (100, True, state.fingerprint)
        assert worker.greedy(0, 20) == expected
        worker.drop(0)


def test_it_is_made_like_a_context_and_lets_it_take_what_it_survived(llama: Callable[..., Any]) -> None:
    shape: dict[str, Any] = {"type_k": 8, "lora_path": "lora.gguf", "lora_scale": 0.5, "rope_freq_base": 20_000.0}
    read, took = llama(**shape), llama(**shape)
    read.eval(models.prompt(100))

    with IsolatedImporter.like(took) as worker:
        done = worker.import_into(took, export_kv(read))

    assert done.tokens == 100
    assert greedy(took, 20) == greedy(read, 20)


def test_what_is_refused_there_is_refused_here_and_the_worker_lives(
    llama: Callable[..., Any], worker: IsolatedImporter, tmp_path: Path
) -> None:
    read, other = llama(), llama("other")
    read.eval(models.prompt(50))
    other.eval(models.prompt(50))
    (tmp_path / "empty.kv").touch()
    worker.import_kv(export_kv(read))
    pid = worker.pid

    with pytest.raises(KvMismatch) as caught:
        worker.import_kv(export_kv(other), 1)
    assert caught.value.field == "weights"
    with pytest.raises(KvRefused, match="the payload is no state of a sequence"):
        worker.import_kv(forged(exported(read), b"nothing of a state"), 1)
    with pytest.raises(KvRefused, match="an empty file is no KV state"):
        worker.import_kv(tmp_path / "empty.kv", 1)
    with pytest.raises(KvError, match="there is no sequence 7"):
        worker.import_kv(export_kv(read), 7)
    with pytest.raises(KvError, match="cannot be read: No such file"):
        worker.import_kv(tmp_path / "none.kv", 1)

    assert worker.pid == pid
    assert worker.greedy(0, 5) == greedy(read, 5)


@pytest.mark.parametrize("blow", [signal.SIGABRT, signal.SIGSEGV])
def test_a_crash_in_the_middle_of_a_restore_costs_the_worker_alone(
    llama: Callable[..., Any], worker: IsolatedImporter, blow: signal.Signals
) -> None:
    read, took = llama(), llama()
    read.eval(models.prompt(100))
    state = exported(read)
    took.eval(models.prompt(20, seed=2))
    before = bytes_of(took)
    worker.import_kv(state)
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # so that the call is under way when the blow comes
    later = threading.Timer(0.2, lambda: (os.kill(pid, blow), os.kill(pid, signal.SIGCONT)))
    later.start()

    with pytest.raises(WorkerCrashed, match=f"the worker died \\({blow.name}\\) while it was asked to import: nothing"):
        worker.import_into(took, state)
    later.join()

    assert bytes_of(took) == before
    assert worker.import_into(took, state).tokens == 100
    assert worker.pid != pid
    assert greedy(took, 10) == greedy(read, 10)


def test_llama_cpp_does_abort_a_process_that_asks_for_what_is_refused_here(gguf_folder: Path) -> None:
    code = (
        "import sys\n"
        "from morphogen.kernels.kv import RawContext, llama\n"
        "context = RawContext.open(sys.argv[1], n_ctx=256, sequences=1)\n"
        "context.decode(0, [1, 300, 301])\n"
        "room = bytearray(llama.state_size(context.ctx, 0))\n"
        "llama.read_state(context.ctx, 0, memoryview(room))\n"
        "llama.write_state(context.ctx, 4096, memoryview(room))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(gguf_folder / "tiny.gguf")], capture_output=True, check=False
    )

    assert done.returncode == -signal.SIGABRT


def test_a_worker_that_hangs_is_killed_in_time(gguf_folder: Path, llama: Callable[..., Any]) -> None:
    read = llama()
    read.eval(models.prompt(20))
    with IsolatedImporter(gguf_folder / "tiny.gguf", timeout=10.0, n_ctx=512, n_threads=1) as worker:
        worker.import_kv(export_kv(read))
        worker._socket.settimeout(0.3)  # type: ignore[union-attr]
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(WorkerCrashed, match="did not answer in 10 s and was killed"):
            worker.greedy(0, 5)
        assert worker.pid is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not really")

    with IsolatedImporter(tmp_path / "bad.gguf", n_ctx=64) as worker:
        with pytest.raises(KvError, match=r"llama\.cpp cannot load .*bad\.gguf"):
            worker.greedy(0, 1)
        assert worker.pid is None


def test_a_worker_ends_when_its_owner_is_killed(gguf_folder: Path) -> None:
    code = (
        "import sys, time\n"
        "from morphogen.kernels.kv import IsolatedImporter\n"
        "worker = IsolatedImporter(sys.argv[1], n_ctx=64, n_threads=1)\n"
        "worker.drop(0)\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(gguf_folder / "tiny.gguf")], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner.stdout:
        pid = int(owner.stdout.readline())
        owner.kill()
        owner.wait()

    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_bytes_that_are_none_of_ours_end_a_worker_and_no_more(
    worker: IsolatedImporter, llama: Callable[..., Any]
) -> None:
    read = llama()
    read.eval(models.prompt(20))
    state = export_kv(read)
    assert isinstance(state, KvState)
    handle = os.memfd_create("short")
    os.write(handle, bytes(state.buffer)[:100])

    with pytest.raises(WorkerCrashed, match="while it was asked to import"):
        worker._ask(Call("import", size=state.size), handle)  # a file shorter than it was said to be

    os.close(handle)
    assert worker.import_kv(state).tokens == 20
