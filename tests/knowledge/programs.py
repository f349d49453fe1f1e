"""Programs that check without a single error, of both generations; other tests read them too."""

TASK = """
system_model Ops { axiom: "verify first" heuristic: "small steps" }

task Greet {
  step probe: tool.run { cmd: "echo 41" output_var: n }
  step ask: llm.query { role: "r" prompt_template: "n={{n}} rule={{axiom.0}}" output_var: a }
  step save: tool.write { path: "out.txt" content: "{{a}}" }
  evaluation {
    check ok: tool.run { cmd: "echo 1" output_var: s }
    check enough: number(n) > 40
  }
  success: file_exists("out.txt") passed("ok") s == "1" enough
}
"""

FUSE = """
system Fuse {
  trace_schema { variant Item { case Perf { name: string, tflops: float, bound: "mem" | "compute" } } }
  knowledge {
    fact slow(t: Item.Perf) { return t.tflops < 10.0 && t.bound == "mem" }
    rule "Fuse" { when: slow apply: "fuse loops" }
  }
}
"""

TUNER = """
system Tune {
  engineering_loop T {
    parameter A: [1, 2, 3]
    parameter B: ["x", "y"]
    measure { cmd: "bench --a {{A}} --b {{B}}" metric: "tflops" objective: maximize }
  }
}
"""

WHOLE = """---
title: a blocked product
owner: kernels
---
// everything that the second generation has, in one module
system Gemm {
  const ENOUGH = 0.85
  const SLOW = 3 s
  design_space { order: ["row", "column"]  mask: "none" }
  tuning_space { tile: [16, 32, 64]  threads: range[1, 8]  rate: range[1e-4, 1e-1] log }
  model {
    type Matrix matches { rows: int, columns: int, layout: "row" | "column", strides: [int] }
    type Plan matches { tile: int, why: string? }
    state best: float = 0.0
    state moved: float in GB = 0 GB
  }
  trace_schema {
    variant TraceItem {
      case Performance { step_name: string, tflops: float, speedup: float, latency: float in ms, bytes: float in GB }
      case Correctness { passed: boolean, max_error: float, worst: [float] }
      case Analysis { bottleneck: "memory" | "compute" | "sync", note: string? }
    }
  }
  knowledge {
    invariant Exact { assert: Correctness.passed  verification: "np.allclose" }
    invariant Small { assert: Correctness.max_error < 1e-2 }
    fact is_slow(t: TraceItem.Performance) { return t.speedup < ENOUGH and t.latency > 3 s }
    fact is_crawling(t: TraceItem.Performance) { return is_slow(t) && t.tflops < 1 }
    fact is_steady(t: TraceItem.Performance) { return std(t.latency) over last 20 < 2 ms && count() over last 20 >= 20 }
    fact is_rising(t: Performance) { return slope(t.latency) over 5m per step_name > 0.5 ms || p95(t.latency) > SLOW }
    fact is_saturated(t: Performance) { return t.bytes / t.latency > 200 GB/s }
    fact is_memory_bound(t: Analysis) { return t.bottleneck in ["memory", "sync"] && is_known(t.note) }
    fact is_right(t: Correctness) { return t.passed && len(t.worst) > 0 && not (0.5 in t.worst) }
    fact hopper_has_tma { description: "Hopper moves tiles by itself" confidence: 0.9 source: "vendor" }
    rule "Swizzle blocks" { when: is_slow  apply: "swizzle blocks"  effect: "fewer misses" }
    rule "Larger tiles" {
      when: [is_memory_bound(trace.latest), tile < 64]
      recommend: "larger tiles"
      recommend: "fewer threads"
      parameter tile: [32, 64]
      optimize: maximize
    }
    rule "Ask a person" { when: "the numbers look odd" recommend: "look again" }
    hint "Autotune" { trigger: is_steady(trace.latest) suggestion: "sweep the tiles" }
  }
  domain Layouts {
    type Layout matches { name: "row" | "column", pitch: int }
    invariant Aligned { assert: pitch % 16 == 0 }
    rule "Pad" { when: pitch % 64 != 0  apply: "pad the pitch"  parameter pitch: [64, 128] }
  }
  view fastest { sql: "SELECT max(tflops) FROM performance" }
  function flops(rows: int, columns: int, seconds: float): float { return 2 * rows * columns / max(seconds, 1e-9) }
  procedure note(text: string) { tool.write { path: "notes.txt" content: text mode: append } }

  agent_loop Improve {
    step measure {
      out = tool.run { cmd: ["python", "bench.py", "--tile", "{{tile}}"] timeout: 2 min } -> emit TraceItem.Performance
      emit Correctness { passed: true, max_error: 0.0, worst: [0.0] }
    }
    step think {
      plan = llm.query { prompt: "it printed {{out}}; best was {{best}}" returns: Plan }
      if is_slow(trace.latest) && plan.tile > 16 {
        note { text: "tile {{plan.tile}}" }
        best = max(best, trace.latest(Performance).tflops)
      } else {
        note { text: "leave it" }
      }
      for item in trace.all(Performance) {
        moved = moved + item.bytes
      }
    }
    step sweep: tool.engineering_loop { name: Tiles }
    evaluation { check fast: best > 1.0 }
    success: fast max(trace.all(Performance).tflops) > 0.5
  }
  service_loop Watch {
    on Performance(item) {
      if is_crawling(item) { emit Analysis { bottleneck: "memory" } }
    }
    on run.finished(event) { tool.run { cmd: "notify {{event.run}}" } }
  }
  engineering_loop Tiles {
    parameter tile: [16, 32, 64]
    parameter threads: range[1, 8]
    measure {
      cmd: "python bench.py --tile {{tile}} --threads {{threads}}"
      metric: "Performance.tflops"
      objective: maximize
      repeats: 5
      timeout: 30 s
    }
  }
  build {
    artifact "report.md" { generator: report  input: trace.all }
    artifact "knowledge.mk" { content: design_space + tuning_space + knowledge }
  }
}
"""

VALID = {"task": TASK, "fuse": FUSE, "tuner": TUNER, "whole": WHOLE}
