"""Tune examples/knowledge/matmul.mk by its own loop: the winner against three plain loops, and against NumPy.

    python benchmarks/matmul.py [--size 512] [--json FILE]

The loop measures the baseline and the winner in turn; NumPy is timed by the example beside each trial.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from morphogen.bus import broker
from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.producers.loops.runner import Options, start
from morphogen.schemas import SweepFinished

PROGRAM = Path(__file__).parents[1] / "examples" / "knowledge" / "matmul.mk"


def main() -> None:
    """Run the loop on a broker of its own and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="morphogen-bench-") as scratch:
        settings = Settings(home=Path(scratch) / "home")
        workspace = Path(scratch) / "workspace"
        workspace.mkdir()
        try:
            broker.ensure(settings)
            began = time.perf_counter()
            with Bus.open(settings) as bus:
                chosen = Options(live=True, workspace=workspace, parameters={"size": options.size})
                ended = start(bus, PROGRAM, run="matmul", options=chosen)
                assert ended.status == "done", ended
                events = list(bus.events(run="matmul"))
        finally:
            broker.down(settings)
    (end,) = [seen.event for seen in events if isinstance(seen.event, SweepFinished)]
    wall = time.perf_counter() - began
    found = {
        "size": options.size, "trials": end.trials, "wall_s": wall, "gflops": end.value, "speedup": end.speedup,
        "low": end.low, "high": end.high, "best": end.config,
    }  # fmt: skip
    print(f"matrix product of {options.size}: {end.trials} trials in {wall:.0f} s; best {end.value:.1f} GFLOPS")
    print(f"against three plain loops, in turn: {end.speedup:.1f}x ({end.low:.1f} to {end.high:.1f})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
