"""A context of 3,000 tokens, moved to another context in each way that there is, against reading it again.

Two `Llama` of one model in one process: what the first has read, the second is to go on with. Its cache is empty, its
memory was touched before. After each way the second must say the same next token as the first.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from rounds import Row, Stages, clocked, in_ms, in_turns, line, median, ratio
from subjects import TALK, TERSE, Sizes, clear, llama, made, memory_folder, prompt

from morphogen.kernels.kv import KvState, export_kv, import_kv
from morphogen.kernels.kv.transport import SharedMemory

TOKENS = 3000
MOVED = ("out", "in")  # the stages that count: what is freed afterwards is not the move
PREFILL, SHARED, MEMORY, FILE = "read it again", "ours, shared memory", "ours, in memory", "ours, file (synced)"
SAVE, STATE_FILE = "save_state / load_state", "llama_state_save_file / load_file"
SEQ_FILE, DISK_CACHE = "llama_state_seq_save_file / load_file", "LlamaDiskCache"


class Peers:
    """Two contexts, and every way from the one to the other."""

    def __init__(self, folder: Path, memory: Path, sizes: Sizes, threads: int) -> None:
        self.folder = folder
        path = made(folder, sizes)
        self.source, self.target = (llama(path, threads=threads) for _ in range(2))
        self.words = int(self.source.n_vocab())
        self.prompt = prompt(TOKENS)
        self.source.eval(self.prompt)
        self.target.eval(self.prompt)  # once: its memory is touched
        self.next = self.said(self.source)
        self.shared = SharedMemory(memory)
        self.kept: dict[str, int] = {}  # bytes

    def ways(self) -> dict[str, Any]:
        """Return the contenders."""
        found = {
            PREFILL: self.prefill,
            SHARED: self.by_shared_memory,
            MEMORY: self.by_memory,
            SAVE: self.by_save_state,
            FILE: self.by_file,
            STATE_FILE: self.by_state_file,
            SEQ_FILE: self.by_sequence_file,
        }
        try:
            import diskcache  # noqa: F401
        except ImportError:
            print("LlamaDiskCache is left out: it needs the package diskcache")
        else:
            found[DISK_CACHE] = self.by_disk_cache
        return found

    def said(self, llm: Any) -> int:
        """Return the likeliest next token, as a user would ask for it."""
        return int(next(iter(llm.generate(self.prompt, temp=0.0))))

    def fresh(self) -> None:
        """Empty the target, and bring the source to the end of the prompt."""
        clear(self.target)
        if self.source.n_tokens != TOKENS or self.source._requires_eval:
            self.source.n_tokens = TOKENS - 1
            self.source.eval(self.prompt[-1:])

    def checked(self, stages: Stages) -> Stages:
        """Return the stages where the target goes on as the source would."""
        if self.said(self.target) != self.next:
            raise SystemExit("the context that was moved says something else than the one that it came from")
        return stages

    def prefill(self) -> Stages:
        """Read the prompt."""
        self.fresh()
        took, _ = clocked(lambda: self.target.eval(self.prompt))
        return self.checked({"in": took})

    def by_shared_memory(self) -> Stages:
        """Move through shared memory."""
        self.fresh()
        out, ref = clocked(lambda: export_kv(self.source, into=self.shared))
        into, _ = clocked(lambda: import_kv(self.target, ref, transport=self.shared))
        freed, _ = clocked(lambda: self.shared.release(ref))  # type: ignore[arg-type]
        self.kept[SHARED] = ref.size
        return self.checked({"out": out, "in": into, "freed": freed})

    def by_memory(self) -> Stages:
        """Move by a buffer of this process."""
        self.fresh()
        out, state = clocked(lambda: export_kv(self.source))
        into, _ = clocked(lambda: import_kv(self.target, state))
        assert isinstance(state, KvState)
        self.kept[MEMORY] = state.size
        return self.checked({"out": out, "in": into})

    def by_file(self) -> Stages:
        """Move by a file, on the disk before its name is there."""
        self.fresh()
        path = self.folder / "ours.kv"
        out, _ = clocked(lambda: export_kv(self.source, into=path))
        into, _ = clocked(lambda: import_kv(self.target, path))
        self.kept[FILE] = path.stat().st_size
        return self.checked({"out": out, "in": into})

    def by_save_state(self) -> Stages:
        """Move by the calls of llama-cpp-python."""
        self.fresh()
        out, state = clocked(self.source.save_state)
        into, _ = clocked(lambda: self.target.load_state(state))
        self.kept[SAVE] = len(state.llama_state) + state.scores.nbytes + state.input_ids.nbytes
        return self.checked({"out": out, "in": into})

    def by_state_file(self) -> Stages:
        """Move by llama.cpp's file of the whole state; nothing is synced."""
        from llama_cpp import llama_cpp

        self.fresh()
        path = os.fsencode(self.folder / "whole.state")
        tokens = (ctypes.c_int32 * TOKENS)(*self.prompt)
        room, count = (ctypes.c_int32 * TOKENS)(), ctypes.c_size_t()
        out, done = clocked(lambda: llama_cpp.llama_state_save_file(self.source.ctx, path, tokens, TOKENS))
        into, back = clocked(
            lambda: llama_cpp.llama_state_load_file(self.target.ctx, path, room, TOKENS, ctypes.byref(count))
        )
        assert done
        assert back
        self.took_over(list(room[: count.value]))
        self.kept[STATE_FILE] = os.stat(path).st_size
        return self.checked({"out": out, "in": into})

    def by_sequence_file(self) -> Stages:
        """Move by llama.cpp's file of one sequence; nothing is synced."""
        from llama_cpp import llama_cpp

        self.fresh()
        path = os.fsencode(self.folder / "sequence.state")
        tokens = (ctypes.c_int32 * TOKENS)(*self.prompt)
        room, count = (ctypes.c_int32 * TOKENS)(), ctypes.c_size_t()
        out, done = clocked(lambda: llama_cpp.llama_state_seq_save_file(self.source.ctx, path, 0, tokens, TOKENS))
        into, back = clocked(
            lambda: llama_cpp.llama_state_seq_load_file(self.target.ctx, path, 0, room, TOKENS, ctypes.byref(count))
        )
        assert done
        assert back
        self.took_over(list(room[: count.value]))
        self.kept[SEQ_FILE] = os.stat(path).st_size
        return self.checked({"out": out, "in": into})

    def by_disk_cache(self) -> Stages:
        """Move by llama-cpp-python's cache on disk, a folder of its own each time."""
        import tempfile

        from llama_cpp import LlamaDiskCache

        self.fresh()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder, _hushed():
            cache = LlamaDiskCache(folder)
            out, _ = clocked(lambda: cache.__setitem__(self.prompt, self.source.save_state()))
            self.kept[DISK_CACHE] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            into, _ = clocked(lambda: self.target.load_state(cache[self.prompt]))
            cache.cache.close()
        return self.checked({"out": out, "in": into})

    def took_over(self, tokens: list[int]) -> None:
        """Tell the target what it has read, as who uses llama.cpp's own calls must."""
        self.target.input_ids[: len(tokens)] = tokens
        self.target.n_tokens = len(tokens)
        self.target._requires_eval = True

    def close(self) -> None:
        """Give all back."""
        self.shared.close()
        self.source.close()
        self.target.close()


