"""A sweep that really ran narrows its own space, alone and inside an agent loop."""

from collections.abc import Callable
from pathlib import Path

from morphogen.bus.bus import Bus
from morphogen.producers.loops import runner
from morphogen.producers.loops.improve import improve
from morphogen.producers.loops.improve.history import read_run
from morphogen.producers.loops.runner import Options

PROGRAM = """system Tune {
  trace_schema { variant TraceItem { case Performance { tile: int, unroll: int, speed: float } } }
  knowledge { fact fast(t: TraceItem.Performance) { return t.speed > 90 } }
  tuning_space {
    tile: [8, 32,  /* a cache line */ 64]   // sizes
    unroll: [1, 4]
  }
  engineering_loop Search {
    measure {
      cmd: ["python3", "-S", "measure.py", "{{tile}}", "{{unroll}}"]
      metric: Performance.speed
      objective: maximize
    }
    repeats: 2
  }
  agent_loop Plan {
    step look: tool.read { path: "measure.py" output_var: source }
    step search: tool.engineering_loop { name: "Search" output_var: found }
    step keep { if fast(trace.latest(Performance)) { tool.write { path: "fast.txt" content: "{{found.best.tile}}" } } }
    success: found.metric > 90
  }
}
"""
MEASURE = """import json, sys
tile, unroll = map(int, sys.argv[1:])
speed = {8: 10, 32: 100, 64: 97}[tile] * {1: 0.5, 4: 1.0}[unroll]
print("MORPHOGEN_TRACE", json.dumps({"case": "Performance", "tile": tile, "unroll": unroll, "speed": speed}))
"""


def test_what_the_measurements_do_not_support_leaves_the_space_and_the_same_configuration_wins(
    bus: Bus, write: Callable[..., Path], workspace: Path
) -> None:
    path = write(PROGRAM)
    workspace.mkdir()
    (workspace / "measure.py").write_text(MEASURE)
    options = Options(live=True, workspace=workspace)
    ended = runner.start(bus, path, "Plan", run="planned", options=options)
    assert ended.status == "done", ended
    assert (workspace / "fast.txt").read_text() == "32"
    assert len(read_run(bus, "planned").sweeps["Search"].trials) == 6

    made = improve(bus, path)

    assert [change.kind for change in made.changes] == ["dead_step", "narrow", "narrow"], made.refused
    assert "tile: [32,  /* a cache line */ 64]   // sizes" in made.after.text
    assert "unroll: [4]" in made.after.text
    figures = made.figures()
    assert (figures["judged"], figures["verdict_same"], figures["saved_trials"]) == (1, True, 4)
    assert figures["saved_seconds"] > 0

    path.write_text(made.after.text)
    again = runner.start(bus, path, "Search", run="searched", options=options)
    assert again.status == "done"
    assert len(read_run(bus, "searched").sweeps["Search"].trials) == 2
    assert improve(bus, path, runs=["searched"]).changes == ()
