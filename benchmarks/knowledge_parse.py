"""Lines a second of the knowledge language's parser, text to typed tree, beside Python's own parser.

    python benchmarks/knowledge_parse.py [--lines 10000] [--runs 7] [--json FILE]

Both read as many lines of comparable code, in turn within one run. Python's `ast.parse` is a generated parser in C
that makes a tree of Python objects; it is the yardstick, not the target. Times are of this process (CPU), the median
of the runs; making the tables from the grammar, which happens once in a process, is timed apart.
"""

import argparse
import ast
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

SYSTEM = """
// knowledge of one product
system Gemm%d {
  const ENOUGH = 0.85
  design_space { order: ["row", "column"], mask: "none" }
  tuning_space {
    tile: [16, 32, 64]
    rate: range[1e-4, 1e-1] log
  }
  model {
    type Plan matches { tile: int, why: string? }
    state best: float in TFLOPS = 0.0
  }
  trace_schema {
    variant TraceItem {
      case Performance { step_name: string, tflops: float, latency: float in ms }
      case Analysis {
        bottleneck: "memory" | "compute" | "sync"
        note: string?
      }
    }
  }
  knowledge {
    fact slow(t: TraceItem.Performance) { return t.tflops < 10.0 && t.latency > 3 ms }
    fact drifting(t: TraceItem.Performance) {
      return avg(t.latency) over last 100 per step_name > 1.5 * p50(t.latency)
    }
    fact measured { description: "fusing pays", confidence: 0.9, source: "run 12" }
    rule "Fuse" {
      when: slow
      apply: "fuse the loops"
      recommend: "tile by 64"
    }
    invariant Correct { assert: max_error < 1e-2 }
  }
  agent_loop Strategy {
    step analyse {
      // what the machine says
      result = tool.run { cmd: "bench --tile {{tile}}", timeout: 30 s } -> emit TraceItem.Performance
      if slow(trace.latest) and tile not in [16, 32] {
        emit TraceItem.Analysis { bottleneck: "memory" }
      } else {
        best = max(best, result)
      }
    }
    step ask: llm.query { prompt: "what now? {{result}}", output_var: answer }
    success: file_exists("report.md")
  }
  engineering_loop Tuner {
    parameter TILE: [16, 32, 64]
    measure { cmd: "bench --tile {{TILE}}", metric: "tflops", objective: maximize }
  }
  build {
    artifact "report.md" { input: trace.all }
  }
}
"""

PYTHON = """
# code of one product
class Gemm%d:
    ENOUGH = 0.85
    ORDERS = {"order": ["row", "column"], "mask": "none"}
    def plan(self, tile: int, why: str | None = None) -> float:
        best = 0.0
        for size in (16, 32, 64):
            if tile < size and self.latency > 3e-3:
                best = max(best, self.run(cmd="bench", tile=size, timeout=30))
            elif why is not None and tile not in [16, 32]:
                self.emit("analysis", bottleneck="memory")
            else:
                best = 1.5 * self.percentile(self.latency, 50)
        return best
"""


def text_of(sample: str, lines: int) -> str:
    """Repeat a sample to a number of lines or a little more."""
    count = -(-lines // sample.count("\n"))
    return "".join(sample % number for number in range(count))


def measured(work: Callable[[str], object], text: str) -> float:
    """Time one reading of a text, in seconds of this process."""
    begin = time.process_time()
    work(text)
    return time.process_time() - begin


def main() -> None:
    """Print one line each for the two parsers."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--lines", type=int, default=10_000)
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--json", type=Path)
    given = options.parse_args()

    from morphogen.schemas.knowledge.parse import parse

    first = measured(parse, "")
    ours, theirs = text_of(SYSTEM, given.lines), text_of(PYTHON, given.lines)
    assert parse(ours).diagnostics == ()
    times: dict[str, list[float]] = {"morphogen": [], "ast.parse": []}
    for _ in range(given.runs):
        times["morphogen"].append(measured(parse, ours))
        times["ast.parse"].append(measured(ast.parse, theirs))
    result: dict[str, float] = {"tables_s": round(first, 3)}
    for name, text in (("morphogen", ours), ("ast.parse", theirs)):
        seconds = statistics.median(times[name])
        lines = text.count("\n")
        result[f"{name}_s"] = round(seconds, 3)
        result[f"{name}_lines_per_s"] = round(lines / seconds)
        print(f"{name:10} {lines} lines ({len(text)} characters) in {seconds:.3f} s, {lines / seconds:,.0f} lines/s")
    print(f"{'tables':10} made once in a process from the grammar: {first:.3f} s")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
