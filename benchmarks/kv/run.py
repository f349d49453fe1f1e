"""What moving a context costs, against every other way that a user of llama.cpp has, in one run.

    python benchmarks/kv/run.py [--part peers bandwidth handoff breakeven] [--rounds N] [--json docs/measured/kv.json]

Makes its own models. Every figure is the median of repetitions that take turns with those of its peers; ratios are taken
within a round. Takes some three minutes; run it on a machine that does nothing else.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import bandwidth
import breakeven
import handoffs
import peers
from rounds import Row


@dataclass(frozen=True)
class Part:
    """A part of the benchmark: how it measures, prints, and sums up."""

    measure: Callable[[Path, int, int], dict[str, Any]]
    show: Callable[[dict[str, Any]], None]
    rows: Callable[[dict[str, Any]], list[Row]]
    rounds: int


PARTS = {
    "peers": Part(peers.measure, peers.show, peers.rows, 9),
    "bandwidth": Part(bandwidth.measure, bandwidth.show, bandwidth.rows, 9),
    "handoff": Part(handoffs.measure, handoffs.show, handoffs.rows, 9),
    "breakeven": Part(breakeven.measure, breakeven.show, breakeven.rows, 7),
}


def machine() -> dict[str, Any]:
    """Return what was measured on."""
    import llama_cpp

    return {
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "llama-cpp-python": llama_cpp.__version__,
    }


def main() -> None:
    """Measure the parts that were asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, help="repetitions of each contender; default 7 to 9")
    parser.add_argument("--threads", type=int, default=1, help="of llama.cpp")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "threads": options.threads}
    print(", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    table: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="morphogen-kv-") as scratch:
        os.environ["MORPHOGEN_HOME"] = str(Path(scratch) / "home")
        for name in options.part:
            part, began = PARTS[name], time.perf_counter()
            found[name] = part.measure(Path(scratch), options.rounds or part.rounds, options.threads)
            part.show(found[name])
            print(f"({name}: {time.perf_counter() - began:.0f} s)", flush=True)
            table += part.rows(found[name])
    print("\n| | must reach | measured |\n|---|---|---|")
    for row in table:
        verdict = "" if row.met is None else "" if row.met else " **(missed)**"
        print(f"| {row.what} | {row.asked} | {row.got}{verdict} |")
    found["table"] = [{"what": row.what, "asked": row.asked, "got": row.got, "met": row.met} for row in table]
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
