"""Modules that the tests load, and events that say so."""

from functools import cache
from typing import Any

from morphogen.schemas import Event, KnowledgeLoaded
from morphogen.schemas.knowledge.cases import make_item
from morphogen.schemas.knowledge.program import Program, load_text

MATMUL = """
system MatMul {
  const SLOW = 10.0
  trace_schema { variant TraceItem {
    case Performance { step_name: string, tflops: float, speedup: float?, bound: "mem" | "compute" }
    case Correctness { passed: boolean, max_error: float }
    case Layer from "health.layer" { layer: string, rank: int, grad_norm: float?, dead_share: float? }
    case Step from "metrics.scalars" { loss: float, lr: float?, step: int }
  } }
  knowledge {
    fact is_slow(t: TraceItem.Performance) { return t.tflops < SLOW && t.bound == "mem" }
    fact regresses(t: TraceItem.Performance) { return t.tflops < avg(t.tflops) over last 3 per step_name }
    fact vanishing(t: TraceItem.Layer) { return max(t.grad_norm) over last 2 per layer, rank < 0.001 }
    fact diverges(t: TraceItem.Step) { return t.loss > 2 * min(t.loss) }
    fact wrong(t: TraceItem.Correctness) { return not t.passed }
    rule "Fuse" { when: is_slow apply: "fuse loops" parameter tile: [32, 64] }
    rule "Both" { when: is_slow and wrong apply: "stop" }
    rule "Think" { when: "it feels slow" apply: "think" }
    hint "Auto" { trigger: is_slow suggestion: "sweep" }
  }
}
"""


@cache
def program(text: str = MATMUL, path: str = "matmul.mk") -> Program:
    return load_text(text, path)


def loaded(text: str = MATMUL, path: str = "matmul.mk", systems: list[str] | None = None) -> KnowledgeLoaded:
    made = program(text, path) if systems is None else None
    names = list(made.systems) if made is not None else systems or []
    sha256 = made.sha256 if made is not None else "0" * 64
    return KnowledgeLoaded(name="matmul", path=path, sha256=sha256, text=text, systems=names)


def perf(
    tflops: float, bound: str = "mem", step_name: str = "a", *, origin: str = "measured", text: str = MATMUL
) -> Event:
    values: dict[str, Any] = {"step_name": step_name, "tflops": tflops, "bound": bound}
    return make_item(program(text), "Performance", values, origin=origin)
