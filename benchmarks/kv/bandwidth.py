"""Bytes a second of export and import, against a plain copy of the same bytes, and what safety costs of it.

All in one process, on memory that was touched before: shared memory's segment is a spare one, as in a worker that has run
for a while. `trusting` is our own code with fingerprint and checksum taken out; what it is faster by is what these two cost,
as far as they do not run beside the copy. `bare` is llama.cpp's own call, with nothing around it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from rounds import Row, Stages, clocked, in_ms, in_turns, line, median, ratio
from subjects import clear, llama, made, memory_folder, prompt, wide

from morphogen.kernels.kv import KvState, export_kv, exporting, import_kv, importing
from morphogen.kernels.kv import format as state_format
from morphogen.kernels.kv import llama as calls
from morphogen.kernels.kv.checksum import checksum
from morphogen.kernels.kv.transport import SharedMemory
from morphogen.schemas.kv import Fingerprint

TOKENS = 512
MEGABYTES = (64, 128, 256)


class Bandwidth:
    """Two contexts with one large state, and buffers of its size."""

    def __init__(self, path: Path, memory: Path, *, flash_attn: bool, threads: int) -> None:
        self.source, self.target = (llama(path, n_ctx=TOKENS, threads=threads, flash_attn=flash_attn) for _ in range(2))
        self.source.eval(prompt(TOKENS))
        self.shared = SharedMemory(memory, spare=2 << 30)
        state = export_kv(self.source)
        assert isinstance(state, KvState)
        self.state, self.payload, self.print = state, state.verify(), state.fingerprint
        self.plain = np.ones(state.size, np.uint8)
        self.room = memoryview(np.ones(self.payload.nbytes, np.uint8))

    def ways(self) -> dict[str, Any]:
        """Return the contenders."""
        return {
            "memcpy": self.memcpy,
            "ours": self.ours,
            "trusting": self.trusting,
            "bare": self.bare,
            "checksum": self.checksum,
        }

    def memcpy(self) -> Stages:
        """Copy the bytes."""
        source = np.frombuffer(self.state.buffer, np.uint8)
        return {"copy": clocked(lambda: np.copyto(self.plain, source))[0]}

    def ours(self) -> Stages:
        """Export into shared memory, import from it."""
        clear(self.target)
        out, ref = clocked(lambda: export_kv(self.source, into=self.shared))
        into, _ = clocked(lambda: import_kv(self.target, ref, transport=self.shared))
        self.shared.release(ref)  # type: ignore[arg-type]
        return {"export": out, "import": into}

    def bare(self) -> Stages:
        """Let llama.cpp do the same, with nothing around it."""
        clear(self.target)
        out, size = clocked(lambda: calls.read_state(self.source.ctx, 0, self.room))
        into, back = clocked(lambda: calls.write_state(self.target.ctx, 0, self.room))
        assert size == back == self.room.nbytes
        return {"export": out, "import": into}

    def trusting(self) -> Stages:
        """Do as `ours`, believing everything."""
        with _believing(self.print):
            return self.ours()

    def checksum(self) -> Stages:
        """Compute the checksum by itself."""
        return {"once": clocked(lambda: checksum(self.payload))[0]}

    def close(self) -> None:
        """Give all back."""
        self.shared.close()
        self.source.close()
        self.target.close()


@contextlib.contextmanager
def _believing(known: Fingerprint) -> Iterator[None]:
    """Take fingerprint and checksum out of export and import."""
    with contextlib.ExitStack() as stack:
        for module in (exporting, importing):
            stack.enter_context(mock.patch.object(module, "fingerprint", return_value=known))
        for module in (exporting, state_format):
            stack.enter_context(mock.patch.object(module, "checksum", return_value=bytes(16)))
        yield


def measure(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Return the figures of each size, and of both layouts of the values."""
    found = {}
    for megabytes, flash_attn in ((MEGABYTES[0], True), *((size, False) for size in MEGABYTES)):
        path = made(folder, wide(megabytes, TOKENS))
        with memory_folder() as memory:
            case = Bandwidth(path, memory, flash_attn=flash_attn, threads=threads)
            try:
                times = in_turns(case.ways(), rounds, warm=2)
            finally:
                case.close()
        size = case.state.size
        copy, ours, bare = (times[name] for name in ("memcpy", "ours", "bare"))
        found[f"{megabytes} MiB{', flash attention' if flash_attn else ''}"] = {
            "bytes": size,
            "memcpy_gb_s": size / median(copy) / 1e9,
            "export_gb_s": size / median(ours, "export") / 1e9,
            "import_gb_s": size / median(ours, "import") / 1e9,
            "export_of_memcpy": ratio(copy, _stage(ours, "export")),
            "import_of_memcpy": ratio(copy, _stage(ours, "import")),
            "bare_export_of_memcpy": ratio(copy, _stage(bare, "export")),
            "bare_import_of_memcpy": ratio(copy, _stage(bare, "import")),
            "safety_of_transfer": ratio(ours, times["trusting"]) - 1,
            "checksum_gb_s": size / median(times["checksum"]) / 1e9,
            "all_of_ours_over_bare": ratio(ours, bare) - 1,
            "rounds": in_ms(times),
        }
    return found


def _stage(rounds: list[Stages], name: str) -> list[Stages]:
    return [{name: stages[name]} for stages in rounds]


def show(found: dict[str, Any]) -> None:
    """Print the sizes one below the other."""
    widths = (26, 12, 12, 12, 12, 12, 14, 14)
    print(f"\none state of {TOKENS} tokens; GB/s, and shares of a plain copy in the same round; medians")
    heads = ("memcpy", "export", "import", "bare out", "bare in", "safety", "all we add")
    print(line("", *heads, widths=widths))
    for name, case in found.items():
        shares = [f"{case[f'{way}_of_memcpy']:.0%}" for way in ("export", "import", "bare_export", "bare_import")]
        tail = (f"{case['safety_of_transfer']:+.1%}", f"{case['all_of_ours_over_bare']:+.1%}")
        print(line(name, f"{case['memcpy_gb_s']:.1f}", *shares, *tail, widths=widths))


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    out = {name: case["export_of_memcpy"] for name, case in found.items()}
    into = {name: case["import_of_memcpy"] for name, case in found.items()}
    safety = {name: case["safety_of_transfer"] for name, case in found.items()}

    def told(values: dict[str, float]) -> str:
        return ", ".join(f"{value:.0%} ({name})" for name, value in values.items())

    return [
        Row("bandwidth of export, against memcpy", "≥ 50%", told(out), min(out.values()) >= 0.5),
        Row("bandwidth of import, against memcpy", "≥ 50%", told(into), min(into.values()) >= 0.5),
        Row(
            "fingerprint + checksum, of export and import without them",
            "≤ 15%",
            told(safety),
            max(safety.values()) <= 0.15,
        ),
    ]
