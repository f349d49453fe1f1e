"""From how many tokens on a restore beats computing again, tier by tier.

One context: states of several lengths lie in every tier, and are restored from it in turn with a prefill of the same
tokens. The disk's pages are dropped from the machine's cache before each restore; blobs come from a real broker, which
syncs. A straight line through each tier's times, and one through the prefill's, meet at the break-even. Of a large state
the bandwidth of each tier is taken, so that the break-even of other models can be computed.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import _logger
from rounds import Row, Stages, clocked, in_turns, line, median
from subjects import TALK, made, memory_folder, prompt, wide

from morphogen.bus import Bus, Settings, broker
from morphogen.consumers.kv import BlobTransport
from morphogen.kernels.kv import RawContext, export_kv, import_kv
from morphogen.kernels.kv.transport import Disk, SharedMemory
from morphogen.schemas.kv import KvRef

LENGTHS = (8, 32, 128, 512, 3000)  # tokens
LARGE = 64  # MiB
OTHERS = {"8B, f16, 1,000 tokens/s": (128 << 10, 1000.0), "8B, f16, 10,000 tokens/s": (128 << 10, 10_000.0)}
TIERS = ("device", "shared memory", "disk", "blobs")


class Case:
    """A context whose sequence 0 holds a prompt, and its prefixes in every tier; restored into sequence 1."""

    def __init__(self, path: Path, tokens: int, transports: dict[str, Any], threads: int) -> None:
        _logger.set_verbose(False)
        self.transports = transports
        self.context = RawContext.open(path, n_ctx=2 * tokens + 512, sequences=2, n_threads=threads)
        self.prompt = prompt(tokens)
        self.context.decode(0, self.prompt)
        self.kept: list[KvRef] = []

    def stored(self, count: int) -> dict[str, KvRef]:
        """Write the first tokens into every tier."""
        found = {}
        for tier, transport in self.transports.items():
            ref = export_kv(self.context, 0, into=transport, upto=count)
            assert isinstance(ref, KvRef)
            found[tier] = ref
        self.kept += found.values()
        return found

    def ways(self, count: int) -> dict[str, Callable[[], Stages]]:
        """Return a contender for each tier, and the prefill."""
        refs = self.stored(count)

        def prefill() -> Stages:
            self.context.drop(1)
            return {"once": clocked(lambda: self.context.decode(1, self.prompt[:count]))[0]}

        def device() -> Stages:
            self.context.drop(1)
            return {"once": clocked(lambda: self.context.copy(0, 1, count))[0]}

        def restore(tier: str) -> Stages:
            self.context.drop(1)
            if tier == "disk":
                _uncache(Path(refs[tier].place))
            took, _ = clocked(lambda: import_kv(self.context, refs[tier], 1, transport=self.transports[tier]))
            return {"once": took}

        return {"prefill": prefill, "device": device} | {tier: lambda tier=tier: restore(tier) for tier in refs}  # type: ignore[misc]

    def close(self) -> None:
        """Give all back."""
        for ref in self.kept:
            tier = {"shared_memory": "shared memory"}.get(ref.transport, ref.transport)
            self.transports[tier].release(ref)
        self.context.close()


def _uncache(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def measure(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Return the times of each tier and length, the lines through them, and where they cross."""
    os.environ["MORPHOGEN_HOME"] = str(folder / "breakeven")
    settings = Settings.from_environ()
    try:
        with memory_folder() as memory, Bus.open(settings) as bus:
            shared, disk = SharedMemory(memory), Disk(folder / "states")
            blobs = BlobTransport(bus.conn, bus.run, folder / "blobs")
            transports = {"shared memory": shared, "disk": disk, "blobs": blobs}
            case = Case(made(folder, TALK), max(LENGTHS), transports, threads)
            times: dict[str, dict[int, float]] = {}
            for count in LENGTHS:
                for tier, stages in in_turns(case.ways(count), rounds).items():
                    times.setdefault(tier, {})[count] = median(stages)
            case.close()
            large = Case(made(folder, wide(LARGE)), 512, transports, threads)
            ways = {tier: way for tier, way in large.ways(512).items() if tier in transports}
            size = large.kept[0].size
            bandwidth = {tier: size / median(stages) for tier, stages in in_turns(ways, 3).items()}
            large.close()
            shared.close()
            disk.close()
    finally:
        broker.down(settings)
    return summed_up(times, bandwidth)


def summed_up(times: dict[str, dict[int, float]], bandwidth: dict[str, float]) -> dict[str, Any]:
    """Return the figures and what follows from them."""
    fixed, each = fit(times["prefill"])
    tiers = {}
    for tier in TIERS:
        overhead, slope = fit(times[tier])
        others = {}
        for name, (width, rate) in OTHERS.items():
            gain = 1 / rate - (width / bandwidth[tier] if tier in bandwidth else 0.0)
            others[name] = overhead / gain if gain > 0 else None
        tiers[tier] = {
            "restore_ms": {count: seconds * 1e3 for count, seconds in times[tier].items()},
            "overhead_ms": overhead * 1e3,
            "us_per_token": slope * 1e6,
            "bandwidth_gb_s": bandwidth[tier] / 1e9 if tier in bandwidth else None,
            "break_even_tokens": crossing(overhead, slope, fixed, each),
            "computed_for": others,
        }
    prefill = {count: seconds * 1e3 for count, seconds in times["prefill"].items()}
    return {
        "prefill_ms": prefill,
        "prefill_overhead_ms": fixed * 1e3,
        "prefill_us_per_token": each * 1e6,
        "tiers": tiers,
    }


def fit(times: dict[int, float]) -> tuple[float, float]:
    """Return overhead and seconds a token of a line through the times, relative errors counting; neither below 0."""
    counts, seconds = np.array(list(times)), np.array(list(times.values()))
    slope, overhead = np.polyfit(counts, seconds, 1, w=1 / seconds)
    return max(0.0, float(overhead)), max(0.0, float(slope))


def crossing(overhead: float, slope: float, fixed: float, each: float) -> float | None:
    """Return from how many tokens on the first line is the lower one; None where it never is, 1 where it always is."""
    if overhead <= fixed and slope <= each:
        return 1.0
    return max(1.0, (overhead - fixed) / (each - slope)) if each > slope else None


def _count(tokens: float | None) -> str:
    return "never" if tokens is None else f"{max(1.0, tokens):,.0f}"


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    lengths = list(found["prefill_ms"])
    widths = (16, *[9] * len(lengths), 12, 9, 12, *[26] * len(OTHERS))
    print("\nms to have so many tokens in the context again; break-even in tokens, and computed for other models")
    print(line("", *lengths, "overhead", "GB/s", "break-even", *OTHERS, widths=widths))
    cells = [f"{ms:.2f}" for ms in found["prefill_ms"].values()]
    print(line("prefill", *cells, f"{found['prefill_overhead_ms']:.2f} ms", *[""] * (2 + len(OTHERS)), widths=widths))
    for tier, one in found["tiers"].items():
        cells = [f"{ms:.2f}" for ms in one["restore_ms"].values()]
        speed = "" if one["bandwidth_gb_s"] is None else f"{one['bandwidth_gb_s']:.2f}"
        others = [_count(tokens) for tokens in one["computed_for"].values()]
        even = _count(one["break_even_tokens"])
        print(line(tier, *cells, f"{one['overhead_ms']:.2f} ms", speed, even, *others, widths=widths))


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the line of the table."""
    told = ", ".join(f"{tier} {_count(one['break_even_tokens'])}" for tier, one in found["tiers"].items())
    return [Row("tokens at which restore beats recompute", "a table", told)]