@contextlib.contextmanager
def _hushed() -> Any:
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stderr(nothing):
        yield
    sys.stderr.flush()


def measure(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Return the figures of both vocabularies."""
    found: dict[str, Any] = {"tokens": TOKENS, "vocabularies": {}}
    for sizes in (TALK, TERSE):
        with memory_folder() as memory:
            peers = Peers(folder, memory, sizes, threads)
            ways = peers.ways()
            if sizes is TERSE:
                ways = {name: ways[name] for name in (PREFILL, SHARED, MEMORY, SAVE)}
            try:
                times = in_turns(ways, rounds)
            finally:
                peers.close()
        kv = TOKENS * sizes.bytes_per_token
        shown = {
            name: {
                "out_ms": median(stages, "out") * 1e3 if "out" in stages[0] else 0.0,
                "in_ms": median(stages, "in") * 1e3,
                "times_faster_than_reading": ratio(_moves(times[PREFILL]), _moves(stages)),
                "kept_bytes": peers.kept.get(name),
                "kept_of_kv": peers.kept[name] / kv if name in peers.kept else None,
            }
            for name, stages in times.items()
        }
        against = ratio(_moves(times[SAVE]), _moves(times[MEMORY]))
        shared = ratio(_moves(times[SAVE]), _moves(times[SHARED]))
        found["vocabularies"][peers.words] = {
            "kv_bytes": kv,
            "ways": shown,
            "memory_against_save_state": against,
            "shared_memory_against_save_state": shared,
            "rounds": in_ms(times),
        }
    return found


def _moves(rounds: list[Stages]) -> list[Stages]:
    return [{name: stages[name] for name in MOVED if name in stages} for stages in rounds]


def show(found: dict[str, Any]) -> None:
    """Print the peers side by side."""
    widths = (42, 10, 10, 10, 12, 10)
    for words, case in found["vocabularies"].items():
        print(f"\n{found['tokens']:,} tokens, {case['kv_bytes'] / 2**20:.2f} MiB of KV, {int(words):,} words; medians")
        print(line("", "out ms", "in ms", "both ms", "vs reading", "kept/KV", widths=widths))
        for name, way in case["ways"].items():
            kept = "" if way["kept_of_kv"] is None else f"{way['kept_of_kv']:.2f}x"
            both = way["out_ms"] + way["in_ms"]
            cells = (f"{way['out_ms']:.2f}", f"{way['in_ms']:.2f}", f"{both:.2f}")
            print(line(name, *cells, f"{way['times_faster_than_reading']:.1f}x", kept, widths=widths))


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the lines of the table."""
    (words, case), *others = found["vocabularies"].items()
    shared, save = case["ways"][SHARED], case["ways"][SAVE]
    times, kept = shared["times_faster_than_reading"], shared["kept_of_kv"]
    against = case["shared_memory_against_save_state"]
    told = f"{against:.1f}x (in memory {case['memory_against_save_state']:.1f}x) with {int(words):,} words"
    for few, other in others:
        told += f"; {other['shared_memory_against_save_state']:.1f}x with {int(few):,}"
    lines = [
        Row(f"export + import through shared memory vs re-prefill, {found['tokens']:,} tokens", "≥ 60x faster", f"{times:.0f}x", times >= 60),
        Row("the same vs `save_state` / `load_state`", "≥ 5x faster", told, against >= 5),
        Row("what it keeps, against the KV bytes", "≤ 1.1x", f"{kept:.2f}x; `save_state` {save['kept_of_kv']:.1f}x", kept <= 1.1),
    ]  # fmt: skip
    file = case["ways"][FILE]
    for name in (STATE_FILE, SEQ_FILE, DISK_CACHE):
        if name in case["ways"]:
            way = case["ways"][name]
            times = (way["out_ms"] + way["in_ms"]) / (shared["out_ms"] + shared["in_ms"])
            disk = (way["out_ms"] + way["in_ms"]) / (file["out_ms"] + file["in_ms"])
            lines.append(Row(f"the same vs {name}", "", f"{times:.1f}x; our synced file {disk:.1f}x"))
    return lines
