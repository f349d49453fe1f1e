"""What isolation costs: a call in the sandbox, pooled, forked for it, or with its own interpreter, beside a bare interpreter that does nothing, in turn.

python benchmarks/sandbox.py [--rounds 60] [--json FILE]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from morphogen.kernels.sandbox import Sandbox

TOOL = "def run(a):\n    return a + 1\n"
PAUSE = 0.02  # seconds between calls, in which a pool makes its next worker


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with Sandbox(own_interpreter=True) as single, Sandbox(pool=0) as forked, Sandbox(pool=4) as several:
        ways: dict[str, Callable[[], object]] = {
            "a bare interpreter, `python -I -S -c pass`": lambda: subprocess.run(
                [sys.executable, "-I", "-S", "-c", "pass"], check=True
            ),
            "an interpreter of its own": lambda: single.run(TOOL, {"a": 1}),
            "a fresh process, forked for it": lambda: forked.run(TOOL, {"a": 1}),
            "a pooled one": lambda: several.run(TOOL, {"a": 1}),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        several.run(TOOL, {"a": 1})
        forked.run(TOOL, {"a": 1})
        for _ in range(chosen.rounds):
            for way, act in ways.items():
                time.sleep(PAUSE)
                began = time.perf_counter()
                act()
                times[way].append((time.perf_counter() - began) * 1e3)
        began = time.perf_counter()
        for _ in range(chosen.rounds):
            several.run(TOOL, {"a": 1})
        rate = chosen.rounds / (time.perf_counter() - began)
    medians = {way: statistics.median(each) for way, each in times.items()}
    bare = next(iter(medians.values()))
    print("| one call | median | least | of a bare interpreter's start |\n|---|---|---|---|")
    for way, each in times.items():
        print(f"| {way} | {medians[way]:.1f} ms | {min(each):.1f} ms | {medians[way] / bare:.2f}x |")
    print(f"\nPooled calls without a pause: {rate:.0f} a second, one at a time.")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f}.")
    if chosen.json:
        kept = {"milliseconds": times, "calls_a_second": rate, "load": os.getloadavg()[0], "cores": os.cpu_count()}
        chosen.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
